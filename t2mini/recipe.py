"""
The settings of a training run, and what follows from them: `settled` writes every switch out.

Switches: method (SVF or a baseline of lora.py), objective (rewards, options or gold answers), tie (one z for many), and as_released,
          which goes back to choices of the released code, one by one or all, to see what each is worth.
"""
from dataclasses import dataclass, replace

from . import lora


@dataclass(frozen=True)
class TrainConfig:
    task: str = "math"          # which task pays the reward
    steps: int = 40             # updates
    prompts: int = 12           # questions per update
    samples: int = 8            # answers per question
    objective: str = "reward"   # "options": drawn among a question's options; "next-token": gold answers, nothing is sampled
    baseline: str = "group"     # mean reward of the question's answers; "batch": of all answers of the update; "none"
    max_tokens: int = 0         # longest sampled answer; 0 takes the task's own limit
    must_stop: bool = False     # an answer cut off at max_tokens earns nothing: else code is followed by endless prose
    temperature: float = 0.8    # of sampling and scoring; at 1.0 a small model wanders off too often to be right
    lr: float = 5e-3            # of AdamW on z; the paper's 2e-3 is for the logit form and 256 prompts
    kl: float = 0.0             # lambda of equation 1; 0 skips the base model's pass
    clip: float = 1.0           # largest gradient norm
    method: str = "svf"         # what is trained: svf, or a baseline of lora.py: lora, ia3
    modules: str = ""           # which linear layers get a z; "" takes the method's own list (lora.METHODS)
    rank: int = 16              # LoRA: of its change to each matrix
    lora_alpha: float = 32.0    # LoRA: the change is B A alpha / rank
    tie: str = "none"           # SVF: one z for a whole "matrix", for a block's ("layer"), or for all of a kind ("module")
    layers: str = "all"         # "half": every second block (paper A.1, for its 70B and vision models)
    seed: int = 0               # of data, sampling and LoRA's A; z starts at 1
    val_every: int = 10         # updates between validations
    val_n: int = 96             # validation questions; the best z on them is kept
    patience: int = 4           # stop after so many validations without a new best
    as_released: str = ""       # departures towards the released code, such as "greedy,signed": see `settled`


DEPARTURES = ("greedy", "no-baseline", "signed", "sigmoid", "bf16", "all")


def settled(cfg):
    """The config with all that follows from its switches. ValueError where these contradict each other.

    as_released, each alone or several:
    greedy       one arg-max answer to each of prompts * samples questions; the baseline is then the whole update's mean
    no-baseline  the reward itself is the advantage
    signed       a wrong answer earns -1 instead of 0
    sigmoid      z = sigmoid(p), the nuclear norm kept (svf.py)
    bf16         what is trained, and so Adam's moments, in bfloat16; the release's learning rate
    all          the first four, the release's learning rate (constant), clip and modules, log-probabilities summed over an
                 answer, and prose behind a code block paid like the code
    """
    named = {d.strip() for d in cfg.as_released.split(",")} - {""}
    for d in sorted(named - {*DEPARTURES}):
        raise ValueError(f"--as-released: unknown departure {d!r}; choose from {', '.join(DEPARTURES)}")
    named |= {*DEPARTURES[:4]} if "all" in named else set()
    if cfg.objective == "next-token" and named & {"greedy", "no-baseline", "signed"}:
        raise ValueError("--objective=next-token samples nothing: of --as-released only sigmoid and bf16 go with it")
    if cfg.objective == "options" and (
            cfg.baseline != "group" or cfg.samples < 2 or cfg.temperature <= 0 or named & {"greedy", "no-baseline", "all"}):
        raise ValueError("--objective=options needs --baseline=group, two --samples or more and a temperature above 0: "
                         "see likelihood.choose")
    if cfg.method != "svf" and (cfg.tie != "none" or "sigmoid" in named) or cfg.tie != "none" and "sigmoid" in named:
        raise ValueError("--tie and the sigmoid form are two ways to write SVF's z: only --method=svf has one, and one of them")
    then = {"modules": cfg.modules or lora.find(cfg.method).modules, "as_released": ",".join(d for d in DEPARTURES if d in named)}
    if cfg.objective == "next-token":
        then |= {"samples": 1, "temperature": 1.0, "baseline": "none"}
    if "greedy" in named:
        then |= {"samples": 1, "prompts": cfg.prompts * cfg.samples, "temperature": 0.0, "baseline": "batch"}
    if "no-baseline" in named:
        then |= {"baseline": "none"}
    if "bf16" in named:
        then |= {"lr": 2e-3}
    if "all" in named:
        then |= {"lr": 2e-3, "kl": 0.0, "clip": 1e-3, "modules": "gate,up,down"}
    return replace(cfg, **then)
