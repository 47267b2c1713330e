"""The page: its HTTP interface on a tiny model,
and (marked `page`) the page itself in a real browser.
"""
import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from browser import PATH as BROWSER
from browser import Browser
from test_cli import call     # noqa: F401
from conftest import forked, soon, wait_for

from t2mini import __main__ as cli
from t2mini import adapt, evaluate, experts, svf
from t2mini.formats import download
from t2mini.lab import page, page_model
from t2mini.questions import pictures
from t2mini.sight.eye import give_sight
from t2mini.sight.tower import Tower, TowerConfig

ROOT = Path(__file__).resolve().parents[1]
UP = "model.layers.1.mlp.up_proj"
HTML = "<script>alert(1)</script>"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A private out/ and SVD cache."""
    monkeypatch.setattr(experts, "OUT", tmp_path / "out")
    monkeypatch.setattr(experts, "SVD_CACHE", tmp_path / "svd")
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def give_tiny_sight(model, tokenizer):
    """A tower whose tokens are loud enough to be heard."""
    tower = Tower(TowerConfig(patch=16, width=16, blocks=1, heads=2, queries=2, hidden_size=48))
    for p in tower.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.3)
    give_sight(model, tokenizer, tower.requires_grad_(False))


def write_expert(folder, model, name, seed, **changes):
    """An expert that turns every dial a good deal. -> its z."""
    if not svf.layers(model):
        svf.attach(model, progress=False)
    g = torch.Generator().manual_seed(seed)
    z = {}
    for matrix, layer in svf.layers(model).items():
        z[matrix] = 1 + 0.3 * torch.randn(len(layer.S), generator=g)
    meta = {"base_sha256": model.base_sha256, "task": name, **changes}
    experts.save_expert(folder / f"{name}.safetensors", z, meta)
    return z


@pytest.fixture
def lab(loaded, home):
    """A Lab of the tiny model with three experts, a dispatcher, a mixture,
    and files that are none of these.
    """
    model, tokenizer = loaded
    for seed, name in enumerate(("math", "code", "dispatcher", "mixture")):
        write_expert(home, model, name, seed)
    write_expert(home, model, "foreign", 7, base_sha256="1" * 64)
    write_expert(home, model, "router", 8, task="dispatch")
    (home / "broken.safetensors").write_bytes(b"nothing")
    return page_model.Lab(model, tokenizer, experts.Shelf(model))


@pytest.fixture
def server(lab):
    """The server in a thread, on a free port."""
    server = page.Server(lab, 0)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True),
               threading.Thread(target=server.work, name="model", daemon=True)]
    for thread in threads:
        thread.start()
    yield server
    server.stop()
    for thread in threads:
        thread.join()


def send(server, path, body=None, method=None, **headers):
    """One request. -> (connection, response); body: bytes as they are, anything else as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=600)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    headers = {"Content-Type": "application/json",
               **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
    return connection, connection.getresponse()


def ask(server, path, body=None, **more):
    """-> (status, what the JSON says)."""
    _, reply = send(server, path, body, **more)
    return reply.status, json.loads(reply.read())


def next_event(reply):
    """-> (name, data) of a stream, or None at its end."""
    lines = []
    while (line := reply.readline().decode()) and line != "\n":
        lines.append(line)
    if not lines:
        return None
    name, data = lines
    assert name.startswith("event: ") and data.startswith("data: ")
    return name[7:].strip(), json.loads(data[6:])


def events(server, path, body):
    """All events of a stream."""
    _, reply = send(server, path, body)
    assert reply.status == 200 and reply.headers["Content-Type"] == "text/event-stream"
    return list(iter(lambda: next_event(reply), None))


def answer_with(lab, z, question, max_tokens):
    """What the two rows must say."""
    return evaluate.answers(lab.model, lab.tokenizer, [question, question], max_tokens,
                            experts=[{}, z], which=[0, 1])


# ------------------------------------------------------------------------------------------ answers
def test_facts_name_the_experts_that_belong_to_this_base(server):
    """Fails if an expert of another base, a broken file or a dispatcher becomes a slider,
    or one of yours does not.
    """
    status, facts = ask(server, "/facts")
    assert status == 200 and facts["experts"] == ["math", "code", "mixture"] and facts["dispatcher"]
    assert (sorted(facts["examples"]) == sorted(facts["labels"])
            == ["code", "math", "other", "reasoning"])


def test_answers_are_streamed_side_by_side(server, lab):
    """Fails if the pieces do not add up to the answers, a row speaks for the other,
    or an event is missing.
    """
    alpha = {"math": 1.5, "code": -0.5}
    found = events(server, "/ask",
                   {"question": "Hi there", "alpha": alpha, "first": "show", "max_tokens": 12})
    names = [name for name, _ in found]
    assert names[0] == "route" and names[-1] == "done" and names.count("token") > 10
    route, done = found[0][1], found[-1][1]
    assert abs(sum(route["probabilities"].values()) - 1) < 1e-5
    assert route["label"] in route["probabilities"]
    z = svf.mix([lab.experts["math"], lab.experts["code"]], [1.5, -0.5])
    base, adapted = answer_with(lab, z, "Hi there", 12)
    assert done["texts"] == {"base": base, "adapted": adapted} and base != adapted
    for row in ("base", "adapted"):
        pieces = [data for name, data in found if name == "token" and data["row"] == row]
        assert done["texts"][row].startswith("".join(p["text"] for p in pieces)) and pieces
        assert [p["tokens"] for p in pieces] == sorted(p["tokens"] for p in pieces)


def test_the_model_runs_in_one_thread(server, lab, monkeypatch):
    """Fails if a request runs the model in the thread of its connection,
    where every product waits for helpers that no core is left for: three times as long.
    """
    seen = []
    for path, method in (("/ask", lab.ask), ("/lens", lab.lens)):
        def watched(body, method=method):
            run = method(body)
            return lambda say: seen.append(threading.current_thread().name) or run(say)

        monkeypatch.setattr(lab, path[1:], watched)
        events(server, path, {"question": "Hi", "text": "", "alpha": {"math": 1}, "max_tokens": 2})
    assert seen == ["model", "model"]


def test_the_first_pass_decides(server, lab, monkeypatch):
    """Fails if the label's expert does not answer, the sliders are not told,
    or "other" is not the base model.
    """
    monkeypatch.setitem(lab.experts, "other", lab.experts["code"])       # one of yours
    for label, alpha in (("code", {"code": 1.0}), ("other", {}), ("reasoning", {})):
        found = page_model.adapt.Route(label, label, {label: 1.0})
        monkeypatch.setattr(page_model.adapt, "read_routes", lambda *_, found=found: [found])
        told = dict(events(server, "/ask", {"question": "Hi", "first": "decide", "max_tokens": 6}))
        z = lab.experts["code"] if alpha else {}
        base, adapted = answer_with(lab, z, "Hi", 6)
        assert told["alpha"] == alpha
        assert told["done"]["texts"] == {"base": base, "adapted": adapted}


def test_the_first_pass_is_the_dispatchers(lab):
    """Fails if the weights that are kept for the first pass are not the dispatcher's,
    or stay afterwards.
    """
    [want] = adapt.route(lab.model, lab.tokenizer, ["Hi there"], lab.dispatcher)
    [base] = adapt.route(lab.model, lab.tokenizer, ["Hi there"], None)
    z = svf.mix([lab.experts["code"]], [1.0])
    with svf.using(lab.model, z):                       # folding another z does not write into them
        pass
    for _ in range(2):
        found = lab.first_pass("Hi there", lambda *_: None)
        assert found.said == want.said
        assert found.probabilities == pytest.approx(want.probabilities, abs=1e-5)
        assert abs(found.probabilities["math"] - base.probabilities["math"]) > 1e-4
        assert all(layer.folded is layer.W for layer in svf.layers(lab.model).values())


def test_a_first_pass_that_fails_leaves_the_base_model(lab, monkeypatch):
    """Fails if the dispatcher's weights answer the next question after an error in the first pass.
    """
    monkeypatch.setattr(page_model, "generate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lab.first_pass("Hi", lambda *_: None)
    assert all(layer.folded is layer.W for layer in svf.layers(lab.model).values())


def test_the_adapted_answer_alone(server, lab):
    """Fails if a moved slider asks the base model again,
    or the row that stays alone runs on other z.
    """
    body = {"question": "Hi", "first": "skip", "rows": "adapted", "alpha": {"code": 1},
            "max_tokens": 6}
    found = events(server, "/ask", body)
    assert {name for name, _ in found} == {"token", "done"}
    assert found[-1][1]["texts"] == {"adapted": answer_with(lab, lab.experts["code"], "Hi", 6)[1]}


def test_mixing_equals_svf_mix(server, lab):
    """Fails if the sliders mix by another rule than svf.mix,
    or a dial set by hand moves any other number.
    """
    alpha = {"code": 0.4, "math": -0.25, "mixture": 1.5}
    want = svf.mix([lab.experts[n] for n in alpha], list(alpha.values()))
    _, found = ask(server, "/matrix", {"matrix": UP, "alpha": alpha})
    assert found["z"] == want[UP].tolist() and found["S"] == svf.layers(lab.model)[UP].S.tolist()
    _, turned = ask(server, "/matrix", {"matrix": UP, "alpha": alpha, "dials": [[UP, 3, -2.5]]})
    assert turned["z"][3] == -2.5
    assert turned["z"][:3] + turned["z"][4:] == found["z"][:3] + found["z"][4:]
    _, again = ask(server, "/matrix", {"matrix": UP, "alpha": {"math": 1}})
    assert again["z"] == lab.experts["math"][UP].tolist()


def test_a_dial_by_hand_without_any_slider_leaves_no_trace(server):
    """Fails if a dial set for one request is still turned in the next one."""
    assert ask(server, "/matrix", {"matrix": UP, "dials": [[UP, 0, 3]]})[1]["z"][0] == 3
    assert set(ask(server, "/matrix", {"matrix": UP})[1]["z"]) == {1.0}


def test_the_map_of_dials(server, lab):
    """Fails if the map shows another number than mean |z - 1|, or misses a matrix."""
    _, found = ask(server, "/heat", {"alpha": {"math": 1}})
    z = lab.experts["math"]
    assert ({m["name"]: m["moved"] for m in found["matrices"]}
            == {n: (v - 1).abs().mean().item() for n, v in z.items()})
    assert {m["layer"] for m in found["matrices"]} == {0, 1}
    assert "mlp.up_proj" in {m["module"] for m in found["matrices"]}
    assert {m["moved"] for m in ask(server, "/heat", {})[1]["matrices"]} == {0.0}


def test_the_lens(server, lab):
    """Fails if the likeliest word is not the one that the answer goes on with,
    for the base or the adapted model.
    """
    body = {"question": "Hi", "first": "skip", "alpha": {"math": 1}, "max_tokens": 1}
    texts = events(server, "/ask", body)[-1][1]["texts"]
    [(name, words)] = events(server, "/lens", {"question": "Hi", "text": "", "alpha": {"math": 1}})
    assert name == "words" and texts == {row: words[row][0]["text"] for row in texts}
    for row in ("base", "adapted"):
        p = [word[row] for word in words[row]]
        assert len(p) == 10 and p == sorted(p, reverse=True) and 0 < sum(p) <= 1
    [(_, further)] = events(server, "/lens",
                            {"question": "Hi", "text": "abc", "alpha": {"math": 1}})
    assert further != words


def png_of(array):
    """Pixels as the page sends them."""
    file = io.BytesIO()
    matplotlib.image.imsave(file, array, format="png")
    return base64.b64encode(file.getvalue()).decode()


def test_a_question_about_an_image(loaded, home):
    """Fails if the image does not reach the answer, the dispatcher is asked about it,
    images pile up, or a damaged or large one is no clear refusal.
    """
    model, tokenizer = loaded
    write_expert(home, model, "dispatcher", 2)
    z = write_expert(home, model, "vision", 3)
    give_tiny_sight(model, tokenizer)
    lab = page_model.Lab(model, tokenizer, experts.Shelf(model))
    assert lab.facts()["sees"]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    body = {"question": "What is it?", "max_tokens": 5, "image": png_of(pixels)}
    for image in (png_of(255 - pixels), body["image"]):
        said = []
        lab.ask({**body, "image": image})(lambda event, data: said.append((event, data)))
    names = [event for event, _ in said]
    assert "route" not in names and dict(said)["alpha"] == {"vision": 1.0}
    asked = [pictures.Seen("What is it?", pixels)] * 2
    want = evaluate.answers(model, tokenizer, asked, 5, experts=[{}, z], which=[0, 1])
    assert dict(said)["done"]["texts"] == dict(zip(("base", "adapted"), want))
    assert len(tokenizer.eye.images) == 1
    words = []
    for image in (body["image"], png_of(255 - pixels)):
        lab.lens({**body, "image": image, "text": ""})(lambda event, data: words.append(data))
    assert words[0] != words[1]
    large = png_of(np.zeros((600, 600, 3), np.uint8))
    for bad, message in ((large, "360,000|at most 262,144"), ("no base64!", "base64"),
                         (base64.b64encode(b"GIF89a").decode(), "not a PNG"),
                         (body["image"][:200], "damaged"), ("A" * 50_000, "at most"),
                         (7, "must be a text")):
        with pytest.raises(ValueError, match=message):
            lab.ask({**body, "image": bad})


def test_without_a_vision_expert_an_image_is_refused(server, lab):
    """Fails if an image is dropped in silence where nothing can see it, or its field is shown."""
    assert not lab.facts()["sees"]
    status, told = ask(server, "/ask", {"question": "What is it?", "image": "iVBORw0KGgo="})
    assert status == 400 and "no tower here for an image" in told["error"]


def test_a_model_without_experts_has_dials(loaded, home):
    """Fails if a base model for which nothing is shipped cannot be looked at."""
    model, tokenizer = loaded
    lab = page_model.Lab(model, tokenizer, experts.Shelf(model))
    assert lab.facts()["experts"] == [] and not lab.facts()["dispatcher"]
    told = []
    lab.ask({"question": "Hi", "max_tokens": 3, "dials": [[UP, 0, -3]]})(
        lambda *event: told.append(event))
    assert [name for name, _ in told][:2] == ["route", "alpha"] and told[-1][0] == "done"


def test_an_expert_of_another_method_is_left_out_with_a_line(loaded, home, capsys):
    """Fails if a LoRA that hides a shipped expert takes its slider away without a word."""
    write_expert(home, loaded[0], "math", 0, method="lora", config={"rank": 1, "lora_alpha": 1})
    lab = page_model.Lab(*loaded, experts.Shelf(loaded[0]))
    assert lab.facts()["experts"] == []
    assert "left out math: it is of method lora" in capsys.readouterr().err


def test_a_file_that_may_not_be_read_does_not_keep_the_others_away(loaded, home, capsys,
                                                                  monkeypatch):
    """Fails if another user's file in out/ ends the page, or the chat's list of experts."""
    write_expert(home, loaded[0], "math", 0)
    write_expert(home, loaded[0], "theirs", 0)
    real = experts.read_metadata

    def read(path):
        if "theirs" in str(path):
            raise FileNotFoundError(f"no expert file at {path} that may be read")
        return real(path)

    monkeypatch.setattr(experts, "read_metadata", read)
    assert page_model.names_of(loaded[0], experts.Shelf(loaded[0])) == ["math"]
    assert "left out: no expert file at" in capsys.readouterr().err


def test_a_word_in_the_lens_keeps_its_blank(lab, monkeypatch):
    """Fails if a word that goes on a text is shown as a text's first one, whose blank some
    tokenizers leave away: "The" and "cat" would make "Thecat".
    """
    cats = {1: "cat", 2: "cat cat"}
    monkeypatch.setattr(type(lab.tokenizer), "decode", lambda self, ids: cats[len(ids)])
    p = torch.ones(2, 9) / 9
    assert lab.word(5, p, True)["text"] == "cat"
    assert lab.word(5, p, False)["text"] == " cat"


# ---------------------------------------------------------------------------------- what is refused
BAD = [
    ("/nothing", {}, 404), ("/../page.py", {}, 404), ("/ask", None, 405), ("/", {}, 405),
    ("/ask", b"{", 400), ("/ask", b"\xff\xfe", 400), ("/ask", b"[" * 60_000, 400),
    ("/ask", [], 400),
    ("/ask", b'{"question": "Hi", "max_tokens": NaN}', 400),
    ("/ask", {}, 400), ("/ask", {"question": " "}, 400), ("/ask", {"question": 7}, 400),
    ("/ask", {"question": "x" * 4001}, 400),
    ("/ask", {"question": "Hi", "max_tokens": 10 ** 400}, 400),
    ("/ask", {"question": "Hi", "max_tokens": True}, 400),
    ("/ask", {"question": "Hi", "first": "never"}, 400),
    ("/ask", {"question": "Hi", "max_tokens": 1.5}, 400), ("/heat", {"dials": [[UP, 2.7, 1]]}, 400),
    ("/ask", {"question": "Hi", "rows": ["both"]}, 400),
    ("/ask", {"question": "Hi", "alpha": {"nobody": 1}}, 400),
    ("/ask", {"question": "Hi", "alpha": {"math": 1.51}}, 400),
    ("/ask", {"question": "Hi", "alpha": [1]}, 400),
    ("/heat", {"dials": [[UP, 48, 1]]}, 400), ("/heat", {"dials": [[UP, 0, 99]]}, 400),
    ("/heat", {"dials": [1]}, 400),
    ("/heat", {"dials": [["lm_head", 0, 1]]}, 400), ("/heat", {"dials": [[[UP], 0, 1]]}, 400),
    ("/heat", {"dials": [[UP, 0, 1]] * 65}, 400), ("/matrix", {}, 400),
    ("/matrix", {"matrix": [UP]}, 400),
    ("/lens", {"question": "Hi", "text": None}, 400),
]


def test_bad_requests_get_a_clear_4xx_and_the_server_lives_on(server, capfd):
    """Fails if a malformed request is served, ends in silence, in a traceback or in a dead server.
    """
    for path, body, status in BAD:
        got, said = ask(server, path, body)
        assert got == status and said.keys() == {"error"} and 10 < len(said["error"]) < 150, (
            path, body, got, said)
    assert ask(server, "/facts")[0] == 200 and "Traceback" not in capfd.readouterr().err


def test_only_this_machines_own_page_is_answered(server):
    """Fails if another host name, another site's script or a form post reaches the model."""
    port = server.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}",
                 f"localhost.evil:{port}"):
        assert ask(server, "/facts", Host=host)[0] == 403
    assert ask(server, "/heat", {}, Origin="http://evil.example")[0] == 403
    assert ask(server, "/heat", {}, Origin="null")[0] == 403
    assert ask(server, "/heat", {}, Content_Type="text/plain")[0] == 415
    assert ask(server, "/heat", {}, Origin=f"http://localhost:{port}",
               Host=f"localhost:{port}")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


