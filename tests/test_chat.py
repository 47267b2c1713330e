"""The prompt that stays: who answers, what is shown of it,
and that neither a mistake nor Ctrl-C ends it.
"""
import io
import sys

import pytest
import torch
from test_cli import call, home, trained     # noqa: F401

from t2mini import adapt, experts, svf
from t2mini.cli import chat
from t2mini.generate import generate


@pytest.fixture
def talk(call, trained, monkeypatch):     # noqa: F811
    """talk(lines, ...) -> (exit status, standard output, standard error)
    of `chat` with a pipe as its input.
    """
    def run(lines, *more):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        return call("chat", "--max-tokens=4", *more)
    return run


@pytest.fixture
def asked(monkeypatch):
    """[(question, expert)] of every message, as `adapt.answer` gets it."""
    seen, real = [], adapt.answer

    def answer(model, tokenizer, questions, strategy="classifier",
               experts=None, expert=None, **more):
        seen.append((questions[0], expert))
        return real(model, tokenizer, questions, strategy, experts, expert, **more)
    monkeypatch.setattr(adapt, "answer", answer)
    return seen


def test_one_message_per_line_with_its_route(talk, asked, monkeypatch):
    """Fails if a line of a pipe is lost, an empty one is answered, the route or its probability
    is not shown, or anything behind /quit is read.
    """
    sure = adapt.Route("math", "math", {"math": 0.614, "other": 0.386})
    unread = adapt.Route("other", "Fnord", {"math": 0.2, "other": 0.8}, readable=False)
    monkeypatch.setattr(adapt, "route", lambda model, tokenizer, asked, *args, **more: [
        unread if asked == ["and you?"] else sure])
    status, out, err = talk("hello\n\n  \nand you?\n/quit\nno\n", "--strategy=prompt")
    assert status == 0 and [question for question, _ in asked] == ["hello", "and you?"]
    first, second = out.splitlines()
    assert first.startswith("[math 61%] ")
    assert second.startswith("[other: the first pass said 'Fnord', which is no label] ")
    # a random model of bytes does not stop
    assert "cut at 4 tokens; --max-tokens=8" in err
    # no line end, no /quit: the input ends
    assert talk("hi")[0] == 0 and asked[-1][0] == "hi"


def test_commands_say_who_answers(talk, asked, home):     # noqa: F811
    """Fails if /expert, /mix, /base or /auto do not change who answers,
    or the answer's mark does not say so.
    """
    z = experts.read_expert(home / "out" / "math.safetensors")
    z = {name: torch.full_like(t, 1.2) for name, t in z.items()}
    experts.save_expert(home / "out" / "math.safetensors", z,
                        experts.read_metadata(home / "out" / "math.safetensors"))
    status, out, _ = talk("/expert math\na\n/mix math=0.5 code=0\nb\n/base\nc\n/expert none\nd\n"
                          "/auto\ne\n/expert\n/help\n")
    given = dict(asked)
    assert status == 0 and given["c"] == given["d"] == "none" and given["e"] is None
    for name in z:
        assert torch.equal(given["a"][name], z[name])
        assert torch.allclose(given["b"][name], torch.tensor(1.1))
    for shown in ("[math] ", "[mixture of 0.5 math, 0 code] ", "[base] ", "[none] ",
                  "there are: dispatcher, math", "/mix NAME"):
        assert shown in out


def test_an_expert_answers_from_the_start(talk, asked, home):     # noqa: F811
    """Fails if --expert does not do what /expert does, needs a dispatcher, or goes with
    --strategy; or a name without expert is told of after the model is loaded.
    """
    (home / "out" / "dispatcher.safetensors").unlink()
    status, out, _ = talk("a\n/base\nb\n", "--expert=math")
    math = experts.read_expert(home / "out" / "math.safetensors")
    given = dict(asked)
    assert status == 0 and given["b"] == "none" and "[math] " in out
    assert all(torch.equal(given["a"][name], math[name]) for name in math)
    status, out, err = talk("a\n", "--expert=math", "--strategy=prompt")
    assert status == 1 and "not both" in err and not out
    status, out, err = talk("a\n", "--expert=nobody")
    assert status == 1 and "no expert 'nobody'" in err and "ready in" not in err and not out


