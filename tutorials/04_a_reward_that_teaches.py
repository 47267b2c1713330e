"""
04: a reward that teaches. REINFORCE moves z until rewarded answers are likely (paper 3.2, equation
1).

A random two-layer model with 16 tokens learns to say token 7. It needs no weights and runs in half
a minute.
"""
# %% the checkers of the three exercises
import chapter
import torch

from t2mini import reinforce, svf
from t2mini.lab import plots
from t2mini.generate import generate
from t2mini.model import Config, Transformer


def check_1(reader):
    reward = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    got = reader.exercise_1(reward)
    assert got.shape == reward.shape, (
        f"one advantage per answer: the shape must be {tuple(reward.shape)}")
    assert bool((got[2] == 0).all()), (
        "a question whose answers all earn the same must give advantages of 0")
    assert torch.allclose(got, reinforce.advantages(reward)), (
        "each question has a mean of its own: take it over dim 1")


def check_2(reader):
    logprobs = [torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-3.0])]
    got = float(reader.exercise_2(logprobs, torch.tensor([0.5, -0.5])))
    assert got == got, "the loss is not a number"
    assert abs(got - 0.0625) < 1e-5, (
        "for this batch the loss is -(0.5 * -3.5 - 0.5 * -3.0) / 4 tokens = 0.0625, "
        f"not {got:.4f}: sum over the tokens of each answer, divide once by all tokens")


def check_3(reader):
    for seed in range(3):
        torch.manual_seed(seed)
        logits, reward = torch.randn(6, requires_grad=True), torch.rand(6)
        (logits.softmax(0) * reward).sum().backward()
        got = reader.exercise_3(logits.detach().softmax(0), reward)
        assert torch.allclose(got, logits.grad, atol=1e-5), (
            f"for p = {[round(v, 2) for v in logits.detach().softmax(0).tolist()]} the gradient is "
            f"{[round(v, 3) for v in logits.grad.tolist()]}; "
            f"yours sums to {float(got.sum()):+.3f}, a right one to 0")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)
torch.set_num_threads(1)
VOCAB, TOKENS, STEPS, SEEDS, LR = 16, 4, 40, 4, 0.05

# %% four answers to one question, on paper
chapter.section("by-hand")
reward = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
advantage = reinforce.advantages(reward)
for r, a in zip(reward.tolist(), advantage.tolist()):
    print(f"rewards {r}  advantages {a}  sum {sum(a):.2f}")
logprob = torch.full((4,), -2.0)
print("loss if every answer has log-probability -2: "
      f"{abs(float((advantage[0] * logprob).sum())):.2f}")

# %% the same gradient twice: exactly, and as the mean over samples
chapter.section("estimate")
p, r = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 0.0, 1.0])
exact = p * (r - (p * r).sum())
draws = torch.multinomial(p, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
grad_logp = torch.eye(3)[draws] - p                         # d log p(draw) / d logits
print("exact gradient of the expected reward  ", " ".join(f"{v:+.3f}" for v in exact))
print("mean of grad log p * reward            ",
      " ".join(f"{v:+.3f}" for v in (grad_logp * r[draws, None]).mean(0)))
print("mean of grad log p * (reward - 0.2)    ",
      " ".join(f"{v:+.3f}" for v in (grad_logp * (r[draws, None] - 0.2)).mean(0)))

# %% the mean of the sampled answers as baseline: over every way to draw G answers, so without noise
chapter.section("group-mean")
for G in (2, 4, 8):
    drawn = torch.cartesian_prod(*[torch.arange(3)] * G)                    # (3^G, G)
    chance = p[drawn].prod(1, keepdim=True)                                 # (3^G, 1)
    advantage = reinforce.advantages(r[drawn])
    grad = (advantage[..., None] * (torch.eye(3)[drawn] - p)).mean(1)       # (3^G, 3)
    expected = (chance * grad).sum(0)
    share = float(expected[2] / exact[2])
    print(f"{G} answers: " + " ".join(f"{v:+.3f}" for v in expected)
          + f"   {share:.3f} of the exact gradient")


# %% a model small enough to train in seconds
def tiny_model(seed):
    """Two Llama layers with random weights; only z will be trained."""
    torch.manual_seed(seed)
    model = Transformer(Config(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=64)).requires_grad_(False).eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else weight.shape[1] ** -0.5)
    svf.attach(model, progress=False)
    return model


