"""
Other ways to find a mixture on a few solved examples than the paper's search (3.2 C).

CEM scores a mixture by the share of right answers. On ten examples that is one of eleven values, so
most candidates tie, and a search on ties is a walk. Three other ways, of which the scores of the
first two do not tie:

    by_likelihood   CEM again, on the log-likelihood of the examples' gold answers
    by_gradient     no search: z = 1 + sum_k alpha_k (z_k - 1) is differentiable, so the gradient
                    of J to alpha is that to z, projected on each expert's direction:

                        dJ/dalpha_k = sum over all singular values of dJ/dz (z_k - 1)

                    J is the expected reward of sampled answers (REINFORCE on K numbers), or the
                    log-likelihood of the gold ones.
    by_first_pass   the first pass names an expert for each example, and a mixture lies somewhere
                    between the equal one and those. Ten examples then decide one number instead of
                    three, and only where they are clear about it.

Which:    gold answers have one form ("36"), and experts answer in their own ("4 * 9 = 36"). The
          likelihood pays for the form as well; the reward pays for nothing but being right.
"""
import numpy as np
import torch

from .. import adapt, lora, reinforce, svf, tasks
from ..cem import HIGH, LOW, cem
from ..generate import generate
from ..likelihood import likelihoods
from ..machine.batches import in_batches, micro_batches

RATE = 0.1                      # of Adam on alpha: from 1/3 to 1 in seven updates
# How far to go from the equal mixture to the experts that the first pass names: the first of these,
# if no other is right on so many examples more. Both were chosen on validation questions.
FAR = (0.75, 0.0, 0.25, 0.5, 1.0)
CLEAR = 2


def gold_groups(tokenizer, task, shots):
    """[(prompt ids, [ids of the gold answer])], one of each for a shot."""
    return [(tokenizer.prompt(e.prompt, opener=task.opener),
             [tokenizer.answer(tasks.gold(e), task.opener)]) for e in shots]


# ---------------------------------------------------------------------------------- by likelihood
def by_likelihood(model, tokenizer, task, experts, shots, iterations=6, population=16, seed=0,
                  progress=lambda done, steps, value: None):
    """CEM on the mean log-likelihood per token of gold answers. -> (mixed z, alpha (K,), the best
    log-likelihood after every iteration)."""
    groups = gold_groups(tokenizer, task, shots)
    tokens = [len(answer) for _, [answer] in groups]
    K = len(experts)
    mix = lora.kind_of(experts[0]).mix

    def score(candidates):
        return [(per_token(mix(experts, list(alpha))),) for alpha in candidates]

    def per_token(z):
        with svf.using(model, z):
            found = likelihoods(model, groups)
        mean = float(np.mean([lp.item() / n for lp, n in zip(found, tokens)]))
        return -np.inf if np.isnan(mean) else mean

    def report(i, found):
        history.append(found.best_score[0])
        progress(i + 1, iterations, history[-1])

    history = []
    found = cem(score, np.full(K, 1 / K), 0.5, iterations, population,
                include=[np.zeros(K), *np.eye(K)], seed=seed, progress=report)
    return mix(experts, list(found.best)), torch.as_tensor(found.best), history


# ---------------------------------------------------------------------------------- by gradient
def by_gradient(model, tokenizer, task, experts, shots, goal="reward", per_matrix=False, steps=15,
                samples=8, temperature=1.0, seed=0, progress=lambda done, steps, value: None):
    """Adam on alpha along dJ/dalpha. -> (mixed z, alpha (K,) or (matrices, K), J at every step).

    goal "reward": `samples` answers to each shot, paid as in training; "gold": the gold answers.
    """
    names = sorted({name for e in experts for name in e})
    K = len(experts)
    alpha = torch.full((len(names), K) if per_matrix else (K,), 1 / K, requires_grad=True)
    optimizer = torch.optim.Adam([alpha], lr=RATE)
    golds = gold_groups(tokenizer, task, shots) if goal == "gold" else []
    history = []
    with svf.using(model, {}):                              # afterwards it runs on what it did
        for step in range(steps):
            svf.set_z(model, mixed(experts, names, alpha))
            if goal == "gold":
                groups, advantage = golds, [[1.0]] * len(golds)
            else:
                groups, advantage, reward = drawn(
                    model, tokenizer, task, shots, samples, temperature, seed * 100_003 + step)
            loss, dz = gradient(model, groups, advantage, temperature if goal != "gold" else 1.0)
            history.append(-loss if goal == "gold" else reward)
            progress(step + 1, steps, history[-1])
            alpha.grad = to_alpha(experts, names, dz, per_matrix)
            optimizer.step()
            with torch.no_grad():
                alpha.clamp_(LOW, HIGH)
        return mixed(experts, names, alpha), alpha.detach().clone(), history


