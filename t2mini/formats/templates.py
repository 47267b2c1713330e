"""
Chat templates: which format one asks for, and its default system message. A template is a program
(Jinja); it is read, never run.

How:      text and quoted literals are put together as they would be written for one user message
          without tools; every other piece of code becomes a mark. What stands between the format's
          own marks of a system turn, without code in it, is the default system message.
Told:     one line on stderr where a format is unknown, or a default message cannot be told from the
          code around it.
"""
import re
import sys

# chat format -> the control tokens it is made of
CHATS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama2": (),
    "mistral": (),
    "zephyr": ("</s>",),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")}
# chat format -> what stands before and behind a system message
SYSTEM_TURN = {
    "chatml": ("<|im_start|>system\n", "<|im_end|>"),
    "llama2": ("<<SYS>>\n", "\n<</SYS>>"),
    "zephyr": ("<|system|>\n", "</s>"),
    "llama3": ("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>")}
# Llama 3.1 writes two dates, the second one fixed by default
LLAMA31 = "Cutting Knowledge Date: December 2023"
DATES = f"{LLAMA31}\nToday Date: 26 Jul 2024\n\n"
LONGEST = 200_000  # characters of a template; known ones have 10,000 at most
MOST = 20_000  # characters that a variable, or an expression, is followed to

CODE = "\ue000"                             # stands for what code writes that is not known
TAG = re.compile(r"\{([{%#])([-+]?)")
END = {"{": "}}", "%": "%}"}
TOKEN = re.compile(r"""(?P<end>[-+]?(?:\}\}|%\}))
                       |(?P<text>'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*")
                       |(?P<code>[\w.]+ | [=!]= | \S)
                       |\s+""", re.S | re.X)
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(000[0-9a-fA-F]{5})|(.))", re.S)
NAMED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\n": "",
         "\\": "\\", "'": "'", '"': '"'}


def chat_format(template):
    """Chat template text (Jinja) -> (name in CHATS or None, default system message or None,
    preamble).

    preamble: what the format writes before any system message.
    """
    if isinstance(template, list):                          # several named ones
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    if not template:
        return None, None, ""
    if not isinstance(template, str) or len(template) > LONGEST:
        raise ValueError("the chat template is not a text of a usable length (damaged file?)")
    name = format_name(template)
    if name is None:
        print(f"this checkpoint's chat template is none of {', '.join(CHATS)}; prompts will be "
              "plain text", file=sys.stderr)
        return None, None, ""
    if name == "llama3" and LLAMA31 in template:
        return name, None, DATES
    if name == "mistral":                                   # has no system turn
        return name, None, ""
    system, understood = default_system(template, *SYSTEM_TURN[name])
    if not understood:
        print("this checkpoint's chat template has a default system message that was not "
              "understood; prompts will have none", file=sys.stderr)
    return name, system, ""


def format_name(template):
    """The format by the marks that only it has; None where there are none."""
    if "<|im_start|>" in template:
        return "chatml"
    if "<|start_header_id|>" in template:
        return "llama3"
    if "[INST]" in template:
        return "llama2" if "<<SYS>>" in template else "mistral"
    if "<|user|>" in template and "<|assistant|>" in template and "eos_token" in template:
        # others (Tulu) begin turns so, too, and end only the assistant's with that token
        turns = re.findall(r"<\|user\|>([^%]*)", template)
        if not any("content" in t and not re.search("eos_token|</s>", t) for t in turns):
            return "zephyr"
    return None


def chat_settings(template, bos):
    """The arguments of Tokenizer that a template decides. ChatML begins with BOS only where its
    template says so."""
    chat, system, preamble = chat_format(template)
    if chat == "chatml" and "bos_token" not in str(template):
        bos = None
    return dict(chat=chat, system=system, preamble=preamble, bos=bos)


# ------------------------------------------------------------------------------ the default message
def default_system(template, before, behind):
    """-> (the message that stands between these marks, or None; whether the template was
    understood)."""
    written = flat(template)
    understood = True
    for found in re.finditer(f"{re.escape(before)}(.*?){re.escape(behind)}", written, re.S):
        if CODE not in found[1]:
            if found[1].strip():
                return found[1], True
        elif found[1].replace(CODE, "").strip():  # words, and code that writes more of them
            understood = False
    return None, understood


def flat(template):
    """What the template writes for one user message: its text and literals, and CODE for all that
    is not known."""
    out, branches = [], []
    values = {"eos_token": "</s>"}                          # variables whose text is known
    for kind, body in pieces(template.replace(CODE, "")):
        alive = all(now is not False for now, _ in branches)
        if kind == "text" and alive:
            out.append(body)
        if kind == "{" and alive:
            out.append(written(body, values))
        if kind == "%" and body:
            unknown = statement(body, branches, values, alive)
            out.append(CODE * unknown)
    return "".join(out)


