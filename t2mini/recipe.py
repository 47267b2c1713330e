"""
The settings of a training run, and what follows from them: `settled` writes every switch out.

Switches: method (SVF or a baseline of lora.py), objective (rewards, options or gold answers),
          tie (one z for many), and as_released, which goes back to choices of the released code,
          one by one or all, to see what each is worth.
Checked:  every number against RANGES, every word against CHOICES, and that there is something to
          learn from: a setting under which nothing is learnt stops with one line.
"""
from dataclasses import dataclass, fields, replace

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
    as_released: str = ""       # departures towards the release, "greedy,signed": see DEPARTURES


@dataclass(frozen=True)
class Recipe(TrainConfig):
    """A TrainConfig with all that follows from it. What the rest of the program asks for."""
    signed_reward: bool = False     # a wrong answer earns -1 instead of 0
    logit_form: bool = False        # z = sigmoid(p), the nuclear norm kept (svf.py)
    start_noise: bool = False       # 0.01 N(0, 1) is added to what is trained, at the start
    bf16_training: bool = False     # what is trained, and so Adam's moments, in bfloat16
    beta2: float = 0.99             # of Adam's second moment
    constant_lr: bool = False       # no cosine decay of the learning rate
    sum_per_answer: bool = False    # log-probabilities summed over an answer, whatever its length
    prose_credited: bool = False    # prose behind a code block is paid like the code
    retokenised: bool = False       # an answer's text is cut into tokens anew; no stop token


# name: what it goes back to. Each changes one thing, so that its worth can be measured alone.
DEPARTURES = {
    "greedy": "one arg-max answer to each of prompts * samples questions, the baseline over all",
    "no-baseline": "the reward itself is the advantage",
    "signed": "a wrong answer earns -1 instead of 0",
    "sigmoid": "z = sigmoid(p), the nuclear norm kept (svf.py)",
    "noise": "what is trained starts with a noise of 0.01 N(0, 1)",
    "bf16": "what is trained, and so Adam's moments, in bfloat16; its beta2 is 0.999, at which a "
            "second moment in bfloat16 cannot decay: 0.1 % less rounds to the same number",
    "lr": "the learning rate is 2e-3 and constant",
    "sum": "log-probabilities are summed over an answer, so a long one weighs more",
    "prose": "prose behind a code block is paid like the code",
    "retoken": "the likelihood is that of the answer's text, cut into tokens anew, which need not "
               "be those that were sampled; the stop token has none",
    "all": "all of these, no KL, the gradient's norm clipped at 1e-3, and the MLP's matrices"}

# What a number may be: lowest and highest. Beyond these nothing is learnt, or the run never ends.
RANGES = {
    "steps": (1, 1_000_000),
    "prompts": (1, 4096),
    "samples": (1, 1024),
    "max_tokens": (0, 32_768),
    "temperature": (0.0, 100.0),
    "lr": (1e-9, 10.0),
    "kl": (0.0, 1000.0),
    "clip": (1e-9, 1e9),
    "rank": (1, 1024),
    "lora_alpha": (1e-6, 1e6),
    "seed": (0, 2 ** 31 - 1),
    "val_every": (1, 1_000_000),
    "val_n": (1, 100_000),
    "patience": (1, 1_000_000)}
ANSWERS = 65_536            # prompts * samples, of one update
COLDEST = 0.01              # the lowest temperature above 0 that still is one

CHOICES = {
    "method": tuple(lora.METHODS),
    "objective": ("reward", "options", "next-token"),
    "baseline": ("group", "batch", "none"),
    "tie": ("none", "matrix", "layer", "module"),
    "layers": ("all", "half")}


def written(cfg):
    """The settings as files keep them: dict of the fields of TrainConfig."""
    return {f.name: getattr(cfg, f.name) for f in fields(TrainConfig)}


def settled(cfg):
    """TrainConfig -> Recipe: all that follows from its switches. ValueError, one line that names
    the option, for a number out of range, switches that contradict each other, or nothing to learn
    from.

    as_released: names of DEPARTURES. "all" is as near to the released code as this program gets.
    Not in it: its batch of 256 questions (that is --prompts); stop words that cut an answer;
    sampling by another engine than the one that is scored; its graders; reading test questions
    while training, and never stopping early.
    """
    check_fields(cfg)
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
    if "lr" in named:
        then |= {"lr": 2e-3}
    if "all" in named:
        then |= {"kl": 0.0, "clip": 1e-3, "modules": "gate,up,down"}
    recipe = Recipe(
        **then,
        signed_reward="signed" in named,
        logit_form="sigmoid" in named,
        start_noise="noise" in named,
        bf16_training="bf16" in named,
        constant_lr="lr" in named,
        sum_per_answer="sum" in named,
        prose_credited="prose" in named,
        retokenised="retoken" in named)
    if "bf16" in named:
        recipe = replace(recipe, beta2=0.999)
    check_that_it_teaches(recipe)
    return recipe