def mixed(experts, names, alpha):
    """alpha (K,) or (matrices, K) -> z of the mixture."""
    return adapt.mixture(experts, alpha.detach().numpy(), names)


def drawn(model, tokenizer, task, shots, samples, temperature, seed):
    """Answers to every shot, sampled and paid. -> (groups, advantages, mean reward)."""
    prompts = [tokenizer.prompt(e.prompt, opener=task.opener) for e in shots]
    stops = tokenizer.stops(task.opener)

    def run(part):
        """Some of the shots in one generation. -> the answers to each, as token ids."""
        out = generate(model, [prompts[i] for i in part], task.max_tokens, stops, temperature,
                       samples, seed=seed, row_ids=part)
        rows = [out.tokens(n) for n in range(len(out.lengths))]
        return [rows[i * samples:(i + 1) * samples] for i in range(len(part))]

    answers = in_batches(run, [samples * (len(p) + task.max_tokens) for p in prompts], len(prompts))
    texts = [tokenizer.decode(tokens) for of_one in answers for tokens in of_one]
    paid = tasks.rewards([e for e in shots for _ in range(samples)], texts)
    reward = torch.tensor(paid).view(-1, samples)
    advantage = reinforce.advantages(reward).tolist()
    return list(zip(prompts, answers)), advantage, reward.mean().item()


def gradient(model, groups, advantage, temperature):
    """-> (loss, dict matrix -> d(-J)/dz (r,)), per token of all answers."""
    z = svf.trained(model)
    for p in z.values():
        p.grad = torch.zeros_like(p)
    norm = sum(len(answer) for _, answers in groups for answer in answers)
    loss = 0.0
    for part in micro_batches(groups):
        stats = reinforce.policy_gradient(
            model, [groups[i] for i in part], [advantage[i] for i in part], temperature, norm)
        loss += stats["loss"]
    found = {name: p.grad for name, p in z.items()}
    for p in z.values():
        p.grad = None
    return loss, found


def to_alpha(experts, names, dz, per_matrix):
    """d/dz of every matrix -> d/dalpha, (K,) or (matrices, K). A matrix that an expert lacks has
    z = 1 there, which no alpha moves."""
    by_matrix = torch.zeros(len(names), len(experts))
    for row, name in enumerate(names):
        for k, e in enumerate(experts):
            if name in e:
                by_matrix[row, k] = (e[name] - 1).to(dz[name].device) @ dz[name]
    return by_matrix if per_matrix else by_matrix.sum(0)


# ------------------------------------------------------------------------------ by the first pass
def by_first_pass(model, tokenizer, task, experts, shots, dispatcher, names=tasks.MIXED, seed=0,
                  progress=lambda done, steps, value: None):
    """The first of few mixtures, FAR and the base model, or one that is clearly better on the
    shots; ties as in CEM. -> (mixed z, alpha (K,), share of shots that each has right).

    Nothing is drawn, so the seed decides nothing.
    dispatcher: z of the first pass, or None to ask the base model; names: the label of each expert.
    """
    routes = adapt.route(model, tokenizer, [e.prompt for e in shots], dispatcher)
    named = np.array([[r.label == name for name in names] for r in routes]).mean(0)     # (K,)
    candidates = [on_the_way(named, far) for far in FAR] + [np.zeros(len(names))]
    scores = adapt.score_mixtures(model, tokenizer, task, shots,
                                  [adapt.mixture(experts, alpha) for alpha in candidates])
    right = [share for share, _ in scores]
    best = max(range(len(scores)), key=scores.__getitem__)
    if round((right[best] - right[0]) * len(shots)) < CLEAR:
        best = 0
    progress(1, 1, right[best])
    return (adapt.mixture(experts, candidates[best]), torch.as_tensor(candidates[best]), right)


def on_the_way(named, far):
    """alpha (K,) from the equal mixture (far = 0) to the share of votes of each expert (1)."""
    equal = np.full(len(named), 1 / len(named))
    return equal + far * (np.asarray(named) - equal)


# what `adapt --by` offers beside the paper's accuracy
WAYS = {"likelihood": by_likelihood, "gradient": by_gradient, "first-pass": by_first_pass}
