"""Open weights: both formats load the same model, every tensor counts,
and a damaged file is one ValueError.
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, random_model, soon, write_folder
from safetensors.torch import load_file, save_file

import t2mini
from t2mini.formats import gguf, load as weights
from t2mini.formats.configs import config_to_json
from t2mini.formats.gguf import TYPES, dequantize, read_gguf
from t2mini.formats.load import config_from_json
from t2mini.machine import memory
from t2mini.model import Config
from t2mini.machine.device import pick
from t2mini.machine.files import file_hash

GOLDEN = Path(__file__).parent / "golden"
GGUF = (GOLDEN / "llama.gguf").read_bytes()
REFERENCE = load_file(GOLDEN / "llama.reference.safetensors")


def load32(path):
    return t2mini.load(path, device="cpu", dtype="float32")


@pytest.fixture
def folder(tmp_path):
    """A private copy of the golden Llama folder, to be damaged."""
    return Path(shutil.copytree(GOLDEN / "llama", tmp_path / "llama"))


def change(folder, edit):
    """Rewrite the safetensors file of a folder after edit(dict of tensors)."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def reconfigure(folder, **keys):
    spec = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in (spec | keys).items() if v is not None}))


# --------------------------------------------------------------------------------------- what loads
def test_gguf_equals_folder():
    """Fails if the query/key rows of a GGUF file are not unpermuted,
    heads and key heads are mixed up, or dims reversed.
    """
    a, tokenizer = load32(GOLDEN / "llama.gguf")
    b, none = load32(GOLDEN / "llama")
    assert none is None and tokenizer.chat == "chatml"
    assert replace(a.cfg, norm_eps=0.0) == replace(b.cfg, norm_eps=0.0)
    assert abs(a.cfg.norm_eps - b.cfg.norm_eps) < 1e-12
    ours, theirs = dict(a.named_parameters()), dict(b.named_parameters())
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    torch.testing.assert_close(a(REFERENCE["ids"]), REFERENCE["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama3", "qwen2", "qwen3", "gpt2"])
def test_gguf_of_other_families_equals_their_folder(name):
    """Fails if Qwen's rows are unpermuted as Llama's are, GPT-2's matrices are not turned back,
    a bias or a norm of q and k is lost, or the rope factors of Llama 3.1 are not read.
    """
    (a, tokenizer), (b, _) = load32(GOLDEN / f"{name}.gguf"), load32(GOLDEN / name)
    ours, theirs, ref = (dict(a.named_parameters()), dict(b.named_parameters()),
                         load_file(GOLDEN / f"{name}.reference.safetensors"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert (replace(a.cfg, norm_eps=0, rope_factors=())
            == replace(b.cfg, norm_eps=0, rope_factors=()))
    assert a.cfg.rope_factors == pytest.approx(b.cfg.rope_factors)
    assert (len(a.cfg.rope_factors) == 4) == (name == "llama3")
    torch.testing.assert_close(a(ref["ids"]), ref["logits"], rtol=1e-5, atol=1e-5)
    assert tokenizer.pattern == {"llama3": "smollm2", "gpt2": "gpt2"}.get(name, "qwen2")


def test_a_window_where_the_config_sets_one():
    """Fails if Mistral's window is ignored, Qwen's unused one is not,
    or one as long as the context costs a mask.
    """
    spec = json.loads((GOLDEN / "mistral" / "config.json").read_text())
    size = lambda **keys: config_from_json(spec | keys).sliding_window
    assert ((size(), size(sliding_window=None), size(sliding_window=128), size(model_type="llama"))
            == (9, 0, 0, 0))
    assert (size(model_type="qwen2")
            == size(model_type="qwen2", use_sliding_window=True, max_window_layers=2) == 0)
    assert size(model_type="qwen3", use_sliding_window=True, max_window_layers=0) == 9


def test_older_spellings_of_a_config():
    """Fails if rope_scaling with its old key, or the first Llama's name of the context,
    is not read.
    """
    new = json.loads((GOLDEN / "llama3" / "config.json").read_text())
    old = {k: v for k, v in new.items()
           if k not in ("rope_parameters", "dtype", "max_position_embeddings")}
    rope = {k: v for k, v in new["rope_parameters"].items()
            if k not in ("rope_theta", "rope_type")} | {"type": "llama3"}
    old |= {"rope_theta": 100.0, "rope_scaling": rope, "torch_dtype": "float16",
            "max_sequence_length": 128}
    assert config_from_json(old) == config_from_json(new)
    assert config_from_json(new).rope_factors[3] == 8.0
    for key in ("factor", "original_max_position_embeddings"):
        with pytest.raises(KeyError, match=key):
            config_from_json(new | {
                "rope_parameters": {k: v for k, v in new["rope_parameters"].items() if k != key}})


def test_config_round_trip():
    """Fails if a config written for a GGUF file is not the one that it was read from."""
    for name in ("llama", "llama_bias", "llama3", "mistral", "qwen2", "qwen3", "gpt2"):
        cfg = Config(
            **vars(config_from_json(json.loads((GOLDEN / name / "config.json").read_text()))))
        for changes in (({}, {"sliding_window": 9})
                        if name in ("mistral", "qwen2", "qwen3") else ({},)):
            assert (Config(**vars(config_from_json(config_to_json(replace(cfg, **changes)))))
                    == replace(cfg, **changes))


def shard(folder):
    """Cut model.safetensors into two files with an index. -> the index (dict)."""
    tensors = load_file(folder / "model.safetensors")
    names, files = (sorted(tensors),
                    ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    for file, part in zip(files, (names[:7], names[7:])):
        save_file({k: tensors[k] for k in part}, folder / file)
    # Mistral's folders hold such a copy
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    index = {"metadata": {}, "weight_map": {k: files[i >= 7] for i, k in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_the_index_decides(folder):
    """Fails if a folder with an index reads other files too, or its hash covers them."""
    shard(folder)
    model, _ = load32(folder)
    torch.testing.assert_close(model(REFERENCE["ids"]), REFERENCE["logits"], rtol=1e-5, atol=1e-5)
    assert model.base_sha256 == file_hash(sorted(folder.glob("model-*.safetensors")))


def test_damaged_shards_and_indexes(folder):
    """Fails if a missing shard, a name that its file lacks,
    a path out of the folder or a cut file is not one clear line.
    """
    index, file = shard(folder), folder / "model.safetensors.index.json"
    key = next(iter(index["weight_map"]))
    for bad, message in (("{", "index.json"), ("[]", "not a JSON object"), ("{}", "weight_map"),
                         ('{"weight_map": {}}', "weight_map"),
                         (json.dumps({"weight_map": {key: "../x.safetensors"}}), "weight_map"),
                         (json.dumps({"weight_map": {key: "/etc/x.safetensors"}}), "weight_map"),
                         (json.dumps({"weight_map": {key: 5}}), "weight_map"),
                         (json.dumps({"weight_map": {key: "x.bin"}}), "weight_map"),
                         (json.dumps({"weight_map": index["weight_map"]
                                      | {"model.extra": index["weight_map"][key]}}),
                          "'model.extra'")):
        file.write_text(bad)
        with pytest.raises(ValueError, match=message):
            load32(folder)
    file.write_text(json.dumps(index))
    last = folder / "model-00002-of-00002.safetensors"
    data = last.read_bytes()
    last.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="00002-of-00002.safetensors: damaged"):
        load32(folder)
    last.unlink()
    with pytest.raises(FileNotFoundError, match="00002-of-00002.*missing"):
        load32(folder)


def test_nothing_is_read_before_everything_is_checked(folder, monkeypatch):
    """Fails if a tensor is loaded before the shapes of all of them are known to fit."""
    change(folder, lambda t: t.update({"model.norm.weight": torch.ones(1)}))
    monkeypatch.setattr(weights, "read_safetensor", lambda *a: pytest.fail("a tensor was read"))
    with pytest.raises(ValueError, match="norm"):
        load32(folder)
    data = bytearray((GOLDEN / "llama.gguf").read_bytes())
    at = data.index(b"output_norm.weight") + 18 + 4
    data[at:at + 8] = struct.pack("<Q", 40)
    (folder / "x.gguf").write_bytes(data)
    monkeypatch.setattr("t2mini.formats.gguf.dequantize",
                        lambda *a: pytest.fail("a tensor was read"))
    with pytest.raises(ValueError, match=r"norm.*\(40,\)"):
        load32(folder / "x.gguf")


def test_weights_go_straight_to_their_device_and_dtype(monkeypatch):
    """Fails if a whole tensor is de-quantised to float32 first,
    or read on the CPU for another device.
    """
    asked, real = [], weights.safe_open
    monkeypatch.setattr(weights, "safe_open", lambda path, kind, device="cpu": (
        asked.append(device) or real(path, kind, device="cpu")))
    tensors = weights.open_folder(GOLDEN / "llama")[2]
    tensors["model.norm.weight"](torch.device("cuda", 0), torch.bfloat16)
    assert asked[-1] == "cuda:0"
    pieces, plain = [], gguf.dequantize
    monkeypatch.setattr(gguf, "AT_ONCE", 512)
    monkeypatch.setattr(gguf, "dequantize",
                        lambda raw, kind: pieces.append(len(raw)) or plain(raw, kind))
    tensor = read_gguf(GOLDEN / "llama.gguf")[1]["token_embd.weight"](dtype=torch.bfloat16)
    assert tensor.dtype == torch.bfloat16 and pieces == [512] * 6
    assert torch.equal(
        tensor,
        load_file(GOLDEN / "llama" / "model.safetensors")["model.embed_tokens.weight"].bfloat16())


def test_integer_weights_are_refused(folder):
    """Fails if packed or 8-bit integers of some other quantisation are read as weights."""
    change(folder, lambda t: t.update({"model.norm.weight": torch.ones(48, dtype=torch.int8)}))
    with pytest.raises(ValueError, match="norm.weight' holds I8"):
        load32(folder)


def test_generation_config_adds_stop_ids(folder):
    """Fails if the end tokens of only one file are used, or a list of them is not read."""
    shutil.copy(GOLDEN / "tokenizer" / "tokenizer.json", folder)
    reconfigure(folder, eos_token_id=[5, 6], vocab_size=64)
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["model"] |= {"vocab": {w: i for w, i in spec["model"]["vocab"].items() if i < 64},
                      "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert load32(folder)[1].stop_ids == {0, 2, 5, 6, 7}
    for bad, message in (("{", "generation_config.json"),
                         ('{"eos_token_id": ["x"]}', "eos_token_id"), ("[]", "not a JSON object")):
        (folder / "generation_config.json").write_text(bad)
        with pytest.raises(ValueError, match=message):
            load32(folder)


def test_a_vocabulary_larger_than_the_model_is_refused(folder, monkeypatch):
    """Fails if a tokenizer of another model is accepted (its ids would index past the embedding),
    be it only for its control tokens, or is looked at when the weights have been read already.
    """
    monkeypatch.setattr(weights, "load_into", lambda *a: pytest.fail("the weights were read first"))
    shutil.copy(GOLDEN / "tokenizer" / "tokenizer.json", folder)
    with pytest.raises(ValueError, match=r"writes the id \d+, the model knows 64 "):
        load32(folder)
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["model"] |= {"vocab": {w: i for w, i in spec["model"]["vocab"].items() if i < 64},
                      "merges": []}
    spec["added_tokens"] = [t | {"id": t["id"] + 64 * (t["content"] == "<|im_end|>")}
                            for t in spec["added_tokens"]]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "chat_template.jinja").write_text("<|im_start|>")
    with pytest.raises(ValueError, match="writes the id 66, the model knows 64 "):
        load32(folder)


MEASURE = ("""
import ctypes, sys
from pathlib import Path
import torch, t2mini
torch.set_num_threads(1)
resident = lambda key: 1024 * int(Path("/proc/self/status").read_text().split(key)[1].split()[0])
small, large = sys.argv[1:]
t2mini.load(small, device="cpu", dtype="float32")       # what torch imports at the first """
           """use does not count
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")           # the peak is counted from here on
before = resident("VmRSS:")
model = t2mini.load(large, device="cpu", dtype="float32")
print(resident("VmHWM:") - before)
""")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(),
                    reason="needs Linux, which can measure a peak anew")
def test_loading_takes_the_model_and_one_shard(tmp_path):
    """Fails if shards stay in memory while the model fills,
    or the file's float16 and the model's float32 exist as a whole.
    """
    tensors, index = (random_model(hidden_size=512, intermediate_size=1536,
                                   num_hidden_layers=4).half().state_dict(), {})
    for name, t in tensors.items():
        index[name] = f"model-{name.split('.')[2] if 'layers' in name else 'rest'}.safetensors"
    for file in set(index.values()):
        save_file({n: tensors[n] for n in index if index[n] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "config.json").write_text(json.dumps(TINY | {
        "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4}))
    own = sum(4 * t.numel() for t in tensors.values())
    shard = max(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    # in a process of its own: what earlier tests have left in memory would be used again
    told = subprocess.run([sys.executable, "-c", MEASURE, str(GOLDEN / "llama"), str(tmp_path)],
                          cwd=GOLDEN.parents[1], capture_output=True, text=True, check=True).stdout
    used = int(told)
    assert own < used < own + shard + (4 << 20), (
        f"{used:,} bytes for a model of {own:,} in shards of {shard:,}")


def test_pickles_and_lone_files_are_refused(tmp_path):
    """Fails if a .bin or .pt file is opened at all, or the line does not say why and what to do."""
    for name in ("pytorch_model.bin", "consolidated.00.pth", "x.pt", "x.ckpt"):
        (tmp_path / name).write_bytes(b"PK" * 100)
        with pytest.raises(ValueError, match="pickles may run code.*safetensors.*save_pretrained"):
            load32(tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="give the folder"):
        load32(tmp_path / "model.safetensors")


def test_a_loaded_model_is_frozen_named_and_hashed(folder):
    """Fails if base weights could be trained, or the name or hash
    that ties experts to their base is lost.
    """
    model, _ = load32(GOLDEN / "llama.gguf")
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.name == "llama" and model.base_sha256 == file_hash([GOLDEN / "llama.gguf"])
    assert load32(folder)[0].base_sha256 == file_hash([folder / "model.safetensors"])
    quantised = folder.parent / "Some-Model.Q4_1.gguf"
    quantised.write_bytes(GGUF)
    assert load32(quantised)[0].name == "some-model"


def test_hash_follows_the_content(folder):
    """Fails if the hash depends on the name or the date, or not on every byte."""
    assert len(file_hash([folder / "model.safetensors"])) == 64
    before = load32(folder)[0].base_sha256
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert load32(folder)[0].base_sha256 == before
    data = bytearray((folder / "other.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "other.safetensors").write_bytes(data)
    assert load32(folder)[0].base_sha256 != before


def test_shards_are_joined(folder):
    """Fails if only the first safetensors file of a folder is read, or a tensor may come from two.
    """
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    save_file({k: tensors[k] for k in names[:8]}, folder / "model-1.safetensors")
    save_file({k: tensors[k] for k in names[7:]}, folder / "model-2.safetensors")
    with pytest.raises(ValueError, match="in two files"):
        load32(folder)
    save_file({k: tensors[k] for k in names[:7]}, folder / "model-1.safetensors")
    torch.testing.assert_close(load32(folder)[0](REFERENCE["ids"]), REFERENCE["logits"],
                               rtol=1e-5, atol=1e-5)


def test_old_gpt2_names_and_buffers(tmp_path):
    """Fails if a GPT-2 checkpoint of the first kind (no prefix, causal masks inside) is refused,
    or read differently.
    """
    folder = Path(shutil.copytree(GOLDEN / "gpt2", tmp_path / "gpt2"))
    ref = load_file(GOLDEN / "gpt2.reference.safetensors")

    def age(t):
        for k in list(t):
            t[k.removeprefix("transformer.")] = t.pop(k)
        t["h.0.attn.bias"], t["h.1.attn.masked_bias"] = torch.ones(1, 1, 64, 64), torch.tensor(-1e4)
    change(folder, age)
    torch.testing.assert_close(load32(folder)[0](ref["ids"]), ref["logits"], rtol=1e-5, atol=1e-5)


def test_head_tied_and_untied(folder):
    """Fails if a tied copy of the head counts as an extra tensor,
    or an untied head is silently replaced or dropped.
    """
    change(folder, lambda t: t.update({"lm_head.weight": torch.randn(64, 48)}))
    # the config says tied: the copy is not used
    tied = load32(folder)[0]
    torch.testing.assert_close(tied(REFERENCE["ids"]), REFERENCE["logits"], rtol=1e-5, atol=1e-5)
    reconfigure(folder, tie_word_embeddings=False)
    untied = load32(folder)[0]
    assert (untied(REFERENCE["ids"]) - REFERENCE["logits"]).abs().max() > 1
    change(folder, lambda t: t.pop("lm_head.weight"))
    with pytest.raises(ValueError, match="missing.*lm_head"):
        load32(folder)


def test_bfloat16_is_close():
    """Fails if the wanted dtype is ignored, or a weight is quantised twice."""
    model, _ = t2mini.load(GOLDEN / "llama", device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.dtype == torch.bfloat16
    error = (model(REFERENCE["ids"]).float() - REFERENCE["logits"]).abs().mean()
    assert 0 < error < 0.03 * REFERENCE["logits"].std()


def test_padded_vocabulary_is_cut_off(tmp_path):
    """Fails if ids that the tokenizer does not know could be sampled:
    its 259 tokens, 272 rows in the matrix.
    """
    model, tokenizer = load32(write_folder(tmp_path / "tiny"))
    assert (model.cfg.vocab_size, tokenizer.n_vocab, model.valid_vocab) == (272, 259, 259)
    assert torch.isinf(model(torch.tensor([[1]]))[..., 259:]).all()


def test_pick():
    """Fails if a name is misread, junk is accepted, or the error is not a ValueError
    (one line for the user).
    """
    cpu = torch.device("cpu")
    for name in ("float32", "bfloat16", "float16"):
        assert (pick("cpu", name) == pick("cpu", f"torch.{name}") == pick(cpu, getattr(torch, name))
                == (cpu, getattr(torch, name)))
    assert pick("cpu")[1] in (torch.float32, torch.bfloat16)
    for junk in ("int8", "", "float", "Linear", torch.int8, torch.float64, 5):
        with pytest.raises(ValueError, match="float32, bfloat16 or float16"):
            pick("cpu", junk)
    for junk in ("banana", "cpu:x", "cuda:-3", [1]):
        with pytest.raises(ValueError, match="unknown device"):
            pick(junk, "float32")


# ------------------------------------------------------------------------------ folders that do not
def test_missing_extra_and_misshapen_tensors(folder):
    """Fails if a tensor may be left at its random start, dropped, or broadcast into place."""
    key = "model.layers.1.mlp.up_proj.weight"
    keep = load_file(folder / "model.safetensors")
    for edit, message in (
            (lambda t: t.pop(key), "missing.*up_proj"),
            (lambda t: t.update({"model.layers.2.mlp.up_proj.weight": t[key].clone()}),
             "unexpected.*layers.2"),
            (lambda t: t.update({"model.layers.1.self_attn.q_proj.bias": torch.zeros(48)}),
             "unexpected.*q_proj.bias"),
            (lambda t: t.update({key: t[key].T.contiguous()}), r"up_proj.*\(48, 96\).*\(96, 48\)"),
            (lambda t: t.update({"model.norm.weight": torch.ones(1)}), r"norm.*\(1,\).*\(48,\)"),
            (lambda t: t.clear(), "2 layers, but only 0 tensors")):
        change(folder, edit)
        with pytest.raises(ValueError, match=message):
            load32(folder)
        save_file(keep, folder / "model.safetensors")
    load32(folder)


def test_folders_that_hold_no_weights(tmp_path, folder):
    """Fails if an empty folder, a missing config or a pickled checkpoint gives a random model
    or a traceback.
    """
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load32(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load32(tmp_path / "empty")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickles.*safetensors"):
        load32(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no \*.safetensors file$"):
        load32(folder)


def test_truncated_safetensors(folder):
    """Fails if a broken download is read as far as it goes."""
    data = (folder / "model.safetensors").read_bytes()
    for cut in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        (folder / "model.safetensors").write_bytes(data[:cut])
        with pytest.raises(ValueError, match="damaged safetensors file"):
            load32(folder)


@pytest.mark.parametrize("text",
                         ["", "{", "[]", "null", "7", '{"model_type": "llama"}', "\udcff", "{}"])
def test_damaged_config(folder, text):
    """Fails if a config that is no JSON object, or lacks a key, ends in a traceback."""
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="config.json|model_type None"):
        load32(folder)


@pytest.mark.parametrize("keys", [
    {"num_attention_heads": 0}, {"num_attention_heads": "6"}, {"num_key_value_heads": 4},
    {"num_hidden_layers": 10 ** 8}, {"num_hidden_layers": -1}, {"hidden_size": 2 ** 40},
    {"hidden_size": 48.0}, {"head_dim": 7}, {"vocab_size": [64]}, {"rms_norm_eps": "small"},
    {"rope_parameters": {"rope_theta": None}}, {"rope_parameters": [5]}])
def test_sizes_of_no_model(folder, keys, monkeypatch):
    """Fails if a nonsensical size is built before it is checked: 10^8 layers would run for hours.
    """
    monkeypatch.setattr("t2mini.model.Transformer", lambda cfg: pytest.fail("a model was built"))
    reconfigure(folder, **keys)
    with pytest.raises(ValueError):
        load32(folder)


@pytest.mark.parametrize("keys,name", [
    ({"model_type": "mamba"}, "mamba"), ({"hidden_act": "gelu"}, "gelu"),
    ({"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 1,
      "model_type": "qwen2"}, "sliding window in some"),
    ({"sliding_window": 9, "use_sliding_window": True, "model_type": "qwen3",
      "max_window_layers": 0,
      "layer_types": ["sliding_attention", "full_attention"]}, "sliding window in some"),
    ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
    ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic")])
def test_what_is_not_supported_is_named(folder, keys, name):
    """Fails if an unknown architecture, activation or rope type is ignored:
    it would give fluent, wrong text.
    """
    reconfigure(folder, **keys)
    with pytest.raises(ValueError, match=name):
        load32(folder)


@pytest.mark.parametrize("keys,name", [({"activation_function": "relu"}, "relu"),
                                       ({"scale_attn_weights": False}, "scaling"),
                                       ({"scale_attn_by_inverse_layer_idx": True}, "scaling")])
def test_what_is_not_supported_of_gpt2(keys, name):
    """Fails if a GPT-2 variant with other arithmetic is read as plain GPT-2."""
    spec = json.loads((GOLDEN / "gpt2" / "config.json").read_text())
    config_from_json(spec)
    with pytest.raises(ValueError, match=name):
        config_from_json(spec | keys)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": 5}', '{"model": {"type": "BPE"}}',
                                  '{"model": {"type": "BPE", "vocab": [1]}}'])
def test_damaged_tokenizer_json(folder, text):
    """Fails if a damaged tokenizer.json ends in a traceback instead of a line with its name."""
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError):
        load32(folder)


# --------------------------------------------------------------------------------------------- GGUF
@pytest.mark.parametrize("name", [t[0] for t in TYPES.values()])
def test_dequantised_blocks_are_exact(name):
    """Fails if nibbles or fifth bits are taken in another order, a scale is read unsigned,
    an offset is 7 instead of 8, or the 6-bit scales of a K type are unpacked wrongly.
    """
    blocks = load_file(GOLDEN / "blocks.safetensors")
    got = dequantize(blocks[f"{name}.raw"].numpy(), name)
    assert got.dtype.name == "float32"
    assert torch.equal(torch.from_numpy(got), blocks[f"{name}.values"])


def gguf_bytes(tensors=(), keys=(), version=3, magic=b"GGUF", n_tensors=None, n_keys=None,
               data=bytes(256)):
    """A GGUF file by hand. tensors: (name, dims, type, offset); keys: (name, type, packed value).
    """
    def s(text):
        return struct.pack("<Q", len(text)) + text.encode()
    head = magic + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors,
                               len(keys) if n_keys is None else n_keys)
    head += b"".join(s(k) + struct.pack("<I", kind) + value for k, kind, value in keys)
    head += b"".join(s(n) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
                     for n, dims, kind, at in tensors)
    return head + bytes(-len(head) % 32) + data


def read(tmp_path, data):
    (tmp_path / "x.gguf").write_bytes(data)
    return read_gguf(tmp_path / "x.gguf")


def test_gguf_by_hand(tmp_path):
    """Fails if dims are not reversed, offsets are not relative to the aligned data,
    or a value type is misread.
    """
    value = struct.pack
    keys = [("u8", 0, b"\xff"), ("i8", 1, b"\xff"), ("u16", 2, value("<H", 65535)),
            ("i16", 3, value("<h", -2)), ("u32", 4, value("<I", 2 ** 32 - 1)),
            ("i32", 5, value("<i", -5)), ("f32", 6, value("<f", 0.5)), ("yes", 7, b"\1"),
            ("text", 8, value("<Q", 3) + "aé".encode()), ("u64", 10, value("<Q", 2 ** 63)),
            ("i64", 11, value("<q", -9)),
            ("f64", 12, value("<d", 0.1)), ("list", 9, value("<IQ3H", 2, 3, 7, 8, 9)),
            ("words", 9, value("<IQQ2sQ", 8, 2, 2, b"ab", 0)), ("none", 9, value("<IQ", 4, 0))]
    data = bytes(32) + value("<6f", 0, 1, 2, 3, 4, 5) + bytes(40)
    meta, tensors = read(tmp_path, gguf_bytes([("w", (3, 2), 0, 32)], keys, data=data))
    assert list(meta.values()) == [255, -1, 65535, -2, 2 ** 32 - 1, -5, 0.5, True, "aé", 2 ** 63,
                                   -9, 0.1, [7, 8, 9], ["ab", ""], []]
    assert tensors["w"]().tolist() == [[0, 1, 2], [3, 4, 5]]
    far = gguf_bytes([("w", (1,), 0, 0)], [("general.alignment", 4, value("<I", 256))])
    far = far[:-256].ljust(256, b"\0") + value("<f", 7) + bytes(28)
    assert read(tmp_path, far)[1]["w"]().tolist() == [7]
    assert read(tmp_path, gguf_bytes(version=2)) == ({}, {})


BIG = 2 ** 62
REFUSED = [
    ("wrong first bytes", gguf_bytes(magic=b"GGML")), ("wrong first bytes", b"PK\3\4" * 20),
    ("only 5 bytes", b"GGUF\3"), ("only 0 bytes", b""),
    ("version 1 ", gguf_bytes(version=1)), ("version 4 ", gguf_bytes(version=4)),
    ("version 50331648 ", gguf_bytes(version=3 << 24)),                     # big-endian
    ("damaged GGUF header", gguf_bytes(n_tensors=BIG)),
    ("damaged GGUF header", gguf_bytes(n_keys=BIG)),
    # a string, an array of numbers, one of strings, one of arrays
    ("truncated", gguf_bytes(keys=[("k", 8, struct.pack("<Q", BIG))])),
    ("truncated", gguf_bytes(keys=[("k", 9, struct.pack("<IQ", 4, BIG))])),
    ("array of", gguf_bytes(keys=[("k", 9, struct.pack("<IQ", 8, BIG))])),
    ("array of", gguf_bytes(keys=[("k", 9, struct.pack("<IQIQ", 9, 1, 4, 0))])),
    ("value type 13", gguf_bytes(keys=[("k", 13, b"")])),
    ("alignment 0 ", gguf_bytes(keys=[("general.alignment", 4, bytes(4))])),
    ("alignment 48 ", gguf_bytes(keys=[("general.alignment", 4, struct.pack("<I", 48))])),
    ("alignment 'x'", gguf_bytes(keys=[("general.alignment", 8, struct.pack("<Q", 1) + b"x")])),
    # Q2_K, with the list of what is supported
    ("type 10,.*Q4_0", gguf_bytes([("w", (256,), 10, 0)])),
    ("type 16,.*Q6_K", gguf_bytes([("w", (256,), 16, 0)])),                 # IQ2_XXS
    ("does not fit Q4_K", gguf_bytes([("w", (128,), 12, 0)])),
    ("past the end", gguf_bytes([("w", (512,), 14, 0)])),
    ("5 dimensions", gguf_bytes([("w", (1,) * 5, 0, 0)])),
    ("listed twice", gguf_bytes([("w", (1,), 0, 0)] * 2)),
    ("past the end", gguf_bytes([("w", (65,), 0, 0)])),
    ("past the end", gguf_bytes([("w", (1,), 0, BIG)])),
    ("past the end", gguf_bytes([("w", (BIG, BIG), 0, 0)])),
    ("does not fit Q8_0", gguf_bytes([("w", (33,), 8, 0)])),
    ("does not fit Q8_0", gguf_bytes([("w", (16, 2), 8, 0)])),
    ("does not fit Q4_1", gguf_bytes([("w", (), 3, 0)])),
    ("does not fit F32", gguf_bytes([("w", (0, 4), 0, 0)]))]


@pytest.mark.parametrize("message,data", REFUSED, ids=range(len(REFUSED)))
def test_gguf_refusals(tmp_path, message, data):
    """Fails if a count is trusted (2^62 entries would exhaust the memory),
    or an unknown type is not named.
    """
    with pytest.raises(ValueError, match=message):
        read(tmp_path, data)


def header_end():
    """Where the metadata and the list of tensors end in the golden file: the data is the rest."""
    last = GGUF.index(b"output_norm.weight")
    return last + 18 + 4 + 8 + 4 + 8


def outcome(path, data):
    """Load these bytes: "loads" or "ValueError"; any other exception fails the test."""
    path.write_bytes(data)
    try:
        load32(path)
    except ValueError as e:
        assert str(e) and "\n" not in str(e)
        return "ValueError"
    return "loads"


def test_every_cut_of_a_gguf_is_refused(tmp_path, monkeypatch):
    """Fails if a truncated file loads, hangs, raises something else or is read until it ends,
    wherever the download stopped.
    """
    monkeypatch.setattr("t2mini.model.Transformer", lambda cfg: pytest.fail("a model was built"))
    cuts = [*range(0, 64), *range(64, header_end(), 7), *range(header_end(), len(GGUF), 4001),
            len(GGUF) - 33]
    for cut in cuts:
        (tmp_path / "cut.gguf").write_bytes(GGUF[:cut])
        with pytest.raises(ValueError):
            load32(tmp_path / "cut.gguf")


def test_flipped_header_bytes_never_crash(tmp_path):
    """Fails if a damaged header gives anything but a ValueError or a model:
    no hang, no other exception, no huge array.
    """
    rng, end, seen = random.Random(0), header_end(), {"loads": 0, "ValueError": 0}
    for _ in range(250):
        data = bytearray(GGUF)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            at = rng.randrange(4, end)
            data[at] = rng.choice((data[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))
        seen[outcome(tmp_path / "flipped.gguf", bytes(data))] += 1
    assert min(seen.values()) > 20, seen


def meta_value(key, kind, new):
    """The golden file with the value of a fixed-size key replaced (kind: struct code)."""
    at = GGUF.index(key.encode()) + len(key) + 4
    return GGUF[:at] + struct.pack("<" + kind, new) + GGUF[at + struct.calcsize(kind):]


@pytest.mark.parametrize("key,kind,new", [
    ("llama.block_count", "I", 2 ** 32 - 1), ("llama.block_count", "I", 0),
    ("llama.block_count", "I", 1), ("llama.attention.head_count", "I", 0),
    ("llama.attention.head_count", "I", 5), ("llama.attention.head_count_kv", "I", 0),
    ("llama.embedding_length", "I", 2 ** 32 - 1),
    ("llama.feed_forward_length", "I", 97), ("llama.rope.dimension_count", "I", 7),
    ("llama.attention.layer_norm_rms_epsilon", "f", float("nan")),
    ("llama.rope.freq_base", "f", float("inf")), ("llama.rope.freq_base", "f", -1.0)])
def test_gguf_sizes_of_no_model(tmp_path, key, kind, new):
    """Fails if a size is used before it is checked: four billion layers,
    a division by zero heads, NaN logits.
    """
    assert outcome(tmp_path / "ok.gguf", GGUF) == "loads"
    assert outcome(tmp_path / "bad.gguf", meta_value(key, kind, new)) == "ValueError"


@pytest.mark.parametrize("old,new,message", [
    (b"llama.block_count", b"llama.block_kount", "'llama.block_count' is missing"),
    (b"tokenizer.ggml.token_type", b"tokenizer.ggml.token_typo", "token_type' is missing"),
    (b"blk.0.attn_q.weight", b"blk.0.attn_p.weight", "unexpected tensor 'blk.0.attn_p.weight'"),
    (b"blk.0.attn_q.weight", b"blk.7.attn_q.weight", "missing.*layers.0.*q_proj")])
def test_gguf_names(tmp_path, old, new, message):
    """Fails if a missing key or an unknown tensor goes unnoticed or unnamed."""
    assert GGUF.count(old) == 1 or old == b"llama.block_count"
    (tmp_path / "x.gguf").write_bytes(GGUF.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        load32(tmp_path / "x.gguf")


def test_gguf_architecture_and_rope_scaling(tmp_path):
    """Fails if another architecture, or a scaled RoPE, is read as a plain Llama."""
    at = GGUF.index(b"general.architecture") + 20 + 4 + 8
    (tmp_path / "x.gguf").write_bytes(GGUF[:at] + b"mamba" + GGUF[at + 5:])
    with pytest.raises(ValueError, match="architecture 'mamba' is not supported"):
        load32(tmp_path / "x.gguf")
    keys = struct.unpack("<Q", GGUF[16:24])[0]
    scaling = (struct.pack("<Q", 23) + b"llama.rope.scaling.type"
               + struct.pack("<IQ", 8, 6) + b"yarner")
    end = header_end()
    # of 48 factors where head size 8 has 4
    factors = struct.pack("<Q", 17) + b"rope_freqs.weight"
    for message, head in (("rope scaling 'yarner' is not supported",
                           GGUF[:16] + struct.pack("<Q", keys + 1) + scaling + GGUF[24:end]),
                          (r"rope_freqs.weight has shape \(48,\), not \(4,\)",
                           GGUF[:end].replace(struct.pack("<Q", 18) + b"output_norm.weight",
                                              factors))):
        (tmp_path / "x.gguf").write_bytes(head + bytes(-len(head) % 32) + GGUF[-(-end // 32) * 32:])
        with pytest.raises(ValueError, match=message):
            load32(tmp_path / "x.gguf")


def gguf_with(*keys, tensors=None):
    """The golden file with more metadata keys: (name, type, packed value),
    and only these of its tensors (a slice).
    """
    r = gguf.Reader("", GGUF)
    r.at = 8
    n_tensors, n_keys = r.number("Q"), r.number("Q")
    for _ in range(n_keys):
        r.string()
        r.value(r.number("I"))
    kept, infos = GGUF[24:r.at], []
    for _ in range(n_tensors):
        start = r.at
        r.string()
        r.take(8 * r.number("I") + 12)
        infos.append(GGUF[start:r.at])
    infos = infos[tensors] if tensors else infos
    added = b"".join(struct.pack("<Q", len(k)) + k.encode() + struct.pack("<I", kind) + v
                     for k, kind, v in keys)
    head = (GGUF[:8] + struct.pack("<QQ", len(infos), n_keys + len(keys)) + kept + added
            + b"".join(infos))
    return head + bytes(-len(head) % 32) + GGUF[-(-header_end() // 32) * 32:]


def text_value(text):
    return struct.pack("<Q", len(text)) + text.encode()


# ------------------------------------------------------------------------ rope in all its spellings
def slowed():
    """The logits of the golden model at positions / 4: what linear scaling by 4 is."""
    ids = REFERENCE["ids"]
    return load32(GOLDEN / "llama")[0](ids,
                                       positions=torch.arange(ids.shape[1]).expand(ids.shape) / 4)


FOUR = struct.pack("<f", 4.0)


@pytest.mark.parametrize("keys", [
    [("llama.rope.scale_linear", 6, FOUR)], [("llama.rope.scaling.factor", 6, FOUR)],
    [("llama.rope.scaling.type", 8, text_value("linear")), ("llama.rope.scaling.factor", 6, FOUR)]])
def test_rope_scaling_of_a_gguf_in_older_spellings(tmp_path, keys):
    """Fails if a GGUF's linear rope scaling is ignored because it has the older key or no type."""
    (tmp_path / "x.gguf").write_bytes(gguf_with(*keys))
    got = load32(tmp_path / "x.gguf")[0](REFERENCE["ids"])
    torch.testing.assert_close(got, slowed(), rtol=1e-5, atol=1e-5)
    assert (got - REFERENCE["logits"]).abs().max() > 1


def test_rope_scaling_of_none_scales_nothing(tmp_path):
    """Fails if a factor counts although the type says none, or a factor of 0 divides."""
    none = ("llama.rope.scaling.type", 8, text_value("none"))
    for keys in ([none, ("llama.rope.scaling.factor", 6, FOUR)],
                 [("llama.rope.scaling.factor", 6, bytes(4))]):
        (tmp_path / "x.gguf").write_bytes(gguf_with(*keys))
        got = load32(tmp_path / "x.gguf")[0](REFERENCE["ids"])
        torch.testing.assert_close(got, REFERENCE["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key, kind, value, named", [
    ("llama.rope.scaling.attn_factor", 6, FOUR, "scaling.attn_factor"),
    ("llama.rope.scaling.type", 8, text_value("yarn"), "yarn"),
    ("llama.rope.scale_linear", 6, struct.pack("<f", -2.0), "-2.0"),
    ("llama.attention.scale", 6, FOUR, "attention.scale"),
    ("llama.attention.causal", 7, b"\0", "attention.causal"),
    ("llama.logit_scale", 6, FOUR, "logit_scale")])
def test_gguf_settings_that_change_the_arithmetic_are_named(tmp_path, key, kind, value, named):
    """Fails if a rope or attention setting that nobody here computes is passed over:
    fluent, wrong text.
    """
    (tmp_path / "x.gguf").write_bytes(gguf_with((key, kind, value)))
    with pytest.raises(ValueError, match=f"{named}.*not supported|{named}.*not a positive"):
        load32(tmp_path / "x.gguf")


@pytest.mark.parametrize("keys", [
    {"rope_parameters": None, "rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4}},
    {"rope_parameters": None, "rope_theta": 100.0,
     "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
     "rope_scaling": {"type": "linear", "factor": 4.0}}])
def test_rope_scaling_of_a_config_in_every_spelling(folder, keys):
    """Fails if linear scaling is refused or ignored under one of its spellings,
    or where both kinds of settings are there.
    """
    theta = json.loads((folder / "config.json").read_text())["rope_parameters"]["rope_theta"]
    keys = json.loads(json.dumps(keys).replace("100.0", str(theta)))
    reconfigure(folder, **keys)
    torch.testing.assert_close(load32(folder)[0](REFERENCE["ids"]), slowed(), rtol=1e-5, atol=1e-5)
    cfg = Config(**vars(config_from_json(json.loads((folder / "config.json").read_text()))))
    assert Config(**vars(config_from_json(config_to_json(cfg)))) == cfg
    assert cfg.rope_factors == (4.0,) * 4


@pytest.mark.parametrize("keys, named", [
    ({"rope_scaling": {"factor": 4.0}}, "factor 4.0, but without a type"),
    ({"rotary_pct": 0.25}, "rotary_pct"),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
    ({"use_mrope": True, "rope_ratio": 2}, "rope_ratio"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
     "partial_rotary_factor"),
    ({"rope_scaling": {"type": "linear"}}, "factor"),
    ({"rope_scaling": {"type": "linear", "factor": "x"}}, "'x'"),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, "0 is not a positive"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "mscale": 3}}, "mscale")])
def test_rope_settings_that_are_not_understood_are_named(folder, keys, named):
    """Fails if a setting of the rotation is passed over."""
    reconfigure(folder, **keys)
    with pytest.raises(ValueError, match=named):
        load32(folder)


# ------------------------------------------------------------------------ healthy folders and files
def test_files_beside_the_model_do_not_count(folder):
    """Fails if macOS's ._ copies or Mistral's consolidated copy beside model.safetensors make
    a healthy folder damaged.
    """
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    (folder / "._model.safetensors").write_bytes(b"\0\5\x16\7 not a tensor")
    model = load32(folder)[0]
    torch.testing.assert_close(model(REFERENCE["ids"]), REFERENCE["logits"], rtol=1e-5, atol=1e-5)
    assert model.base_sha256 == file_hash([folder / "model.safetensors"])
    (folder / "model.safetensors").unlink()
    assert load32(folder)[0].base_sha256 == model.base_sha256      # the dot still does not count


def split_in_two(folder, number=lambda i: (2, struct.pack("<H", i))):
    """The golden file as two parts, the number of each stored as said. -> their paths."""
    paths = [folder / f"tiny.f32-0000{i}-of-00002.gguf" for i in (1, 2)]
    for i, path in enumerate(paths):
        path.write_bytes(gguf_with(
            ("split.no", *number(i)), ("split.count", 2, struct.pack("<H", 2)),
            ("split.tensors.count", 5, struct.pack("<i", len(read_gguf(GOLDEN / "llama.gguf")[1]))),
            tensors=slice(0, 5) if i == 0 else slice(5, None)))
    return paths


def test_a_split_gguf_is_joined(tmp_path):
    """Fails if only one part of a split file is read, the hash leaves one out,
    or which part is named matters.
    """
    paths = split_in_two(tmp_path)
    for path in paths:
        model, tokenizer = load32(path)
        torch.testing.assert_close(model(REFERENCE["ids"]), REFERENCE["logits"],
                                   rtol=1e-5, atol=1e-5)
        assert model.name == "tiny" and model.base_sha256 == file_hash(paths)
        assert tokenizer.chat == "chatml"


def test_a_split_gguf_without_its_parts_says_so(tmp_path):
    """Fails if a part of a split file is called damaged,
    or a wrong part is taken for the missing one.
    """
    one, two = split_in_two(tmp_path)
    alone = tmp_path / "alone.gguf"
    shutil.copy(one, alone)
    with pytest.raises(ValueError,
                       match="part 1 of 2 of a split GGUF file; put all parts into one folder"):
        load32(alone)
    shutil.copy(one, tmp_path / "kept")
    shutil.copy(two, one)
    with pytest.raises(ValueError, match="not part 1 of 2"):
        load32(two)
    shutil.copy(tmp_path / "kept", one)
    two.unlink()
    with pytest.raises(FileNotFoundError,
                       match="part 1 of 2 .*tiny.f32-00002-of-00002.gguf is not beside it"):
        load32(one)
    (tmp_path / "b").mkdir()
    worded = split_in_two(tmp_path / "b", lambda i: (8, struct.pack("<Q", 1) + b"%d" % i))
    with pytest.raises(ValueError, match=r"split.no is '0', no number \(damaged file\)"):
        load32(worded[0])


@pytest.mark.parametrize("stored", ["Some.Q4_1", "some-q4_k_m", "some.f16", "Some-BF16",
                                    "some-Q8_0-00001-of-00002"])
def test_how_a_file_is_stored_is_not_in_the_models_name(stored):
    """Fails if experts of one model lie in two folders because its file is called otherwise."""
    assert weights.model_name(Path(f"{stored}.gguf")) == "some"
    assert (weights.model_name(Path("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"))
            == "qwen2.5-coder-0.5b-instruct")


# --------------------------------------------------------------------------------- no finite number
@pytest.mark.parametrize("keys, named", [
    ({"rms_norm_eps": 3e38}, "norm_eps"), ({"rms_norm_eps": -1.0}, "norm_eps"),
    ({"rope_parameters": {"rope_theta": 0}}, "rope_theta"),
    ({"rope_parameters": {"rope_theta": 1e-30}}, "rope_theta"),
    ({"rope_parameters": {"rope_theta": 1e300}}, "rope_theta"),
    ({"rope_scaling": {"type": "linear", "factor": 1e30}}, "rope factors")])
def test_configs_without_a_finite_logit_are_refused(folder, keys, named):
    """Fails if a model that computes no finite number answers NULs and exits with 0."""
    reconfigure(folder, **keys)
    with pytest.raises(ValueError, match=f"{named}.* not usable"):
        load32(folder)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_that_are_not_finite_are_refused(folder, bad, dtype):
    """Fails if one Inf or NaN among the weights is loaded, in any number format."""
    change(folder, lambda t: t["model.layers.1.mlp.up_proj.weight"].view(-1)[-1:].fill_(bad))
    with pytest.raises(ValueError, match="layers.1.mlp.up_proj.weight holds Inf or NaN"):
        t2mini.load(folder, device="cpu", dtype=dtype)


def test_large_finite_weights_are_not_refused(folder):
    """Fails if a sum that overflows is taken for an Inf among the weights;
    or numbers beyond float16 are not noticed.
    """
    change(folder, lambda t: t.update({"model.norm.weight": torch.full((48,), 3e38)}))
    load32(folder)
    with pytest.raises(ValueError, match="holds Inf or NaN in float16"):
        t2mini.load(folder, device="cpu", dtype="float16")
    change(folder, lambda t: t.update({"model.norm.weight": torch.full((48,), 6e4)}))
    t2mini.load(folder, device="cpu", dtype="float16")


# ---------------------------------------------------------------------------- ids and strange files
@pytest.mark.parametrize("eos, told", [
    (10 ** 30, "0xc9f2c9cd04674edea40000000 is not the id of a token: this model knows 64"),
    ([2, 64], "0x40 is not the id"), (-2, "-0x2 is not the id"), (True, "'True' is not a number"),
    (1.5, "'1.5' is not a number")])
def test_an_eos_token_id_of_no_token_is_named(folder, eos, told):
    """Fails if an id beyond the vocabulary is kept until a tensor overflows,
    or the line does not say whose it is.
    """
    reconfigure(folder, eos_token_id=eos)
    with pytest.raises(ValueError, match=f"eos_token_id {told}"):
        load32(folder)


def test_no_eos_token_id_has_two_more_spellings(folder):
    """Fails if -1, which some files write for "none", stops the load;
    or a GGUF's id of no token does not.
    """
    reconfigure(folder, eos_token_id=-1)
    load32(folder)
    (folder / "x.gguf").write_bytes(meta_value("tokenizer.ggml.eos_token_id", "I", 1 << 31))
    with pytest.raises(ValueError, match="eos_token_id 0x80000000 is not the id of a token"):
        load32(folder / "x.gguf")
    (folder / "x.gguf").write_bytes(meta_value("tokenizer.ggml.eos_token_id", "I", (1 << 32) - 1))
    load32(folder / "x.gguf")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json",
                                  "tokenizer_config.json", "chat_template.jinja",
                                  "model.safetensors", "model.safetensors.index.json"])
def test_pipes_and_devices_in_a_folder_are_refused(tmp_path, name):
    """Fails if a pipe hangs the load, or /dev/zero is read until the memory ends."""
    base = write_folder(tmp_path / "tiny")
    path = base / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with soon(), pytest.raises(ValueError, match=f"{name}: not a regular file"):
        load32(base)
    path.unlink()
    path.symlink_to("/dev/zero")
    with soon(), pytest.raises(ValueError, match=f"{name}: not a regular file"):
        load32(base)


def test_a_pipe_as_gguf_is_refused(tmp_path):
    """Fails if a named pipe in place of a .gguf file hangs."""
    os.mkfifo(tmp_path / "x.gguf")
    with soon(), pytest.raises(ValueError, match="x.gguf: not a regular file"):
        load32(tmp_path / "x.gguf")


def test_foreign_text_in_errors_cannot_drive_a_terminal(folder):
    """Fails if an escape sequence from a file reaches the user's terminal through an error message.
    """
    for change_it in (lambda: reconfigure(folder, model_type="\x1b[2Jx"),
                      lambda: reconfigure(folder, rope_scaling={"\x1b[2J": 1}),
                      lambda: (folder / "model.safetensors").write_bytes(
                          struct.pack("<Q", 40) + b'{"\x1b[31m":{"dtype":"\x1b[2J"}}'.ljust(40))):
        config = (folder / "config.json").read_text()
        change_it()
        with pytest.raises(ValueError) as told:
            load32(folder)
        assert "\x1b" not in str(told.value)
        (folder / "config.json").write_text(config)


def test_products_of_old_shapes_are_forgotten(monkeypatch):
    """Fails if PyTorch and oneDNN keep 1024 compiled shapes each,
    which grows training by gigabytes, or a user's own number is overwritten.
    """
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    memory.keep_memory()
    assert ((os.environ["LRU_CACHE_CAPACITY"], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
            == ("7", "16"))
