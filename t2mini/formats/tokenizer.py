"""
Text to token ids and back: tiktoken does the byte-pair merging, this file feeds it open vocabularies.

Kept:     GGUF vocabularies and `tokenizer.json` of GPT-2, SmolLM2, Llama-3, Qwen2 to 3; those of Llama-2, TinyLlama and
          Mistral through spm.py. Chat formats ChatML, Llama-2, Llama-3, Mistral and Zephyr (TinyLlama).
Left out: every other splitting rule, which stops the load, and templates that would have to be executed.
Safety:   control tokens are written by id only. tiktoken never learns their text, so `<|im_end|>` typed by a user
          becomes ordinary pieces and can never end a turn.
"""
import json
import re
import sys
import unicodedata
from functools import cached_property
from pathlib import Path

import tiktoken

from . import spm

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
# SmolLM2 first cuts out single digits, then splits the rest as GPT-2 does. One pattern equals the two stages only
# with the extra alternative \s+(?=\p{N}): spaces before a digit end a stage-one piece.
SMOLLM2 = r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
PATTERNS = {"gpt2": GPT2, "llama3": LLAMA3, "qwen2": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"), "smollm2": SMOLLM2}
GGUF_PRE = {"gpt-2": "gpt2", "llama-bpe": "llama3", "qwen2": "qwen2", "smollm": "smollm2"}

# chat format -> the control tokens it is made of
CHATS = {"chatml": ("<|im_start|>", "<|im_end|>"), "llama2": (), "mistral": (), "zephyr": ("</s>",),
         "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")}
STOP_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
MAX_CHARS = 200_000                         # far beyond any context here; very long runs of one class break tiktoken


