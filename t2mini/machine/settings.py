"""
What the settings of a training run may be: recipe.py asks here before anything is loaded.
And what may be asked of a model: adapt.py asks before an expert is read, generate.py before a
token is drawn.
"""
from dataclasses import replace

# Choices of the released code that a run can go back to (--as-released). Each changes one thing, so
# that its worth can be measured alone; "signed" only together with "no-baseline", as minus the mean
# it doubles every advantage, which Adam does not see.
RELEASED = {
    "greedy": "one arg-max answer to each of prompts * samples questions, the baseline over all",
    "no-baseline": "the reward itself is the advantage",
    "signed": "a wrong answer earns -1 instead of 0",
    "sigmoid": "z = sigmoid(p), the nuclear norm kept (svf.py)",
    "noise": "what is trained starts with a noise of 0.01 N(0, 1)",
    "bf16": "what is trained, and so Adam's moments, in bfloat16; its beta2 is 0.999, at which a "
            "second moment in bfloat16 cannot decay: 0.1 % less rounds to the same number",
    "lr": "the learning rate is 2e-3 and constant",
    "sum": "the sum over all tokens is divided by the questions, not by the tokens, so that a "
           "step grows with the answers' length",
    "prose": "prose behind a code block is paid like the code",
    "retoken": "the likelihood is that of the answer's text, cut into tokens anew, which need not "
               "be those that were sampled; a stop token that is no text has none",
    "all": "all of these, no KL, the gradient's norm clipped at 1e-3, and the MLP's matrices"}

# Those that give settings a value. What they switch on besides, and "greedy", are in recipe.py.
IMPLIED = {
    "no-baseline": {"baseline": "none"},
    "signed": {"wrong": -1.0},
    "lr": {"lr": 2e-3},
    "all": {"kl": 0.0, "clip": 1e-3, "modules": "gate,up,down"}}

# What a number may be: lowest and highest. Beyond these nothing is learnt, or the run never ends.
RANGES = {
    "steps": (1, 1_000_000),
    "prompts": (1, 4096),
    "samples": (1, 1009),       # as many random streams a question has (generate.uniforms)
    "max_tokens": (0, 32_768),
    "temperature": (0.0, 100.0),
    "wrong": (-1000.0, 0.0),
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
    "objective": ("reward", "options", "next-token"),
    "baseline": ("group", "batch", "none"),
    "tie": ("none", "matrix", "layer", "module"),
    "layers": ("all", "half")}


def option(name):
    return "--" + name.replace("_", "-")


def released(as_released):
    """The set of choices that as_released names, what "all" stands for included."""
    named = {d.strip() for d in as_released.split(",")} - {""}
    for d in sorted(named - {*RELEASED}):
        raise ValueError(f"--as-released: the release made no choice {d!r}; "
                         f"choose from {', '.join(RELEASED)}")
    if "all" in named:
        return {*RELEASED}
    return named


def implied(named):
    """The settings that choices of the release give a value: dict name -> value."""
    values = {}
    for choice in named & IMPLIED.keys():
        values |= IMPLIED[choice]
    return values


UNJUDGED = "--objective=next-token samples and judges no answers"
PICKED = "--objective=options picks whole answers"
# setting -> {objective under which it does nothing: why}
IDLE_UNDER = {"must_stop": {"next-token": UNJUDGED, "options": PICKED},
              "wrong": {"next-token": UNJUDGED},
              "max_tokens": {"options": PICKED}}


def overridden(given, used, defaults):
    """One line for each setting that was given and that another one replaces:
    dicts name -> value."""
    said = []
    under = f"--objective={given['objective']}"
    if given["as_released"]:
        under += f" --as-released={given['as_released']}"
    for name, value in given.items():
        if name != "as_released" and value not in (defaults[name], used[name]):
            said.append(f"{option(name)}={value} is not used: it is {used[name]} under {under}")
    for name, objectives in IDLE_UNDER.items():
        if given["objective"] in objectives and used[name] != defaults[name]:
            said.append(f"{option(name)} is not used: {objectives[given['objective']]}")
    for name in ("rank", "lora_alpha"):
        if used["method"] != "lora" and used[name] != defaults[name]:
            said.append(f"{option(name)}={used[name]} is not used: it is for --method=lora")
    return said


