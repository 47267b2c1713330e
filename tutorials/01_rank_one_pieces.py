"""01: a weight matrix is a stack of rank-one pieces, some large, most small (paper 3.1, appendix C)."""
# %% the checkers of the three exercises
import re

import chapter
import torch

import t2mini
from t2mini import experts, svf
from t2mini.lab import plots


def random_factors(m, n, seed=0):
    """A random matrix and its U, S, Vt."""
    W = torch.randn(m, n, generator=torch.Generator().manual_seed(seed))
    return W, *torch.linalg.svd(W, full_matrices=False)


def check_1(reader):
    W, U, S, Vt = random_factors(7, 5)
    assert torch.allclose(reader.exercise_1(U, S, Vt, 5), W, atol=1e-5), "all five pieces together must be W itself"
    want = S[0] * torch.outer(U[:, 0], Vt[0]) + S[1] * torch.outer(U[:, 1], Vt[1])
    assert torch.allclose(reader.exercise_1(U, S, Vt, 2), want, atol=1e-5), "for k = 2 take the two largest pieces"


def check_2(reader):
    S = torch.tensor([4.0, 2.0, 2.0, 1.0])                  # squares 16, 4, 4, 1: together 25
    for share, want in ((0.5, 1), (0.7, 2), (0.9, 3), (1.0, 4)):
        got = reader.exercise_2(S, share)
        assert got == want, f"for S = 4, 2, 2, 1 and a share of {share}: {want} pieces, not {got}. Are S squared?"


def check_3(reader):
    for seed in range(3):
        W, U, S, Vt = random_factors(8, 6, seed)
        s, u, v = reader.exercise_3(W)
        assert abs(float(s) - float(S[0])) < 1e-2 * float(S[0]), f"S is {float(S[0]):.3f}, not {float(s):.3f}"
        assert abs(float(u.norm()) - 1) < 1e-3 and abs(float(v.norm()) - 1) < 1e-3, "u and v must have length 1"
        assert torch.allclose(s * torch.outer(u, v), S[0] * torch.outer(U[:, 0], Vt[0]), atol=0.05), (
            "S, u and v do not make the largest piece: is u = W v / S?")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% two pieces of a 2 x 2 matrix, on paper
chapter.section("by-hand")
W = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
U, S, Vt = svf.decompose(W)
print(f"S squared: {float(S[0] ** 2):.2f} and {float(S[1] ** 2):.2f}, together {float((W ** 2).sum()):.2f}")
for i in range(2):
    piece = S[i] * torch.outer(U[:, i], Vt[i])
    print(f"piece {i}: " + "  ".join("[" + " ".join(f"{v:+.1f}" for v in row) + "]" for row in piece))
print(f"share of the first piece: {float(S[0] ** 2 / (S ** 2).sum()):.2f}")

# %% the singular values of every matrix of the real model
model, _ = t2mini.load()
spectra = {}                                                # module -> one S per layer
for name in svf.targets(model):
    S = svf.decompose(model.get_submodule(name).weight, experts.SVD_CACHE)[1]
    spectra.setdefault(name.rpartition(".")[2], []).append(S)

# %% how much do the largest pieces hold?
chapter.section("shares")


def top_share(S, fraction, power):
    """Share of the sum of S ** power in the largest `fraction` of the pieces."""
    k = round(fraction * len(S))
    return float((S[:k] ** power).sum() / (S ** power).sum())


print(f"{'module':<11}{'pieces':>7}{'S[0]':>8}{'S[-1]':>8}{'top 1/16 of S':>15}{'of S squared':>14}")
for module, found in spectra.items():
    first, last = (sum(float(S[i]) for S in found) / len(found) for i in (0, -1))
    sums = [sum(top_share(S, 1 / 16, power) for S in found) / len(found) for power in (1, 2)]
    print(f"{module:<11}{len(found[0]):>7}{first:>8.2f}{last:>8.3f}{100 * sums[0]:>13.1f} %{100 * sums[1]:>12.1f} %")

# %% rebuild one matrix from its k largest pieces
chapter.section("rebuild")
name = "model.layers.10.mlp.up_proj"
W = model.get_submodule(name).weight.float()
U, S, Vt = svf.decompose(model.get_submodule(name).weight, experts.SVD_CACHE)
print(f"{name}: {W.shape[0]} x {W.shape[1]}")
for k in (36, 144, 288, 432, 576):
    built = (U[:, :k] * S[:k]) @ Vt[:k]
    error = float((W - built).norm() / W.norm())
    rule = float((S[k:] ** 2).sum() / (S ** 2).sum()) ** 0.5
    print(f"{k:>4} pieces: error {100 * error:6.2f} %   predicted from S alone {100 * rule:6.2f} %")
print(f"all pieces give W back bit for bit: {torch.equal(built, W)}")

# %% the picture
plt = plots.pyplot()
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4))
shown = {"q_proj": plots.BLUE, "k_proj": plots.GREEN, "up_proj": plots.ORANGE, "down_proj": plots.GREY}
for module, colour in shown.items():
    for layer, S in enumerate(spectra[module]):
        x = torch.arange(1, len(S) + 1) / len(S)
        label = re.sub("_proj", "", module) if layer == 0 else None
        left.plot(x, S, color=colour, lw=0.6, alpha=0.6, label=label)
    mean = torch.stack([1 - (S ** 2).cumsum(0) / (S ** 2).sum() for S in spectra[module]]).clamp(min=0).sqrt()
    for y, style in ((mean.mean(0), "-"), (mean.min(0).values, ":"), (mean.max(0).values, ":")):
        right.plot(x, 100 * y, style, color=colour, lw=2 if style == "-" else 0.8)
left.set_yscale("log")
left.set(xlabel="piece, as a share of all pieces", ylabel="singular value S (log scale)", ylim=(0.1, 100),
         title="pieces shrink slowly: no cliff")
left.text(0.02, 0.13, "one line per layer\nonly the last pieces of q go below 0.1", fontsize=10)
legend = left.legend(frameon=False, ncols=2, fontsize=10)
for line in legend.get_lines():
    line.set(lw=2.5, alpha=1)
right.set(xlabel="share of the pieces kept", ylabel="rebuild error, % of the norm of W", ylim=(0, 100),
          title="so every piece that is dropped hurts")
right.text(0.99, 92, "mean over layers\ndotted: least and most", fontsize=10, ha="right", va="center")
fig.tight_layout()
chapter.save(fig, "01_rank_one_pieces")
