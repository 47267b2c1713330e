"""
Damaged files: every reader gives a value or one ValueError (FileNotFoundError where a file
is not there), whatever is in the file, and takes no more memory than a small multiple of it.

The damage is drawn from seeds: cuts, flipped bits, bytes and numbers set to extremes,
pieces doubled, dropped or swapped. `make test` tries 60 or 150 inputs per reader,
`make test-all` thousands.
"""
import json
import random
import resource
import shutil
import struct
import sys
import tracemalloc
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import random_model, write_folder
from safetensors.torch import load_file
from test_tokenizer import BOXED
from test_weights import split_in_two

from t2mini import experts, lora, svf, tasks
from t2mini.formats import load as weights
from t2mini.machine import checkpoint
from t2mini.model import Transformer
from t2mini.recipe import TrainConfig

GOLDEN = Path(__file__).parent / "golden"
CLEAN = ValueError, FileNotFoundError
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
            (1 << 63) - 1, (1 << 64) - 1]
TEXTS = ["null", "true", "-1", "1e999", "NaN", "Infinity", '""', "[]", "{}", "1" * 5000,
         '"\\ud800"', "[" * 2000, "{\"a\":" * 2000, "0", "1.5", "99999999999", '"../../etc/passwd"',
         '"/etc/passwd"', "\0", "\ufeff", "\\u0000"]


def damaged(data, rng, head):
    """A damaged copy of the bytes; most of the damage goes to the first `head` bytes,
    where the structure is.
    """
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        reach = min(len(data), head if rng.random() < 0.8 else len(data))
        at, kind = rng.randrange(reach) if reach else 0, rng.randrange(8)
        if kind == 0:
            del data[at:]                                                       # cut off
        elif kind == 1 and data:
            data[at] ^= 1 << rng.randrange(8)                                   # one bit
        elif kind == 2:
            data[at:at + 1] = bytes([rng.randrange(256)])
        elif kind == 3:
            data[at:at + 8] = struct.pack("<Q", rng.choice(EXTREMES))           # a number, in place
        elif kind == 4:
            data[at:at] = data[at:at + rng.randrange(64)]                       # a piece twice
        elif kind == 5:
            del data[at:at + rng.randrange(1, 64)]
        elif kind == 6:
            data[at:at + rng.randrange(1, 9)] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        else:
            data[at:at + 4] = struct.pack("<I", rng.choice(EXTREMES) & 0xFFFFFFFF)
    return bytes(data)


def changed_json(value, rng):
    """JSON text of `value` with one or two of its parts, at any depth, replaced by something else.
    """
    spots = []

    def walk(node):
        for key in (node if isinstance(node, dict) else range(len(node))):
            spots.append((node, key))
            if isinstance(node[key], (dict, list)) and len(node[key]):
                walk(node[key])

    value = json.loads(json.dumps(value))
    walk(value)
    rng.shuffle(spots)
    for node, key in spots[:rng.choice((1, 1, 2))]:
        what = rng.randrange(4)
        if what == 0 and isinstance(node, dict):
            del node[key]
        else:
            node[key] = rng.choice([None, True, -1, 0, 1.5, 1e308, float("nan"), float("inf"),
                                    1 << 40, 10 ** 400, "", "x", "\0", "../../etc/passwd",
                                    "/etc/passwd", [], {}, [[]], {"a": 1}, [1, "2"], ["a"] * 3])
    return json.dumps(value).encode()


