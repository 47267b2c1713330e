"""Images: pixels of a file, a tower that reads them, image tokens in front of a question,
and what they may not change.
"""
import json
import math
import random
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from safetensors import safe_open

from t2mini import adapt, evaluate, experts, reinforce, svf, tasks
from t2mini.__main__ import main
from t2mini.generate import generate
from t2mini.lab import page
from t2mini.lab import sight as visual
from t2mini.likelihood import pack
from t2mini.machine import files
from t2mini.questions import drawn, easy_vqa, pictures, published
from t2mini.questions.example import split_of
from t2mini.questions.pictures import SIDE, Seen, read_png
from t2mini.questions.png import BEGINNING
from t2mini.recipe import TrainConfig, settled
from t2mini.sight import captions, towers
from t2mini.sight.eye import give_sight
from t2mini.sight.tower import Tower, TowerConfig, patches

TINY_TOWER = TowerConfig(patch=16, width=16, blocks=1, heads=2, queries=2, hidden_size=48)


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def seeing(loaded):
    """(model, tokenizer, tower) of the tiny folder, with a tiny tower."""
    model, tokenizer = loaded
    tower = Tower(TINY_TOWER)
    for p in tower.parameters():                        # large enough that what it says is heard
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.3)
    give_sight(model, tokenizer, tower.requires_grad_(False))
    return model, tokenizer, tower


def png(path, array):
    matplotlib.image.imsave(path, array)
    return path