def test_chat_lists_experts_of_all_methods_and_auto_says_who_answers(talk, call, home):
    """Fails if /expert hides one that it takes, or /auto speaks of a first pass without one."""
    status, _, err = call("train", f"--task={home}/mine.jsonl", "--method=ia3", "--steps=1",
                          "--prompts=2", "--samples=2", "--val-n=1",
                          f"--out={home}/out/i.safetensors")
    assert status == 0, err
    for strategy, says in (("none", "the base model"), ("cem", "the mixture")):
        (home / "out" / "mixture.safetensors").write_bytes(
            (home / "out" / "math.safetensors").read_bytes())
        _, out, _ = talk("/expert\n/auto\n", f"--strategy={strategy}")
        assert "there are: dispatcher, math" in out and ", i" in out
        assert f"from now on: {says} answers" in out


@pytest.mark.parametrize("wrong, says", [
    ("/foo", "no command '/foo'"), ("/expert nobody", "no expert 'nobody'"),
    ("/mix", "the command is /mix NAME=ALPHA"), ("/mix math", "not 'math'"),
    ("/mix math=nan", "not 'math=nan'"), ("/mix =1", "not '=1'"),
    ("/mix math=1 math=0.2", "/mix names 'math' twice"),
    ("/base now", "the command is /base"), ("x" * 5000, "shorten it")])
def test_a_mistake_is_one_line_and_the_chat_goes_on(talk, asked, wrong, says):
    """Fails if a mistake ends the chat, is silent, or changes who answers."""
    status, out, err = talk(f"/base\n{wrong}\nhello\n")
    told = [line for line in err.splitlines() if line.startswith("t2mini: ")]
    assert status == 1 and len(told) == 2 and says in told[0] and "Traceback" not in err
    assert told[1] == "t2mini: 1 of the lines had no answer, as told above"
    assert asked[-1] == ("hello", "none")


def test_every_message_has_a_line_of_its_own(talk, monkeypatch):
    """Fails if the next answer stands behind the name of whoever was to answer one that failed."""
    real = adapt.answer

    def answer(model, tokenizer, questions, *args, **more):
        if questions == ["too long"]:
            raise ValueError("that is too long")
        return real(model, tokenizer, questions, *args, **more)
    monkeypatch.setattr(adapt, "answer", answer)
    status, out, err = talk("too long\nhello\n", "--strategy=none")
    assert status == 1 and "t2mini: that is too long" in err
    assert out.splitlines()[0] == "[none] [no answer]" and out.splitlines()[1][:7] == "[none] "


def test_nothing_that_a_model_writes_reaches_the_terminal_as_a_command(talk, monkeypatch):
    """Fails if an answer, or what the first pass said, is printed with its escape sequences."""
    def answer(*args, on_text, on_route, **more):
        on_route([adapt.Route("other", "\x1b[2J", {}, False)])
        on_text(0, "red \x1b[31m")
        return [adapt.Answer("hello", "red \x1b[31m", "other")]
    monkeypatch.setattr(adapt, "answer", answer)
    status, out, _ = talk("hello\n")
    assert status == 0 and "\x1b" not in out and "red \\x1b[31m" in out and "no label] " in out


class Terminal(io.StringIO):
    """Standard input at which somebody types."""
    def isatty(self):
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_stops_one_answer_at_a_terminal_and_all_of_a_pipe(talk, call,     # noqa: F811
                                                                 monkeypatch, terminal):
    """Fails if Ctrl-C during an answer ends a conversation, does not end messages that were piped
    in, or leaves something of an expert in the model.
    """
    models, real, messages = [], generate, ["/expert math", "hello", "hello"]

    def interrupted(model, *args, **more):
        models.append(model)
        if len(models) == 1:
            raise KeyboardInterrupt
        return real(model, *args, **more)
    monkeypatch.setattr("t2mini.evaluate.generate", interrupted)
    if terminal:
        typed = iter([*messages, "/quit"])
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
        status, out, _ = call("chat", "--max-tokens=4")
        assert status == 0 and out.count("[math] ") == 2 and out.count("[stopped]") == 1
    else:
        status, out, _ = talk("\n".join(messages))
        assert status == 130 and out.count("[math] ") == 1 and "[stopped]" not in out
    assert all(bool((layer.z == 1).all()) for layer in svf.layers(models[0]).values())


