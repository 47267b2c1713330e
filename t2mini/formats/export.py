"""
An expert merged into a model that other tools read:
`python -m t2mini export --expert=NAME --out=DIR`.

DIR/           a Hugging Face model with W' in place of W: config.json, model.safetensors (or shards
               of 5 GB and their index), the tokenizer files of the source. transformers, vLLM and
               llama.cpp read such a folder.
DIR/adapter/   z alone, as PEFT lays adapters out: adapter_config.json ("peft_type": "SVF"),
               adapter_model.safetensors, README.md with the training facts. No release of PEFT
               knows SVF; this is for keeping and for reading.
The folder is built beside DIR and renamed at the end: it is there whole or not at all. What a kill
leaves beside DIR goes with the next export to DIR.
"""
import glob
import json
import os
import shutil
from contextlib import ExitStack, contextmanager, suppress

from . import tokenizer
from ..machine.files import beside, expand, only_one, read_bytes, save_tensors
from ..machine.text import one_line
from .configs import config_to_json
from .download import locate
from .gguf import read_parts
from .spm import SPACE

COPIED = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
          "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
          "generation_config.json")
SHARD = 5_000_000_000                       # bytes of weights per file


def export(out, source, tensors, cfg, dtype, adapter=None):
    """Write the merged model, and the adapter folder where there is one. -> the folder.

    out       a new folder; ValueError where it holds something already
    source    where the base model came from: a .gguf file, a folder, or a name that `download`
              knows
    tensors   dict name -> tensor, W' in place of W (svf.merged); cfg, dtype: of that model
    adapter   {name, base_sha256, z: dict name -> z, sigma: dict name -> S, facts: dict} of an SVF
              expert
    """
    source, out = locate(source), expand(out).resolve()     # of a link the folder that it leads to
    refuse_taken(out)
    described = described_by_folder(source) if source.is_dir() else described_by_gguf(source, cfg)
    spec = json.loads(described.pop("config.json"))
    spec |= {"torch_dtype": str(dtype).removeprefix("torch.")}
    spec.pop("dtype", None)                     # the newer name of the same must not say otherwise
    described["config.json"] = as_json(spec)
    with building(out) as temp:
        for name, content in described.items():
            (temp / name).write_bytes(content)
        write_weights(tensors, temp)
        if adapter:
            write_adapter(temp / "adapter", **adapter)
        try:
            os.replace(temp, out)
        except OSError:
            refuse_taken(out)                               # it came meanwhile
            raise
    return out


def refuse_taken(out):
    """ValueError where `out` is there and is no empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; choose another --out")


@contextmanager
def building(out):
    """A new folder beside `out`, to be filled in the block and renamed; it goes if it still is
    there. What killed exports left of the same `out` goes first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep_folders(out)
    temp = beside(out)
    temp.mkdir()                                            # who may read it follows from the umask
    with ExitStack() as held:
        with suppress(OSError):                             # a file system without locks
            held.enter_context(only_one(temp))
        try:
            yield temp
        finally:
            shutil.rmtree(temp, ignore_errors=True)


def sweep_folders(out):
    """Remove what killed exports left of `out`: folders of the name that `beside` gives, which no
    process holds. An empty one stays: another export may just be taking it."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 8}.tmp"):
        with suppress(OSError, ValueError):                 # another export is filling it
            if left.is_dir() and not left.is_symlink() and any(left.iterdir()):
                with only_one(left):
                    shutil.rmtree(left, ignore_errors=True)


# ------------------------------------------------------------------------------ all but the weights
def described_by_folder(source):
    """{name: bytes} of the config and the tokenizer files of a Hugging Face folder."""
    names = [name for name in ("config.json", *COPIED) if (source / name).exists()]
    return {name: read_bytes(own_file(source, name)) for name in names}


def own_file(folder, name):
    """The path of a file of this checkpoint, links followed.

    ValueError where a link leads out of the checkpoint: what it points to was never meant to be
    given away. In a hub cache snapshots/ID/NAME is a link into blobs/ beside snapshots/.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir():
        root = root.parent.parent
    path = (folder / name).resolve()
    if root not in path.parents:
        raise ValueError(f"{folder / name} is a link out of the checkpoint, to {path}, which is "
                         "not exported; put a copy in its place")
    return path


def described_by_gguf(source, cfg):
    """The same, made from the metadata of a GGUF file."""
    metadata = read_parts(source)[1]
    spec = config_to_json(cfg)
    for kind in ("bos", "eos"):
        spec[f"{kind}_token_id"] = tokenizer.id_of(metadata, kind)
    described = {"config.json": spec, **tokenizer_files(metadata)}
    return {name: as_json(content) for name, content in described.items()}


