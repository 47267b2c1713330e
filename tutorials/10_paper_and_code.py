"""10: what the paper says, what its code does. Ten differences, each with one measured number."""
# %% the checkers of the three exercises
import math
import re

import chapter
import numpy as np
import torch

from t2mini import adapt, evaluate, experts, grade, reinforce, svf, tasks
from t2mini.cem import cem
from t2mini.questions import example
from t2mini.lab import plots
from t2mini.generate import generate
from t2mini.model import Config, Transformer


def check_1(reader):
    S, p = torch.tensor([4.0, 2.0, 1.0]), torch.tensor([0.1, 1.0, -2.0])
    layer = svf.SVF(torch.nn.Linear(3, 3, bias=False), torch.eye(3), S, torch.eye(3), sigmoid=True)
    with torch.no_grad():
        layer.z.copy_(p)
    want, got = layer.scale().detach(), reader.exercise_1(S, p)
    assert torch.allclose(got, want, atol=1e-5), (
        f"z is {[round(v, 3) for v in want.tolist()]}, not "
        f"{[round(v, 3) for v in got.tolist()]}: S * z must add up to what S does")


def check_2(reader):
    for tuned, base in (([0.9, 0.1], [0.5, 0.5]), ([0.2, 0.3, 0.5], [0.5, 0.25, 0.25])):
        tuned, base = torch.tensor(tuned), torch.tensor(base)
        want = (float((tuned * (tuned / base).log()).sum()),
                float((base * (base / tuned).log()).sum()))
        got = [float(v) for v in reader.exercise_2(tuned, base)]
        assert all(abs(a - b) < 1e-4 for a, b in zip(got, want)), (
            f"the paper's KL is {want[0]:.4f} and the release's {want[1]:.4f}, "
            f"not {got[0]:.4f} and {got[1]:.4f}: the first argument is the one that averages")


def check_3(reader):
    for text, want in (("so it is 42.", 42), ("The total is 1,080 dollars.", 1080),
                       ("It fell to -5 degrees", -5), ("2.5 km", 2.5), ("no idea", None),
                       ("1,234,567", 1234567), ("that makes -1,080", -1080),
                       (".5 km", 0.5)):
        got = reader.exercise_3(text)
        assert got == want, f"{text!r} holds {want}, not {got}"


chapter.start(__doc__, [check_1, check_2, check_3], __file__)


def released_scale(S, s):
    """What the release multiplies S by, given its positive or negative raw scales s:
    the sum of S stays what it was."""
    return s * (S.sum() / (S * s).sum())


# %% 1. the start of z, on the real model: its loss on a plain paragraph
model, tokenizer = chapter.load()
layers = svf.layers(model)
TEXT = ("The ferry leaves the harbour at seven in the morning and reaches the island before noon. "
        "Most passengers sit on the upper deck, where the wind is strong but the view is better. "
        "In winter the boat runs only twice a week, so people on the island buy flour, rice and "
        "coffee in the autumn and keep them in dry rooms behind the kitchen.")
ids = torch.tensor([tokenizer.encode(TEXT)])
LOSSES = {}


@torch.inference_mode()
def loss(name, expert=None):
    """Mean next-token loss (nats) on the paragraph with an expert's z, kept for the picture."""
    with svf.using(model, expert or {}):
        logits = model(ids)[0, :-1].float()
    LOSSES[name] = float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))
    return LOSSES[name]


chapter.section("start")
torch.manual_seed(0)
print(f"base model: {loss('base model'):.2f} nats per token")
noisy = {n: released_scale(l.S, torch.sigmoid(0.1 + 0.01 * torch.randn_like(l.S)))
         for n, l in layers.items()}
print("released start, a logit of 0.1 and the sum of S kept: "
      f"{loss('released start: logit 0.1', noisy):.2f}")
literal = {n: 0.1 + 1e-3 ** 0.5 * torch.randn_like(l.S) for n, l in layers.items()}
print(f"Table 6 read literally, z = 0.1: {loss('Table 6 literally: z = 0.1', literal):.2f}; "
      f"all {model.cfg.vocab_size:,} tokens equally likely would be "
      f"{math.log(model.cfg.vocab_size):.2f}")

