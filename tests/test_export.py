"""What `export` writes loads back with the same logits, and is there whole or not at all."""
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import soon
from safetensors.torch import load_file

import t2mini
from t2mini.formats import export as export_file
from t2mini import svf
from t2mini.cli import verbs
from t2mini.machine import files
from t2mini.formats import tokenizer
from t2mini.formats.export import export, tokenizer_files

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["llama", "llama_bias", "llama3", "mistral", "qwen2", "qwen3", "gpt2"]
META = {"base_model": "tiny", "task": "math", "seed": 3, "config": {"lr": 0.1}}


def tuned(path, modules=svf.ALL):
    """A golden model in float32 that runs on a random expert. -> (model, expert)."""
    model, _ = t2mini.load(path, device="cpu", dtype="float32")
    svf.attach(model, modules, progress=False)
    torch.manual_seed(0)
    expert = {name: z + 0.2 * torch.randn_like(z) for name, z in svf.get_z(model).items()}
    svf.set_z(model, expert)
    return model, expert


def written(model, source, out, expert=None, meta=None):
    """The model as the verb `export` writes it."""
    adapter = verbs.adapter(model, expert, meta or {}) if expert else None
    return export(out, source, svf.merged(model), model.cfg, model.dtype, adapter)


@pytest.mark.parametrize("name", NAMES)
def test_merged_weights_load_back(name, tmp_path):
    """Fails if a W' is forgotten, stored untransposed (GPT-2),
    or under another name than the checkpoint's.
    """
    model, expert = tuned(GOLDEN / name)
    written(model, GOLDEN / name, tmp_path / "out", expert, META)
    before, after = (load_file(folder / "model.safetensors")
                     for folder in (GOLDEN / name, tmp_path / "out"))
    assert {k: t.shape for k, t in before.items()} == {k: t.shape for k, t in after.items()}
    changed = {k.removesuffix(".weight") for k in after
               if not torch.equal(after[k], before[k].float())}
    assert changed == set(expert)
    again, _ = t2mini.load(tmp_path / "out", device="cpu", dtype="float32")
    ids = load_file(GOLDEN / f"{name}.reference.safetensors")["ids"]
    torch.testing.assert_close(again(ids), model(ids), rtol=0, atol=1e-5)
    spec = json.loads((tmp_path / "out" / "config.json").read_text())
    assert spec["torch_dtype"] == "float32"
    assert "dtype" not in spec and spec["architectures"][0].endswith(("CausalLM", "LMHeadModel"))


@pytest.mark.parametrize("name", ["llama", "llama3", "qwen2", "qwen3", "gpt2"])
def test_gguf_becomes_a_folder(name, tmp_path):
    """Fails if the config or the tokenizer written for a GGUF file differs
    from what was read from it.
    """
    model, words = t2mini.load(GOLDEN / f"{name}.gguf", device="cpu", dtype="float32")
    written(model, GOLDEN / f"{name}.gguf", tmp_path / "out")
    again, same = t2mini.load(tmp_path / "out", device="cpu", dtype="float32")
    ref = load_file(GOLDEN / f"{name}.reference.safetensors")
    torch.testing.assert_close(again(ref["ids"]), ref["logits"], rtol=1e-5, atol=1e-5)
    for text in ("the end, 123", " the", "a THE\n\nb"):
        assert same.prompt(text) == words.prompt(text)
    assert ((same.stop_ids, same.pattern, same.chat, same.bos)
            == (words.stop_ids, words.pattern, words.chat, words.bos))
    assert not (tmp_path / "out" / "adapter").exists()


def test_shards_and_their_index(tmp_path, monkeypatch):
    """Fails if a tensor falls between two shards, is in both, or the index names the wrong one."""
    monkeypatch.setattr(export_file, "SHARD", 40_000)
    model, _ = tuned(GOLDEN / "qwen3")
    written(model, GOLDEN / "qwen3", tmp_path / "out")
    files = sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert {k: f for f in files for k in load_file(tmp_path / "out" / f)} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(
        p.nbytes for p in t2mini.load(GOLDEN / "qwen3", "cpu", "float32")[0].parameters())
    again, _ = t2mini.load(tmp_path / "out", device="cpu", dtype="float32")
    ids = torch.arange(3, 30)[None]
    torch.testing.assert_close(again(ids), model(ids), rtol=0, atol=1e-5)