def byte_alphabet():
    """GPT-2 writes each byte as one printable character; -> dict character -> byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in plain}
    table.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in plain)})
    return table


class Tokenizer:
    """
    tokens   dict id -> token in the GPT-2 byte alphabet, ordinary tokens only
    control  dict text -> id of the control tokens; shown: those of them that print their text when decoded
    pattern  a name in PATTERNS, or "spm" with a spm.MergeEncoder as `bpe`
    chat     a name in CHATS or None (a base model: the prompt is plain text); system: the default system message;
             preamble: what the chat format writes before any system message
    bos      the id that a prompt begins with, or None
    """

    def __init__(self, tokens, control, pattern, chat=None, system=None, stop_ids=(), unk_id=0, bos=None, preamble="",
                 shown=(), bpe=None):
        top = max([*tokens, *control.values()]) + 1
        self.n_vocab, self.unk_id = top, unk_id
        self.pattern, self.chat, self.system, self.preamble, self.bos = pattern, chat, system, preamble, bos
        self.control, self.stop_ids = control, frozenset(stop_ids)
        self.bpe = bpe or byte_pairs(tokens, PATTERNS[pattern], top)
        self.known, self.shown = frozenset(tokens), {control[text]: text.encode() for text in shown}
        missing = [c for c in CHATS.get(chat, ()) if c not in control]
        if missing:
            raise ValueError(f"the chat format {chat} needs the token {missing[0]!r}, which this vocabulary lacks")

    def encode(self, text, start=False):
        """Plain text -> list of ids. Never a control token. Raises ValueError for a text of over MAX_CHARS.

        start: the text begins a prompt or a turn, where a SentencePiece vocabulary writes a space first.
        """
        if len(text) > MAX_CHARS:
            raise ValueError(f"the text has {len(text):,} characters; at most {MAX_CHARS:,} are accepted")
        if self.pattern == "qwen2":
            text = unicodedata.normalize("NFC", text)
        text = text.encode("utf-8", "replace").decode()     # lone surrogates have no bytes
        if self.pattern == "spm":
            return self.bpe.encode_ordinary(text, start)
        return [i if i < self.n_vocab else self.unk_id for i in self.bpe.encode_ordinary(text)]

    def decode(self, ids):
        """Ids -> text. Control tokens print nothing; a cut UTF-8 character becomes the replacement mark."""
        pieces = [self.bpe.decode_single_token_bytes(i) if i in self.known else self.shown.get(i, b"") for i in ids]
        text = b"".join(pieces).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.pattern == "spm" and self.bpe.prefix != "never" else text

    def prompt(self, user, system=None, opener=""):
        """Ids of one user message in the model's chat format, up to where the assistant speaks (BOS exactly once).

        opener: words put into the assistant's mouth, which its answer then goes on from.
        """
        return self.turns(user, system) + self.encode(opener, start=self.chat in ("llama2", "mistral"))

    def answer(self, text, opener=""):
        """Ids of a whole answer as the model would write it behind a prompt, with a stop token of its format unless it
        ends in one of `stops`."""
        ids = self.encode(text, start=not opener and self.chat in ("llama2", "mistral"))
        stop = [self.control[s] for s in STOP_TOKENS if s in self.control] or sorted(self.stop_ids)
        return ids if ids and ids[-1] in self.stops(opener) else ids + stop[:1]

    def stops(self, opener=""):
        """Ids that end an answer. Where its opener opens a quotation, so do all tokens with a closing mark: what a model
        says behind it nobody grades, so it is neither waited for nor rewarded."""
        return self.stop_ids | self.closing if opener.endswith('"') else self.stop_ids

    @cached_property
    def closing(self):
        return {i for i in self.known if b'"' in self.bpe.decode_single_token_bytes(i)}

    def turns(self, user, system):
        """The chat itself, without an opener."""
        c, system = self.control, self.preamble + (system or self.system or "")
        ids = [] if self.bos is None else [self.bos]
        if self.chat == "chatml":
            for role, text in (("system", system), ("user", user)):
                if text:
                    ids += [c["<|im_start|>"], *self.encode(f"{role}\n{text}"), c["<|im_end|>"], *self.encode("\n")]
            return ids + [c["<|im_start|>"], *self.encode("assistant\n")]
        if self.chat == "llama3":
            ids = [c["<|begin_of_text|>"]]
            for role, text in (("system", system), ("user", user), ("assistant", None)):
                if text or role == "assistant":
                    ids += [c["<|start_header_id|>"], *self.encode(role), c["<|end_header_id|>"], *self.encode("\n\n")]
                if text:
                    ids += [*self.encode(text.strip()), c["<|eot_id|>"]]
            return ids
        if self.chat == "zephyr":
            for role, text in (("system", system), ("user", user)):
                if text:
                    ids += [*self.encode(("\n" if len(ids) > 1 else "") + f"<|{role}|>\n{text}", True), c["</s>"]]
            return ids + self.encode("\n<|assistant|>\n", True)
        if self.chat == "llama2":
            text = f"<<SYS>>\n{system}\n<</SYS>>\n\n{user}" if system else user
            return ids + self.encode(f"[INST] {text.strip()} [/INST]", True)
        text = f"{system}\n\n{user}" if system else user
        if self.chat == "mistral" and "[INST]" in c:        # v0.3 made the brackets control tokens
            return ids + [c["[INST]"], *self.encode(text, True), c["[/INST]"]]
        return ids + self.encode(f"[INST] {text} [/INST]" if self.chat == "mistral" else text + "\n", True)


def byte_pairs(tokens, pattern, top):
    """A tiktoken encoding of `tokens`. A byte that the vocabulary lacks would crash tiktoken: it gets an id from `top` on,
    above the vocabulary, which encode() maps to unk."""
    alphabet, ranks = byte_alphabet(), {}
    for i, token in tokens.items():
        try:
            piece = bytes(alphabet[c] for c in token)
        except KeyError:
            raise ValueError(f"vocabulary entry {i} ({token!r}) is not in the GPT-2 byte alphabet") from None
        if not piece or ranks.setdefault(piece, i) != i:
            raise ValueError(f"vocabulary entry {i} ({token!r}) is empty or there twice (damaged file)")
    for b in range(256):
        if bytes([b]) not in ranks:
            ranks[bytes([b])] = top
            top += 1
    return tiktoken.Encoding("t2mini", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def chat_format(template):
    """Chat template text (Jinja) -> (name in CHATS or None, default system message, preamble). It is never executed: the
    marks that only one format has are looked for, and the literal default message is cut out."""
    if isinstance(template, list):                          # several named ones
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    if not template:
        return None, None, ""
    if "<|im_start|>" in template:
        default = re.search(r"<\|im_start\|>system(?:\\n|\n)([^<>{}'\"]+)<\|im_end\|>", template)
        return "chatml", default and default[1], ""
    if "<|start_header_id|>" in template:                   # Llama 3.1 writes two dates, the second one fixed by default
        dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        return "llama3", None, dates if "Cutting Knowledge Date: December 2023" in template else ""
    if "[INST]" in template:
        return ("llama2" if "<<SYS>>" in template else "mistral"), None, ""
    if "<|user|>" in template and "<|assistant|>" in template and "eos_token" in template:
        return "zephyr", None, ""
    print("this checkpoint's chat template is none of " + ", ".join(CHATS) + "; prompts will be plain text", file=sys.stderr)
    return None, None, ""


def chat_settings(template, bos):
    """The arguments of Tokenizer that a template decides. ChatML begins with BOS only where its template says so."""
    chat, system, preamble = chat_format(template)
    bos = None if chat == "chatml" and "bos_token" not in str(template) else bos
    return dict(chat=chat, system=system, preamble=preamble, bos=bos)


def check_merges(merges, rank_of):
    """tiktoken merges by rank alone; that equals the merge list only if products come in rank order."""
    last = -1
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rank = rank_of.get(left + right)
        if rank is None or rank < last:
            raise ValueError(f"merge {left!r} + {right!r} is out of order; tiktoken cannot express this vocabulary")
        last = rank


def from_gguf(meta):
    """GGUF metadata -> Tokenizer. Raises ValueError for vocabularies that neither tiktoken nor spm.py can express."""
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    if kind != "llama" and (kind != "gpt2" or pre not in GGUF_PRE):
        raise ValueError(f"tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported "
                         f"(supported: llama, and gpt2 with {', '.join(GGUF_PRE)})")
    words, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    if len(words) != len(types):
        raise ValueError("the GGUF vocabulary and its token types differ in length (damaged file)")
    ordinary = (1, 6) if kind == "llama" else (1,)          # 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte
    tokens = {i: w for i, (w, t) in enumerate(zip(words, types)) if t in ordinary}
    control = {w: i for i, (w, t) in enumerate(zip(words, types)) if t not in ordinary}
    shown = [w for w, i in control.items() if types[i] == 4]
    unk = meta.get("tokenizer.ggml.unknown_token_id", 0)
    bos = meta.get("tokenizer.ggml.bos_token_id", 1 if kind == "llama" else None)
    if not meta.get("tokenizer.ggml.add_bos_token", kind == "llama" or pre == "llama-bpe"):
        bos = None
    stop = {control[s] for s in STOP_TOKENS if s in control} | {meta.get("tokenizer.ggml.eos_token_id", -1)}
    settings = chat_settings(meta.get("tokenizer.chat_template"), bos) | dict(stop_ids=stop - {-1}, unk_id=unk, shown=shown)
    if kind == "gpt2":
        check_merges(meta.get("tokenizer.ggml.merges", []), {w: i for i, w in tokens.items()})
        return Tokenizer(tokens, control, GGUF_PRE[pre], **settings)
    scores = meta["tokenizer.ggml.scores"]
    if len(words) != len(scores):
        raise ValueError("the GGUF vocabulary and its scores differ in length (damaged file)")
    rank = spm.by_scores({w: scores[i] for i, w in tokens.items() if types[i] == 1})
    prefix = "always" if meta.get("tokenizer.ggml.add_space_prefix", True) else "never"
    return Tokenizer(tokens, control, "spm", **settings, bpe=spm.MergeEncoder(tokens, rank, unk, prefix))


def pattern_of(pre):
    """The `pre_tokenizer` entry of a tokenizer.json -> a name in PATTERNS; ValueError for any other."""
    steps = pre.get("pretokenizers", []) if pre and pre.get("type") == "Sequence" else [pre or {}]
    kinds = [s.get("type") for s in steps]
    if any(s.get("add_prefix_space") for s in steps):
        raise ValueError(f"pre-tokenizer {kinds} adds a space before the text, which is not supported")
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm2"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True) \
            and steps[0].get("behavior") == "Isolated" and not steps[0].get("invert"):
        pattern = steps[0].get("pattern", {}).get("Regex")
        for name, known in PATTERNS.items():
            if pattern == known:
                return name
    raise ValueError(f"pre-tokenizer {kinds} is not supported (supported: {', '.join(PATTERNS)})")


def from_folder(folder, eos_ids=()):
    """A Hugging Face folder with tokenizer.json -> Tokenizer; None where the folder has no tokenizer.json."""
    folder = Path(folder)
    if not (folder / "tokenizer.json").exists():
        return None
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    extra = folder / "tokenizer_config.json"
    extra = json.loads(extra.read_text(encoding="utf-8")) if extra.exists() else {}
    model = spec.get("model", {})
    if model.get("type") != "BPE":
        raise ValueError(f"{folder}/tokenizer.json: model {model.get('type')!r} is not supported (BPE is)")
    odd = next((k for k in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(k)), None)
    if odd:
        raise ValueError(f"{folder}/tokenizer.json: a BPE model with {odd} is not supported")
    added = {t["id"]: t for t in spec.get("added_tokens", [])}
    added |= {int(i): t for i, t in extra.get("added_tokens_decoder", {}).items()}
    control = {t["content"]: i for i, t in added.items()}
    vocab = {w: i for w, i in model["vocab"].items() if w not in control}
    tokens, merges = {i: w for w, i in vocab.items()}, model.get("merges", [])
    template = folder / "chat_template.jinja"
    template = template.read_text(encoding="utf-8") if template.exists() else extra.get("chat_template")
    settings = chat_settings(template, bos_of(spec, extra, control))
    settings |= dict(stop_ids={control[s] for s in STOP_TOKENS if s in control} | set(eos_ids),
                     shown=[t["content"] for t in added.values() if not t.get("special", True)])
    if model.get("byte_fallback"):
        unk = control.get(model.get("unk_token"), 0)
        bpe = spm.MergeEncoder(tokens, spm.by_pairs(merges, vocab), unk, spm.prefix_of(spec))
        return Tokenizer(tokens, control, "spm", **settings, unk_id=unk, bpe=bpe)
    pattern = pattern_of(spec.get("pre_tokenizer"))
    if spec.get("normalizer") and not (pattern == "qwen2" and spec["normalizer"].get("type") == "NFC"):
        raise ValueError(f"{folder}/tokenizer.json: normalizer {spec['normalizer'].get('type')!r} is not supported")
    check_merges(merges, vocab)
    return Tokenizer(tokens, control, pattern, **settings, unk_id=control.get("<|endoftext|>", 0))


def bos_of(spec, extra, control):
    """The id that the files want at the start of a text, or None: the post-processor's word, else tokenizer_config's."""
    post = spec.get("post_processor") or {}
    for step in post.get("processors", [post]):
        first = (step.get("single") or [{}])[0]
        if "SpecialToken" in first:
            return control.get(first["SpecialToken"]["id"])
    name = extra.get("bos_token")
    return control.get(name["content"] if isinstance(name, dict) else name) if extra.get("add_bos_token") else None