def check_fields(given, defaults, methods):
    """ValueError for a number out of its range, a word that is none of its choices, or a value of
    another type than its default. given, defaults: dict name -> value; methods: the
    kinds of expert that there are."""
    for name, value in given.items():
        if name not in RANGES and type(value) is not type(defaults[name]):
            raise ValueError(f"{option(name)} cannot be {value!r:.40}")
    for name, (low, high) in RANGES.items():
        value = given[name]
        whole = isinstance(low, int)
        allowed = int if whole else (int, float)
        fits = isinstance(value, allowed) and not isinstance(value, bool)
        if not fits or not low <= value <= high:            # NaN is in no range
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{option(name)} must be {kind} from {low:,.9g} to {high:,.9g}, "
                             f"not {value!r:.40}")
    for name, words in {**CHOICES, "method": methods}.items():
        if given[name] not in words:
            raise ValueError(f"{option(name)} must be one of {', '.join(words)}, "
                             f"not {given[name]!r}")
    if given["prompts"] * given["samples"] > ANSWERS:
        raise ValueError(f"--prompts times --samples must be at most {ANSWERS:,} answers for an "
                         f"update, not {given['prompts'] * given['samples']:,}")


def check_switches(cfg, named):
    """ValueError where two switches undo each other. named: the choices of the release."""
    if cfg.objective == "next-token" and named & {"greedy", "no-baseline", "signed"}:
        raise ValueError("--objective=next-token samples nothing: of --as-released greedy, "
                         "no-baseline, signed and all do not go with it, sigmoid and bf16 do")
    if cfg.objective != "reward" and cfg.kl:
        raise ValueError("--kl is measured on answers that the model writes: only "
                         "--objective=reward has them")
    if cfg.objective == "options":
        taught = cfg.baseline == "group" and cfg.samples >= 2 and cfg.temperature >= COLDEST
        if not taught or named & {"greedy", "no-baseline", "retoken", "all"}:
            raise ValueError("--objective=options needs --baseline=group, two --samples or more, "
                             "a temperature above 0 and answers as they are drawn (of "
                             "--as-released not greedy, no-baseline, retoken or all): see "
                             "likelihood.draw_from")
    forms = (cfg.tie != "none") + ("sigmoid" in named)
    if cfg.start and forms:
        raise ValueError("--start sets every z to that expert's, which neither a tied z nor the "
                         "sigmoid form can be")
    if forms > 1 or (forms and cfg.method != "svf"):
        raise ValueError("--tie and the sigmoid form are two ways to write SVF's z: only "
                         "--method=svf has one, and one of them")


def check_that_it_teaches(recipe):
    """ValueError where every advantage would be 0, whatever the answers earn. A KL term alone pulls
    to the base model, where a run without --start begins: all that moves z then is rounding."""
    if 0 < recipe.temperature < COLDEST:
        raise ValueError(f"--temperature must be 0 (arg-max) or at least {COLDEST}, "
                         f"not {recipe.temperature}")
    if recipe.baseline == "none":
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


def check_dtype(dtype):
    """ValueError for a model whose gradients would vanish."""
    if str(dtype) == "torch.float16":
        raise ValueError("float16 loses the small gradients of a training: take --dtype=bfloat16 "
                         "or --dtype=float32")


def check_layers(method, settings):
    """ValueError, before numbers of a damaged file ask for memory."""
    types = {"modules": (str,), "layers": (str,), "rank": (int,), "lora_alpha": (int, float)}
    whole = isinstance(settings, dict) and all(
        type(settings.get(name)) in allowed for name, allowed in types.items())
    if not whole or not (0 < settings["rank"] <= RANGES["rank"][1]
                         and 0 < settings["lora_alpha"] <= RANGES["lora_alpha"][1]):
        raise ValueError(f"this {method} expert does not say how it was trained (modules, layers, "
                         "rank, lora_alpha): damaged file?")


def kind_told(meta):
    """What an expert's metadata say of its layers, in words: LoRA's differ by rank and by alpha /
    rank, too."""
    method, told = meta.get("method", "svf"), meta.get("config")
    if method != "lora":
        return method
    check_layers(method, told)
    return (f"{method} of rank {told['rank']} with alpha / rank "
            f"{told['lora_alpha'] / told['rank']:g}")


