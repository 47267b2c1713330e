"""
The settings of a training run, and what follows from them: `settled` writes every switch out.

Switches: method (SVF or a baseline of lora.py), objective (rewards, options or gold answers),
          tie (one z for many), and as_released, which goes back to choices of the released code,
          one by one or all, to see what each is worth.
"""
from dataclasses import dataclass, fields

from . import lora


@dataclass(frozen=True)
class TrainConfig:
    """What a person chooses; files keep these fields, so that a run can be made again."""
    task: str = "math"          # which task pays the reward
    steps: int = 40             # updates
    prompts: int = 12           # questions per update
    samples: int = 8            # answers per question
    objective: str = "reward"   # "options": drawn among a question's; "next-token": gold answers
    baseline: str = "group"     # mean reward of the question's answers; "batch": of all; "none"
    max_tokens: int = 0         # longest sampled answer; 0 takes the task's own limit
    must_stop: bool = False     # an answer cut off at max_tokens earns nothing: no endless prose
    temperature: float = 0.8    # of sampling and scoring; at 1.0 a small model wanders off
    lr: float = 5e-3            # of AdamW on z; the paper's 2e-3 is for the logit form, 256 prompts
    kl: float = 0.0             # lambda of equation 1; 0 skips the base model's pass
    clip: float = 1.0           # largest gradient norm
    method: str = "svf"         # what is trained: svf, or a baseline of lora.py: lora, ia3
    modules: str = ""           # which linear layers get a z; "": the method's (lora.METHODS)
    rank: int = 16              # LoRA: of its change to each matrix
    lora_alpha: float = 32.0    # LoRA: the change is B A alpha / rank
    tie: str = "none"           # SVF: one z for a "matrix", a block ("layer"), a kind ("module")
    layers: str = "all"         # "half": every second block (paper A.1: its 70B and vision models)
    seed: int = 0               # of data, sampling and LoRA's A; z starts at 1
    val_every: int = 10         # updates between validations
    val_n: int = 96             # validation questions; the best z on them is kept
    patience: int = 4           # stop after so many validations without a new best
    as_released: str = ""       # departures towards the release, "greedy,signed": see `settled`


@dataclass(frozen=True)
class Recipe(TrainConfig):
    """A TrainConfig with all that follows from it. What the rest of the program asks for."""
    signed_reward: bool = False     # a wrong answer earns -1 instead of 0
    logit_form: bool = False        # z = sigmoid(p), the nuclear norm kept (svf.py)
    bf16_training: bool = False     # what is trained, and so Adam's moments, in bfloat16
    constant_lr: bool = False       # no cosine decay of the learning rate
    sum_per_answer: bool = False    # log-probabilities summed over an answer, whatever its length
    prose_credited: bool = False    # prose behind a code block is paid like the code


DEPARTURES = ("greedy", "no-baseline", "signed", "sigmoid", "bf16", "all")


def written(cfg):
    """The settings as files keep them: dict of the fields of TrainConfig."""
    return {f.name: getattr(cfg, f.name) for f in fields(TrainConfig)}


def settled(cfg):
    """TrainConfig -> Recipe: all that follows from its switches. ValueError where these contradict
    each other.

    as_released, each alone or several:
    greedy       one arg-max answer to each of prompts * samples questions; the baseline is then the
                 whole update's mean
    no-baseline  the reward itself is the advantage
    signed       a wrong answer earns -1 instead of 0
    sigmoid      z = sigmoid(p), the nuclear norm kept (svf.py)
    bf16         what is trained, and so Adam's moments, in bfloat16; the release's learning rate
    all          the first four, the release's learning rate (constant), clip and modules,
                 log-probabilities summed over an answer, and prose behind a code block paid like
                 the code
    """
    named = departures(cfg)
    check_switches(cfg, named)
    then = written(cfg)
    then["modules"] = cfg.modules or lora.find(cfg.method).modules
    then["as_released"] = ",".join(d for d in DEPARTURES if d in named)
    if cfg.objective == "next-token":
        then |= {"samples": 1, "temperature": 1.0, "baseline": "none"}
    if "greedy" in named:
        then |= {"samples": 1, "prompts": cfg.prompts * cfg.samples, "temperature": 0.0,
                 "baseline": "batch"}
    if "no-baseline" in named:
        then |= {"baseline": "none"}
    if "bf16" in named:
        then |= {"lr": 2e-3}
    if "all" in named:
        then |= {"lr": 2e-3, "kl": 0.0, "clip": 1e-3, "modules": "gate,up,down"}
    return Recipe(
        **then,
        signed_reward="signed" in named,
        logit_form="sigmoid" in named,
        bf16_training="bf16" in named,
        constant_lr="all" in named,
        sum_per_answer="all" in named,
        prose_credited="all" in named)


def departures(cfg):
    """The set of departures that as_released names, what "all" stands for included."""
    named = {d.strip() for d in cfg.as_released.split(",")} - {""}
    for d in sorted(named - {*DEPARTURES}):
        raise ValueError(f"--as-released: unknown departure {d!r}; "
                         f"choose from {', '.join(DEPARTURES)}")
    if "all" in named:
        named |= {*DEPARTURES[:4]}
    return named


def check_switches(cfg, named):
    """ValueError where two switches undo each other. named: the departures."""
    if cfg.objective == "next-token" and named & {"greedy", "no-baseline", "signed"}:
        raise ValueError("--objective=next-token samples nothing: of --as-released only sigmoid "
                         "and bf16 go with it")
    if cfg.objective == "options":
        taught = cfg.baseline == "group" and cfg.samples >= 2 and cfg.temperature > 0
        if not taught or named & {"greedy", "no-baseline", "all"}:
            raise ValueError("--objective=options needs --baseline=group, two --samples or more "
                             "and a temperature above 0: see likelihood.choose")
    forms = (cfg.tie != "none") + ("sigmoid" in named)
    if forms > 1 or (forms and cfg.method != "svf"):
        raise ValueError("--tie and the sigmoid form are two ways to write SVF's z: only "
                         "--method=svf has one, and one of them")
