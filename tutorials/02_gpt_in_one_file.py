"""
02: a GPT in one file, loaded with real weights. GPT-2 and Llama differ in a handful of lines (paper
4.1).
"""
# %% the checkers of the three exercises
import json
import math

import chapter
import torch
import torch.nn.functional as F

import t2mini
from t2mini.lab import plots
from t2mini.model import Config, RMSNorm, Transformer, attend, rope_tables, rotate


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_1(reader):
    norm = RMSNorm(6, 1e-5)
    norm.weight.data = random(6, seed=1)
    x = random(4, 6) + 2
    got = reader.exercise_1(x, norm.weight.data, 1e-5)
    assert got.shape == x.shape, f"the shape stays {tuple(x.shape)}"
    assert torch.allclose(got, norm(x), atol=1e-5), (
        "divide each row by the root of its mean square; take no mean off")


def check_2(reader):
    q, k, v = (random(5, 8, seed=s) for s in range(3))
    got = reader.exercise_2(q, k, v)
    assert torch.allclose(got[-1],
                          F.scaled_dot_product_attention(q[None], k[None], v[None])[0, -1],
                          atol=1e-5), (
        "the last token sees everything, and its row is wrong already: "
        "softmax(q k^T / root of D) v")
    want = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    assert torch.allclose(got, want, atol=1e-5), (
        "token t may look at tokens 0 to t only: the first row must be v[0]")


def check_3(reader):
    x, cfg = random(7, 8), Config(head_dim=8, rope_theta=50.0)
    want = rotate(x[None, None], *rope_tables(torch.arange(7)[None], cfg, torch.float32))[0, 0]
    got = reader.exercise_3(x, 50.0)
    assert torch.allclose(got.norm(dim=1), x.norm(dim=1), atol=1e-4), (
        "a rotation changes no length; yours does")
    assert torch.allclose(got, want, atol=1e-4), (
        "dimension i turns together with i + D/2, by position * theta^(-2i/D)")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% one token's way through the parts, on paper
chapter.section("by-hand")
x = torch.tensor([[1.0, 7.0]])
show = lambda t: "(" + ", ".join(f"{v:.2f}" for v in t.flatten().tolist()) + ")"
print("RMSNorm   of (1, 7):", show(RMSNorm(2, 0.0)(x).detach()))
print("LayerNorm of (1, 7):", show(F.layer_norm(x, (2,), eps=0.0)))
q, k, v = (torch.tensor(t).view(1, 1, -1, 1) for t in ([1.0], [0.0, math.log(3)], [4.0, 8.0]))
print(f"attention: {float(attend(q, k, v, torch.zeros(1, 1, 1, 2))):.2f}")
# the same two vectors, 2 apart, here and 100 positions later
for far in (0, 100):
    cos, sin = rope_tables(torch.tensor([[5 + far, 3 + far]]), Config(head_dim=2), torch.float32)
    turned = rotate(torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2), cos, sin)[0, 0]
    print(f"positions {5 + far} and {3 + far}: score {float(turned[0] @ turned[1]):.3f}")

# %% two families with random weights, as like as they can be
SIZES = dict(vocab_size=64, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, head_dim=8,
             max_position_embeddings=128)
PAIR = {"GPT-2": Config("gpt2", num_key_value_heads=6, intermediate_size=192, **SIZES),
        "Llama": Config("llama", num_key_value_heads=2, intermediate_size=128, **SIZES)}


def random_model(cfg):
    torch.manual_seed(0)
    model = Transformer(cfg).eval().requires_grad_(False)
    for name, p in model.named_parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.3)
    return model


tiny = {family: random_model(cfg) for family, cfg in PAIR.items()}
chapter.section("side-by-side")
lists = []
for family, model in tiny.items():
    body, first = ("transformer.", "h.0.") if family == "GPT-2" else ("model.", "layers.0.")
    found = [(n.removeprefix(body).replace(".weight", ""), tuple(p.shape))
             for n, p in model.named_parameters()]
    kept = [(n, s) for n, s in found
            if n.startswith(first) or n.count(".") < 1 + n.endswith("bias")]
    lists.append([f"{n:<35}{str(s):<10}" for n, s in kept])
