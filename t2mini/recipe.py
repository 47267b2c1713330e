"""
The settings of a training run, and what follows from them: `settled` writes every switch out.

Switches: method (SVF or a baseline of lora.py), objective (rewards, options or gold answers),
          tie (one z for many), and as_released, which goes back to choices of the released code,
          one by one or all, to see what each is worth.
Checked:  by machine/settings.py, every number, every word, and that there is something to learn
          from: a setting under which nothing is learnt stops with one line.
"""
from dataclasses import dataclass, fields

from . import lora
from .machine import settings
from .machine.settings import RELEASED      # name: what the release does there


@dataclass(frozen=True)
class TrainConfig:
    """What a person chooses; files keep these fields, so that a run can be made again."""
    task: str = "math"          # which task pays the reward
    start: str = ""             # an expert to go on from; "": the base model
    steps: int = 40             # updates
    prompts: int = 12           # questions per update
    samples: int = 8            # answers per question
    objective: str = "reward"   # "options": drawn among a question's; "next-token": gold answers
    baseline: str = "group"     # mean reward of the question's answers; "batch": of all; "none"
    max_tokens: int = 0         # longest sampled answer; 0: the task's own limit, as in validation
    must_stop: bool = False     # in updates (not in validation) an answer cut off earns nothing
    wrong: float = 0.0          # what a wrong answer earns; -1 in the paper, for vision -0.1 (A.1)
    temperature: float = 0.8    # of sampling and scoring; 1.0 explores more
    lr: float = 5e-3            # of AdamW on z; the paper has 2e-3, with 256 questions per update
    kl: float = 0.0             # lambda of equation 1; 0 skips the base model's pass
    clip: float = 1.0           # largest gradient norm
    method: str = "svf"         # what is trained: svf, or a baseline of lora.py: lora, ia3
    modules: str = ""           # which linear layers get a z; "": the method's (lora.METHODS)
    rank: int = 16              # LoRA: of its change to each matrix
    lora_alpha: float = 32.0    # LoRA: the change is B A alpha / rank
    tie: str = "none"           # SVF: one z for a "matrix", a block ("layer"), a kind ("module")
    layers: str = "all"         # "half": every second block (paper A.1: its 70B and vision models)
    seed: int = 0               # of data, sampling and LoRA's A; z starts at 1 or as `start` says
    val_every: int = 10         # updates between validations
    val_n: int = 96             # validation questions; the best z on them is kept
    patience: int = 4           # stop after so many validations without a new best
    as_released: str = ""       # choices of the released code, "greedy,signed": see RELEASED


@dataclass(frozen=True)
class Recipe(TrainConfig):
    """A TrainConfig with all that follows from it. What the rest of the program asks for."""
    logit_form: bool = False        # z = sigmoid(p), the nuclear norm kept (svf.py)
    start_noise: bool = False       # 0.01 N(0, 1) is added to what is trained, at the start
    bf16_training: bool = False     # what is trained, and so Adam's moments, in bfloat16
    beta2: float = 0.99             # of Adam's second moment
    constant_lr: bool = False       # no cosine decay of the learning rate
    sum_per_answer: bool = False    # the sum is divided by the questions, not by the tokens
    prose_credited: bool = False    # prose behind a code block is paid like the code
    retokenised: bool = False       # an answer's text is cut into tokens anew; no stop token


def written(cfg):
    """The settings as files keep them: dict of the fields of TrainConfig."""
    return {f.name: getattr(cfg, f.name) for f in fields(TrainConfig)}


def settled(cfg):
    """TrainConfig -> Recipe: all that follows from its switches. ValueError, one line that names
    the option, for a number out of range, switches that contradict each other, or nothing to learn
    from.

    as_released: names of RELEASED. "all" is as near to the released code as this program gets.
    Not in it: its batch of 256 questions (that is --prompts); matrices rebuilt from their rounded
    factors (chapter 10); stop words that cut an answer; sampling by another engine than the one
    that is scored; its graders; reading test questions while training, and never stopping early.
    """
    settings.check_fields(written(cfg), written(TrainConfig()), tuple(lora.METHODS))
    named = settings.released(cfg.as_released)
    settings.check_switches(cfg, named)
    then = written(cfg)
    then["modules"] = cfg.modules or lora.find(cfg.method).modules
    then["as_released"] = ",".join(d for d in RELEASED if d in named)
    if cfg.objective == "next-token":
        then |= {"samples": 1, "temperature": 1.0, "baseline": "none"}
    if "greedy" in named:
        then |= {"samples": 1, "prompts": cfg.prompts * cfg.samples, "temperature": 0.0,
                 "baseline": "batch"}
    then |= settings.implied(named)
    recipe = Recipe(
        **then,
        logit_form="sigmoid" in named,
        start_noise="noise" in named,
        bf16_training="bf16" in named,
        beta2=0.999 if "bf16" in named else 0.99,
        constant_lr="lr" in named,
        sum_per_answer="sum" in named,
        prose_credited="prose" in named,
        retokenised="retoken" in named)
    settings.check_that_it_teaches(recipe)
    return recipe
