"""
An expert as files that other tools read: `python -m t2mini export --expert=NAME --out=DIR`.

DIR/           a Hugging Face model with W' in place of W: config.json, model.safetensors (or shards of 5 GB and their
               index), the tokenizer files of the source. transformers, vLLM and llama.cpp read such a folder.
DIR/adapter/   z alone, as PEFT lays adapters out: adapter_config.json ("peft_type": "SVF"), adapter_model.safetensors,
               README.md with the training facts. No release of PEFT knows SVF; this is for keeping and for reading.
The folder is built beside DIR and renamed at the end: it is there whole or not at all.
"""
import json
import os
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from . import tokenizer
from .configs import config_to_json
from ..machine.files import save_tensors
from .gguf import read_gguf
from .spm import SPACE

COPIED = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
          "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json")
SHARD = 5_000_000_000                       # bytes of weights per file


def export(out, source, tensors, cfg, dtype, adapter=None):
    """Write the merged model, and the adapter folder where there is one. -> the folder.

    out       a new folder; ValueError where it holds something already
    source    where the base model came from: a .gguf file or a folder
    tensors   dict name -> tensor, W' in place of W (svf.merged); cfg, dtype: of that model
    adapter   {name, base_sha256, z: dict name -> z, sigma: dict name -> S, facts: dict} of an SVF expert
    """
    source, out = Path(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        write_weights(tensors, temp)
        if source.is_dir():
            spec = json.loads((source / "config.json").read_text(encoding="utf-8"))
            for name in COPIED:
                if (source / name).exists():
                    shutil.copyfile(source / name, temp / name)
        else:
            spec, metadata = config_to_json(cfg), read_gguf(source)[0]
            spec |= {f"{k}_token_id": metadata.get(f"tokenizer.ggml.{k}_token_id") for k in ("bos", "eos")}
            files = tokenizer_files(metadata)
            for name, content in files.items():
                write_json(temp / name, content)
        spec |= {"torch_dtype": str(dtype).removeprefix("torch.")}
        spec.pop("dtype", None)                             # the newer name of the same; one of them must not lie
        write_json(temp / "config.json", spec)
        if adapter:
            write_adapter(temp / "adapter", **adapter)
        os.chmod(temp, 0o755)                               # mkdtemp makes a folder that only its owner can read
        os.replace(temp, out)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return out


def write_weights(tensors, folder):
    """One file, or shards and their index. Only one shard at a time is copied to the CPU."""
    shards, size = [[]], 0
    for name, t in tensors.items():
        if shards[-1] and size + t.nbytes > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += t.nbytes
    files = ["model.safetensors"] if len(shards) == 1 else [
        f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, names in zip(files, shards):
        save_file({n: tensors[n].detach().contiguous().cpu() for n in names}, folder / file, {"format": "pt"})
    if len(shards) > 1:
        write_json(folder / "model.safetensors.index.json", {
            "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
            "weight_map": {n: file for file, names in zip(files, shards) for n in names}})


def write_adapter(folder, name, base_sha256, z, sigma, facts):
    """z under PEFT's names, with the singular values that it scales: they tell whether another SVD numbers them alike."""
    folder.mkdir()
    tensors = {f"base_model.model.{layer}.svf_z": numbers for layer, numbers in z.items()}
    tensors |= {f"base_model.model.{layer}.svf_sigma": numbers for layer, numbers in sigma.items()}
    save_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt", "base_sha256": base_sha256})
    write_json(folder / "adapter_config.json", {
        "peft_type": "SVF", "task_type": "CAUSAL_LM", "inference_mode": True, "revision": None,
        "base_model_name_or_path": facts.get("base_model", name), "base_sha256": base_sha256,
        "target_modules": sorted({layer.split(".")[-1] for layer in z})})
    count = sum(numbers.numel() for numbers in z.values())
    rows = "".join(f"| {k} | {json.dumps(v) if isinstance(v, (dict, list)) else v} |\n" for k, v in sorted(facts.items()))
    (folder / "README.md").write_text(
        f"# SVF expert for {name}\n\n{count:,} numbers z, one per singular value of {len(z)} weight matrices: "
        "W' = U diag(sigma * z) Vt, where U, sigma, Vt is the SVD of W in float32, largest sigma first. Trained and "
        f"written by t2mini.\n\n| fact | value |\n|---|---|\n{rows}", encoding="utf-8")


def write_json(path, content):
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------- tokenizer of a GGUF file
def tokenizer_files(meta):
    """GGUF metadata -> {file name: content} of tokenizer.json and tokenizer_config.json."""
    words, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    sentence, pre = meta["tokenizer.ggml.model"] == "llama", tokenizer.GGUF_PRE.get(meta.get("tokenizer.ggml.pre"))
    ordinary = (1, 6) if sentence else (1,)
    name = lambda kind: words[meta[f"tokenizer.ggml.{kind}_token_id"]] if f"tokenizer.ggml.{kind}_token_id" in meta else None
    added = [{"id": i, "content": w, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": t != 4} for i, (w, t) in enumerate(zip(words, types)) if t not in ordinary]
    vocab = {w: i for i, w in enumerate(words)}             # control tokens too: the library would number them anew
    model = {"type": "BPE", "dropout": None, "unk_token": name("unknown") if sentence else None,
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": sentence, "byte_fallback": sentence,
             "ignore_merges": pre == "llama3", "vocab": vocab, "merges": meta.get("tokenizer.ggml.merges", [])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    cut = {"type": "Split", "pattern": {"Regex": tokenizer.PATTERNS.get(pre)}, "behavior": "Isolated", "invert": False}
    first = {"smollm2": [{"type": "Digits", "individual_digits": True}], "gpt2": []}.get(pre, [cut])
    steps = [*first, level | {"use_regex": first != [cut]}]
    spec = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None,
            "normalizer": {"type": "NFC"} if pre == "qwen2" else None, "decoder": level, "model": model,
            "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}}
    if sentence:
        score = {w: meta["tokenizer.ggml.scores"][i] for w, i in vocab.items() if types[i] == 1}
        ways = sorted((-s, len(w[:k]), w[:k], w[k:]) for w, s in score.items() for k in range(1, len(w))
                      if w[:k] in score and w[k:] in score)
        model["merges"] = [[left, right] for _, _, left, right in ways]
        replace = lambda a, b: {"type": "Replace", "pattern": {"String": a}, "content": b}
        steps = [replace(" ", SPACE)]
        if meta.get("tokenizer.ggml.add_space_prefix", True):
            steps = [{"type": "Prepend", "prepend": SPACE}, *steps]
        spec |= {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None,
                 "decoder": {"type": "Sequence", "decoders": [replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                                                              {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}
    bos = name("bos")
    starts = bos is not None and meta.get("tokenizer.ggml.add_bos_token", sentence or pre == "llama3")
    if starts:
        spec["post_processor"] = {"type": "TemplateProcessing", "special_tokens": {
            bos: {"id": bos, "ids": [words.index(bos)], "tokens": [bos]}}, **{kind: [
                x for part, t in parts for x in ({"SpecialToken": {"id": bos, "type_id": t}}, {"Sequence": {"id": part, "type_id": t}})]
                for kind, parts in (("single", [("A", 0)]), ("pair", [("A", 0), ("B", 1)]))}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": name("eos"), "add_bos_token": starts,
              "unk_token": name("unknown"), "clean_up_tokenization_spaces": False}
    if "tokenizer.chat_template" in meta:
        config["chat_template"] = meta["tokenizer.chat_template"]
    return {"tokenizer.json": spec, "tokenizer_config.json": config}
