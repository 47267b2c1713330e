"""
`python -m t2mini bench`: how fast each part runs, beside what this machine could do at best.

Ceilings first: how fast memory is read, and how fast the model's own matrices multiply so many
rows, each the fastest of several tries. Decoding one answer reads every weight once per token, so
it is held against the first; batches multiply, so they are held against the second. Every figure is
the median of its repeats, printed with the smallest and the largest, if its line says nothing else.
Run nothing else beside it: on two cores another busy process makes parallel code several times
slower, not half as fast.
"""
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from .. import adapt, recipe, reinforce, svf, tasks
from ..generate import generate
from ..machine.memory import return_memory
from ..machine.packed import linear

WIDTH = 46                      # of the names in the table


def measured(model, run, repeats):
    """Seconds of run(), `repeats` times after one warm-up: a sorted list."""
    out = []
    for i in range(repeats + 1):
        t0 = time.perf_counter()
        run()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        out.append(time.perf_counter() - t0)
    return sorted(out[1:])


def report(name, seconds, text="", bound=None, middle=None):
    """One line of the table. -> the median, or `middle` where that is given."""
    middle = middle or statistics.median(seconds)
    limit = ("" if bound is None
             else f"   {100 * bound / middle:3.0f} % of the limit ({1000 * bound:.1f} ms)")
    print(f"{name:<{WIDTH}}{1000 * middle:>10.1f} ms  "
          f"[{1000 * seconds[0]:.1f}, {1000 * seconds[-1]:.1f}]  {text}{limit}", flush=True)
    return middle


# ----------------------------------------------------------------------------------------- ceilings
def read_rate(model):
    """Bytes per second when a large tensor is summed;
    the fastest of several, because a limit is meant."""
    big = torch.ones(1 << 28, dtype=torch.float32, device=model.device)          # 1 GiB
    return big.numel() * 4 / measured(model, lambda: big.sum(), 6)[0]


def matrices(model):
    """Every weight that a token meets: the linear layers' and the output head's."""
    head = model.embedding if model.cfg.tie_word_embeddings else model.lm_head.weight
    tuned = svf.layers(model)
    others = [model.get_submodule(name) for name in svf.targets(model, ",".join(svf.SHORT))
              if name not in tuned]
    return [*(layer.W for layer in tuned.values()),
            *(svf.turned(layer, layer.weight.detach()) for layer in others), head]


def gemm_rate(model, rows, repeats=3):
    """Operations per second (a multiply-add is two) of all the model's matrices
    on `rows` rows and nothing else, by torch's product or packed.py's, whichever is quicker here:
    what the model runs on may not be above what is called its limit."""
    weights = matrices(model)
    x = {n: torch.randn(rows, n, device=model.device).to(model.dtype)
         for n in {W.shape[1] for W in weights}}
    with torch.inference_mode():
        seconds = min(measured(model, lambda: [product(x[W.shape[1]], W) for W in weights],
                               repeats)[0] for product in (F.linear, linear))
    return 2 * rows * sum(W.numel() for W in weights) / seconds