@pytest.mark.parametrize("end", [KeyboardInterrupt, EOFError])
def test_at_the_prompt_ctrl_c_and_ctrl_d_end_the_chat(call, trained,     # noqa: F811
                                                      monkeypatch, end):
    """Fails if either of them is a traceback or an error, or a terminal is not told
    that messages stand alone.
    """
    def typed(prompt):
        raise end
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", typed)
    status, out, err = call("chat")
    assert status == 0 and "Traceback" not in err and chat.WELCOME in out


def test_what_a_strategy_needs_is_told_before_the_model_loads(talk, home):     # noqa: F811
    """Fails if a chat begins in which every message fails."""
    (home / "out" / "dispatcher.safetensors").unlink()
    for strategy, lacks in (("classifier", "no expert 'dispatcher'"), ("cem", "no mixture yet")):
        status, out, err = talk("hello\n", f"--strategy={strategy}")
        assert status == 1 and lacks in err and "ready in" not in err and not out


def test_lora_experts_are_not_mixed(call, talk, home):     # noqa: F811
    """Fails if a mixture is promised that no layer can hold."""
    status, _, err = call("train", f"--task={home}/mine.jsonl", "--method=lora", "--steps=1",
                          "--prompts=2", "--samples=2", "--val-n=2", "--objective=next-token",
                          f"--out={home}/out/l.safetensors")
    assert status == 0, err
    (home / "out" / "l2.safetensors").write_bytes((home / "out" / "l.safetensors").read_bytes())
    status, out, err = talk("/mix l=0.5 l2=0.5\nhello\n/mix l=0.5\nhi\n", "--strategy=none")
    assert status == 1 and "cannot be mixed" in err and "from now on: mixture of 0.5 l " in out
    status, _, err = call("adapt", f"--task={home}/mine.jsonl", "--experts=l,l2")
    assert status == 1 and "cannot be mixed" in err and "ready in" not in err
    status, _, err = call("adapt", f"--task={home}/mine.jsonl", "--experts=l,math")
    assert status == 1 and "cannot be mixed" in err and "ready in" not in err


def test_bytes_that_are_no_letters_lose_no_line(call, trained, asked, monkeypatch):     # noqa: F811
    """Fails if a file in another encoding ends the chat before its first, good line is answered."""
    lines = io.TextIOWrapper(io.BytesIO(b"hi\ncaf\xe9\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", lines)
    status, _, err = call("chat", "--max-tokens=2", "--strategy=none")
    assert status == 0 and len(asked) == 2, err


class Endless(io.StringIO):
    """A stream of one character that never ends, nor has a line that does."""
    def __init__(self, text):
        super().__init__()
        self.text = text

    def readline(self, most=None):
        assert most, "it is read until the memory is full"
        return (self.text * most)[:most]

    def __next__(self):
        return self.readline()


@pytest.mark.parametrize("words", [["chat", "--strategy=none"], ["ask", "-"]])
def test_a_line_without_an_end_is_one_clear_line(call, monkeypatch, words):     # noqa: F811
    """Fails if a line of standard input is read until the memory is full, or the end of what was
    read of it is taken for the question's.
    """
    monkeypatch.setattr(chat, "LONGEST", 1000)
    monkeypatch.setattr(sys, "stdin", Endless("a"))
    status, _, err = call(*words)
    assert status == 1 and "more than 1,000 characters is too long; shorten it" in err
    assert "bug" not in err


def test_questions_without_an_end_are_one_clear_line(call, monkeypatch):     # noqa: F811
    """Fails if `yes | t2mini ask -` reads until the memory is full."""
    class Lines(Endless):
        def readline(self, most=None):
            assert self.tell() < 10_000, "it is read until the memory is full"
            self.write("why?\n")
            return "why?\n"

    monkeypatch.setattr(chat, "MOST", 1000)
    monkeypatch.setattr(sys, "stdin", Lines("a"))
    status, _, err = call("ask", "-")
    assert status == 1 and "ask fewer at once" in err and "bug" not in err
    assert chat.questions(io.StringIO("a\n\n b\nc")) == ["a", "b", "c"]


def test_an_error_of_torch_ends_no_conversation(talk, asked, monkeypatch):
    """Fails if one message that memory does not hold is the last one."""
    real = chat.Chat.answer

    def answer(self, message):
        if message == "long":
            raise RuntimeError("not enough memory\nmore of it")
        real(self, message)

    monkeypatch.setattr(chat.Chat, "answer", answer)
    status, _, err = talk("long\nhello\n")
    assert status == 1 and "t2mini: not enough memory\n" in err
    assert [question for question, _ in asked] == ["hello"]