def test_a_huge_body_is_refused(server):
    """Fails if a body beyond the limit is read into memory, or is not refused by name."""
    assert ask(server, "/ask", b" " * (page.LARGEST + 1))[0] == 413
    for length, status in (("9" * 5000, 413), ("-1", 400), ("²", 400), ("1e3", 400)):
        assert raw(server, f"Content-Length: {length}\r\n").startswith(f"HTTP/1.0 {status}")
    assert raw(server, "").startswith("HTTP/1.0 411")
    assert raw(server, "Transfer-Encoding: chunked\r\n").startswith("HTTP/1.0 411")
    assert ask(server, "/facts")[0] == 200


def raw(server, headers="", first="POST /ask HTTP/1.0"):
    """Bytes that http.client would not send. -> all that comes back."""
    host = f"Host: 127.0.0.1:{server.server_port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=600) as client:
        client.sendall(f"{first}\r\n{host}{headers}\r\n".encode("latin-1"))
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def test_a_head_has_no_body(server):
    """Fails if the refusal of HEAD sends more than its head, or METHODS lets HEAD through."""
    head, _, rest = raw(server, first="HEAD / HTTP/1.0").partition("\r\n\r\n")
    assert head.startswith("HTTP/1.0 405") and "Content-Length" in head and rest == ""


