"""
Two passes (paper 3.2): the first finds out what a question needs, the second answers it.

    A  prompt       ask the base model which skill the question needs
    B  classifier   ask the same question of a dispatcher expert, trained for nothing else
    C  cem          search, once per task, a mixture of experts on a few solved examples

Changed:  the first pass always runs on the base weights or the dispatcher, never on what was
          loaded last; "other", unreadable answers and labels without an expert get the base model
          itself; one dispatch prompt is used everywhere. Shots come from the val split, scores
          from test (the release takes both from test).
Restores: whatever happens, afterwards the model runs on what it ran on before, mostly the base
          weights, bit for bit.
"""
from dataclasses import asdict, dataclass

import numpy as np
import torch

from . import evaluate, lora, svf, tasks
from .cem import cem
from .experts import Shelf
from .generate import generate
from .machine.batches import in_batches
from .machine.settings import check_answer

SKILLS = tasks.SKILLS                       # each has an expert of that name
MIXED = tasks.MIXED                         # what CEM mixes, in the order of alpha
BASE = ("other", "none")                    # labels that the base model answers
STRATEGIES = ("classifier", "prompt", "cem", "none")
BATCH = 32                                  # questions in one batch of the first pass
# so few go through the dispatcher's factors: folding them into weights would take longer (and is
# rounded to bfloat16, so that a borderline question may be routed otherwise)
FEW = 8


@dataclass(frozen=True)
class Route:
    """What the first pass found out about one question.

    label: where it goes; said: what the model answered; probabilities: dict label -> share.
    readable is False where `said` named no label; the label is "other" then.
    """
    label: str
    said: str
    probabilities: dict
    readable: bool = True


@dataclass(frozen=True)
class Answer:
    """One question's way through both passes.

    answer: the text; route: the label that the first pass gave, or the expert that was asked for
    ("none": the base model, which also answers "other" and labels without an expert);
    probabilities: dict label -> share, None where there was no first pass; readable: see Route.
    """
    question: str
    answer: str
    route: str
    probabilities: dict | None = None
    readable: bool = True


# ---------------------------------------------------------------------------------- both passes
def answer(model, tokenizer, questions, strategy="classifier", experts=None, expert=None,
           max_tokens=128, opener="", temperature=0.0, seed=0, title="", on_route=None,
           on_text=None, counts=None):
    """Answer questions (user messages) in two passes. -> list of Answer, in the same order.

    strategy  how the first pass decides: "classifier", "prompt", "cem" (the mixture that
              `t2mini adapt` found, for every question) or "none" (the base model)
    experts   name -> z, such as a dict or experts.Shelf; default: a Shelf of the shipped experts
              and yours, which reads and decomposes nothing before it is needed
    expert    skip the first pass and use this one: a name ("none": the base model), or z itself,
              for layers that are there (svf.attach, t2mini.use)
    title     in front of the progress line
    on_route  called with the list of Route after the first pass
    on_text   and counts: see evaluate.answers
    """
    experts = Shelf(model) if experts is None else experts
    check_answer(model, tokenizer, questions, opener, strategy, STRATEGIES, experts, expert,
                 max_tokens, temperature)

    # --- first pass: which expert does each question need? ---
    routes = [None] * len(questions)
    if expert is None and strategy in ("classifier", "prompt"):
        dispatcher = experts["dispatcher"] if strategy == "classifier" else None
        routes = route(model, tokenizer, questions, dispatcher, title and "first pass")
        labels = [r.label for r in routes]
        if on_route:
            on_route(routes)
    elif isinstance(expert, dict):
        labels, experts = ["given"] * len(questions), {"given": expert}
    else:
        labels = [expert or {"cem": "mixture", "none": "none"}[strategy]] * len(questions)

    # --- second pass: every question on the weights of its expert, read here at first use ---
    base = BASE if expert is None else {"none"}             # "other" may be an expert of yours
    needed = {name: experts[name] for name in sorted(set(labels) - {*base})
              if routes[0] is None or name in experts}
    texts = second_pass(model, tokenizer, questions, labels, needed, max_tokens, title,
                        opener=opener, temperature=temperature, seed=seed, counts=counts,
                        on_text=on_text)
    return [Answer(question, text, name, r and r.probabilities, r is None or r.readable)
            for question, text, name, r in zip(questions, texts, labels, routes)]