def test_adapter_folder(tmp_path):
    """Fails if z or the singular values are missing or misnamed,
    or the training facts are not in its README.
    """
    model, expert = tuned(GOLDEN / "gpt2", "q,up")
    written(model, GOLDEN / "gpt2", tmp_path / "out", expert, META)
    folder = tmp_path / "out" / "adapter"
    config, tensors = (json.loads((folder / "adapter_config.json").read_text()),
                       load_file(folder / "adapter_model.safetensors"))
    assert config["peft_type"] == "SVF" and config["target_modules"] == ["c_attn", "c_fc"]
    assert config["base_model_name_or_path"] == "tiny"
    assert config["base_sha256"] == model.base_sha256
    assert len(tensors) == 8
    for name, layer in svf.layers(model).items():
        assert torch.equal(tensors[f"base_model.model.{name}.svf_z"], expert[name])
        assert torch.equal(tensors[f"base_model.model.{name}.svf_sigma"], layer.S)
    text = (folder / "README.md").read_text()
    assert "| task | math |" in text
    assert '{"lr": 0.1}' in text and f"{sum(z.numel() for z in expert.values()):,} numbers" in text


def test_tokenizer_files_are_copied(tmp_path, tiny_folder):
    """Fails if the folder loads without its tokenizer, or the copy differs."""
    model, words = t2mini.load(tiny_folder, device="cpu", dtype="float32")
    written(model, tiny_folder, tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny_folder / name).read_bytes()
    assert t2mini.load(tmp_path / "out", "cpu", "float32")[1].prompt("Hi") == words.prompt("Hi")


def test_nothing_is_overwritten_and_nothing_half_done(tmp_path, monkeypatch):
    """Fails if a folder with files in it is written to, or a failure leaves a part behind."""
    model, expert = tuned(GOLDEN / "llama", "q")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in ("full", "file"):
        with pytest.raises(ValueError, match="not an empty folder"):
            written(model, GOLDEN / "llama", tmp_path / out, expert)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]

    def fail(*args, **options):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(export_file, "write_adapter", fail)
    with pytest.raises(OSError, match="No space"):
        written(model, GOLDEN / "llama", tmp_path / "out", expert)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]
    (tmp_path / "empty").mkdir()
    assert written(model, GOLDEN / "llama", tmp_path / "empty") == tmp_path / "empty"


def test_what_killed_exports_left_goes_with_the_next_one(tmp_path):
    """Fails if half-written models add up beside the output; or a folder is removed that another
    export is filling, that has another name, or into which a link leads.
    """
    model, _ = tuned(GOLDEN / "llama", "q")
    names = (".out.0123abcd.tmp", ".out.4567abcd.tmp", ".out.89ababcd.tmp", ".out.b.0123abcd.tmp",
             ".out.0123abcd.tmp2", ".out.mine.tmp", ".other.0123abcd.tmp")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / names[2] / "model.safetensors").unlink()
    (tmp_path / ".out.cdefabcd.tmp").symlink_to(tmp_path / ".out.mine.tmp")
    with files.only_one(tmp_path / names[1]):
        written(model, GOLDEN / "llama", tmp_path / "out")
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {*names[1:], ".out.cdefabcd.tmp", "out"}
    assert all(any((tmp_path / name).iterdir()) for name in {*names[1:]} - {names[2]})