def test_garbled_requests(server):
    """Fails if what is no HTTP gets no status, or harms the server."""
    assert raw(server, first="GARBAGE").startswith("HTTP/1.0 400")
    assert raw(server, first="GET / HTTP/9.9").startswith("HTTP/1.0 505")
    assert raw(server, first="GET /" + "x" * 70_000 + " HTTP/1.0").startswith("HTTP/1.0 414")
    assert raw(server, "X: y\r\n" * 200, first="GET /facts HTTP/1.0").startswith("HTTP/1.0 431")
    assert ask(server, "/facts", method="DELETE")[0] == 405 and ask(server, "/facts")[0] == 200


def test_a_failure_of_the_model_is_an_event(server, lab, monkeypatch):
    """Fails if what goes wrong after the stream began is silence, or blocks whoever comes next."""
    monkeypatch.setattr(page_model, "MOST_PROMPT", 10**6)
    # 3000 bytes in a context of 2048
    long = {"question": "x" * 3000, "first": "skip", "max_tokens": 4}
    [(name, data)] = events(server, "/ask", long)
    assert name == "error" and "context" in data["message"]

    def broken(*_, **__):
        raise RuntimeError("out of memory")
    with monkeypatch.context() as m:
        m.setattr(page_model, "generate", broken)
        [(name, data)] = events(server, "/ask", {"question": "Hi", "first": "skip"})
    assert name == "error" and "out of memory" in data["message"]
    assert (events(server, "/ask", {"question": "Hi", "first": "skip", "max_tokens": 2})[-1][0]
            == "done")