# %% 2. how far a dial of the released form reaches,
# beside all others of its matrix, which stand at the start
chapter.section("reach")
# sigmoid(0.1): the z = 1 of the logit form
START = 1 / (1 + math.exp(-0.1))
print(f"{'its logit':<30}" + "".join(f"{p:>7}" for p in (-9, -2, 0.1, 1, 2, 9)))
print(f"{'its dial, the others being 1':<30}"
      + "".join(f"{1 / (1 + math.exp(-p)) / START:>7.2f}" for p in (-9, -2, 0.1, 1, 2, 9)))

# %% 3. mixing z, or logits
chapter.section("mixing")
expert = experts.load(["math"], model)["math"]
logit = {n: torch.logit((START * z).clamp(1e-4, 1 - 1e-4)) for n, z in expert.items()}
# alpha = (1, 0, 0) on logits, as released
one_hot = {n: released_scale(layers[n].S, p) for n, p in logit.items()}
same = {n: released_scale(layers[n].S, torch.sigmoid(p)) for n, p in logit.items()}
ours = svf.mix([expert, {}, {}], [1.0, 0.0, 0.0])
print("largest difference of our one-hot mixture from the expert: "
      f"{max(float((ours[n] - expert[n]).abs().max()) for n in ours):.1e}")
for name, z in (("math expert", expert), ("the same as logits, through the sigmoid", same),
                ("one-hot, as released", one_hot)):
    far = torch.cat([v - 1 for v in z.values()])
    print(f"{name:<40} mean |z - 1| {float(far.abs().mean()):.3f}, "
          f"negative {100 * float((far < -1).float().mean()):.1f} %, loss {loss(name, z):.2f}")
S, z_a, z_b = (torch.tensor([4.0, 2.0, 1.0]),
               torch.tensor([1.2, 1.0, 1.0]), torch.tensor([1.0, 0.8, 1.0]))
nothing = svf.mix([{"w": z_a}, {"w": z_b}], [0.0, 0.0])["w"]
print(f"all weights zero: as released {released_scale(S, 0 * z_a + 0 * z_b).tolist()}, "
      f"here {nothing.tolist()}")
# in its first population: three draws of mean 1/3 and deviation 1/2 are all below 0
zero = (0.5 * math.erfc(2 / 3 / 2 ** 0.5)) ** 3
print(f"zero for one matrix: {100 * zero:.1f} % of first draws; "
      "for one of the release's 96 matrices at least: "
      f"{100 * (1 - (1 - zero) ** 96):.0f} % of candidates")

# %% 4. rollouts: what one greedy answer hides
chapter.section("rollouts")
task = tasks.get("math")
drawn = task.examples("train", 12)
prompts = [tokenizer.prompt(e.prompt) for e in drawn]
for name, temperature, samples in (("greedy", 0.0, 1), ("sampled", 0.8, 8)):
    out = generate(model, prompts, 32, tokenizer.stop_ids, temperature, samples)
    answers = [out.tokens(n) for n in range(len(out.lengths))]
    reward = np.reshape(tasks.rewards([e for e in drawn for _ in range(samples)],
                                      [tokenizer.decode(t) for t in answers]), (12, samples))
    print(f"{name:<8} {samples} per question: mean reward {reward.mean():.2f}, "
          f"questions with a right answer {100 * (reward.max(1) > 0).mean():.0f} %, "
          f"with both kinds {100 * (reward.std(1) > 0).mean():.0f} %")

# %% 5. the direction of an update, for three answers of which the model gives the first most often
chapter.section("baseline")
p = torch.tensor([0.5, 0.3, 0.2])
# row i: the gradient of log p_i in the three logits
push = torch.eye(3) - p


def told(g):
    return " ".join(f"{v:+.2f}" for v in g)