# ---------------------------------------------------------------------------------- first pass
def route(model, tokenizer, questions, dispatcher=None, title=""):
    """Strategy A (dispatcher None: the base model is asked) or B. -> list of Route."""
    prompts = [tokenizer.prompt(tasks.dispatch_prompt(q), opener=tasks.DISPATCH_OPENER)
               for q in questions]
    first = label_tokens(tokenizer)
    stops = tokenizer.stops(tasks.DISPATCH_OPENER)              # those that training has
    by_row = dispatcher is not None and len(prompts) <= FEW     # W stays; else it is folded

    def run(part):                                              # dicts: ranks exchange JSON
        which = [0] * len(part) if by_row else None
        with evaluate.rows_of(model, [dispatcher], which) as rows:
            out = generate(model, [prompts[i] for i in part], tasks.DISPATCH_TOKENS, stops,
                           temperature=0, rows=rows)
        return [asdict(r) for r in read_routes(tokenizer, out, first)]

    with svf.using(model, {} if by_row else dispatcher or {}):
        found = in_batches(run, [len(p) for p in prompts], BATCH, title)
    return [Route(**r) for r in found]


def label_tokens(tokenizer):
    """-> dict label -> the first tokens of its spellings."""
    return {label: [tokenizer.encode(form)[0] for form in (label, label.capitalize())]
            for label in tasks.LABELS}


def read_routes(tokenizer, out, first):
    """Samples of dispatch prompts -> list of Route.

    A label's probability is that of its first token in its likelier spelling (math, Math), shared
    out among labels: in these spellings the label that is said has the largest share.
    """
    p = out.first_logits.float().softmax(-1)                                # (B, V)
    share = torch.stack([p[:, ids].amax(1) for ids in first.values()], 1)   # (B, labels)
    share = share / share.sum(1, keepdim=True)
    routes = []
    for n, row in enumerate(share.tolist()):
        said = tokenizer.decode(out.tokens(n))
        found = tasks.find_label(said)
        probabilities = dict(zip(first, row))
        routes.append(Route(found or "other", said.strip(), probabilities, found is not None))
    return routes


# ---------------------------------------------------------------------------------- second pass
def second_pass(model, tokenizer, questions, labels, experts, max_tokens, title="", on_text=None,
                **options):
    """Each question answered by the expert of its label, or by the base model where there is none.

    experts: name -> z. The base model's questions are batches on its own weights, bit for bit;
    those of all experts share batches, in which every row has its expert's z. options: of
    evaluate.answers. -> list of texts. Where answers are sampled, a question's random numbers are
    those of its place among the base model's, or the experts', questions.
    """
    texts = [None] * len(questions)
    names = sorted({*labels} & {*experts})

    def fill(asked, who, **how):
        """Answer the questions `asked` (indices) and put the texts in their places."""
        pass_on = on_text and (lambda i, piece: on_text(asked[i], piece))
        found = evaluate.answers(
            model, tokenizer, [questions[i] for i in asked], max_tokens,
            title=title and f"{title} ({who})", on_text=pass_on, **how, **options)
        for i, text in zip(asked, found):
            texts[i] = text

    with svf.using(model, {}):
        fill([i for i, name in enumerate(labels) if name not in names], "base")
    asked = [i for i, name in enumerate(labels) if name in names]
    if len(names) == 1:                             # one expert for all: its weights, folded
        with svf.using(model, experts[names[0]]):
            fill(asked, names[0])
    elif names:
        fill(asked, ", ".join(names), experts=[experts[name] for name in names],
             which=[names.index(labels[i]) for i in asked])
    return texts