def pay(tokens):
    """The reward: 1 where the answer holds token 7."""
    return float(7 in tokens)


def train(seed, shuffle=False):
    """Forty updates. shuffle hands every reward to a random answer: the control.
    -> rewards, losses (STEPS,)."""
    model, rng = tiny_model(seed), torch.Generator().manual_seed(seed)
    z = [layer.z for layer in svf.layers(model).values()]
    optimizer, rewards, losses = torch.optim.AdamW(z, lr=LR, weight_decay=0.0), [], []
    prompts = [[1, 2, 3], [4, 5], [6, 8, 9], [10, 11]]
    for step in range(STEPS):
        out = generate(model, prompts, TOKENS, [0], samples=8, seed=1000 * seed + step)
        tokens = [out.tokens(n) for n in range(32)]
        reward = torch.tensor([pay(t) for t in tokens]).view(4, 8)
        seen = reward.flatten()[torch.randperm(32, generator=rng)].view(4, 8) if shuffle else reward
        advantage = reinforce.advantages(seen)
        groups = [(p, tokens[8 * i:8 * i + 8]) for i, p in enumerate(prompts)]
        optimizer.zero_grad()
        stats = reinforce.policy_gradient(model, groups, advantage.tolist(),
                                          norm=float(out.lengths.sum()))
        optimizer.step()
        svf.fold(model)
        rewards, losses = rewards + [float(reward.mean())], losses + [stats["loss"]]
    return rewards, losses


# %% train, and train with shuffled rewards
chapter.section("training")
true, control = ([train(seed, shuffle) for seed in range(SEEDS)] for shuffle in (False, True))
R, L = (torch.tensor([run[i] for run in true]) for i in (0, 1))                     # (SEEDS, STEPS)
C = torch.tensor([run[0] for run in control])
print(f"{'updates':<9}{'reward':>8}{'loss':>9}{'shuffled':>10}")
for first in range(0, STEPS, 10):
    part = slice(first, first + 10)
    print(f"{first + 1:>2} to {first + 10:<3}{R[:, part].mean():>8.2f}"
          f"{L[:, part].mean():>9.3f}{C[:, part].mean():>10.2f}")

# %% which way it moved, and a fact that holds for every run
chapter.section("verdict")
gain = float(R[:, -10:].mean() - R[:, :10].mean())
print(f"the reward rose: {gain > 0.15}; without telling answers apart it did: "
      f"{C[:, -10:].mean() - C[:, :10].mean() > 0.15}")
print(f"the loss fell below -0.2: {bool((L.mean(0) < -0.2).any())}")

# %% the picture
fig, (left, right) = plots.panel("Rewarding right answers teaches; the loss does not show it",
                                 (9, 4), 2)
x = torch.arange(1, STEPS + 1)
for ax, runs, colour in ((left, 100 * R, plots.BLUE),
                         (left, 100 * C, plots.OF["shuffled"]),
                         (right, L, plots.BLUE)):
    ax.fill_between(x, runs.min(0).values, runs.max(0).values, color=colour, alpha=0.2, lw=0)
    ax.plot(x, runs.mean(0), color=colour, lw=2.5)
left.text(24, 50, "true rewards", color=plots.BLUE, weight="bold")
left.text(24, 29, "shuffled rewards", color=plots.OF["shuffled"], weight="bold")
left.set(xlabel=f"update  (mean and range of {SEEDS} trainings)",
         ylabel="answers with the rewarded word, %", ylim=(0, 102))
right.set(xlabel="update", ylabel="loss with true rewards,\nnats per token",
          ylim=(-1, 1), yticks=(-1, -0.5, 0, 0.5, 1))
right.axhline(0, color="black", lw=1, ls=":")
chapter.save(fig, "04_a_reward_that_teaches")