# ----------------------------------------------------------------------------------------- escaping
def test_no_text_becomes_html(server, lab, monkeypatch):
    """Fails if what the model says reaches the page unescaped: as JSON that holds HTML,
    or by a sink of HTML in it.
    """
    monkeypatch.setattr(type(lab.tokenizer), "decode", lambda self, ids: HTML)
    _, reply = send(server, "/ask", {"question": HTML, "first": "show", "max_tokens": 2})
    body = reply.read()
    assert b"<" not in body and b"alert(1)" in body
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert b"<" not in page.encoded({"a": HTML})
    assert json.loads(page.encoded({"a": HTML})) == {"a": HTML}
    source = page.PAGE.read_text()
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                 "Function(", "srcdoc", "DOMParser"):
        assert sink not in source


def test_the_page_forbids_outside_resources(server):
    """Fails if the page could load from elsewhere,
    or its own style and script are not the ones allowed.
    """
    _, reply = send(server, "/")
    html, policy = reply.read().decode(), reply.headers["Content-Security-Policy"]
    assert reply.status == 200 and reply.headers["Content-Type"].startswith("text/html")
    assert policy == page.policy(html) and policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert policy != page.policy(html.replace('"use strict";', '"use strict"; '))
    links = re.findall(r"(?:https?:)?//[\w.-]+|url\(|@import|\bsrc=|\bhref=|\bstyle=|\bon\w+=\"",
                       html)
    assert [link for link in links if link not in ("http://www.w3.org",)
            and not link.startswith("// ")] == []