def check_answer(model, tokenizer, questions, opener, strategy, strategies, experts, expert,
                 max_tokens, temperature):
    """ValueError for questions that cannot be answered so, before the first is: see
    adapt.answer."""
    if not isinstance(questions, (list, tuple)):
        raise ValueError("a question is a text, several are a list of texts, "
                         f"not {questions!r:.40}")
    if not all(isinstance(q, str) and q.strip() for q in questions):
        raise ValueError("a question is empty, or no text")
    if strategy not in strategies and (strategy is not None or expert is None):
        raise ValueError(f"unknown strategy {strategy!r}; choose from {', '.join(strategies)}")
    if expert == "":
        raise ValueError("the expert's name is empty; none is the base model")
    check_sampling(max_tokens, temperature)
    check_room(model, tokenizer, questions, opener, max_tokens)
    if isinstance(experts, dict):               # a Shelf tells itself what it does not have
        by = {"classifier": "dispatcher", "cem": "mixture"}.get(strategy)
        name = by if expert is None else expert
        if isinstance(name, str) and name != "none" and name not in experts:
            raise ValueError(f"there is no {name!r} among the experts that were given: "
                             f"{', '.join(experts) or 'none at all'}")


def check_room(model, tokenizer, questions, opener, max_tokens):
    """ValueError for a question that, with its answer, exceeds the model's context."""
    check_questions([(q, []) for q in questions], tokenizer, opener, max_tokens,
                    model.cfg.max_position_embeddings)


def check_sampling(max_tokens, temperature):
    """ValueError for a longest answer or a temperature at which nothing can be drawn."""
    if type(max_tokens) is not int or max_tokens < 1:
        raise ValueError(f"max_tokens must be a whole number from 1 on, not {max_tokens!r}")
    highest = RANGES["temperature"][1]
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not number or not (temperature == 0 or COLDEST <= temperature <= highest):
        raise ValueError(f"temperature must be 0 (the likeliest token) or a number from {COLDEST} "
                         f"to {highest:g}, not {temperature!r:.40}")


def check_prompts(prompts, max_tokens, temperature, context):
    """ValueError where nothing can be drawn so, for an empty prompt (a list of ids), or one that
    leaves no room in the model's context."""
    check_sampling(max_tokens, temperature)
    if not prompts or not all(prompts):
        raise ValueError("there is nothing to answer: a prompt is empty")
    longest = max(map(len, prompts))
    if longest + max_tokens > context:
        raise ValueError(f"a prompt of {longest} tokens plus {max_tokens} new ones exceeds this "
                         f"model's context of {context}; shorten it or lower --max-tokens")


def check_questions(rows, tokenizer, opener, max_tokens, context):
    """ValueError for a question that leaves no room for its answer: before anything is trained or
    answered, not when its turn comes. rows: (question, [answers that are learnt from]).

    A token has a byte at least, so short texts are not cut into tokens.
    """
    def size(text):
        return len(text.encode("utf-8", "replace"))

    for text, _ in rows[:1]:                                # an image needs an eye
        tokenizer.prompt(text, opener=opener)
    for text, answers in rows:
        longest = max(answers, key=size, default="")
        if size(text) + max(max_tokens, size(longest)) <= context / 2:
            continue
        n = len(tokenizer.prompt(text, opener=opener))
        learnt = len(tokenizer.answer(longest, opener)) if answers else 0
        if n + max_tokens > context:
            raise ValueError(f"the question {text[:60]!r}... has {n:,} tokens; with {max_tokens} "
                             f"for the answer it exceeds this model's context of {context}: "
                             "shorten it, leave it out or lower --max-tokens")
        if n + learnt > context:
            raise ValueError(f"the question {text[:60]!r}... has {n:,} tokens and an answer of "
                             f"{learnt:,}, which exceed this model's context of {context}: "
                             "shorten them or leave them out")


def with_room(task, cfg):
    """The task as a run with these settings validates it: a file of yours with the limit of the
    updates, published questions with their own, or that of the updates where it is longer."""
    limit = max(cfg.max_tokens, task.max_tokens)
    if cfg.max_tokens and cfg.task.endswith(".jsonl"):
        limit = cfg.max_tokens
    return replace(task, max_tokens=limit)