@contextmanager
def bounded(megabytes=200):
    """So much address space above what is in use now, in one piece or many
    (files here have 0.3 MB at most).
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def load_all(path):
    """What t2mini.load does, to the last tensor, without the hash of the whole file."""
    path = Path(path)
    _, cfg, tensors, words = weights.open_folder(path) if path.is_dir() else weights.open_gguf(path)
    weights.check_config(cfg, len(tensors))
    with torch.device("meta"):
        model = Transformer(cfg)
    weights.load_into(model, tensors, torch.device("cpu"), torch.float32)
    if words is not None:
        words.decode(words.encode("a b"))


def tries(read, write, make, n, seed, limit):
    """Run `read` on n damaged inputs. -> how many were read;
    all others raised one of CLEAN with one line of text.
    """
    # what torch imports at the first use is no reader's doing
    load_all(GOLDEN / "llama.gguf")
    good = 0
    tracemalloc.start()
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        write(make(rng))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            with bounded():
                read()
            good += 1
        except CLEAN as e:
            assert str(e).strip() and "\n" not in str(e).strip(), (seed, i, e)
        except BaseException as e:
            raise AssertionError(f"{seed} {i}: {type(e).__name__} {str(e)[:200]}") from e
        # Python and numpy; torch is under `bounded`
        used = tracemalloc.get_traced_memory()[1] - before
        assert used < limit, (seed, i, used)
    tracemalloc.stop()
    return good


class Readers:
    """One method per reader: -> (read, write, make, limit of memory in bytes)."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def binary(self, source, read, head, name):
        data, path = Path(source).read_bytes(), self.folder / name
        return (lambda: read(path), path.write_bytes, lambda rng: damaged(data, rng, head),
                40 * len(data) + (1 << 20))

    def text(self, base, name, read, structured=0.6):
        path, data = base / name, (base / name).read_bytes()
        value = json.loads(data)

        def make(rng):
            return (changed_json(value, rng) if rng.random() < structured
                    else damaged(data, rng, len(data)))
        return read, path.write_bytes, make, 60 * len(data) + (4 << 20)

    def gguf(self):
        return self.binary(GOLDEN / "llama.gguf", load_all, 12_000, "m.gguf")

    def split(self):
        one, two = split_in_two(self.folder)
        return self.binary(one, lambda path: load_all(two), 12_000, one.name)

    def safetensors(self):
        base = Path(shutil.copytree(GOLDEN / "llama", self.folder / "a"))
        return self.binary(base / "model.safetensors", lambda path: load_all(base),
                           2_000, "a/model.safetensors")

    def index(self):
        base = Path(shutil.copytree(GOLDEN / "llama", self.folder / "b"))
        names = dict.fromkeys(load_file(base / "model.safetensors"), "model.safetensors")
        (base / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
        return self.text(base, "model.safetensors.index.json", lambda: load_all(base))

    def config(self):
        base = Path(shutil.copytree(GOLDEN / "llama", self.folder / "c"))
        return self.text(base, "config.json", lambda: load_all(base), 0.9)

    def generation_config(self):
        base = write_folder(self.folder / "g")
        (base / "generation_config.json").write_text(
            json.dumps({"eos_token_id": [257, 256], "temperature": 0.2, "top_p": 0.9}))
        return self.text(base, "generation_config.json", lambda: read_words(base), 0.8)

    def tokenizer(self):
        base = write_folder(self.folder / "d")
        return self.text(base, "tokenizer.json", lambda: read_words(base), 0.7)

    def tokenizer_config(self):
        base = write_folder(self.folder / "e")
        (base / "tokenizer_config.json").write_text(json.dumps({
            "chat_template": BOXED,
            "added_tokens_decoder": {"256": {"content": "<|endoftext|>", "special": True}}}))
        return self.text(base, "tokenizer_config.json", lambda: read_words(base), 0.8)

    def expert(self):
        path = self.folder / "source.safetensors"
        experts.save_expert(path, {f"l{i}": torch.rand(40) for i in range(6)},
                            {"base_sha256": "0" * 64, "base_model": "tiny", "task": "math",
                             "seed": 0, "config": {"lr": 0.1}})
        model = random_model()
        return self.binary(path, lambda p: experts.load_expert(p, model, allow_other_base=True),
                           1200, "e.safetensors")

    def lora_expert(self):
        path, model = self.folder / "lora.safetensors", random_model()
        cfg = {"modules": "q,v", "layers": "all", "rank": 2, "lora_alpha": 4.0}
        lora.attach(model, "lora", cfg)
        experts.save_expert(path, svf.get_z(model), {"base_sha256": "0" * 64, "task": "math",
                                                     "method": "lora", "config": cfg})

        def read(p):
            model = random_model()
            experts.attach(model, experts.read_metadata(p))
            with svf.using(model, experts.load_expert(p, model, allow_other_base=True)[0]):
                pass
        return self.binary(path, read, 1200, "l.safetensors")

    def checkpoint(self):
        model, cfg, path = random_model(), TrainConfig(modules="q,v"), self.folder / "source.ckpt"
        svf.attach(model, "q,v", progress=False)
        z = {name: layer.z for name, layer in svf.layers(model).items()}
        optimizer, state = torch.optim.AdamW(z.values()), {"step": 3, "best_val": 0.5}
        told = {"config": asdict(cfg), "base_sha256": model.base_sha256, "dtype": str(model.dtype)}
        checkpoint.save(path, told, z, optimizer, svf.get_z(model), state)
        return self.binary(path, lambda p: checkpoint.load(p, told, z, optimizer, svf.get_z(model),
                                                           dict(state), "cpu"),
                           3000, "c.ckpt")

    def jsonl(self):
        rows = [{"prompt": f"say {i}", "answer": str(i), "match": m,
                 **({"options": ["1", str(i)]} if m == "choice" else {})}
                for i, m in enumerate(("exact", "number", "choice", "contains") * 5)]
        data, path = "".join(json.dumps(r) + "\n" for r in rows).encode(), self.folder / "t.jsonl"

        def make(rng):
            if rng.random() < 0.5:
                return damaged(data, rng, len(data))
            lines = [json.dumps(r).encode() for r in rows]
            i = rng.randrange(len(lines))
            return b"\n".join([*lines[:i], changed_json(rows[i], rng), *lines[i + 1:]])

        def read():
            task = tasks.from_jsonl(path)
            for e in task.examples("train", 5):
                tasks.rewards([e], ["7"])
        return read, path.write_bytes, make, 100 * len(data) + (4 << 20)


def read_words(folder):
    words = tokenizer_of(folder)
    if words is not None:
        words.decode(words.prompt("hello <|im_end|> \u00e9\ud83d\ude00"))


def tokenizer_of(folder):
    return weights.open_folder(folder)[3]


READERS = ("gguf split safetensors index config generation_config tokenizer tokenizer_config "
           "expert lora_expert checkpoint jsonl".split())


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files(reader, tmp_path):
    """Fails if a reader crashes, hangs, or allocates what a damaged number asks for."""
    read, write, make, limit = getattr(Readers(tmp_path), reader)()
    # those are quick to read
    n = 150 if reader in ("safetensors", "index", "expert", "checkpoint", "jsonl") else 60
    assert tries(read, write, make, n, f"core {reader}", limit) < n     # some of it was noticed


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_in_thousands(reader, tmp_path):
    """Fails as the test above, with 2,000 inputs to each reader."""
    read, write, make, limit = getattr(Readers(tmp_path), reader)()
    assert tries(read, write, make, 2000, f"all {reader}", limit) < 2000


def test_no_path_escapes_through_an_index(tmp_path):
    """Fails if a file outside the folder is opened because an index names it,
    or a missing shard goes unnoticed.
    """
    base = Path(shutil.copytree(GOLDEN / "llama", tmp_path / "model"))
    shutil.copy(base / "model.safetensors", tmp_path / "outside.safetensors")
    index = base / "model.safetensors.index.json"
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"),
                 "./../outside.safetensors", "..", "", "a/b.safetensors", "outside.safetensors\0",
                 "model.safetensors\n", "model.bin", None, 3, ["model.safetensors"]):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        # refused by its name, before anything is opened
        with pytest.raises(ValueError, match="weight_map must name"):
            weights.open_folder(base)
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors.* missing"):
        weights.open_folder(base)
    index.write_text(json.dumps(
        {"weight_map": dict.fromkeys(load_file(base / "model.safetensors"), "model.safetensors")}))
    (base / "consolidated.safetensors").write_bytes(b"not named by the index, so not read")
    load_all(base)