# ---------------------------------------------------------------------------------- several clients
@pytest.fixture
def held(monkeypatch):
    """Generation stops after its first token until `held.set()`; held.steps counts them."""
    held = threading.Event()
    held.steps = 0
    real = page_model.generate

    def slow(*args, on_token=None, **more):
        def on(rows, tokens):
            held.steps += 1
            if on_token:
                on_token(rows, tokens)
            assert held.wait(60)
        return real(*args, on_token=on, **more)

    monkeypatch.setattr(page_model, "generate", slow)
    return held


def untouched(lab):
    """Is every layer on the base weights?"""
    layers = svf.layers(lab.model).values()
    return all(layer.bank is None and layer.folded is layer.W and bool((layer.z == 1).all())
               for layer in layers)


LONG = {"question": "Hi", "first": "skip", "alpha": {"math": 1.5}, "max_tokens": 400}


def test_a_client_that_goes_away_ends_its_answer(server, lab, held):
    """Fails if the model writes on for nobody, or the mixture stays in place afterwards."""
    connection, reply = send(server, "/ask", LONG)
    assert next_event(reply)[0] == "token" and not untouched(lab)
    reply.close()
    connection.close()
    held.set()
    wait_for(lambda: not server.line.queue)
    assert held.steps < 20 and untouched(lab)
    assert events(server, "/ask", {**LONG, "max_tokens": 3})[-1][0] == "done"


