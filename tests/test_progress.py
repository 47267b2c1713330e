"""What is said while one waits is true: what is done, how long it takes, what was cut,
whether the machine is busy.
"""
import io
import types
from collections import Counter

import pytest
import torch
from test_cli import call, home, last_json, trained     # noqa: F401

from t2mini import adapt, evaluate, experts, tasks
from t2mini import __main__ as cli
from t2mini.generate import Samples
from t2mini.machine import batches, cores, pace, svd_cache
from t2mini.machine.text import cut_note


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when it is told to: clock.now."""
    time = types.SimpleNamespace(now=0.0)
    time.time = time.monotonic = lambda: time.now
    for module in (batches, svd_cache):
        monkeypatch.setattr(module, "time", time)
    return time


def test_the_time_left_is_that_of_updates_and_validations_still_to_come():
    """Fails if set-up or one slow step counts for the rest
    (56 minutes were told for 4), or validations do not count.
    """
    run = pace.Pace(40, 10)
    run.validation(10.0)
    # 39 * 2 + 4 * 10 s
    assert (run.update(1, {"sec": 2.0, "reward": 0.5})
            == "step    1 | reward 0.5 | sec 2 | 2.0 min left")
    run.update(2, {"sec": 600.0})
    run.update(3, {"sec": 2.0})
    assert run.left(3) == 37 * 2 + 4 * 10
    assert run.left(40) == 10 and run.left(39) == 2 + 10    # the last one is still to come
    resumed = pace.Pace(40, 10)                             # has seen no validation yet
    assert resumed.update(30, {"sec": 6.0}).endswith("| 1.0 min left")


def test_a_batch_says_how_far_it_is_before_it_is_done(clock, capsys):
    """Fails if nothing is said before the first batch ends, reading the questions counts as a step,
    or the bound is wrong.
    """
    def run(part):
        on_token = batches.ticking(100)
        clock.now += 4                                      # the prompts
        for _ in range(11):
            on_token([0], [0])
            clock.now += 0.5
        clock.now += 0.5
        return [0] * len(part)

    batches.in_batches(run, [1] * 20, 10, "answering")
    told = [line.strip() for line in capsys.readouterr().err.replace("\r", "\n").splitlines()]
    # a batch: 4 s and at most 99 steps of half a second, 53.5 s;
    # 5 s are over, another batch follows
    assert told[0] == "answering: 0/20, 5 s, up to 1.7 min left"
    assert batches.duration(2 * 53.5 - 5) == "1.7 min"
    assert "answering: 10/20, 10 s, 10 s left" in told
    assert told[-1] == "answering: 20/20, 20 s, 0 s left"
    assert batches.ticking(5) is not None                   # the last Progress had a label
    assert batches.in_batches(lambda part: [batches.ticking(5)] * len(part), [1], 1) == [None]


def test_reading_the_cache_is_not_called_decomposing(clock, capsys, tmp_path, monkeypatch):
    """Fails if reading says that it decomposes, or decomposing that it reads;
    or one's time counts for the other.
    """
    weights = {f"m{i}": torch.randn(4, 3) for i in range(4)}
    real = svd_cache.Cache.read

    def slow(self, W):
        clock.now += 3
        return real(self, W)
    monkeypatch.setattr(svd_cache.Cache, "read", slow)
    list(svd_cache.decompose_all(weights, None, False))
    assert not capsys.readouterr().err
    list(svd_cache.decompose_all(weights, tmp_path))
    first = capsys.readouterr().err
    list(svd_cache.decompose_all(weights, tmp_path))
    again = capsys.readouterr().err
    assert "decomposing: 4 of 4 matrices, 0 s left" in first
    assert "reading the decompositions: 4 of 4 matrices" in again and "decomposing:" not in again


def test_answers_that_the_limit_cut_are_counted(loaded, monkeypatch):
    """Fails if answers that stopped by themselves count as cut,
    or those of one of the two passes' batches are missed.
    """
    model, tokenizer = loaded

    def generate(model, prompts, max_tokens, *args, **more):
        stopped = torch.tensor([len(p) % 2 == 0 for p in prompts])
        n = len(prompts)
        return Samples(torch.full((n, 2), 97), torch.full((n,), 2), torch.zeros(n, 2), stopped,
                       torch.zeros(n, 272))
    monkeypatch.setattr(evaluate, "generate", generate)
    asked = ["a" * i for i in range(1, 8)]
    odd = sum(len(tokenizer.prompt(q)) % 2 for q in asked)
    counts = Counter()
    assert evaluate.answers(model, tokenizer, asked, 2, batch=3, counts=counts) == ["aa"] * 7
    assert counts["cut"] == odd and 2 < odd < 5
    adapt.answer(model, tokenizer, asked, "none", {}, counts=counts)
    assert counts["cut"] == 2 * odd


def test_every_score_says_how_many_answers_were_cut(call, trained, home):     # noqa: F811
    """Fails if eval, adapt, ask or a validation is silent about cut answers,
    does not say what to do, or a quotation, whose rest nobody reads, is complained about.
    """
    for verb, more in (("eval", ["--n=3"]),
                       ("adapt", ["--n=3", "--shots=2", "--iterations=1", "--population=2"])):
        status, out, err = call(verb, f"--task={home}/mine.jsonl", *more,
                                "--max-tokens=5", "--json")
        assert (status == 0
                and "3 of 3 answers were cut at 5 tokens; --max-tokens=10 lets" in out), err
        assert last_json(out)["cut"] == 3
    assert ("the answer was cut at 4 tokens"
            in call("ask", "hello", "--strategy=none", "--max-tokens=4")[2])
    assert "were cut" not in call("eval", "--task=dispatch", "--n=3")[1]
    out = call("train", f"--task={home}/mine.jsonl", "--steps=1", "--prompts=2", "--samples=2",
               "--val-n=2", f"--out={home}/e.safetensors")[1]
    assert "(2 cut at 8 tokens)" in out
    assert cut_note(0, 9, 5) == ""


@pytest.mark.parametrize("text, circles", [
    ("The sum is 3. " * 5, True), ("one two three\n" * 3 + "one tw", True), ("x" * 12, True),
    ("The sum is 3. " * 2, False), ("1, 2, 3, 4, 5", False), ("so\n" + " \n" * 40, False),
    ("", False), ("no, " * 9 + "or yes", False)])
def test_a_cut_answer_that_runs_in_circles_is_not_asked_to_be_longer(text, circles):
    """Fails if an answer without an end is said to need a higher limit,
    or one that was going on is not.
    """
    note = cut_note(1, 1, 64, text)
    assert ("--max-tokens=128 lets longer ones finish" in note) != circles
    assert ("repeats itself and was cut at 64 tokens" in note) == circles
    assert "--max-tokens=128" in cut_note(1, 2, 64, text)


def test_ask_and_chat_say_that_an_answer_runs_in_circles(call, monkeypatch):     # noqa: F811
    """Fails if one of them does not read the answer that was cut."""
    def answer(model, tokenizer, questions, *args, counts, **kwargs):
        counts["cut"] += 1
        return [adapt.Answer(questions[0], "again " * 9, "none")]

    monkeypatch.setattr(adapt, "answer", answer)
    assert "repeats itself" in call("ask", "hello", "--strategy=none", "--max-tokens=40")[2]
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    assert "repeats itself" in call("chat", "--strategy=none", "--max-tokens=40")[2]


# ---------------------------------------------------------------------------------- a busy machine
@pytest.mark.parametrize("threads, got, better", [(2, 2.0, 2), (2, 1.6, 2), (2, 1.3, 1),
                                                  (2, 0.4, 1), (16, 9.7, 9), (1, 0.1, 1)])
def test_as_many_threads_as_there_are_cores_to_be_had(threads, got, better):
    """Fails if threads are taken that would wait for each other, or fewer where they would not."""
    assert cores.advised(threads, got) == better


def test_cores_to_be_had_are_measured(monkeypatch):
    """Fails if waiting counts as computing: here every thread computes for a quarter of its time.
    """
    ticks = iter(range(1000))
    clock = types.SimpleNamespace(perf_counter=lambda: 0.02 * next(ticks),
                                  thread_time=lambda: 0.005 * next(ticks))
    monkeypatch.setattr(cores, "time", clock)
    assert 0.1 < cores.share_of_a_core(0.05) < 0.5
    monkeypatch.setattr(cores, "share_of_a_core", lambda seconds: 0.5)
    assert cores.free(4) == 2.0


@pytest.mark.parametrize("verb, taken", [("ask", 1), ("eval", 2)])
def test_a_busy_machine_is_told(trained, home, tiny_folder, monkeypatch, capsys,     # noqa: F811
                                verb, taken):
    """Fails if a busy machine is not told of, a measuring verb takes other threads by itself,
    or --threads is overruled.
    """
    took = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "free", lambda threads: 0.9)
    monkeypatch.setattr(torch, "get_num_threads", lambda: (took or [2])[-1])
    monkeypatch.setattr(torch, "set_num_threads", took.append)
    args = [verb, f"--weights={tiny_folder}", "--dtype=float32", "--device=cpu", "--expert=none",
            "--max-tokens=2"]
    args += ["hello"] if verb == "ask" else [f"--task={home}/mine.jsonl", "--n=2"]
    capsys.readouterr()
    assert cli.main(args) == 0
    err = capsys.readouterr().err
    assert "busy: 2 threads get 0.9 cores" in err and f"{taken} thread" in err
    assert "--threads" in err
    assert took == [1] * (taken == 1)
    took.clear()
    assert cli.main([*args, "--threads=2"]) == 0
    assert "busy" not in capsys.readouterr().err and took == [2]


# -------------------------------------------------------------------------------- shares and labels
def test_the_label_has_the_largest_share(loaded):
    """Fails if the shares add up two spellings while the label is the likeliest word:
    "other (math 48 %, other 47 %)".
    """
    _, tokenizer = loaded
    first = {label: [2 * i, 2 * i + 1] for i, label in enumerate(tasks.LABELS)}
    p = torch.full((1, 272), 1e-4)
    other, math = first["other"], first["math"]
    p[0, other[0]], p[0, math[0]], p[0, math[1]] = 0.4, 0.35, 0.2
    said = tokenizer.encode("other")
    out = Samples(torch.tensor([said]), torch.tensor([len(said)]), torch.zeros(1, len(said)),
                  torch.tensor([True]), p.log())
    [route] = adapt.read_routes(tokenizer, out, first)
    assert route.label == "other" == max(route.probabilities, key=route.probabilities.get)
    assert route.probabilities["math"] == pytest.approx(0.35 / 0.75, abs=1e-3)


# ---------------------------------------------------------------------------------- help, show
@pytest.mark.parametrize("verb, words", [
    ("eval", [*tasks.BUILT_IN, "gsm8k", "out/NAME.safetensors", "--expert=mixture is"]),
    ("train", [*tasks.BUILT_IN, "math-500"]),
    ("ask", ["out/NAME.safetensors", "a trained dispatcher"]),
    ("chat", ["stands alone", "a trained dispatcher"])])
def test_help_lists_what_an_option_takes(verb, words, capsys):
    """Fails if tasks are listed only after a wrong name, a strategy is unexplained,
    or --expert means two things.
    """
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert not [word for word in words if word not in text.replace("- ", "-")]


def test_show_begins_with_what_one_wants_to_know(call, trained, home):     # noqa: F811
    """Fails if ninety rows stand before the useful line, or it does not say
    that an expert is the base model.
    """
    path = home / "out" / "mine.safetensors"
    lines = call("show", path, f"--picture={home}/z.png")[1].splitlines()
    assert lines[0].startswith(f"mine: task {home}")
    assert "validation questions; 544 z in 14 matrices, mean |z - 1|" in lines[0]
    assert lines[1] == f"picture: {home}/z.png"
    z = {name: torch.ones_like(t) for name, t in experts.read_expert(path).items()}
    experts.save_expert(path, z, experts.read_metadata(path))
    assert call("show", path, f"--picture={home}/z.png")[1].splitlines()[0].endswith(
        "this is the base model")