one_right, all_right = torch.tensor([0.0, 0.0, 1.0]), torch.ones(3)
print(f"only the third is right: exact gradient    {told(p * (one_right - (p * one_right).sum()))}")
print(f"    one greedy answer, which earns -1      {told(-push[0])}")
print(f"all three are right: exact gradient        {told(p * (all_right - (p * all_right).sum()))}")
for name, b in (("no baseline", 0.0), ("the mean reward subtracted", 1.0)):
    length = float((p * ((1 - b) * push).norm(dim=1)).sum())
    print(f"    a sampled answer, {name:<27} pushes by {length:.2f}")

# %% 6. Adam in bfloat16, and matrices rebuilt from factors that it has rounded
chapter.section("precision")
STEPS, second = 2000, {}
for dtype in (torch.float32, torch.bfloat16):
    z = torch.nn.Parameter(torch.ones(1, dtype=dtype))
    adam = torch.optim.Adam([z], lr=2e-3)
    second[dtype] = []
    for step in range(1 + STEPS):                           # one gradient of 1, then none at all
        z.grad = torch.full_like(z, float(step == 0))
        adam.step()
        second[dtype].append(float(adam.state[z]["exp_avg_sq"]))
    raised = torch.ones(1, dtype=dtype)
    for _ in range(100):
        raised += 2e-3                                      # a step of the paper's size
    print(f"{str(dtype)[6:]:<9} second moment {second[dtype][0]:.2e}, "
          f"{STEPS} steps later {second[dtype][-1]:.2e}; "
          f"z = 1 and 100 steps of 0.002: {float(raised):.3f}")

chapter.section("rebuild")
with torch.inference_mode():
    for layer in layers.values():
        layer.folded = ((layer.U.bfloat16() * layer.S.bfloat16())
                        @ layer.Vt.bfloat16()).to(layer.W.dtype)
    rebuilt = model(ids)[0, :-1].float()
    # z = 1 again: W plus a change of nothing
    svf.fold(model)
    exactly = model(ids)[0, :-1].float()
    with svf.at_base(model):                                # the stored matrices themselves
        base_logits = model(ids)[0, :-1].float()
print(f"z = 1, logits move by up to {float((rebuilt - base_logits).abs().max()):.2f} "
      "with matrices rebuilt from bfloat16 factors, "
      f"by {float((exactly - base_logits).abs().max()):.2f} here")

# %% 7. the stop token, and long answers, on a random two-layer model (chapter 04)
def tiny_model(seed):
    torch.manual_seed(seed)
    model = Transformer(Config(
        vocab_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=64)).requires_grad_(False).eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else weight.shape[1] ** -0.5)
    svf.attach(model, progress=False)
    return model


def learn_to_stop(seed, with_stop, updates=25):
    """Pay for answers that stop within 8 tokens. -> the share that stops, one number per update."""
    model, rates = tiny_model(seed), []
    optimizer = torch.optim.AdamW([layer.z for layer in svf.layers(model).values()],
                                  lr=0.05, weight_decay=0.0)
    prompts = [[1, 2, 3], [4, 5], [6, 8, 9], [10, 11]]
    for step in range(updates):
        out = generate(model, prompts, 8, [0], samples=8, seed=step)
        reward = out.stopped.float().view(4, 8)
        groups, advantage = [], reinforce.advantages(reward)
        kept = []
        for i, prompt in enumerate(prompts):
            said = [out.tokens(8 * i + k) for k in range(8)]
            # the release leaves it out
            said = said if with_stop else [t[:-1] if t[-1] == 0 else t for t in said]
            groups.append((prompt, [t for t in said if t]))
            kept.append([a for t, a in zip(said, advantage[i].tolist()) if t])
        optimizer.zero_grad()
        reinforce.policy_gradient(model, groups, kept, norm=float(out.lengths.sum()))
        optimizer.step()
        svf.fold(model)
        rates.append(float(reward.mean()))
    return rates


chapter.section("stop")
print(f"{'answers that stop, %, in updates':<34}{'1 to 5':>9}{'6 to 10':>9}{'21 to 25':>9}")
for with_stop in (True, False):
    rates = 100 * torch.tensor([learn_to_stop(seed, with_stop) for seed in range(4)]).mean(0)
    print(f"stop token {'in the likelihood' if with_stop else 'left out':<23}" + "".join(
        f"{float(rates[part].mean()):>9.0f}" for part in (slice(5), slice(5, 10), slice(20, 25))))
