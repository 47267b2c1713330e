"""
How the language model takes image tokens: an image is Q words that the vocabulary lacks.

    ids         0 ... V - 1     words: rows of the embedding matrix, as ever
                V + Q n + k     image token k of image n: row k of tower(image n)

So a prompt with an image is a list of ids like any other. Sampling, packing, scoring, batches with
an expert for each row and the whole of REINFORCE take it as it is, and a text without an image goes
through the same lines as before, bit for bit. Such an id can be neither sampled nor typed: the
output head ends at V, and the tokenizer writes it only for the image of a `Seen`.
"""
import hashlib

import torch
from torch import nn

from ..questions import pictures


class Eye:
    """A tower, and the images that it has been shown. Not a part of the model: no expert, export or
    state dict knows of it.

    keeps: remember every image's tokens. Off while the tower itself is trained.
    """

    def __init__(self, tower, vocab, keeps=True):
        self.tower, self.vocab, self.keeps = tower, vocab, keeps
        self.Q = tower.cfg.queries
        self.images = []                    # (64, 64, 3) uint8
        self.number = {}                    # an image's path or bytes -> its place in `images`
        self.kept = {}                      # number -> tokens (Q, C)

    def ids(self, image):
        """A path or pixels -> the Q ids that stand for the image. ValueError as pictures.pixels."""
        key = image if isinstance(image, str) else pictures.pixels(image).tobytes()
        if key not in self.number:
            self.images.append(pictures.pixels(image))
            self.number[key] = len(self.images) - 1
        first = self.vocab + self.Q * self.number[key]
        return list(range(first, first + self.Q))

    def forget(self):
        """Drop all images: ids given out before mean nothing now."""
        self.images, self.number, self.kept = [], {}, {}

    def sha256(self):
        """A hash of the tower's numbers."""
        h = hashlib.sha256()
        for name, t in self.tower.state_dict().items():
            h.update(name.encode() + t.float().cpu().numpy().tobytes())
        return h.hexdigest()

    def look(self, numbers):
        """Numbers of images -> their tokens (n, Q, C), float32."""
        new = [n for n in numbers if n not in self.kept]
        if new:
            device = self.tower.place.device
            shown = torch.stack([torch.from_numpy(self.images[n]) for n in new]).to(device)
            if not self.keeps:
                return self.tower(shown)
            with torch.inference_mode(False), torch.no_grad():
                self.kept.update(zip(new, self.tower(shown)))
        return torch.stack([self.kept[n] for n in numbers])


class SeeingEmbedding(nn.Embedding):
    """The embedding matrix, with image tokens behind its last row."""

    def __init__(self, words, eye):
        super().__init__(*words.weight.shape, device="meta")
        self.weight = words.weight                              # the same tensor: nothing is copied
        self.eye = eye

    def forward(self, ids):
        """ids (B, S) -> embeddings (B, S, C)."""
        seen = ids >= self.num_embeddings
        if not bool(seen.any()):
            return super().forward(ids)
        x = super().forward(ids.masked_fill(seen, 0))
        rows = ids[seen] - self.num_embeddings                  # (image tokens,) Q n + k
        numbers, which = (rows // self.eye.Q).unique(return_inverse=True)
        tokens = self.eye.look(numbers.tolist())                # (images, Q, C)
        found = tokens[which, rows % self.eye.Q].to(x.dtype)
        return x.masked_scatter(seen[..., None], found)


def give_sight(model, tokenizer, tower, keeps=True):
    """Let the model see: swap its embedding for a seeing one, and let the tokenizer write images.
    -> Eye. ValueError where the tower was made for another width."""
    C = model.cfg.hidden_size
    if tower.cfg.hidden_size != C:
        raise ValueError(f"this tower makes tokens of {tower.cfg.hidden_size} numbers; "
                         f"{model.name} takes {C}")
    eye = Eye(tower, model.cfg.vocab_size, keeps)
    name = "embed_tokens" if model.cfg.family == "llama" else "wte"
    setattr(model.body, name, SeeingEmbedding(getattr(model.body, name), eye))
    tokenizer.eye = eye
    return eye
