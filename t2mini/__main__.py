"""
The command line: parse, call, print. `python -m t2mini VERB --help` explains each verb.

All bad input ends here as one line on stderr and a non-zero exit; a traceback is a bug.
"""
import errno
import json
import os
import sys
import time
from dataclasses import fields
from pathlib import Path

try:
    from .cli.options import build_parser
except ModuleNotFoundError as e:
    sys.exit(f"t2mini: the package {e.name} is missing; run `make setup`, then use .venv/bin/python")


def open_model(args, modules=True, text=True):
    """Model and tokenizer, SVF attached as --modules and --layers say, or as --expert needs, and a line that says what runs."""
    import torch

    from . import experts, load
    from .machine import ranks
    if args.threads is not None and args.threads < 1:
        raise ValueError("--threads must be at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    t0 = time.time()
    model, tokenizer = load(args.weights, ranks.start(args.device), args.dtype)
    if text and tokenizer is None:
        raise ValueError(f"{args.weights} has no tokenizer.json, and `{args.verb}` reads and writes text: put the "
                         "checkpoint's tokenizer.json there")
    if modules:                                             # an expert of another method brings its own layers
        name = getattr(args, "expert", None) or "none"
        meta = experts.read_metadata(experts.find(name, model)) if name != "none" else {}
        experts.attach(model, meta, args.modules, args.layers)
    if ranks.rank() == 0:
        print(f"{model.name}, {str(model.dtype).removeprefix('torch.')} on {model.device}, {torch.get_num_threads()} "
              f"threads{f' in each of {ranks.world()} processes' * (ranks.world() > 1)}, ready in {time.time() - t0:.1f} s",
              file=sys.stderr)
    return model, tokenizer


def agree(args, runs_code=True):
    """Model-written programs run only for a user who has agreed to it, once; a file in out/ remembers."""
    from . import experts
    agreed = experts.OUT / "allow-code"
    if args.allow_code:
        agreed.parent.mkdir(parents=True, exist_ok=True)
        agreed.touch()
    elif runs_code and not agreed.exists():
        raise ValueError("this judges answers by running programs that the model writes, in a sandbox "
                         "(t2mini/questions/sandbox.py says what it guards against); add --allow-code, once, to agree")


def do_download(args):
    from .formats.download import download
    print(download(args.name))


def do_datasets(args):
    from .questions import published
    return published.report(args.data)


def do_ask(args):
    """One question is streamed; several are answered in one batch, every row with the expert of its own question."""
    from . import adapt, experts, svf
    if not all(q.strip() for q in args.question):
        raise ValueError("the question is empty")
    if args.max_tokens < 1 or args.temperature < 0:
        raise ValueError("--max-tokens must be at least 1 and --temperature at least 0")
    model, tokenizer = open_model(args)
    chosen, labels, shares = {}, ["none"] * len(args.question), [None] * len(args.question)
    if args.expert and args.expert != "none":
        chosen, labels = experts.load([args.expert], model, args.allow_other_base), [args.expert] * len(labels)
    elif args.strategy == "cem":
        chosen, labels = {"mixture": load_mixture(model, args)}, ["mixture"] * len(labels)
    elif args.strategy in ("classifier", "prompt"):
        dispatcher = None
        if args.strategy == "classifier":
            dispatcher = experts.load(["dispatcher"], model, args.allow_other_base)["dispatcher"]
        routes = adapt.route(model, tokenizer, args.question, dispatcher)
        labels, shares = [r.label for r in routes], [r.probabilities for r in routes]
        for r in routes:
            print(f"first pass: {r.label}  (" + "  ".join(f"{k} {100 * p:.0f}%" for k, p in r.probabilities.items()) + ")"
                  + ("" if r.readable else f"  unreadable answer {r.said!r}, so no expert"), file=sys.stderr)
        chosen = experts.load(sorted(set(labels) - {"other"}), model, args.allow_other_base)
    if len(labels) == 1:
        with svf.using(model, chosen.get(labels[0], {})):
            answers = [streamed(args, model, tokenizer)]
    else:
        labels = ["other" if name == "none" else name for name in labels]
        answers = adapt.answer_routed(model, tokenizer, args.question, labels, chosen, args.max_tokens, "second pass",
                                      temperature=args.temperature, seed=args.seed)
        for question, label, answer in zip(args.question, labels, answers):
            print(f"\n{question}\n  [{label}] {answer}")
    found = [{"question": q, "expert": k, "probabilities": p, "answer": a}
             for q, k, p, a in zip(args.question, labels, shares, answers)]
    return {**(found[0] if len(found) == 1 else {"answers": found}), "strategy": args.strategy, "seed": args.seed,
            "base_sha256": model.base_sha256}


def streamed(args, model, tokenizer):
    """Answer the one question, printing as it is written (unless --json). -> the answer."""
    from .generate import generate
    ids, shown = [], ""

    def stream(_, tokens):                                  # a cut UTF-8 character waits for its other half
        nonlocal shown
        ids.extend(tokens)
        text = tokenizer.decode(ids)
        if not args.json and not text.endswith("\ufffd"):
            print(text[len(shown):], end="", flush=True)
            shown = text

    generate(model, [tokenizer.prompt(args.question[0])], args.max_tokens, tokenizer.stop_ids, args.temperature,
             seed=args.seed, on_token=stream)
    print(tokenizer.decode(ids)[len(shown):])
    return tokenizer.decode(ids)


def load_mixture(model, args):
    from . import experts
    path = experts.OUT / "mixture.safetensors"
    if not path.exists():
        raise FileNotFoundError("there is no mixture yet; run `python -m t2mini adapt --task=TASK` first")
    return experts.load([str(path)], model, args.allow_other_base)[str(path)]


def do_train(args):
    from . import experts, reinforce, tasks
    from .machine import ranks
    cfg = reinforce.TrainConfig(**{f.name: getattr(args, f.name) for f in fields(reinforce.TrainConfig)})
    for name in ("steps", "prompts", "samples", "val_every", "val_n", "patience"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
    cfg = reinforce.settled(cfg)                            # a wrong word stops before the model is loaded
    agree(args, tasks.get(cfg.task).runs_code)
    out = Path(args.out or experts.OUT / f"{Path(cfg.task).stem}.safetensors")
    if out.suffix != ".safetensors":
        raise ValueError("--out must end in .safetensors")
    model, tokenizer = open_model(args, modules=False)
    try:
        result = reinforce.train(model, tokenizer, cfg, out, args.resume, experts.SVD_CACHE,
                                 print if ranks.rank() == 0 else lambda text: None)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the last checkpoint is kept; add --resume to the same command to go on") from None
    print(f"wrote {out}; see it with `python -m t2mini show {out}`")
    return result


def do_eval(args):
    from . import evaluate, tasks
    from .lab import arms
    from .machine import files, ranks
    task = tasks.get(args.task)
    agree(args, task.runs_code)
    if args.n < 1:
        raise ValueError("--n must be at least 1")
    if (args.strategy is not None) + (args.expert != "none") + (args.alpha is not None) > 1:
        raise ValueError("give one of --expert, --strategy and --alpha, not both")
    examples = task.examples(args.split, args.n, args.seed)
    model, tokenizer = open_model(args)
    t0 = time.time()
    rewards, texts, extra = arms.run(args, model, tokenizer, task, examples)
    result = {"task": args.task, "split": args.split, "n": len(examples), "seed": args.seed, "expert": args.expert,
              "strategy": args.strategy, "choose": args.choose, "accuracy": sum(rewards) / len(rewards),
              "ci95": evaluate.wilson(sum(rewards), len(rewards)), "base_sha256": model.base_sha256,
              "seconds": round(time.time() - t0, 1), **extra}
    if args.samples_file and ranks.rank() == 0:
        with files.replacing(args.samples_file) as f:
            f.write("".join(json.dumps({"prompt": e.prompt, "gold": e.answer, "kind": e.kind, "text": t, "reward": r}) + "\n"
                            for e, t, r in zip(examples, texts, rewards)).encode())
    print(f"{args.task} {args.split}: {evaluate.percent(sum(rewards), len(rewards))}  "
          f"({args.strategy or 'expert ' + args.expert}{', choosing' * args.choose}, {result['seconds']} s)")
    return result


def do_adapt(args):
    from . import evaluate, experts, svf, tasks
    from .lab import arms
    from .machine import ranks
    task = tasks.get(args.task)
    agree(args, task.runs_code)
    examples = task.examples("test", args.n, args.seed)
    model, tokenizer = open_model(args)
    mixed, found = arms.search(args, model, tokenizer, task)
    out = Path(args.out or experts.OUT / "mixture.safetensors")
    if ranks.rank() == 0:
        experts.save_expert(out, mixed, {"base_model": model.name, "base_sha256": model.base_sha256, "task": args.task,
                                         "seed": args.seed, "alpha": found["alpha"], "kind": "cem mixture"})
    with svf.using(model, mixed):
        rewards = evaluate.score(model, tokenizer, task, examples, label="adapted")
    base = evaluate.score(model, tokenizer, task, examples, label="base")
    gain = evaluate.paired_difference(rewards, base)
    print(f"alpha {found['alpha']}, {100 * found['shots_right']:.0f} % of {found['shots']} shots, wrote {out}")
    print(f"{args.task} test, adapted: {evaluate.percent(sum(rewards), len(rewards))}; base: "
          f"{evaluate.percent(sum(base), len(base))}; gain {100 * gain[0]:+.1f} [{100 * gain[1]:+.1f}, {100 * gain[2]:+.1f}]")
    return {"task": args.task, "split": "test", "n": len(rewards), "seed": args.seed, "strategy": "cem",
            "accuracy": sum(rewards) / len(rewards), "ci95": evaluate.wilson(sum(rewards), len(rewards)),
            "base_accuracy": sum(base) / len(base), "gain": gain, "base_sha256": model.base_sha256, **found}


def do_show(args):
    from . import experts
    from .lab import plots
    path = Path(args.expert)
    if path.suffix != ".safetensors":
        hits = [p for p in [experts.OUT / f"{args.expert}.safetensors",
                            *sorted(experts.SHIPPED.glob(f"*/{args.expert}.safetensors"))] if p.is_file()]
        if not hits:
            raise FileNotFoundError(f"no expert {args.expert!r}: neither in out/ nor shipped")
        path = hits[0]
    meta, expert = experts.read_metadata(path), experts.read_expert(path)
    for key in sorted(meta):
        print(f"{key:>18}  {meta[key]}")
    if meta.get("method", "svf") != "svf":
        print(f"\n{sum(t.numel() for t in expert.values()):,} numbers of {meta['method']} in {len(expert)} tensors")
        return
    for title, value in (("mean |z - 1|", lambda z: float((z - 1).abs().mean())), ("smallest z", lambda z: float(z.min())),
                         ("largest z", lambda z: float(z.max()))):
        layers, modules, grid = plots.by_layer_and_module(expert, value)
        print(f"\n{title:<14}" + "".join(f"{m:>11}" for m in modules))
        for layer, row in zip(layers, grid.tolist()):
            print(f"layer {layer:<8}" + "".join(f"{v:>11.4f}" for v in row))
    picture = Path(args.picture or experts.OUT / f"{path.stem}.png")
    plots.draw_expert(expert, meta, picture)
    print(f"\n{sum(z.numel() for z in expert.values()):,} z in {len(expert)} matrices; picture: {picture}")
    log = path.with_suffix(".jsonl")
    if log.exists():
        curve = picture.with_name(f"{path.stem}-curve.png")
        plots.draw_log(log, curve)
        print(f"learning curve: {curve}")


def do_export(args):
    from . import experts, svf
    from .formats import download
    from .formats.export import export
    out = Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):           # before minutes of decomposing
        raise ValueError(f"{out} is not an empty folder; choose another --out")
    model, _ = open_model(args, modules=False, text=False)
    adapter = None
    if args.expert != "none":
        expert, meta = experts.load_expert(experts.find(args.expert, model), model, args.allow_other_base)
        experts.attach(model, meta, expert)
        svf.set_z(model, expert)
        adapter = experts.adapter(model, expert, meta)
    print(export(out, args.weights or download.find_weights(), svf.merged(model), model.cfg, model.dtype, adapter))


def do_reproduce(args):
    import difflib

    from .lab import reproduce
    if args.name == "all":
        return print(reproduce.listing())
    if args.name not in reproduce.ALL:
        near = difflib.get_close_matches(args.name, reproduce.ALL, 1)
        raise ValueError(f"unknown experiment {args.name!r}" + (f"; did you mean {near[0]}?" if near else "") +
                         f" Choose from {', '.join(reproduce.ALL)}; `all` lists them")
    out = Path(args.out) if args.out else None
    if args.draw:
        return reproduce.draw(reproduce.read((out or reproduce.RESULTS) / f"{args.name}.json"), out or reproduce.FIGURES,
                              args.against)
    if args.against:
        raise ValueError("--against is about a results file that is there: add --draw")
    agree(args)
    model, tokenizer = open_model(args, modules=False)
    return reproduce.run(args.name, model, tokenizer, args.quick, args.data, out)


def do_bench(args):
    from .lab import bench
    if args.repeats < 1:
        raise ValueError("--repeats must be at least 1")
    return bench.run(*open_model(args), args.repeats)


def do_demo(args):
    from . import adapt, experts
    from .lab import demo
    agree(args)
    model, tokenizer = open_model(args)
    loaded = experts.load(["dispatcher", *adapt.SKILLS], model, args.allow_other_base)
    return demo.run(model, tokenizer, loaded.pop("dispatcher"), loaded)


def do_doctor(args):
    from .lab import doctor
    return doctor.run()


def main(argv=None):
    """Run one verb. -> exit status: 0, 1 for a clear error, 2 for wrong options, 130 after Ctrl-C."""
    parser, verbs = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        verbs.get(args.verb, parser).unknown(unknown[0])
    if not args.verb:
        parser.print_help()
        return 2
    if getattr(args, "data", None):
        os.environ["T2MINI_DATA"] = args.data               # whoever asks for a task by name finds it
    try:
        result = globals()["do_" + args.verb](args)
        if getattr(args, "json", False):
            print(json.dumps(result))
        return 0
    except KeyboardInterrupt as e:
        print(f"\nt2mini: stopped. {e}".rstrip(), file=sys.stderr)
        return 130
    except OSError as e:
        text = "no space left on the disk; nothing was overwritten" if e.errno == errno.ENOSPC else str(e)
        print(f"t2mini: {text}", file=sys.stderr)
        return 1
    except (ValueError, RuntimeError, MemoryError) as e:
        print(f"t2mini: {str(e).splitlines()[0] if str(e) else type(e).__name__}", file=sys.stderr)
        return 1
    finally:
        if "torch" in sys.modules:
            from .machine import ranks
            ranks.stop()


if __name__ == "__main__":
    sys.exit(main())