# the answers that were sampled for `rollouts`
plain = [[t for t in s if t not in tokenizer.stop_ids] for s in answers]
other = [tokenizer.encode(tokenizer.decode(t)) != t for t in plain]
print("sampled answers whose text gives other tokens when encoded again: "
      f"{100 * np.mean(other):.0f} %")
tiny, pushed = tiny_model(0), {}
for length in (4, 64):
    answer = torch.randint(1, 16, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    tiny.zero_grad()
    reinforce.policy_gradient(tiny, [([1, 2, 3], [answer])], [[1.0]], norm=1.0)
    pushed[length] = math.sqrt(sum(float((layer.z.grad ** 2).sum())
                                   for layer in svf.layers(tiny).values()))
print(f"an answer of 64 tokens pushes {pushed[64] / pushed[4]:.1f} times as hard as one of 4, "
      f"and {pushed[64] / pushed[4] / 16:.1f} times per token")

# %% 8. graders
chapter.section("graders")


def released_number(text):
    """The released rule: the last piece of digits with an optional point."""
    found = re.findall(r"\d*\.?\d+", text)
    return float(found[-1]) if found else None


print(f"{'said':<34}{'gold':<8}{'release pays':>13}{'t2mini pays':>13}")
for said, gold in (("It is 1,080.", "2,080"), ("It is -5.", "5"),
                   ("12 eggs, as 3 were broken.", "12"), ("It is 42.", "42")):
    pays = (released_number(said) == released_number(gold),
            grade.find_number(said) == example.to_number(gold))
    print(f"{said:<34}{gold:<8}{int(pays[0]):>13}{int(pays[1]):>13}")
questions = tasks.get("reasoning").examples("test", 400)
# its fixed guess
lucky = [e.options[2 if len(e.options) == 3 else 0] == e.answer for e in questions]
silent = tasks.rewards(questions, [""] * len(questions))
print(f"an empty answer to {len(questions)} multiple-choice questions earns "
      f"{100 * np.mean(lucky):.1f} % as released, {100 * np.mean(silent):.1f} % here")

# %% 9. the first pass, and the second pass of "other"
chapter.section("first-pass")
examples = tasks.get("dispatch").examples("test", 32)
asked = [e.prompt for e in examples]


def route(opener=tasks.DISPATCH_OPENER, expert=None, tokens=tasks.DISPATCH_TOKENS):
    with svf.using(model, expert or {}):
        return evaluate.answers(model, tokenizer, asked, tokens, opener=opener)


plain, loaded, unopened = (route(), route(expert=experts.load(["code"], model)["code"]),
                           route("", tokens=8))
changed = np.mean([tasks.find_label(a) != tasks.find_label(b) for a, b in zip(plain, loaded)])
print(f"first pass with the code expert left loaded: {100 * changed:.0f} % "
      f"of {len(asked)} routes change")
for name, texts in (("the dispatch prompt", plain), ("without its first words", unopened)):
    readable = np.mean([tasks.find_label(t) is not None for t in texts])
    # "Math" holds "ath"
    spelt = np.mean([tasks.find_label(t) in re.findall(r"[a-z]+", t, re.A) for t in texts])
    print(f"{name:<24} names a label {100 * readable:.0f} %, "
          f"in its exact spelling {100 * spelt:.0f} %")

other = tasks.get("other")
examples = other.examples("test", 32)
loaded = experts.load(adapt.MIXED, model)
questions = [e.prompt for e in examples]
# the base model, before any expert was there
alone = evaluate.answers(model, tokenizer, questions, other.max_tokens)
texts = {}
# as released: "other" runs on what is loaded
for name, z in loaded.items():
    with svf.using(model, z):
        texts[name] = evaluate.answers(model, tokenizer, questions, other.max_tokens)
        # as here: "other" runs on the base model, whatever is loaded
        if name == "math":
            base = adapt.second_pass(model, tokenizer, questions, ["other"] * 32, loaded,
                                     other.max_tokens)
for name, found in {"base": base, **texts}.items():
    same = np.mean([a == b for a, b in zip(found, alone)])
    right = sum(tasks.rewards(examples, found))
    print(f"other, {name + ' loaded:':<18} right {evaluate.percent(right, 32)}, "
          f"same text as the base model {100 * same:.0f} %")

# %% 10. elites among equals (chapter 08): a score that is always the same,
# 50 iterations of 32 candidates
chapter.section("elites")


def cut_anywhere(rng):
    """The first six of 32 equals are the elite, as where sorting leaves them.
    -> mean and deviation after the search."""
    mean, std = np.full(3, 1 / 3), np.full(3, 0.5)
    for _ in range(50):
        x = np.clip(mean + std * rng.standard_normal((32, 3)), 0, 1)
        mean, std = x[:6].mean(0), x[:6].std(0)
    return mean, std


rng = np.random.default_rng(0)
loose = [cut_anywhere(rng) for _ in range(200)]
held = [cem(lambda c: [(0.4, -1.0)] * len(c), np.full(3, 1 / 3), iterations=50, population=32,
            seed=seed) for seed in range(20)]
for name, ends in (("elites cut anywhere", loose), ("t2mini", [(h.mean, h.std) for h in held])):
    walked = np.mean([np.linalg.norm(mean - 1 / 3) for mean, _ in ends])
    print(f"{name:<20} the mean walks {walked:.2f}, the deviation goes from 0.5 to "
          f"{np.mean([std.max() for _, std in ends]):.3f}")

# %% by hand: which way the KL points
chapter.section("kl")
tuned, base = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
print(f"paper, KL(tuned || base): {float((tuned * (tuned / base).log()).sum()):.3f}")
print(f"release, KL(base || tuned): {float((base * (base / tuned).log()).sum()):.3f}")
sure = torch.tensor([1 - 1e-6, 1e-6])
print(f"tuned nearly certain: {float((sure * (sure / base).log()).sum()):.2f} and "
      f"{float((base * (base / sure).log()).sum()):.2f}")

# %% the pictures
fig, ax = plots.panel("Two published rules make the model worse than one that knows nothing",
                      (8, 4))
bars = {"base model": "base model", "released start: logit 0.1": "start of the\nreleased code",
        "Table 6 literally: z = 0.1": "start of the paper's\nTable 6, z = 0.1",
        "math expert": "math expert",
        "one-hot, as released": "math expert, mixed as\nthe released code does"}
guess = math.log(model.cfg.vocab_size)
for y, name in enumerate(bars):
    colour = plots.RED if LOSSES[name] > guess else plots.GREY
    ax.barh(y, LOSSES[name], 0.7, color=colour)
    ax.text(LOSSES[name] + 0.3, y, f"{LOSSES[name]:.1f}", va="center", fontsize=12, weight="bold")
ax.axvline(guess, color="black", ls="--")
ax.text(guess + 0.3, 0.5, f"{guess:.1f}: knows nothing,\nall words equally likely",
        fontsize=11.5, va="center")
ax.set_yticks(range(len(bars)), bars.values())
ax.set(xlabel="loss on a plain paragraph, nats per token (more is worse)",
       ylim=(len(bars) - 0.4, -0.6))
chapter.save(fig, "10_paper_and_code")

fig, ax = plots.panel("In bfloat16 Adam never forgets how large gradients were")
for dtype, colour, said, y in (
        (torch.bfloat16, plots.RED, "bfloat16, as in the released code: {:.0f} % left", 93),
        (torch.float32, plots.DARK, "float32, same factor 0.999: {:.0f} % left", 44)):
    left = 100 * np.array(second[dtype]) / second[dtype][0]
    ax.plot(left, color=colour, lw=3)
    ax.text(STEPS, y, said.format(left[-1]), color=colour, fontsize=12, weight="bold", ha="right")
ax.set(xlabel="updates without a gradient, after a first one",
       ylabel="what its second moment keeps of that gradient, %", ylim=(0, 103))
chapter.save(fig, "10_memory")
