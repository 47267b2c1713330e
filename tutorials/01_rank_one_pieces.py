"""
01: a weight matrix is a stack of rank-one pieces, and no handful of them is enough
(paper 3.1, C).
"""
# %% the checkers of the three exercises
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
    assert torch.allclose(reader.exercise_1(U, S, Vt, 5), W, atol=1e-5), (
        "all five pieces together must be W itself")
    want = S[0] * torch.outer(U[:, 0], Vt[0]) + S[1] * torch.outer(U[:, 1], Vt[1])
    assert torch.allclose(reader.exercise_1(U, S, Vt, 2), want, atol=1e-5), (
        "for k = 2 take the two largest pieces")


def check_2(reader):
    S = torch.tensor([4.0, 2.0, 2.0, 1.0])                  # squares 16, 4, 4, 1: together 25
    for share, want in ((0.5, 1), (0.7, 2), (0.9, 3), (1.0, 4)):
        got = reader.exercise_2(S, share)
        assert got == want, (
            f"for S = 4, 2, 2, 1 and a share of {share}: {want} pieces, not {got}. "
            "Are S squared?")


def check_3(reader):
    for seed in range(3):
        W, U, S, Vt = random_factors(8, 6, seed)
        s, u, v = reader.exercise_3(W)
        assert abs(float(s) - float(S[0])) < 1e-2 * float(S[0]), (
            f"S is {float(S[0]):.3f}, not {float(s):.3f}")
        assert abs(float(u.norm()) - 1) < 1e-3 and abs(float(v.norm()) - 1) < 1e-3, (
            "u and v must have length 1")
        assert torch.allclose(s * torch.outer(u, v), S[0] * torch.outer(U[:, 0], Vt[0]),
                              atol=0.05), (
            "S, u and v do not make the largest piece: is u = W v / S?")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% two pieces of a 2 x 2 matrix, on paper
chapter.section("by-hand")
W = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
U, S, Vt = svf.decompose(W)
print(f"S squared: {float(S[0] ** 2):.2f} and {float(S[1] ** 2):.2f}, "
      f"together {float((W ** 2).sum()):.2f}")
for i in range(2):
    piece = S[i] * torch.outer(U[:, i], Vt[i])
    print(f"piece {i}: "
          + "  ".join("[" + " ".join(f"{v:+.1f}" for v in row) + "]" for row in piece))
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


print(f"{'module':<11}{'pieces':>7}{'S[0]':>8}{'S[-1]':>8}"
      f"{'top 1/16 of S':>15}{'of S squared':>14}")
for module, found in spectra.items():
    first, last = (sum(float(S[i]) for S in found) / len(found) for i in (0, -1))
    sums = [sum(top_share(S, 1 / 16, power) for S in found) / len(found) for power in (1, 2)]
    print(f"{module:<11}{len(found[0]):>7}{first:>8.2f}{last:>8.3f}"
          f"{100 * sums[0]:>13.1f} %{100 * sums[1]:>12.1f} %")

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
fig, ax = plots.panel("Half of its pieces are not enough to rebuild a matrix")
# module -> error with half of the pieces
halves = {}
for module, found in spectra.items():
    S = torch.stack(found)                                  # (layers, r)
    kept = 100 * torch.arange(1, S.shape[1] + 1) / S.shape[1]
    dropped = (1 - (S ** 2).cumsum(1) / (S ** 2).sum(1, keepdim=True)).clamp(min=0).sqrt()
    error = 100 * dropped.mean(0)                           # over the layers
    ax.plot(kept, error, color=plots.DARK, lw=1.5)
    halves[module] = float(error[S.shape[1] // 2 - 1])
for choose, place in ((max, {"xytext": (6, 6)}),
                      (min, {"xytext": (-6, -6), "ha": "right", "va": "top"})):
    module = choose(halves, key=halves.get)
    ax.plot(50, halves[module], "o", color=plots.RED, ms=8)
    said = f"{plots.in_words(module.removesuffix('_proj'))}: {halves[module]:.0f} %"
    ax.annotate(said, (50, halves[module]), textcoords="offset points",
                weight="bold", fontsize=12, color=plots.RED, **place)
ax.set(xlabel="singular values kept, % of their number  (a line for each kind of matrix)",
       ylabel="error of the rebuilt matrix, %", ylim=(0, 101), xlim=(0, 101))
chapter.save(fig, "01_rank_one_pieces")
