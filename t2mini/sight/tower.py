"""
The eye: a small vision transformer and a projector turn an image into image tokens, which stand in
front of the question as words do (LLaVA's way; paper 4.2, Figure 5, tunes a LLaVA model).

    image (64, 64, 3) -> 64 patches of 8 x 8 -> 4 blocks, in which 8 learnt queries look at the
    patches and at each other -> the queries, projected to the width of the language model

Kept:     the language model stays frozen; what an image says arrives as embeddings.
Changed:  trained here from nothing, on drawn shapes (captions.py); LLaVA takes a tower that has
          seen millions of photographs, and hands on every patch instead of eight queries.
Letters:  B images, P patches, Q queries, E width of the tower, C hidden size of the language model.
"""
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..questions.pictures import SIDE


# What a number of TowerConfig may be: lowest and highest. Beyond these a tower is no laptop's.
RANGES = {
    "patch": (1, SIDE),
    "width": (1, 4096),
    "blocks": (1, 64),
    "heads": (1, 256),
    "queries": (1, 256),
    "hidden_size": (1, 32_768)}


@dataclass(frozen=True)
class TowerConfig:
    patch: int = 8              # side of a patch, in pixels
    width: int = 192            # E
    blocks: int = 4
    heads: int = 6
    queries: int = 8            # Q: image tokens in front of a question
    hidden_size: int = 576      # C

    def __post_init__(self):
        """ValueError where a number is none, out of its range, or does not fit to the others."""
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number from {low} to {high}, not "
                                 f"{value!r:.40}")
        if SIDE % self.patch:
            raise ValueError(f"patch must divide the {SIDE} pixels of a side, which "
                             f"{self.patch} does not")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, and {self.heads} does not divide "
                             f"{self.width}")


def patches(images, size):
    """images (B, 64, 64, 3) uint8 -> (B, P, 3 * size * size) from -1 to 1: squares of size x size,
    row by row."""
    B, H, W, _ = images.shape
    x = images.float() / 127.5 - 1
    x = x.view(B, H // size, size, W // size, size, 3)
    x = x.permute(0, 1, 3, 2, 4, 5)                             # (B, rows, columns, size, size, 3)
    return x.reshape(B, -1, 3 * size * size)


class TowerBlock(nn.Module):
    """Attention and a two-layer network, each added to what came in (pre-norm)."""

    def __init__(self, cfg):
        super().__init__()
        self.heads = cfg.heads
        self.norm_1 = nn.LayerNorm(cfg.width)
        self.qkv = nn.Linear(cfg.width, 3 * cfg.width)
        self.out = nn.Linear(cfg.width, cfg.width)
        self.norm_2 = nn.LayerNorm(cfg.width)
        self.up = nn.Linear(cfg.width, 4 * cfg.width)
        self.down = nn.Linear(4 * cfg.width, cfg.width)

    def forward(self, x):
        """x (B, P + Q, E) -> the same shape. Every token looks at all of them."""
        B, T, E = x.shape
        qkv = self.qkv(self.norm_1(x)).view(B, T, 3, self.heads, E // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                    # each (B, heads, T, E / heads)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, E))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Tower(nn.Module):
    """images (B, 64, 64, 3) uint8 -> image tokens (B, Q, C).

    place (P, E): which patch is which; without it a shuffled image would be the same image.
    offset (Q, C): what all images have in common. Stage one starts it at the mean caption.
    """

    def __init__(self, cfg, seed=0):
        super().__init__()
        self.cfg = cfg
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            P = (SIDE // cfg.patch) ** 2
            self.patch = nn.Linear(3 * cfg.patch * cfg.patch, cfg.width)
            self.place = nn.Parameter(0.02 * torch.randn(P, cfg.width))
            self.queries = nn.Parameter(0.02 * torch.randn(cfg.queries, cfg.width))
            self.blocks = nn.ModuleList(TowerBlock(cfg) for _ in range(cfg.blocks))
            self.norm = nn.LayerNorm(cfg.width)
            self.project = nn.Sequential(
                nn.Linear(cfg.width, cfg.hidden_size), nn.GELU(),
                nn.Linear(cfg.hidden_size, cfg.hidden_size))
            self.offset = nn.Parameter(torch.zeros(cfg.queries, cfg.hidden_size))

    def forward(self, images):
        x = self.patch(patches(images, self.cfg.patch)) + self.place
        queries = self.queries.expand(len(x), -1, -1)
        x = torch.cat((queries, x), 1)                          # (B, Q + P, E)
        for block in self.blocks:
            x = block(x)
        return self.project(self.norm(x[:, :self.cfg.queries])) + self.offset

    def settings(self):
        """What `TowerConfig(**settings)` builds this tower from."""
        return asdict(self.cfg)