def statement(body, branches, values, alive):
    """Follow one {% tag %}. -> True where nobody knows whether what follows is written.

    branches: for each `if` and `for` around here [is this branch taken, was an earlier one taken],
    each True, False or None (unknown).
    """
    word = body[0][0]
    if word in ("if", "for"):
        taken = truth(body[1:]) if word == "if" else None
        branches.append([taken, False])
        return taken is None
    if word in ("elif", "else") and branches:
        now, before = branches[-1]
        if True in (now, before):
            branches[-1] = [False, True]
            return False
        before = False if now is before is False else None
        taken = True if word == "else" else truth(body[1:])
        if taken and before is None:
            taken = None
        branches[-1] = [taken, before]
        return taken is None or before is None
    if word in ("endif", "endfor") and branches:
        return None in branches.pop()
    if word == "set" and alive and len(body) > 3 and body[2] == ("=", False):
        name, value = body[1][0], written(body[3:], values)
        if None in [now for now, _ in branches]:            # it may be this one or an earlier one
            value = values.get(name, "") + CODE + value + CODE
        values[name] = value[-MOST:]
    return False


def truth(tokens):
    """Does a condition hold for one user message without tools? True, False or None (unknown)."""
    code = [value for value, quoted in tokens if not quoted]
    if "(" in code and "not" in code:
        return None
    tokens = [t for t in tokens if t not in (("(", False), (")", False))]
    return some([every(map(holds, split(part, "and"))) for part in split(tokens, "or")])


def every(values):
    """`and` of True, False and None (unknown)."""
    values = [*values]
    if False in values:
        return False
    return None if None in values else True


def some(values):
    """`or` of True, False and None (unknown)."""
    if True in values:
        return True
    return None if None in values else False


def holds(atom):
    """The same for a condition without `and` and `or`."""
    code = [value for value, quoted in atom if not quoted]
    if ("system", True) in atom and code.count("==") + code.count("!=") == 1:
        return "!=" in code                                 # of the role of some message
    if ("<<SYS>>", True) in atom and "in" in code:          # of the user's message
        return "not" in code
    known = {"tools": False, "not tools": True, "tools is not none": False, "tools is none": True,
             "true == true": True, "false == true": False}      # a choice that its maker has made
    return known.get(" ".join(code))


def written(tokens, values):
    """What an expression writes: literals and known variables joined by + or ~, CODE for every
    other operand, around a sentence that it may write."""
    out = ""
    for operand in split(tokens, "+", "~"):
        if len(out) > MOST:
            break
        value, quoted = operand[0] if operand else (None, False)
        behind = [word for word, _ in operand[1:]]
        if not quoted and behind in (["(", ")"], ["|", "trim"]):
            value, behind = value.removesuffix(".strip"), []    # content.strip(), content | trim
        if not behind and (quoted or value in values):
            out += value if quoted else values[value]
            continue
        sentences = [text for text, quoted in operand if quoted and " " in text.strip()]
        out += CODE + "".join(sentences[:1]) + CODE
    return out


def split(tokens, *marks):
    """Tokens -> lists of tokens between the marks; what stands in brackets is not looked into."""
    parts, depth = [[]], 0
    for token in tokens:
        value, quoted = token
        if not quoted:
            depth += (value in "([{") - (value in ")]}")
        if not quoted and depth == 0 and value in marks:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def pieces(template):
    """Jinja text -> ("text", str) and ("{" or "%", [(literal or word, whether it is a literal)]) in
    turn.

    Blanks around tags go as their dashes say, and as the reference library sets Jinja up: not the
    indent of a tag on a line of its own, nor the end of its line. What stands behind a tag that
    does not end is left out.
    """
    at, before = 0, ""
    while True:
        tag = TAG.search(template, at)
        text = template[at:tag.start()] if tag else template[at:]
        if before.startswith("-"):
            text = text.lstrip()
        elif before.endswith(("%}", "#}")):
            text = text.removeprefix("\n")
        if tag and tag[2] == "-":
            text = text.rstrip()
        elif tag and tag[1] in "%#":
            text = re.sub(r"(^|\n)[ \t]+\Z", r"\1", text)
        yield "text", text
        if tag is None:
            return
        tokens = []
        if tag[1] == "#":
            at = template.find("#}", tag.end()) + 2
            before = template[at - 3:at].lstrip(" ")
            if at < 2:
                return
            continue
        for token in TOKEN.finditer(template, tag.end()):
            at, before = token.end(), token["end"] or ""
            if before[-2:] == END[tag[1]]:
                break
            if token["code"] in ("'", '"'):                 # of a literal that does not end
                return
            if token["text"]:
                tokens.append((unescaped(token["text"][1:-1]), True))
            elif token["code"] or before:
                tokens.append((token["code"] or before, False))
        else:
            return
        yield tag[1], tokens


def unescaped(literal):
    """The text of a quoted literal: \\n is a line end, \\\\ a backslash; an unknown escape stays as
    it is."""
    def text(match):
        code = match[1] or match[2] or match[3]
        if code:
            number = int(code, 16)
            return chr(number) if number < 0x110000 else match[0]
        return NAMED.get(match[4], match[0])
    return ESCAPE.sub(text, literal)