def test_a_model_being_written_is_held(tmp_path, monkeypatch):
    """Fails if a second export to the same folder takes away what the first one is writing."""
    model, _ = tuned(GOLDEN / "llama", "q")
    real = export_file.write_weights

    def meanwhile(tensors, folder):
        real(tensors, folder)
        monkeypatch.setattr(export_file, "write_weights", real)
        export_file.sweep_folders(tmp_path / "out")
        assert any(folder.iterdir())

    monkeypatch.setattr(export_file, "write_weights", meanwhile)
    written(model, GOLDEN / "llama", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_comes_meanwhile_is_one_clear_line(tmp_path, monkeypatch):
    """Fails if a folder that somebody fills during an export is replaced, or is a bare system
    error; or the half of ours stays.
    """
    model, _ = tuned(GOLDEN / "llama", "q")
    real = export_file.write_weights

    def meanwhile(tensors, folder):
        real(tensors, folder)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")

    monkeypatch.setattr(export_file, "write_weights", meanwhile)
    with pytest.raises(ValueError, match="out is not an empty folder; choose another --out"):
        written(model, GOLDEN / "llama", tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_a_link_to_an_empty_folder_is_followed(tmp_path, monkeypatch):
    """Fails if everything is computed and then lost because --out is a link, or the folder that a
    reader stands in is replaced under them.
    """
    model, expert = tuned(GOLDEN / "llama")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    written(model, GOLDEN / "llama", files.claim(tmp_path / "link", "folder"), expert, META)
    assert (tmp_path / "empty" / "model.safetensors").exists() and (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="the folder that you are in"):
        files.claim(".", "folder")


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    """Fails if an expert whose z are far too large becomes a folder of Inf, with exit code 0."""
    model, expert = tuned(GOLDEN / "llama", "q")
    svf.set_z(model, {name: torch.full_like(z, 3e38) for name, z in expert.items()})
    with pytest.raises(ValueError, match="q_proj.weight would hold numbers that are not finite"):
        export_file.export(tmp_path / "out", GOLDEN / "llama",
                           svf.merged(model), model.cfg, model.dtype)
    assert not list(tmp_path.iterdir())


def test_facts_of_an_expert_stay_in_their_cell(tmp_path):
    """Fails if metadata with a newline, an escape sequence or half a character
    breaks the adapter's page, or ends the export.
    """
    model, expert = tuned(GOLDEN / "llama", "q")
    written(model, GOLDEN / "llama", tmp_path / "out", expert, META | {"note": "a\n\x1b[2J\ud800"})
    assert ("| note | a\\n\\x1b[2J\\ud800 |"
            in (tmp_path / "out" / "adapter" / "README.md").read_text())


def test_sentencepiece_vocabulary_of_a_gguf_file(tmp_path):
    """Fails if the merges written for a scored vocabulary, its space rule or its BOS differ
    from the scores' own order.
    """
    golden = json.loads((GOLDEN / "spm" / "golden.json").read_text(encoding="utf-8"))
    strings = json.loads(
        (GOLDEN / "tokenizer" / "golden.json").read_text(encoding="utf-8"))["strings"]
    words = {i: w for w, i in json.loads(
        (GOLDEN / "spm" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"].items()}
    meta = {f"tokenizer.ggml.{k}": v for k, v in {
        "model": "llama", "tokens": [words[i] for i in range(len(words))],
        "scores": golden["scores"], "token_type": golden["types"],
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}.items()}
    for name, content in tokenizer_files(meta).items():
        (tmp_path / name).write_text(json.dumps(content))
    t = tokenizer.from_folder(tmp_path, [2])
    assert [t.encode(s, start=True) for s in strings] == golden["sentencepiece"]
    assert t.bos == 1 and t.stop_ids == {2}
    bare = {k: v for k, v in meta.items() if "bos" not in k and "unknown" not in k}
    assert tokenizer_files(bare) == tokenizer_files(meta)   # as from_gguf takes what is not said
    for nobody in (2 ** 32 - 1, -1):                        # two ways to say that there is none
        nothing = meta | {"tokenizer.ggml.eos_token_id": nobody}
        assert tokenizer_files(nothing)["tokenizer_config.json"]["eos_token"] is None
        assert tokenizer.id_of(nothing, "eos") is None and tokenizer.id_of(meta, "eos") == 2
        assert tokenizer.from_gguf(nothing).stop_ids <= {*range(len(words))}
        assert tokenizer.from_gguf(meta | {"tokenizer.ggml.bos_token_id": nobody}).bos is None
    steps = [tokenizer_files(meta | {"tokenizer.ggml.add_space_prefix": said})["tokenizer.json"]
             ["decoder"]["decoders"][-1]["type"] for said in (True, False)]
    assert steps == ["Strip", "Fuse"]                       # a blank that was never put in front


@pytest.mark.parametrize("mask, file, folder",
                         [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_who_may_read_an_export_follows_from_the_umask(tmp_path, monkeypatch, mask, file, folder):
    """Fails if exported weights are readable by their owner only,
    or by all although the umask forbids it.
    """
    monkeypatch.setattr(export_file, "SHARD", 40_000)
    model, expert = tuned(GOLDEN / "qwen3", "q")
    before = os.umask(mask)
    try:
        written(model, GOLDEN / "qwen3.gguf", tmp_path / "out", expert, META)
    finally:
        os.umask(before)
    found = {path: path.stat().st_mode & 0o777
             for path in (tmp_path / "out", *(tmp_path / "out").rglob("*"))}
    assert {mode for path, mode in found.items() if path.is_file()} == {file} and len(found) > 8
    assert {mode for path, mode in found.items() if path.is_dir()} == {folder}


@pytest.mark.parametrize("name", ["tokenizer.model", "merges.txt", "config.json"])
def test_a_link_out_of_a_checkpoint_is_not_exported(tmp_path, tiny_folder, name):
    """Fails if a private file that a checkpoint links to is copied into what will be given away."""
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    model, _ = t2mini.load(source, device="cpu", dtype="float32")
    secret = tmp_path / "private" / "key"
    secret.parent.mkdir()
    secret.write_text((source / "config.json").read_text())
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(secret)
    with pytest.raises(ValueError,
                       match=f"{name} is a link out of the checkpoint, to .*private/key"):
        written(model, source, tmp_path / "out")
    (source / name).unlink()
    (source / name).symlink_to("/dev/zero")
    with soon(), pytest.raises(ValueError, match=f"{name}.* is a link out of the checkpoint"):
        written(model, source, tmp_path / "out")
    (source / name).unlink()
    os.mkfifo(source / name)
    with soon(), pytest.raises(ValueError, match=f"{name}: not a regular file"):
        written(model, source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["private", "source"]


def test_a_hub_cache_is_exported_through_its_links(tmp_path, tiny_folder):
    """Fails if the links of a hub cache, from snapshots/ to blobs/, are refused or copied as links.
    """
    cache = tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    shutil.copytree(tiny_folder, cache / "blobs")
    for path in (cache / "blobs").iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    model, _ = t2mini.load(snapshot, device="cpu", dtype="float32")
    out = written(model, snapshot, tmp_path / "out")
    assert (out / "tokenizer.json").read_bytes() == (tiny_folder / "tokenizer.json").read_bytes()
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_linear_rope_scaling_is_exported(tmp_path):
    """Fails if the scaled rope of a GGUF file is not in the config that is written for it."""
    from test_weights import FOUR, gguf_with
    source = tmp_path / "x.gguf"
    source.write_bytes(gguf_with(("llama.rope.scale_linear", 6, FOUR)))
    model, _ = t2mini.load(source, device="cpu", dtype="float32")
    written(model, source, tmp_path / "out")
    again, _ = t2mini.load(tmp_path / "out", device="cpu", dtype="float32")
    spec = json.loads((tmp_path / "out" / "config.json").read_text())
    assert again.cfg.rope_factors == (4.0,) * 4
    assert spec["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    ids = torch.arange(3, 30)[None]
    torch.testing.assert_close(again(ids), model(ids), rtol=0, atol=1e-5)