print(f"{'GPT-2':<47}Llama")
for i in range(max(map(len, lists))):
    print("".join(f"{column[i] if i < len(column) else '':<47}" for column in lists).rstrip())

# %% what the differences do
chapter.section("shifted")
ids = torch.tensor([[5, 9, 2, 33, 17, 4, 60, 21]])
for family, model in tiny.items():
    moved = model(ids, positions=torch.arange(8)[None] + 50)
    change = float((moved - model(ids)).abs().max())
    print(f"{family}: all tokens 50 positions later, the logits change: {change > 0.01}")
for family, cfg in PAIR.items():
    print(f"{family}: {2 * cfg.num_hidden_layers * cfg.num_key_value_heads * cfg.head_dim} "
          "cached numbers per token")

# %% the real model: where its parameters are
chapter.section("sizes")
model, tokenizer = t2mini.load(dtype="float32")
parts = {}
for name, p in model.named_parameters():
    part = next((k for k in ("embed", "norm", "mlp", "self_attn") if k in name), name)
    parts[part] = parts.get(part, 0) + p.numel()
for part, count in {**parts, "all": sum(parts.values())}.items():
    print(f"{part:<11}{count:>13,}")

# %% next-token probabilities, beside those of another program
chapter.section("reference")
reference = json.loads((chapter.HERE / "results" / "next-token.json").read_text())
print("reference:",
      ", ".join(f"{k} {v.rpartition('.')[0]}" for k, v in reference["versions"].items()))


@torch.inference_mode()
def probabilities(model, ids):
    """p (V,) of the token that follows ids."""
    return model(torch.tensor([ids]))[0, -1].float().softmax(-1)


half, _ = t2mini.load(dtype="bfloat16")
rows, worst, same_ids = {}, 0.0, True
for prompt in reference["prompts"]:
    same_ids &= (prompt["text"].startswith("(chat)")
                 or tokenizer.encode(prompt["text"]) == prompt["ids"])
    ours, rounded = probabilities(model, prompt["ids"]), probabilities(half, prompt["ids"])
    rows[prompt["text"]] = [(tokenizer.decode([i]), want, float(ours[i]), float(rounded[i]))
                            for i, want in prompt["top"]]
    worst = max(worst, max(abs(want - got) for _, want, got, _ in rows[prompt["text"]]))
for text, found in rows.items():
    print(f"{text!r}\n{'':<12}{'reference':>10}{'float32':>10}{'bfloat16':>10}")
    for token, *values in found[:3]:
        print(f"  {token!r:<10}" + "".join(f"{v:>10.3f}" for v in values))

# %% do we agree?
chapter.section("verdict")
print(f"the tokenizer gives the reference's ids: {same_ids}")
print(f"float32 is within 0.0001 of every reference probability: {worst < 1e-4}")
assert worst < 1e-4, f"largest difference {worst}"

# %% the picture
fig, ax = plots.panel("One file of code predicts the same next words as a known library", (8, 4))
text, found = next((t, r) for t, r in rows.items() if t.startswith("Once"))
y = torch.arange(len(found))
for shift, column, who, style in (
        (-0.2, 1, "the library transformers",
         {"color": "white", "ec": plots.DARK, "hatch": "///"}),
        (0.2, 2, "t2mini/model.py", {"color": plots.DARK})):
    bars = ax.barh(y + shift, [row[column] for row in found], 0.36, label=who, **style)
    ax.bar_label(bars, fmt="%.3f", padding=4)
ax.set_yticks(y, [row[0].strip() for row in found])
ax.invert_yaxis()
ax.set(xlabel=f"probability of the next word after “{text} …”")
ax.legend(frameon=False, loc="lower right", fontsize=12)
chapter.save(fig, "02_gpt_in_one_file")