# ---------------------------------------------------------------------------------- strategy C
def mixture(experts, alpha, names=None, normalise=False):
    """alpha (K,) one weight per expert, or (K * matrices,) one per expert and matrix -> mixed z."""
    rows = as_mixed(alpha, len(experts), normalise)
    mix = lora.kind_of(experts[0]).mix
    if len(rows) == 1:
        return mix(experts, rows[0].tolist())
    return mix(experts, dict(zip(names, rows.tolist())))


def as_mixed(alpha, K, normalise=False):
    """alpha of a search -> the weights that it stands for, (1, K) or (matrices, K)."""
    rows = np.reshape(alpha, (-1, K))
    if normalise:
        rows = np.array([svf.normalised(row) for row in rows])
    return rows


def score_mixtures(model, tokenizer, task, shots, mixed, batch=160):
    """(accuracy, mean log-likelihood per token of right answers) on the shots, for each of `mixed`.

    The tie-break is the paper's: how sure a mixture was of its own right answers. All mixtures
    times all shots are rows of the same generation, each row with its own z (svf.per_row).
    """
    prompts = [tokenizer.prompt(e.prompt, opener=task.opener) for e in shots]
    stops = tokenizer.stops(task.opener)
    jobs = [(k, s)
            for k in range(len(mixed))
            for s in range(len(shots))]

    def run(part):
        """Some of the jobs in one generation. -> (reward, mean log-likelihood) of each."""
        which, asked = zip(*(jobs[j] for j in part))
        with svf.per_row(model, mixed, which) as rows:
            out = generate(model, [prompts[s] for s in asked], task.max_tokens, stops, 0, rows=rows)
        texts = [tokenizer.decode(out.tokens(n)) for n in range(len(part))]
        rewards = tasks.rewards([shots[s] for s in asked], texts)
        per_token = out.logprobs.sum(1) / out.lengths
        return list(zip(rewards, per_token.tolist()))

    found = in_batches(run, [len(prompts[s]) for _, s in jobs], batch, answer=task.max_tokens)
    found = np.array(found).reshape(-1, len(shots), 2)
    right = found[..., 0]                                                   # (mixtures, shots)
    hits = right.sum(1)                                                     # (mixtures,)
    sure = (right * found[..., 1]).sum(1)
    # no right answer: the tie-break has nothing to say, and must not beat a real log-likelihood
    likelihood = np.where(hits > 0, sure / np.maximum(hits, 1), -np.inf)
    return list(zip(right.mean(1).tolist(), likelihood.tolist()))


def adapt_cem(model, tokenizer, task, experts, shots, per_matrix=False, iterations=6, population=16,
              seed=0, progress=lambda i, search: None, normalise=False):
    """Strategy C: search alpha on `shots` (examples of the val split). -> (mixed z, cem.Search).

    alpha starts at the uniform mixture; the base model and each single expert join the first
    population, so in the search the result has never scored worse on the shots than any of them
    (in bfloat16 the folded mixture that then answers is rounded once more). normalise: alpha is
    divided by its sum, as the paper also tries. What the model's own z are does not matter.
    """
    K = len(experts)
    names = sorted({name for e in experts for name in e}) if per_matrix else None
    d = K * len(names) if per_matrix else K
    single = np.tile(np.eye(K), d // K)                                     # (K, d)
    std = 0.3 if per_matrix else 0.5        # hundreds of numbers leave the start together

    def score(candidates):
        mixed = [mixture(experts, alpha, names, normalise) for alpha in candidates]
        return score_mixtures(model, tokenizer, task, shots, mixed)

    search = cem(score, np.full(d, 1 / K), std, iterations, population,
                 include=[np.zeros(d), *single], seed=seed, progress=progress)
    return mixture(experts, search.best, names, normalise), search
