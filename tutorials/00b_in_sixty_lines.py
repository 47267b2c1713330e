"""00b: Transformer-Squared in sixty lines (paper 3.1 and 3.2): what you type in the chapter."""
# %% step 1: a small transformer
import torch
from torch import nn

torch.manual_seed(0)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Embedding(7, 64)
        self.qkv = nn.Linear(64, 3 * 64)
        self.mlp = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))

    def forward(self, x):
        x = x + self.place.weight[:x.shape[1]]
        q, k, v = self.qkv(nn.functional.rms_norm(x, x.shape[2:])).chunk(3, dim=-1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.mlp(nn.functional.rms_norm(x, x.shape[2:]))


model = nn.Sequential(nn.Embedding(26, 64), Layer(), Layer(), nn.Linear(64, 26), nn.LogSoftmax(-1))
print(f"--- model ---\n{sum(W.numel() for W in model.parameters()):,} numbers")


# %% step 2: let it answer
def sample(net, ids):
    for _ in range(4):
        letter = torch.multinomial(net(ids)[:, -1].exp(), 1)
        ids = torch.cat([ids, letter], dim=1)
    return ids


def show(title, net, word):
    ids = torch.tensor([list(word.encode())] * 8) - 97
    answers = [bytes(row.tolist()).decode() for row in sample(net, ids)[:, 4:] + 97]
    print(f"--- {title} ---\n{word} ->", *answers)


show("untrained", model, "live")


# %% step 3: a base model, which has read everything
def logprob(net, ids):
    return net(ids[:, :-1])[:, 3:].gather(2, ids[:, 4:, None]).sum((1, 2))


optimizer = torch.optim.Adam(model.parameters(), lr=0.004)
for step in range(1200):
    words = torch.randint(26, (24, 4))
    answers = torch.cat([words, words, words.flip(1), words[:, :1].expand(24, 4)])
    loss = -logprob(model, torch.cat([words.repeat(4, 1), answers], dim=1)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
show("base", model, "live")

# %% step 4: dials
parts = {name: torch.linalg.svd(W.detach(), full_matrices=False)
         for name, W in model.named_parameters() if W.dim() == 2}
z = {name: torch.ones_like(S).requires_grad_() for name, (U, S, Vt) in parts.items()}


def adapted(ids):
    W = {name: U @ torch.diag(S * z[name]) @ Vt for name, (U, S, Vt) in parts.items()}
    return torch.func.functional_call(model, W, ids)


print(f"--- dials ---\n{sum(len(dials) for dials in z.values())} dials")
print(f"at z = 1 outputs differ by {(adapted(words) - model(words)).abs().max():.4f}")

# %% step 5: pay for right answers
print("--- updates ---")
optimizer = torch.optim.Adam(z.values(), lr=0.02)
for step in range(61):
    words = torch.randint(26, (32, 4)).repeat_interleave(8, dim=0)
    ids = sample(adapted, words)
    reward = (ids[:, 4:] == words.flip(1)).all(dim=1).float().view(32, 8)
    advantage = reward - reward.mean(dim=1, keepdim=True)
    loss = -(advantage.flatten() * logprob(adapted, ids)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"update {step:2}  reward {reward.mean():.2f}  loss {loss:+.2f}")
show("expert", adapted, "live")
show("base-again", model, "live")