# ---------------------------------------------------------------------------------------- workloads
def ids(model, rows, length, seed=0):
    """Random prompts: speed does not depend on what they say."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(min(100, model.valid_vocab // 2), model.valid_vocab, (rows, length),
                         generator=g).tolist()


def decode(model, out, read, repeats):
    """Seconds per token of one answer: 34 tokens less 2, so that the prompt drops out."""
    prompts = ids(model, 1, 50)
    short, long = (
        statistics.median(measured(model, lambda: generate(model, prompts, n, [-1], 0), repeats))
        for n in (2, 34))
    step, size = (long - short) / 32, sum(W.numel() * W.element_size() for W in matrices(model))
    report("decode, one row, per token", [step], f"{1 / step:.0f} tokens/s", size / read)
    out |= {"decode_tok_s": 1 / step, "decode_bw_share": size / read / step}


def rollouts(model, tokenizer, out, repeats):
    """4 answers of 32 tokens to each of 16 prompts of 50, prompt included;
    and rows that still write, on the math task."""
    prompts, n = ids(model, 16, 50), 16 * 4 * 32
    seconds = measured(model, lambda: generate(model, prompts, 32, [-1], 0.8, samples=4), repeats)
    weights = matrices(model)
    work = 2 * ((16 * 50 + 64 * 31) * sum(W.numel() for W in weights[:-1])
                + (16 + 64 * 31) * weights[-1].numel())
    rate = gemm_rate(model, 64)
    t = report("rollouts, 16 x 4 rows, 32 tokens", seconds,
               f"{n / statistics.median(seconds):.0f} tokens/s", work / rate)
    asked = [tokenizer.prompt(e.prompt) for e in tasks.get("math").examples("train", 12)]
    math = generate(model, asked, 64, tokenizer.stop_ids, 0.8, samples=8)
    out |= {"rollout_tok_s": n / t, "rollout_gemm_share": work / rate / t,
            "gemm_gflops_64_rows": rate / 1e9,
            "row_efficiency": math.lengths.sum().item() / math.row_steps}
    print(f"{'row efficiency on the math task':<{WIDTH}}{100 * out['row_efficiency']:>10.0f} %")


def training(model, out, repeats):
    """One pass over 32 x 70 tokens, all of them scored:
    with z's gradient, and with nothing but the activations'."""
    groups, advantage = [(row[:1], [row[1:]]) for row in ids(model, 32, 70)], [[0.1]] * 32
    z = [layer.z for layer in svf.layers(model).values()]
    embed = model.model.embed_tokens if model.cfg.family == "llama" else model.transformer.wte
    # so that there is a backward pass
    hook = embed.register_forward_hook(lambda module, args, y: y.requires_grad_())
    try:
        for p in z:
            p.requires_grad_(False)
        frozen = report("frozen pass, 32 x 70 tokens", measured(
            model, lambda: reinforce.policy_gradient(model, groups, advantage), repeats))
    finally:
        hook.remove()
        for p in z:
            p.requires_grad_(True)
    train = report("training pass, all layers", measured(
        model, lambda: reinforce.policy_gradient(model, groups, advantage), repeats), bound=frozen)
    out |= {"frozen_pass_s": frozen, "train_pass_s": train, "train_over_frozen": train / frozen}


def peak_memory(model, reset=False):
    """Largest memory in use since the last reset, in bytes; None where the system does not tell."""
    if model.device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return None


def step(model, tokenizer, out, repeats):
    """The first updates of the math recipe, in which answers are longest:
    their mean is above that of a whole run."""
    cfg = recipe.settled(recipe.TrainConfig(prompts=16, samples=6, max_tokens=40, must_stop=True))
    optimizer = torch.optim.AdamW([layer.z for layer in svf.layers(model).values()],
                                  lr=cfg.lr, weight_decay=0.0)
    return_memory()                                         # of the measurements before
    peak_memory(model, reset=True)
    found = [reinforce.update(model, tokenizer, tasks.get("math"), cfg, i, optimizer)[0]
             for i in range(2 * repeats + 1)][1:]
    for name, key in ((f"REINFORCE step, 16 x 6 answers, mean of {2 * repeats}", "sec"),
                      ("  sampling", "sec_sample"),
                      ("  scoring", "sec_score"),
                      ("  gradient, Adam and fold", "sec_update")):
        seconds = sorted(f[key] for f in found)
        out["step_s" if key == "sec" else f"step_{key}"] = report(
            name, seconds, middle=statistics.mean(seconds))
    out["fold_s"] = report("  fold alone", measured(model, lambda: svf.fold(model), repeats))
    peak, weights = peak_memory(model), sum(p.numel() * p.element_size()
                                            for p in model.parameters() if not p.requires_grad)
    out["train_peak_over_weights_mb"] = (peak - weights) / 1e6 if peak else None
    print(f"{'peak memory above the weights':<{WIDTH}}"
          f"{(peak - weights) / 1e6 if peak else float('nan'):>10.0f} MB")
    svf.reset(model)


def forms(model, out, repeats, tokens=2048):
    """The gradient of z in three ways on the largest matrix, against a pass without it:
    svf.py has the first."""
    layer = max(svf.layers(model).values(), key=lambda layer: layer.W.numel())
    (m, n), Sz = layer.W.shape, (layer.S * layer.z.detach()).to(model.dtype)
    x = torch.randn(tokens, n, device=model.device).to(model.dtype).requires_grad_()
    g = torch.randn(tokens, m, device=model.device).to(model.dtype)

    def folded():                                           # svf.FoldedLinear: no m x n gradient
        svf.FoldedLinear.apply(x, layer.z, layer.folded, layer.U, layer.S, layer.Vt,
                               layer.from_y).backward(g)

    def factored():                                         # y = ((x V) * S z) U^T, all by autograd
        (((x @ layer.Vt.T) * Sz.requires_grad_()) @ layer.U.T).backward(g)

    # the m x n gradient of W', projected on u_i v_i^T
    def dense():
        F.linear(x, layer.W).backward(g)
        layer.S * ((layer.U.T @ (g.T @ x.detach())) * layer.Vt).sum(1)
    frozen = statistics.median(measured(model, lambda: F.linear(x, layer.W).backward(g), repeats))
    out["forms_over_frozen"] = {
        f.__name__: round(statistics.median(measured(model, f, repeats)) / frozen, 3)
        for f in (folded, factored, dense)}
    print(f"{f'gradient of z, {m} x {n}, {tokens} tokens':<{WIDTH}}"
          f"{1000 * frozen:>10.1f} ms without; times "
          + ", ".join(f"{k} {v:.2f}" for k, v in out["forms_over_frozen"].items()))
    layer.z.grad = None


def decomposition(model, out):
    """All SVDs into an empty cache, side by side as `attach` makes them, then out of it."""
    weights = {name: layer.W for name, layer in svf.layers(model).items()}
    with tempfile.TemporaryDirectory() as cache:
        for key, name in (("svd_cold_s", f"SVD of {len(weights)} matrices, cold"),
                          ("svd_cached_s", "  from the cache")):
            t0 = time.perf_counter()
            for _ in svf.decompose_all(weights, cache, progress=False):
                pass
            out[key] = report(name, [time.perf_counter() - t0])


def some_expert(model, seed):
    g = torch.Generator().manual_seed(seed)
    return {n: (1 + 0.02 * torch.randn(len(z), generator=g)).to(z.device)
            for n, z in svf.get_z(model).items()}


def switching(model, out, repeats):
    """One expert for the whole model, by folding;
    and what it costs when every row of a batch has an expert of its own."""
    made = [some_expert(model, seed) for seed in range(64)]
    out["switch_s"] = report("expert switch, folded", measured(
        model, lambda: svf.set_z(model, made[0]), repeats))
    svf.reset(model)
    prompts = ids(model, 64, 8)

    def run(experts, index):
        with svf.per_row(model, experts, index) as rows:
            generate(model, prompts, 9, [-1], 0, rows=rows)
    one, many = (
        report(f"decode 64 rows, {len(e)} expert(s)",
               measured(model, lambda: run(e, index), repeats))
        for e, index in ((made[:1], [0] * 64), (made, list(range(64)))))
    out["switch_row_share"] = max(0.0, many - one) / one / 64


def search(model, out, repeats):
    """32 mixtures x 10 shots, each row with its own z, beside the same rows on the base weights."""
    shots, made = ids(model, 10, 60), [some_expert(model, seed) for seed in range(32)]
    batches = [[(k, s) for k in range(at, at + 16) for s in range(10)] for at in (0, 16)]

    def plain():
        for part in batches:
            generate(model, [shots[s] for _, s in part], 32, [-1], 0)

    def mixed():
        for part in batches:
            with svf.per_row(model, made, [k for k, _ in part]) as rows:
                generate(model, [shots[s] for _, s in part], 32, [-1], 0, rows=rows)
    a = report("320 rows on the base weights", measured(model, plain, repeats))
    b = report("CEM iteration, 32 x 10 rows", measured(model, mixed, repeats), bound=a)
    out["cem_over_plain"] = b / a


def two_passes(model, tokenizer, out, repeats):
    """One question at a time, as `ask` has it, whose answers have up to 128 tokens;
    shorter answers raise the share."""
    dispatcher, question = some_expert(model, 0), tasks.get("math").examples("train", 1)[0].prompt
    first = report("first pass, one question", measured(
        model, lambda: adapt.route(model, tokenizer, [question], dispatcher), repeats))
    for tokens in (128, 64, 24):
        second = report(f"second pass, {tokens} tokens", measured(
            model, lambda: generate(model, [tokenizer.prompt(question)], tokens, [-1], 0), repeats))
        out["first_over_second" if tokens == 128
            else f"first_over_second_{tokens}_tokens"] = first / second
        print(f"{'  first over second':<{WIDTH}}{100 * first / second:>10.1f} %")


def run(model, tokenizer, repeats=5):
    """Every workload. -> dict of the medians; the model is as it was."""
    out = {"base_sha256": model.base_sha256, "device": str(model.device),
           "dtype": str(model.dtype).removeprefix("torch."),
           "threads": torch.get_num_threads(), "torch": torch.__version__, "repeats": repeats}
    print(f"medians of {repeats}, or fewer [smallest, largest]; {out['dtype']} on {model.device}, "
          f"{out['threads']} threads, torch {out['torch']}\n")
    read, few = read_rate(model), max(1, repeats // 2)
    out |= {"read_gb_s": read / 1e9, "gemm_gflops": gemm_rate(model, 2048) / 1e9}
    print(f"this machine: reads {read / 1e9:.0f} GB/s, "
          f"multiplies {out['gemm_gflops']:.0f} GFLOP/s (2048 rows)")
    with torch.random.fork_rng(devices=[]):
        decode(model, out, read, repeats)
        # first: memory that other workloads took stays in the process
        step(model, tokenizer, out, repeats)
        rollouts(model, tokenizer, out, repeats)
        training(model, out, few)
        forms(model, out, few)
        decomposition(model, out)
        switching(model, out, few)
        search(model, out, few)
        two_passes(model, tokenizer, out, few)
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}