def test_a_client_that_has_closed_its_sending_side_gets_its_answer(server, lab):
    """Fails if the end of what a client sends is taken for its being gone."""
    body = json.dumps({**LONG, "max_tokens": 3}).encode()
    head = (f"POST /ask HTTP/1.0\r\nHost: 127.0.0.1:{server.server_port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=600) as client:
        client.sendall(head.encode() + body)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as reply:
            assert b"event: done" in reply.read()


def test_a_second_client_waits_and_sees_it(server, lab, held):
    """Fails if two answers share the model's z, the second client is left in the dark,
    or the order is lost.
    """
    first, reply = send(server, "/ask", {**LONG, "max_tokens": 5})
    assert next_event(reply)[0] == "token"
    second, other = send(server, "/ask", {**LONG, "alpha": {"code": 1}, "max_tokens": 5})
    assert next_event(other) == ("waiting", {"before": 1})
    third, gone = send(server, "/lens", {"question": "Hi"})
    assert next_event(gone) == ("waiting", {"before": 2})
    gone.close()                                            # who waits may go away too
    third.close()
    wait_for(lambda: len(server.line.queue) == 2)
    held.set()
    told = [dict(iter(lambda: next_event(stream), None)) for stream in (reply, other)]
    for found, name, alpha in ((told[0], "math", 1.5), (told[1], "code", 1)):
        z = svf.mix([lab.experts[name]], [alpha])
        assert found["done"]["texts"]["adapted"] == answer_with(lab, z, "Hi", 5)[1]
    assert untouched(lab)


def test_closing_ends_the_answer_in_progress(server, lab, held):
    """Fails if Ctrl-C leaves a thread in the model, or a client with half a stream that never ends.
    """
    _, reply = send(server, "/ask", LONG)
    assert next_event(reply)[0] == "token"
    closing = threading.Thread(target=server.line.close)
    closing.start()
    wait_for(lambda: server.line.closed)
    held.set()
    closing.join()
    assert list(iter(lambda: next_event(reply), None)) == [] and not server.line.queue
    assert untouched(lab)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ctrl_c_in_the_model_turns_everybody_away(server, lab, monkeypatch):
    """Fails if Ctrl-C leaves the one whose answer it was, or those who wait behind it,
    with a stream that never ends, or `stop` waiting for them.
    """
    pressed = threading.Event()

    def interrupted(say):
        say("token", {})
        pressed.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(lab, "ask", lambda body: interrupted)
    replies = [send(server, "/ask", LONG)[1]]
    assert next_event(replies[0])[0] == "token"
    replies += [send(server, "/ask", LONG)[1] for _ in range(2)]
    wait_for(lambda: len(server.line.queue) == 3)
    pressed.set()
    assert all(set(name for name, _ in iter(lambda: next_event(reply), None)) <= {"waiting"}
               for reply in replies)
    assert server.over.is_set()
    wait_for(lambda: not server.line.queue)


@pytest.mark.parametrize("fault", [MemoryError("full"), TypeError("a fault"),
                                   BaseException("of a library")], ids=repr)
def test_a_fault_in_the_model_is_told_and_the_server_lives_on(server, lab, monkeypatch, fault):
    """Fails if a fault that nobody foresaw is a stream that ends in silence,
    or the last thing that the server does.
    """
    def fails(say):
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(lab, "ask", lambda body: fails)
        [(name, told)] = events(server, "/ask", LONG)
    assert name == "error" and str(fault) in told["message"]
    assert events(server, "/ask", {"question": "Hi", "max_tokens": 2})[-1][0] == "done"


def test_a_question_that_takes_minutes_to_read_is_refused(server, lab, monkeypatch):
    """Fails if the model begins to read what nobody can stop, or a refusal leaves the line closed.
    """
    monkeypatch.setattr(page_model, "MOST_PROMPT", 40)
    [(name, told)] = events(server, "/ask", {"question": "a b " * 40, "first": "skip"})
    assert name == "error" and "at most 40" in told["message"]
    assert events(server, "/lens", {"question": "Hi", "text": ""})[-1][0] == "words"


def test_ctrl_c_ends_the_program_cleanly(tiny_folder, tmp_path):
    """Fails if the verb does not serve, or Ctrl-C ends in a traceback or in an error."""
    out, err = tmp_path / "out.txt", tmp_path / "err.txt"

    def serve():
        # a test run in the background ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        experts.SVD_CACHE = experts.OUT = tmp_path
        sys.stdout, sys.stderr = out.open("w", buffering=1), err.open("w", buffering=1)
        options = ["--port=0", f"--weights={tiny_folder}", "--device=cpu", "--dtype=float32"]
        assert cli.main(["page", *options]) == 0

    program = forked(serve)
    with soon(120):
        try:
            wait_for(lambda: out.exists() and "http" in out.read_text()
                     and out.read_text().endswith("\n"))
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", out.read_text())[1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.request("POST", "/ask", json.dumps(LONG),
                               {"Content-Type": "application/json"})
            assert connection.getresponse().readline()              # in the middle of an answer
            os.kill(program, signal.SIGINT)
            status = os.waitpid(program, 0)[1]
        except BaseException:
            os.kill(program, signal.SIGKILL)
            os.waitpid(program, 0)
            raise
    assert status == 0 and "closed" in out.read_text() and "Traceback" not in err.read_text()