def overridden(cfg):
    """One line for each setting that was given and that another one replaces."""
    said = []
    used = settled(cfg)
    for f in fields(TrainConfig):
        given = getattr(cfg, f.name)
        instead = getattr(used, f.name)
        if f.name != "as_released" and given not in (f.default, instead):
            said.append(f"{option(f.name)}={given} is not used: it is {instead} under "
                        f"--objective={cfg.objective} --as-released={cfg.as_released}")
    return said


# ------------------------------------------------------------------------------------- checks
def option(name):
    return "--" + name.replace("_", "-")


def departures(cfg):
    """The set of departures that as_released names, what "all" stands for included."""
    named = {d.strip() for d in cfg.as_released.split(",")} - {""}
    for d in sorted(named - {*DEPARTURES}):
        raise ValueError(f"--as-released: unknown departure {d!r}; "
                         f"choose from {', '.join(DEPARTURES)}")
    if "all" in named:
        return {*DEPARTURES}
    return named


def check_fields(cfg):
    """ValueError for a number out of its range, a word that is none of its choices, or a value of
    another type than the setting has."""
    for f in fields(TrainConfig):
        value = getattr(cfg, f.name)
        if f.name not in RANGES and type(value) is not type(f.default):
            raise ValueError(f"{option(f.name)} cannot be {value!r:.40}")
    for name, (low, high) in RANGES.items():
        value = getattr(cfg, name)
        whole = isinstance(low, int)
        allowed = int if whole else (int, float)
        fits = isinstance(value, allowed) and not isinstance(value, bool)
        if not fits or not low <= value <= high:            # NaN is in no range
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{option(name)} must be {kind} from {low:,.9g} to {high:,.9g}, "
                             f"not {value!r:.40}")
    for name, words in CHOICES.items():
        if getattr(cfg, name) not in words:
            raise ValueError(f"{option(name)} must be one of {', '.join(words)}, "
                             f"not {getattr(cfg, name)!r}")
    if cfg.prompts * cfg.samples > ANSWERS:
        raise ValueError(f"--prompts times --samples must be at most {ANSWERS:,} answers for an "
                         f"update, not {cfg.prompts * cfg.samples:,}")


def check_switches(cfg, named):
    """ValueError where two switches undo each other. named: the departures."""
    if cfg.objective == "next-token" and named & {"greedy", "no-baseline", "signed"}:
        raise ValueError("--objective=next-token samples nothing: of --as-released greedy, "
                         "no-baseline, signed and all do not go with it, sigmoid and bf16 do")
    if cfg.objective != "reward" and cfg.kl:
        raise ValueError("--kl is measured on answers that the model writes: only "
                         "--objective=reward has them")
    if cfg.objective == "options":
        taught = cfg.baseline == "group" and cfg.samples >= 2 and cfg.temperature >= COLDEST
        if not taught or named & {"greedy", "no-baseline", "all"}:
            raise ValueError("--objective=options needs --baseline=group, two --samples or more "
                             "and a temperature above 0: see likelihood.choose")
    forms = (cfg.tie != "none") + ("sigmoid" in named)
    if forms > 1 or (forms and cfg.method != "svf"):
        raise ValueError("--tie and the sigmoid form are two ways to write SVF's z: only "
                         "--method=svf has one, and one of them")


def check_that_it_teaches(recipe):
    """ValueError where every advantage would be 0, whatever the answers earn."""
    if 0 < recipe.temperature < COLDEST:
        raise ValueError(f"--temperature must be 0 (arg-max) or at least {COLDEST}, "
                         f"not {recipe.temperature}")
    if recipe.kl or recipe.baseline == "none":
        return
    if recipe.baseline == "group" and recipe.samples < 2:
        raise ValueError("--samples=1 teaches nothing under --baseline=group: a lone answer is its "
                         "own mean; take two --samples or more, or --baseline=batch")
    if recipe.baseline == "group" and recipe.temperature == 0:
        raise ValueError("--temperature=0 teaches nothing under --baseline=group: all answers to a "
                         "question are the same; sample above 0, or take --baseline=batch")
    if recipe.prompts * recipe.samples < 2:
        raise ValueError("one answer for an update teaches nothing under --baseline=batch: it is "
                         "its own mean; take more --prompts or --samples")