# ------------------------------------------------------------------------ pixels
def test_a_png_of_any_size_becomes_64_by_64(tmp_path):
    """Fails if an image of the right size is changed, another one is not scaled,
    or what is transparent is not white.
    """
    exact = image()
    assert (read_png(png(tmp_path / "a.png", exact)) == exact).all()
    red = np.zeros((7, 200, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    assert (read_png(png(tmp_path / "b.png", red)) == [255, 0, 0]).all()
    half = np.zeros((128, 128, 3), np.uint8)
    half[:, 64:] = 255
    small = read_png(png(tmp_path / "c.png", half))
    assert small.shape == (SIDE, SIDE, 3) and small[:, :30].max() == 0
    assert small[:, 34:].min() == 255
    clear = np.zeros((64, 64, 4), np.uint8)
    assert (read_png(png(tmp_path / "d.png", clear)) == 255).all()
    grey = np.full((3, 3), 0.5, np.float32)
    assert (pictures.scaled(grey) == 128).all()


def test_what_is_no_png_is_one_line(tmp_path):
    """Fails if a damaged file, another format, a bomb, a folder or nothing at all is decoded
    or ends in a traceback.
    """
    whole = png(tmp_path / "a.png", image()).read_bytes()
    files = {"b.png": whole[:60], "c.png": b"\xff\xd8\xff\xe0 a JPEG", "d.png": b"",
             "e.png": whole[:8],
             "f.png": whole[:16] + (99_999).to_bytes(4, "big") * 2 + whole[24:],
             "g.png": whole[:40] + bytes(len(whole) - 40)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name in [*files, "missing.png", "."]:
        with pytest.raises(ValueError) as e:
            read_png(tmp_path / name)
        assert "\n" not in str(e.value) and str(tmp_path) in str(e.value)
    with pytest.raises(ValueError, match="99,999 x 99,999 pixels"):     # before it is decoded
        read_png(tmp_path / "f.png")
    with pytest.raises(ValueError, match="64 x 64"):
        pictures.pixels(np.zeros((2, 2, 3), np.uint8))


# ------------------------------------------------------------------------ the tower
def test_patches_of_a_four_by_four_image():
    """Fails if patches are not squares, read row by row,
    with the three colours of each pixel together.
    """
    x = torch.arange(4 * 4 * 3).view(1, 4, 4, 3).to(torch.uint8)
    found = ((patches(x, 2) + 1) * 127.5).round()
    assert found.shape == (1, 4, 12)
    assert found[0, 0].tolist() == [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17]
    assert found[0, 1, :3].tolist() == [6, 7, 8] and found[0, 2, :3].tolist() == [24, 25, 26]


def test_shuffled_patches_are_another_image():
    """Fails if the tower does not know which patch is which:
    all images of the same patches would be one.
    """
    tower = Tower(TINY_TOWER)
    torch.nn.init.normal_(tower.place, std=1.0)
    a = image()
    b = np.concatenate((a[16:], a[:16]))                # the rows of patches, turned by one
    tokens = tower(torch.from_numpy(np.stack((a, b))))
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3
    tower.place.data.zero_()
    tokens = tower(torch.from_numpy(np.stack((a, b))))
    assert (tokens[0] - tokens[1]).abs().max() < 1e-5


# ------------------------------------------------------------------------ image tokens
def test_an_image_changes_what_follows(seeing):
    """Fails if image tokens do not reach the model, two images are one,
    or an image's place in the batch matters.
    """
    model, tokenizer, _ = seeing
    asked = [tokenizer.prompt(Seen("which?", image(n))) for n in (0, 1, 0)]
    logits = (generate(model, asked, 1, tokenizer.stop_ids, temperature=0)
              .first_logits[:, :tokenizer.n_vocab])
    assert (logits[0] - logits[1]).abs().max() > 0.01
    assert torch.allclose(logits[0], logits[2], atol=1e-5)
    plain = generate(model, [tokenizer.prompt("which?")], 1, tokenizer.stop_ids,
                     temperature=0).first_logits
    assert (logits[0] - plain[0, :tokenizer.n_vocab]).abs().max() > 0.01


def test_image_tokens_stand_before_the_words(seeing):
    """Fails if a prompt with an image is not the prompt of its words,
    with Q ids beyond the vocabulary before the question.
    """
    model, tokenizer, _ = seeing
    ids, plain = tokenizer.prompt(Seen("which?", image())), tokenizer.prompt("which?")
    V = model.cfg.vocab_size
    at = [i for i, token in enumerate(ids) if token >= V]
    assert [ids[i] for i in at] == [V, V + 1] and at[1] == at[0] + 1
    assert [token for token in ids if token < V] == plain
    assert tokenizer.decode(plain[:at[0]]).endswith("user\n")
    other = tokenizer.prompt(Seen("which?", image(1)))
    assert [t for t in other if t >= V] == [V + 2, V + 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_words_alone_are_bit_for_bit_as_before(loaded, dtype):
    """Fails if a model that can see computes anything else than before for a text,
    or holds other numbers.
    """
    model, tokenizer = loaded
    model = model.to(dtype)
    prompts = [tokenizer.prompt(q) for q in ("one", "another question")]
    ids = torch.tensor(prompts[1])[None]
    before, names = model(ids), list(model.state_dict())
    texts = evaluate.answers(model, tokenizer, ["one", "another question"], 6)
    words = model.body.embed_tokens.weight
    give_sight(model, tokenizer, Tower(TINY_TOWER))
    assert torch.equal(model(ids), before)
    assert [tokenizer.prompt(q) for q in ("one", "another question")] == prompts
    assert evaluate.answers(model, tokenizer, ["one", "another question"], 6) == texts
    assert list(model.state_dict()) == names and model.body.embed_tokens.weight is words


def test_no_image_without_an_eye_and_none_typed(loaded):
    """Fails if a model without a tower answers about an image that it was not shown,
    or a text writes image tokens.
    """
    model, tokenizer = loaded
    with pytest.raises(ValueError, match="no eye"):
        tokenizer.prompt(Seen("which?", image()))
    give_sight(model, tokenizer, Tower(TINY_TOWER))
    tokenizer.prompt(Seen("which?", image()))
    for text in ("<image>", "<|image|>", chr(model.cfg.vocab_size)):
        assert max(tokenizer.prompt(text)) < model.cfg.vocab_size
    with pytest.raises(ValueError, match="48"):
        give_sight(model, tokenizer, Tower(replace(TINY_TOWER, hidden_size=8)))


def test_a_row_may_have_an_expert_and_an_image(seeing):
    """Fails if the rows of a batch get each other's image or expert."""
    model, tokenizer, _ = seeing
    svf.attach(model, progress=False)
    z = {name: 1 + torch.rand_like(t) for name, t in svf.get_z(model).items()}
    asked = [Seen("which?", image(n)) for n in (0, 1)]
    both = evaluate.answers(model, tokenizer, asked * 2, 5, experts=[{}, z], which=[0, 0, 1, 1])
    with svf.using(model, {}):
        base = [evaluate.answers(model, tokenizer, [q], 5)[0] for q in asked]
    with svf.using(model, z):
        tuned = [evaluate.answers(model, tokenizer, [q], 5)[0] for q in asked]
    assert both == base + tuned and len({*both}) > 2


def test_before_an_image_the_default_system_message_is_left_out(seeing):
    """Fails if a prompt with an image carries the default system message,
    or loses one that was given.
    """
    _, tokenizer, _ = seeing
    tokenizer.system = "You are helpful."
    assert "helpful" in tokenizer.decode(tokenizer.prompt("which?"))
    assert "helpful" not in tokenizer.decode(tokenizer.prompt(Seen("which?", image())))
    assert "Be brief" in tokenizer.decode(tokenizer.prompt(Seen("which?", image()), "Be brief."))


# ------------------------------------------------------------------------ the two stages
def test_stage_one_moves_the_tower_alone(seeing):
    """Fails if the gradient of a caption does not reach every part of the tower,
    or reaches the language model.
    """
    model, tokenizer, tower = seeing
    eye = give_sight(model, tokenizer, tower.requires_grad_(True), keeps=False)
    prompt = tokenizer.prompt(Seen("Describe the image.", image()))
    captions.loss_of(model, [(prompt, tokenizer.answer("A red circle."))]).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tower.parameters())
    assert all(p.grad is None for p in model.parameters()) and not eye.kept


def test_captions_are_the_first_target(seeing):
    """Fails if image tokens are drawn to something else than the embeddings of the caption's words,
    in their order.
    """
    model, tokenizer, _ = seeing
    words = captions.Words(model, tokenizer, 40)
    shown = [(None, "red", "circle"), (None, "teal", "rectangle")]
    places = words.places(shown)
    said = [tokenizer.decode([words.known[i] for i in row]) for row in places.tolist()]
    assert said[0] == "The image shows a red circle." + "\n" * 11
    assert said[1].startswith("The image shows a teal rect")
    right = words.E[places]
    near, other = (captions.distance(right, words, places),
                   captions.distance(right.flip(0), words, places))
    assert near < other and captions.distance(right, words, places.flip(1)) > near
    assert words.mean().shape == (40, model.cfg.hidden_size)


def test_stage_two_moves_z_alone(seeing):
    """Fails if a reward for an answer about an image does not reach z, or reaches the tower."""
    model, tokenizer, tower = seeing
    tower.requires_grad_(True)
    svf.attach(model, progress=False, depth="half")
    prompt = tokenizer.prompt(Seen("which?", image()))
    reinforce.policy_gradient(model, [(prompt, [[5, 6], [7]])], [[1.0, -1.0]])
    z = svf.trained(model)
    assert all(p.grad.abs().max() > 0 for p in z.values()) and all(".0." in name for name in z)
    assert all(p.grad is None for p in tower.parameters())


def test_what_is_learnt_with_is_what_was_sampled(seeing):
    """Fails if an answer about an image is scored under another image, or none,
    than it was sampled under.
    """
    model, tokenizer, _ = seeing
    prompts = [tokenizer.prompt(Seen(q, image(n))) for n, q in enumerate(("which?", "what is it?"))]
    out = generate(model, prompts, 4, [], temperature=1.0, samples=2)
    groups = [(p, [out.tokens(2 * i), out.tokens(2 * i + 1)]) for i, p in enumerate(prompts)]
    ids, positions, allowed, row, col, target = pack(groups, model.device)
    logp = model(ids, positions, allowed)[row, col].log_softmax(-1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(logp, out.logprobs.flatten(), atol=1e-4)


def test_training_on_images_runs_in_the_one_loop(seeing, tmp_path, monkeypatch):
    """Fails if `train` cannot take questions about images as it takes all others."""
    from t2mini.train import train
    model, tokenizer, tower = seeing
    monkeypatch.setattr(tasks, "rewards",
                        lambda examples, texts, counts=None: [float(len(t) % 2) for t in texts])
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    cfg = TrainConfig(task="vision-unseen", steps=2, prompts=3, samples=3, val_n=4, layers="half",
                      max_tokens=3, wrong=-0.1)
    done = train(model, tokenizer, cfg, tmp_path / "e.safetensors", log=lambda text: None)
    assert done["step"] == 2
    assert experts.read_metadata(tmp_path / "e.safetensors")["config"]["wrong"] == -0.1
    assert all(torch.equal(v, before[k]) for k, v in tower.state_dict().items())


def test_what_a_wrong_answer_costs():
    """Fails if `wrong` is not what a wrong answer earns, or, under a mean as baseline,
    does more than scale.
    """
    def advantage(**changes):
        cfg = settled(TrainConfig(samples=4, **changes))
        episodes = [reinforce.Episode(None, [], [1], "", True, [1], r)
                    for r in (1.0, 0.0, 0.0, 1.0)]
        reinforce.compare(cfg, episodes, reinforce.totals(cfg, episodes, False))
        return [e.advantage for e in episodes]

    assert advantage(baseline="none", wrong=-0.1) == pytest.approx([1, -0.1, -0.1, 1])
    for baseline in ("group", "batch"):
        assert (advantage(baseline=baseline, wrong=-0.1)
                == pytest.approx([1.1 * a for a in advantage(baseline=baseline)]))
    assert advantage() == [0.5, -0.5, -0.5, 0.5]
    with pytest.raises(ValueError, match="--wrong"):
        settled(TrainConfig(wrong=0.5))


# ------------------------------------------------------------------------ a tower in a file
def test_a_tower_goes_through_its_file(model, tmp_path):
    """Fails if a tower changes on its way through a file, or a damaged or foreign one is taken."""
    tower, path = Tower(TINY_TOWER).bfloat16().float(), tmp_path / "tower.safetensors"
    towers.save(path, tower, {"base_sha256": model.base_sha256})
    again = towers.find(model, path)
    x = torch.from_numpy(image())[None]
    assert torch.equal(again(x), tower(x)) and not any(p.requires_grad for p in again.parameters())
    for damage in (path.read_bytes()[:-9], b"",
                   path.read_bytes().replace(b"t2mini-tower-1", b"t2mini-tower-9")):
        (tmp_path / "b.safetensors").write_bytes(damage)
        with pytest.raises(ValueError, match="b.safetensors"):
            towers.read(tmp_path / "b.safetensors")
    model.base_sha256 = "1" * 64
    with pytest.raises(ValueError, match="another base"):
        towers.find(model, path)
    with pytest.raises(FileNotFoundError, match="no tower is shipped"):
        towers.find(model)


def test_show_says_that_a_tower_is_no_expert(tmp_path, capsys):
    """Fails if a tower of one's own is called a file without metadata."""
    path = tmp_path / "tower.safetensors"
    towers.save(path, Tower(TINY_TOWER), {"base_sha256": "0" * 64})
    assert main(["show", str(path)]) == 1
    said = capsys.readouterr().err
    assert "is a tower" in said and f"ask --tower={path}" in said


@pytest.mark.parametrize("name, value", [
    ("patch", 0), ("patch", -8), ("patch", 3), ("patch", 128), ("patch", "8"), ("patch", 8.0),
    ("patch", True), ("patch", None),
    ("width", 10 ** 9), ("width", float("nan")), ("blocks", 0), ("blocks", 10 ** 30), ("heads", 3),
    ("heads", 0), ("queries", 0),
    ("queries", 10 ** 6), ("hidden_size", [48]), ("hidden_size", "4\x1b[2J8")])
def test_odd_settings_of_a_tower_are_one_line(tmp_path, monkeypatch, name, value):
    """Fails if a tower with an odd number is built, or refused without the name of the number."""
    tower, path = Tower(TINY_TOWER), tmp_path / "tower.safetensors"
    towers.save(path, tower, {"base_sha256": "0" * 64, "tower": {**tower.settings(), name: value}})
    monkeypatch.setattr(towers, "Tower", lambda cfg: pytest.fail("it was built"))
    with pytest.raises(ValueError,
                       match=rf"tower.safetensors: not a tower, or damaged \({name} must ") as e:
        towers.read(path)
    assert str(e.value).isprintable() and len(str(e.value)) < 200 + len(str(path))


def test_settings_that_are_not_those_of_the_numbers(tmp_path):
    """Fails if the settings of a tower and its numbers may differ, are missing or more,
    or a huge tower takes memory that its file does not hold.
    """
    tower, path = Tower(TINY_TOWER), tmp_path / "tower.safetensors"
    cases = [({"width": 4096, "blocks": 64}, "place must be"), ({"queries": 3}, "queries must be"),
             ({"odd": 1}, "and no others"), (None, "and no others"),
             ({"blocks": 2}, "blocks.1.norm_1.weight must be"), ({}, None)]
    for changes, says in cases:
        told = [] if changes is None else {**tower.settings(), **changes}
        towers.save(path, tower, {"base_sha256": "0" * 64, "tower": told})
        if says is None:
            assert towers.read(path)[0].cfg == TINY_TOWER
            continue
        with pytest.raises(ValueError, match=says):
            towers.read(path)
    more = {**{k: v.bfloat16() for k, v in tower.state_dict().items()}, "more": torch.ones(1)}
    files.save_tensors(path, more, {"format": towers.FORMAT, "tower": tower.settings()})
    with pytest.raises(ValueError, match="'more' is no part of a tower"):
        towers.read(path)


def test_a_model_of_another_chat_format_gets_no_tower(loaded, tmp_path):
    """Fails if it is trained on words first and refused at the first message with an image."""
    model, tokenizer = loaded
    tokenizer.chat = "llama3"
    with pytest.raises(ValueError, match="ChatML format alone, and the format of .* is llama3"):
        captions.align(model, tokenizer, {}, captions.StageOne(), tmp_path / "a.safetensors")


def test_stage_one_goes_on_where_it_was_stopped(loaded, tmp_path, monkeypatch):
    """Fails if a stopped training of the tower, taken up again, ends with other bits than one
    that was not stopped, or its own files are refused as if somebody else had written them.
    """
    model, tokenizer = loaded
    monkeypatch.setattr(captions, "EVERY", 2)
    known = {str(png(tmp_path / f"{n}.png", drawn.draw(c, s, random.Random(n)))): (c, s)
             for n, (c, s) in enumerate([("red", "circle"), ("blue", "triangle"),
                                         ("teal", "rectangle")])}
    cfg = captions.StageOne(word_steps=2, chat_steps=2, word_images=2, chat_images=2)
    said = []
    captions.align(model, tokenizer, known, cfg, tmp_path / "a.safetensors",
                   said.append, TINY_TOWER)

    def stop(text):
        raise KeyboardInterrupt

    keep = towers.save_state
    monkeypatch.setattr(towers, "save_state", lambda *a: keep(*a) or stop(""))
    with pytest.raises(KeyboardInterrupt):
        captions.align(model, tokenizer, known, cfg, tmp_path / "b.safetensors",
                       said.append, TINY_TOWER)
    monkeypatch.setattr(towers, "save_state", keep)
    # what is to go on is no stranger's
    files.claim_run(tmp_path / "b.safetensors", tower=True)
    assert towers.begun_in(tmp_path / "b.ckpt") == str(model.dtype).removeprefix("torch.")
    assert "facts" in towers.read(tmp_path / "a.safetensors")[1]
    others = {image: (shape, color) for image, (color, shape) in known.items()}
    with pytest.raises(ValueError, match="--resume: .*b.ckpt does not do"):
        captions.align(model, tokenizer, others, cfg, tmp_path / "b.safetensors", said.append,
                       TINY_TOWER, resume=True)
    # who forgets --resume loses nothing
    with monkeypatch.context() as again, pytest.raises(KeyboardInterrupt):
        again.setattr(towers, "save_state", stop)
        again.setattr(captions, "distance", lambda *given: stop(""))
        captions.align(model, tokenizer, known, cfg, tmp_path / "b.safetensors", said.append,
                       TINY_TOWER)
    assert "--resume to go on with that one" in said.pop()
    assert not (tmp_path / "b.ckpt").exists()
    (tmp_path / "b.ckpt.old").rename(tmp_path / "b.ckpt")
    captions.align(model, tokenizer, known, cfg, tmp_path / "b.safetensors", said.append,
                   TINY_TOWER, resume=True)
    a, b = (towers.read(tmp_path / f"{n}.safetensors")[0].state_dict() for n in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a) and len(said) == 4

    # a training that runs away stops, and leaves what was saved
    distance, steps = captions.distance, []
    monkeypatch.setattr(captions, "distance", lambda *given: (
        steps.append(1) or distance(*given) * (math.nan if len(steps) == 3 else 1)))
    cfg = captions.StageOne(word_steps=4, chat_steps=2, word_images=2, chat_images=2)
    with pytest.raises(ValueError, match="the loss of step 3 is not a finite number"):
        captions.align(model, tokenizer, known, cfg, tmp_path / "c.safetensors", print, TINY_TOWER)
    assert (tmp_path / "c.ckpt").exists() and not (tmp_path / "c.safetensors").exists()
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    # nor is what may be trained anew
    files.claim_run(tmp_path / "b.safetensors", tower=True)


def test_the_shipped_tower_is_small_and_of_the_shipped_base():
    """Fails if the shipped tower is above 6 MB,
    or belongs to another base model than the experts beside it.
    """
    shipped = list(towers.SHIPPED.glob("*.safetensors"))
    for path in shipped:
        assert path.stat().st_size < 6e6
        with safe_open(path, "pt") as f:
            told = f.metadata()
        assert told["base_sha256"] == experts.read_metadata(
            experts.SHIPPED / path.stem / "math.safetensors")["base_sha256"]
        assert " see " in told["command"]
    assert shipped


def test_long_thin_images_do_not_fill_the_memory(monkeypatch):
    """Fails if a file of a few kilobytes becomes gigabytes, as one side is widened
    before the other is shrunk, or what is refused is decoded first.
    """
    sizes, interpolate = [], pictures.F.interpolate

    def watched(planes, size, **options):
        sizes.append(size[0] * size[1])
        return interpolate(planes, size, **options)

    monkeypatch.setattr(pictures.F, "interpolate", watched)
    for shape in ((4000, 1), (1, 4000), (100, 80)):
        assert (pictures.scaled(np.full(shape, 0.4, np.float32)) == 102).all()
    assert max(sizes) <= 64 * 80
    for wide, high in ((1, 20_000), (20_000, 1), (8_000, 8_000)):
        head = BEGINNING + wide.to_bytes(4, "big") + high.to_bytes(4, "big")
        with pytest.raises(ValueError, match="on a side are read"):
            pictures.decode(head, "thin.png")
    with pytest.raises(ValueError, match="does not begin with its size"):
        pictures.decode(BEGINNING[:8] + bytes(40), "none.png")


# ------------------------------------------------------------------------ questions
@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where easy-VQA is, small: 40 train images and 4 of test."""
    for split, count in (("train", 40), ("test", 4)):
        home = tmp_path / "easy_vqa" / "data" / split
        (home / "images").mkdir(parents=True)
        rows = []
        for n in range(count):
            png(home / "images" / f"{n}.png", image(n))
            rows += [["what color is the shape?", "red", n], ["is there not a circle?", "no", n],
                     ["is there a circle?", "yes", n]]
        (home / "questions.json").write_text(json.dumps(rows))
    yield tmp_path
    published.load.cache_clear()


def test_easy_vqa_is_read_as_published(folder):
    """Fails if questions lose their image, an image is in two splits,
    or what they tell of it is read wrongly.
    """
    splits = tasks.get("easy-vqa", folder).make()
    assert sorted(splits) == ["test", "train", "val"] and len(splits["test"]) == 12
    images = {split: {e.prompt.image for e in rows} for split, rows in splits.items()}
    assert not images["train"] & images["val"] and len(images["train"] | images["val"]) == 40
    assert {*easy_vqa.facts(splits["test"]).values()} == {("red", "circle")}
    e = splits["test"][1]
    assert (e.kind, e.options, e.match) == ("yes/no", ("Yes", "No"), "choice")
    assert (pictures.pixels(e.prompt.image) == image(0)).all()
    rows = [("is there a blue shape?", "no", {}),
            ("is no red shape present?", "no", {"color": "red"}),
            ("what is the teal shape?", "circle", {"color": "teal", "shape": "circle"})]
    for question, answer, _ in rows:
        found = easy_vqa.facts(
            [easy_vqa.make([question, answer, 1], folder / "train" / "questions.json")])
        assert list(found.values()) == [("teal", "circle")] * ("teal" in question)


def test_words_alone_earn_nothing_where_a_wording_is_balanced(folder):
    """Fails if a wording keeps more of one answer than of the other,
    a question about colour is left out, the order changes, or a test question is dropped.
    """
    file = folder / "easy_vqa" / "data" / "train" / "questions.json"
    rows = json.loads(file.read_text())
    for n, row in enumerate(rows):
        if row[1] == "yes" and n % 2:
            # "is there a circle?" has both answers now
            row[1] = "no"
    file.write_text(json.dumps(rows))
    whole, kept = (tasks.get(name, folder).make() for name in ("easy-vqa", "easy-vqa-balanced"))
    assert kept["test"] == whole["test"]
    for split in ("train", "val"):
        words = [(str(e.prompt), e.answer) for e in kept[split]]
        assert (words.count(("is there a circle?", "Yes"))
                == words.count(("is there a circle?", "No")))
        assert "is there not a circle?" not in dict(words)
        assert ([e for e in kept[split] if e.kind == "color"]
                == [e for e in whole[split] if e.kind == "color"])
        assert [e for e in whole[split] if e in kept[split]] == list(kept[split])
    assert ("is there a circle?", "Yes") in [(str(e.prompt), e.answer) for e in kept["train"]]


def test_answers_about_images_are_judged_by_their_kind(folder):
    """Fails if an answer in a sentence is not read, or one that names two colours,
    or no yes to a yes/no question, is right.
    """
    path = folder / "test" / "questions.json"
    color = easy_vqa.make(["what color is the triangle?", "red", 0], path)
    said = {"red": 1, "Red.": 1, "The image shows a red triangle.": 1, "It is blue.": 0,
            "red or blue": 0, "": 0}
    assert tasks.rewards([color] * len(said), list(said)) == [*said.values()]
    yes = easy_vqa.make(["is there a red shape?", "yes", 0], path)
    said = {"Yes": 1, "yes.": 1, "No": 0, "The image shows a red shape.": 0,
            "Yes, there is no other": 1, "Yes no": 0, "A circle.": 0}
    assert tasks.rewards([yes] * len(said), list(said)) == [*said.values()]


def test_wrong_data_of_easy_vqa_is_one_line(folder):
    """Fails if a missing folder, a missing image or an odd row ends in a traceback
    or goes unnoticed.
    """
    file = folder / "easy_vqa" / "data" / "test" / "questions.json"
    whole = json.loads(file.read_text())
    for row in (["is it?", "perhaps", 0], ["is it?", "yes"], {"a": 1}, ["is it?", "yes", "0"]):
        published.load.cache_clear()
        file.write_text(json.dumps([*whole, row]))
        with pytest.raises(ValueError, match="line 13"):
            published.load("easy-vqa", str(folder))
    file.write_text(json.dumps(whole))
    (file.parent / "images" / "3.png").unlink()             # of the last questions
    with pytest.raises(ValueError, match="no image at .*test/images/3.png"):
        published.load("easy-vqa", str(folder))
    file.unlink()
    with pytest.raises(ValueError, match="is missing; `python -m t2mini datasets`"):
        published.load("easy-vqa", str(folder))


def test_drawn_questions_have_one_right_answer():
    """Fails if a drawn image does not show its colour, two of the four things have it,
    or a split is empty.
    """
    task = tasks.get("vision-unseen")
    for split in tasks.SPLITS:
        for e in task.examples(split, 30):
            assert split_of(e) == split and e.answer in e.options and len({*e.options}) == 4
            color = next(c for c, things in drawn.THINGS.items() if e.answer in things)
            assert sum(option in drawn.THINGS[color] for option in e.options) == 1
            shown = (e.prompt.image == drawn.RGB[color]).all(-1).mean()
            assert 0.01 < shown < 0.25 and e.prompt.image.reshape(-1, 3).min(1).max() >= 0
            assert tasks.rewards([e], [f"It is {e.answer}."]) == [1.0]
    e = task.examples("test", 1)[0]
    assert e.prompt == task.examples("test", 1)[0].prompt
    assert (e.prompt.image == task.examples("test", 1)[0].prompt.image).all()


def test_each_row_of_figure_5_measures_what_its_name_says(folder, monkeypatch):
    """Fails if a row that says "blank image" shows one, an expert's row is of the base model or of
    another expert, "choosing" writes, or a guesser's score is not that of its words.
    """
    monkeypatch.setenv("T2MINI_DATA", str(folder))
    file = folder / "easy_vqa" / "data" / "test" / "questions.json"
    rows = json.loads(file.read_text())
    # "is there a circle?" has both answers; the shape of every image can be told
    rows = [[q, "no" if q == "is there a circle?" and n % 2 else a, n] for q, a, n in rows]
    file.write_text(json.dumps([*rows, *(["what shape is it?", "circle", n] for n in range(4))]))
    made = {"math": 2.0, "code": 3.0, "reasoning": 4.0, "vision": 9.0}      # z of a single number
    z_of = {name: {"w": torch.tensor([z])} for name, z in made.items()}
    meta = {"parameters": 1, "config": {"lr": 2e-3}, "val_accuracy": 0.5, "best_step": 1,
            "steps": 2}
    monkeypatch.setattr(visual.experts, "find", lambda name, model: name)
    monkeypatch.setattr(visual.experts, "load_expert", lambda name, model: (z_of[name], meta))
    monkeypatch.setattr(visual.experts, "load", lambda names, model: {n: z_of[n] for n in names})
    runs_on, asked = [1.0], []

    @contextmanager
    def running(z, meta=None):
        runs_on.append(round(z["w"].item(), 4) if z else 1.0)
        yield
        runs_on.pop()

    def said(way, prompts):
        shown = {"words" if not hasattr(p, "image") else "blank"
                 if (pictures.pixels(p.image) == pictures.blank()).all() else "shown"
                 for p in prompts}
        asked.append((way, runs_on[-1], *shown, len(prompts)))
        return ["Yes"] * len(prompts)

    monkeypatch.setattr(visual.evaluate, "answers", lambda model, tokenizer, prompts, *a, **k: (
        said("writes", prompts)))
    monkeypatch.setattr(visual.evaluate, "choices", lambda model, tokenizer, task, rows, **k: (
        said("chooses", [e.prompt for e in rows])))

    def expert(task, seed, **settings):
        return {"w": torch.tensor([7.0 if settings.get("method") == "lora" else 6.0])}, meta

    def search(task, seed, mixed):
        assert task == "vision-unseen" and all(m["path"] for _, m in mixed)
        alpha = [1.0] * len(mixed)
        return svf.mix([z for z, _ in mixed], alpha), meta, {"alpha": alpha, "shots_right": 0.5}

    lab = SimpleNamespace(
        model=None, tokenizer=None, quick=False, expert=expert, search=search, running=running,
        n=lambda n: n,
        examples=lambda task, n: tasks.get(task).examples("test", min(n, 16), seed=0))
    found, way = {}, {}
    for key, run in visual.cells(lab):
        asked.clear()
        found[key["task"], key["arm"]] = run()
        way[key["task"], key["arm"]] = asked[0] if asked else None
    uniform = 1 + (1 + 2 + 3 + 8) / 4
    # how, on which z, what becomes of the image, how many questions (blank: a wording once)
    assert way.pop(("captions", "base")) == ("writes", 1.0, "shown", 4)
    assert way == {
        ("easy-vqa", "base"): ("writes", 1.0, "shown", 16),
        ("easy-vqa", "svf"): ("writes", 9.0, "shown", 16),
        ("easy-vqa", "base, blank image"): ("writes", 1.0, "blank", 4),
        ("easy-vqa", "svf, blank image"): ("writes", 9.0, "blank", 4),
        ("easy-vqa", "svf, wrong costs 0"): ("writes", 6.0, "shown", 16),
        ("easy-vqa", "lora"): ("writes", 7.0, "shown", 16),
        ("easy-vqa", "base, choosing"): ("chooses", 1.0, "shown", 16),
        ("easy-vqa", "svf, choosing"): ("chooses", 9.0, "shown", 16),
        ("easy-vqa", "always yes"): None,
        ("easy-vqa-yes-no", "base"): ("chooses", 1.0, "shown", 4),
        ("easy-vqa-yes-no", "svf"): ("chooses", 9.0, "shown", 4),
        ("easy-vqa-yes-no", "base, told in words"): ("chooses", 1.0, "words", 4),
        ("vision-unseen", "base"): ("writes", 1.0, "shown", 16),
        ("vision-unseen", "base, blank image"): ("writes", 1.0, "blank", 16),
        ("vision-unseen", "vision expert"): ("writes", 9.0, "shown", 16),
        ("vision-unseen", "vision expert, blank image"): ("writes", 9.0, "blank", 16),
        ("vision-unseen", "uniform alpha"): ("writes", uniform, "shown", 16),
        ("vision-unseen", "cem"): ("writes", 15.0, "shown", 16),
        ("vision-unseen", "cem, text experts alone"): ("writes", 7.0, "shown", 16)}
    assert found["easy-vqa", "always yes"]["kinds"] == {
        "yes/no": [2, 8], "shape": [0, 4], "color": [0, 4]}
    assert found["easy-vqa", "base"]["rewards"] == found["easy-vqa", "always yes"]["rewards"]
    assert found["easy-vqa-yes-no", "base"]["score"] == 0.5
    assert visual.named("A Red circle, on grey.") == {"red", "circle"}


# ------------------------------------------------------------------------ the command line
@pytest.fixture
def tower_file(loaded, tmp_path):
    """A tower in a file, for the tiny folder."""
    towers.save(tmp_path / "tower.safetensors", Tower(TINY_TOWER),
                {"base_sha256": loaded[0].base_sha256})
    return tmp_path / "tower.safetensors"


@pytest.fixture
def asked(tiny_folder, tower_file, capsys):
    """asked(options...) -> (exit status, what was printed, the complaint)."""
    def run(*options):
        status = main(["ask", f"--weights={tiny_folder}", "--dtype=float32",
                       f"--tower={tower_file}", "--max-tokens=4", "--threads=1",
                       *options, "which?"])
        said = capsys.readouterr()
        return status, said.out, said.err
    return run


def test_a_question_about_an_image_needs_no_first_pass(asked, tmp_path, monkeypatch):
    """Fails if the dispatcher is asked where an image is given without --strategy,
    is not asked with it, no answer comes, or --json tells of a first pass that was not made.
    """
    shown = png(tmp_path / "a.png", image())
    called = []
    monkeypatch.setattr(adapt, "route", lambda model, tokenizer, questions, *a, **k: (
        called.append(questions) or [adapt.Route("other", "other", {"other": 1.0})]))
    status, out, err = asked(f"--image={shown}", "--expert=none", "--json")
    assert status == 0 and not called, err
    told = json.loads(out.splitlines()[-1])
    assert told["expert"] == "none" and told["strategy"] is None
    assert told["how"] == "the base model, without a first pass"
    status, out, err = asked(f"--image={shown}", "--strategy=prompt", "--json")
    assert status == 0 and len(called) == 1, err
    told = json.loads(out.splitlines()[-1])
    assert told["strategy"] == "prompt"
    assert told["how"] == "the expert that the first pass chose (prompt)"
    # no vision expert belongs to this base
    status, out, err = asked(f"--image={shown}")
    assert status == 1 and "vision" in err and err.count("\n") <= 2
    other = asked(f"--image={png(tmp_path / 'b.png', 255 - image())}", "--expert=none", "--json")
    assert other[0] == 0


def test_images_without_colour_and_shape_train_no_tower(folder, capsys, monkeypatch):
    """Fails if `see` begins, or ends in a traceback,
    where the train questions tell of no image what it shows.
    """
    monkeypatch.setenv("T2MINI_DATA", str(folder))
    file = folder / "easy_vqa" / "data" / "train" / "questions.json"
    for rows in ([], [["what color is it?", "red", n] for n in range(40)]):
        published.load.cache_clear()
        file.write_text(json.dumps(rows))
        assert main(["see", f"--data={folder}", "--weights=/nowhere"]) == 1
        err = capsys.readouterr().err
        assert "tell of no image which colour and shape it shows" in err and err.count("\n") == 1


def test_samples_name_their_images(folder, tiny_folder, tower_file, tmp_path_factory,
                                   capsys, monkeypatch):
    """Fails if a written sample does not tell which image its question is about."""
    samples = tmp_path_factory.mktemp("out") / "s.jsonl"
    monkeypatch.setenv("T2MINI_DATA", str(folder))
    status = main(["eval", "--task=easy-vqa", f"--data={folder}", f"--weights={tiny_folder}",
                   f"--tower={tower_file}", "--n=3", f"--samples-file={samples}", "--dtype=float32",
                   "--threads=1"])
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert status == 0 and len(rows) == 3, capsys.readouterr().err
    known = {(str(e.prompt), e.prompt.image) for e in tasks.get("easy-vqa", folder).make()["test"]}
    assert {(row["prompt"], row["image"]) for row in rows} <= known


def test_the_page_takes_a_tower(tiny_folder, tower_file, monkeypatch, capsys):
    """Fails if `page --tower` is refused, or the page that it serves has no field for an image."""
    served = []
    monkeypatch.setattr(page, "run", served.append)
    options = ["page", f"--weights={tiny_folder}", "--port=0", "--dtype=float32", "--threads=1"]
    for more, sees in (([], False), ([f"--tower={tower_file}"], True)):
        assert main([*options, *more]) == 0, capsys.readouterr().err
        served[-1].server_close()
        assert served[-1].lab.facts()["sees"] == sees


def test_a_wrong_image_is_one_line(asked, tmp_path):
    """Fails if a file that is no PNG ends in a traceback, or loads the model first;
    or of two ways to answer one is dropped.
    """
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    whole = png(tmp_path / "a.png", image())
    for options in ([f"--image={tmp_path}/a.jpg"], [f"--image={tmp_path}/nothing.png"],
                    [f"--image={whole}", "--expert=none", "--strategy=none"]):
        status, out, err = asked(*options)
        assert status == 1 and err.startswith("t2mini: ") and err.count("\n") == 1 and not out