def test_a_port_that_is_taken_is_one_clear_line(server, call):     # noqa: F811
    """Fails if a taken port is a traceback, does not say what to do,
    or is told only when the model is there.
    """
    status, out, err = call("page", f"--port={server.server_port}")
    assert status == 1 and "--port=0" in err and "on cpu" not in err


# ------------------------------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def address():
    """The page of the real model, served by the real program."""
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH; "
                    "tests/README.md says how to install one")
    weights = download.ROOT / "weights"
    if not any(weights.glob("*.gguf")):
        pytest.skip("the default weights are missing; run `make weights`")
    command = [sys.executable, "-u", "-m", "t2mini", "page", "--port=0", "--threads=1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}) as program:
        try:
            yield re.search(r"http://\S+", program.stdout.readline())[0]
        finally:
            program.kill()


@pytest.mark.page
def test_a_question_a_slider_and_another_answer(address):
    """Fails if a person cannot ask by keyboard, a moved slider changes no answer or map,
    or the page has an error.
    """
    with Browser() as browser:
        browser.size(1200, 900)
        browser.open(address)
        browser.until("document.querySelectorAll('.cell').length === 210")
        browser.run("document.getElementById('question').focus()")
        browser.type("Raj plays 9 games every week. How many games does Raj play in 4 weeks?")
        browser.key("Enter", 13)
        asked = ("document.getElementById('stop').disabled && "
                 "document.querySelectorAll('.word').length === 20")
        browser.until(asked)
        text = "document.getElementById('{}').textContent".format
        base, adapted = browser.run(text("base")), browser.run(text("adapted"))
        assert "36" in adapted and base != adapted and "math" in browser.run(text("routed"))
        # the map of dials follows the first word
        browser.until(f"{text('most')} > 0")
        moved = browser.run(text("most"))

        browser.run("document.getElementById('alpha-0').focus()")
        assert browser.run("document.getElementById('alpha-0').value") == "1"
        browser.key("Home", 36)                             # from 1, the math expert, to -0.5
        browser.until(f"{text('adapted')} !== {json.dumps(adapted)} && {asked}")
        assert "− 0.50 (zmath" in browser.run(text("formula"))
        assert browser.run(text("base")) == base
        browser.until(f"{text('most')} > 0 && {text('most')} < {moved}")

        browser.run("document.querySelector('.cell[tabindex=\"0\"]').focus()")
        browser.key("ArrowRight", 39)
        browser.run("document.activeElement.click()")
        browser.until("!document.getElementById('matrix').hidden")
        assert "Layer 1, " in browser.run(text("opened"))

        browser.size(390, 844)
        assert browser.run("document.documentElement.scrollWidth") == 390
        assert browser.errors == []


@pytest.mark.page
def test_the_lens_keeps_its_question_and_its_place(address):
    """Fails if an answer that was cut looks whole, its words cannot be reached by keyboard, the
    lens mixes an answer with another question, or loses the place that the user chose.
    """
    def text(name):
        return browser.run(f"document.getElementById('{name}').textContent")

    def value(name):
        return browser.run(f"document.getElementById('{name}').value")

    idle = "!state.running && document.querySelectorAll('.word').length === 20"
    story = "Write a long story about a dragon."
    with Browser() as browser:
        browser.open(address)
        browser.until("document.querySelectorAll('.cell').length === 210")
        browser.run("document.getElementById('question').focus()")
        browser.type(story)
        browser.key("Enter", 13)
        browser.until(f"document.getElementById('stop').disabled && {idle}")
        assert text("rate-base").endswith("/s, cut off there") and text("status").endswith("; done")

        # another question is being typed, and the lens stays with the old one
        browser.run("document.getElementById('question').value = 'Something else'")
        browser.run("document.getElementById('base').focus()")
        for _ in range(3):
            browser.key("ArrowRight", 39)
        browser.key("Enter", 13)
        words = "[...document.getElementById('base').children].slice(0, 2)"
        before = browser.run(f"{words}.map((word) => word.textContent).join('')")
        assert before and value("sofar") == before
        assert browser.run("state.lens.question") == story

        # a turned dial changes the answer, not the place
        browser.until("document.querySelectorAll('.word').length === 20")
        browser.run(f"document.getElementById('question').value = {json.dumps(story)}")
        browser.run("document.getElementById('alpha-0').focus()")
        browser.key("Home", 36)
        browser.until("Boolean(state.running)")
        browser.until(idle)
        assert value("sofar") == before and "zmath" in text("formula")

        # a word of the lens that was chosen by keyboard leaves the focus there
        browser.run("document.querySelector('.word:not([disabled])').focus()")
        browser.run("document.activeElement.click()")
        browser.until("document.getElementById('sofar').value.length > " + str(len(before)))
        browser.until("document.activeElement.classList.contains('word')")
        assert browser.errors == []