def as_json(content):
    """A dict -> the bytes of a readable JSON file."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


# -------------------------------------------------------------------------------------- the weights
def write_weights(tensors, folder):
    """One file, or shards and their index. Only one tensor at a time is copied to the CPU."""
    shards, size = [[]], 0
    for name, t in tensors.items():
        if not bool(t.isfinite().all()):
            raise ValueError(f"{name} would hold numbers that are not finite: damaged weights, or "
                             "an expert whose z are far too large; nothing is exported")
        if shards[-1] and size + t.nbytes > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += t.nbytes
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, names in zip(files, shards):
        save_tensors(folder / file, {n: tensors[n] for n in names}, {"format": "pt"})
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_bytes(as_json({
            "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
            "weight_map": {n: file for file, names in zip(files, shards) for n in names}}))


def write_adapter(folder, name, base_sha256, z, sigma, facts):
    """z under PEFT's names, with the singular values that it scales: they tell whether another SVD
    numbers them alike."""
    folder.mkdir()
    tensors = {f"base_model.model.{layer}.svf_z": numbers for layer, numbers in z.items()}
    tensors |= {f"base_model.model.{layer}.svf_sigma": numbers for layer, numbers in sigma.items()}
    save_tensors(folder / "adapter_model.safetensors", tensors,
                 {"format": "pt", "base_sha256": base_sha256})
    (folder / "adapter_config.json").write_bytes(as_json({
        "peft_type": "SVF", "task_type": "CAUSAL_LM", "inference_mode": True, "revision": None,
        "base_model_name_or_path": facts.get("base_model", name), "base_sha256": base_sha256,
        "target_modules": sorted({layer.split(".")[-1] for layer in z})}))
    count = sum(numbers.numel() for numbers in z.values())
    rows = ""
    for key, value in sorted(facts.items()):
        if isinstance(value, (dict, list)):
            value = json.dumps(value)
        rows += f"| {one_line(key)} | {one_line(value)} |\n"
    (folder / "README.md").write_text(
        f"# SVF expert for {name}\n\n{count:,} numbers z, one per singular value of {len(z)} "
        "weight matrices: W' = U diag(sigma * z) Vt, where U, sigma, Vt is the SVD of W in "
        "float32, largest sigma first. Trained and written by t2mini.\n\n"
        f"| fact | value |\n|---|---|\n{rows}",
        encoding="utf-8")


# --------------------------------------------------------------------- the tokenizer of a GGUF file
def tokenizer_files(meta):
    """GGUF metadata -> {file name: content} of tokenizer.json and tokenizer_config.json."""
    sentence = meta["tokenizer.ggml.model"] == "llama"
    pre = tokenizer.GGUF_PRE.get(meta.get("tokenizer.ggml.pre"))
    words = meta["tokenizer.ggml.tokens"]
    usual = {"bos": 1, "unknown": 0} if sentence else {}    # as tokenizer.from_gguf takes them

    def name(kind):
        at = tokenizer.id_of(meta, kind, usual.get(kind))
        return None if at is None else words[at]

    unk = name("unknown") if sentence else None
    vocab = {w: i for i, w in enumerate(words)}     # control tokens too, else they get new numbers
    model = {"type": "BPE", "dropout": None, "unk_token": unk, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": sentence, "byte_fallback": sentence,
             "ignore_merges": pre == "llama3", "vocab": vocab,
             "merges": meta.get("tokenizer.ggml.merges", [])}
    if sentence:
        model["merges"] = merges_by_score(meta, vocab)
    spec = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": added_tokens(meta, sentence), "post_processor": None, "model": model}
    spec |= sentence_steps(meta) if sentence else byte_steps(pre)
    bos = name("bos")
    add_bos = meta.get("tokenizer.ggml.add_bos_token", sentence or pre == "llama3")
    starts = bos is not None and add_bos
    if starts:
        spec["post_processor"] = begins_with(bos, words.index(bos))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos,
              "eos_token": name("eos"), "add_bos_token": starts, "unk_token": name("unknown"),
              "clean_up_tokenization_spaces": False}
    if "tokenizer.chat_template" in meta:
        config["chat_template"] = meta["tokenizer.chat_template"]
    return {"tokenizer.json": spec, "tokenizer_config.json": config}


def added_tokens(meta, sentence):
    """The control tokens as tokenizer.json lists them."""
    types = meta["tokenizer.ggml.token_type"]
    ordinary = (1, 6) if sentence else (1,)
    return [{"id": i, "content": w, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": types[i] != 4}
            for i, w in enumerate(meta["tokenizer.ggml.tokens"])
            if types[i] not in ordinary or w in tokenizer.MARKS]


def byte_steps(pre):
    """How a byte-level vocabulary splits text, by its name in tokenizer.PATTERNS."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    if pre == "gpt2":
        steps = [level]
    elif pre == "smollm2":
        steps = [{"type": "Digits", "individual_digits": True}, level]
    else:
        pattern = {"Regex": tokenizer.PATTERNS.get(pre)}
        cut = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        steps = [cut, level | {"use_regex": False}]
    first = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
    return {"normalizer": {"type": "NFC"} if pre == "qwen2" else None, "decoder": level,
            "pre_tokenizer": first}


def sentence_steps(meta):
    """How a SentencePiece vocabulary treats spaces."""
    def replace(a, b):
        return {"type": "Replace", "pattern": {"String": a}, "content": b}

    steps = [replace(" ", SPACE)]
    back = [replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if meta.get("tokenizer.ggml.add_space_prefix", True):
        steps = [{"type": "Prepend", "prepend": SPACE}, *steps]
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": back}}


def merges_by_score(meta, vocab):
    """Every way to make a piece of two others, the best piece first: what the scores say as a
    list."""
    scores, types = meta["tokenizer.ggml.scores"], meta["tokenizer.ggml.token_type"]
    score = {w: scores[i] for w, i in vocab.items() if types[i] == 1}
    ways = sorted((-s, k, w[:k], w[k:]) for w, s in score.items() for k in range(1, len(w))
                  if w[:k] in score and w[k:] in score)
    return [[left, right] for _, _, left, right in ways]


def begins_with(bos, bos_id):
    """The post-processor that writes BOS before one text, and before each of two."""
    def parts(*texts):
        out = []
        for kind, text in enumerate(texts):
            out += [{"SpecialToken": {"id": bos, "type_id": kind}},
                    {"Sequence": {"id": text, "type_id": kind}}]
        return out

    return {"type": "TemplateProcessing", "single": parts("A"), "pair": parts("A", "B"),
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}}
