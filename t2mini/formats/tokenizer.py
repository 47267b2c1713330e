"""
Text to token ids and back: tiktoken does the byte-pair merging, this file feeds it open
vocabularies.

Kept:     GGUF vocabularies and `tokenizer.json` of GPT-2, SmolLM2, Llama-3, Qwen2 to 3; those of
          Llama-2, TinyLlama and Mistral through spm.py. Chat formats: see templates.py.
Left out: every other splitting rule, which stops the load.
Safety:   control tokens are written by id only. tiktoken never learns their text, so `<|im_end|>`
          typed by a user becomes ordinary pieces and can never end a turn. A byte that the
          vocabulary lacks is dropped, or becomes an unknown token that ends nothing.
Images:   a question that carries one (questions/pictures.Seen) gets its image tokens in front of
          its words, where the model has an eye (sight/eye.py).
"""
import json
import unicodedata
from functools import cached_property
from pathlib import Path

import tiktoken

from . import spm
from ..machine.files import read_json, read_text
from .templates import CHATS, chat_settings

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
# SmolLM2 first cuts out single digits, then splits the rest as GPT-2 does. One pattern equals the
# two stages only with the extra alternative \s+(?=\p{N}): spaces before a digit end a stage-one
# piece.
SMOLLM2 = r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
PATTERNS = {"gpt2": GPT2, "llama3": LLAMA3, "qwen2": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
            "smollm2": SMOLLM2}
GGUF_PRE = {"gpt-2": "gpt2", "llama-bpe": "llama3", "qwen2": "qwen2", "smollm": "smollm2"}

STOP_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
TURN_ENDS = STOP_TOKENS[:2]
# never plain text, whatever a file calls them
MARKS = {mark for marks in (STOP_TOKENS, *CHATS.values()) for mark in marks}
MARKS.remove("</s>")                      # a word of HTML in some vocabularies
MAX_CHARS = 200_000  # far beyond any context here; very long runs of one class break tiktoken


def byte_alphabet():
    """GPT-2 writes each byte as one printable character; -> dict character -> byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in plain}
    table.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in plain)})
    return table


class Tokenizer:
    """
    tokens   dict id -> token in the GPT-2 byte alphabet, ordinary tokens only
    control  dict text -> id of the control tokens; shown: those that print their text when decoded
    pattern  a name in PATTERNS, or "spm" with a spm.MergeEncoder as `bpe`
    chat     a name in CHATS or None (a base model: the prompt is plain text); system: the default
             system message; preamble: what the chat format writes before any system message
    bos      the id that a prompt begins with, or None
    unk_id   written for a byte that the vocabulary lacks; None: such bytes are dropped
    trims    dict id -> (left, right): does this control token swallow the blanks beside it?
    """

    def __init__(self, tokens, control, pattern, chat=None, system=None, stop_ids=(), unk_id=None,
                 bos=None, preamble="", shown=(), bpe=None, trims=None):
        top = max([*tokens, *control.values()]) + 1
        self.n_vocab = top
        self.pattern, self.chat, self.system = pattern, chat, system
        self.preamble, self.bos, self.trims = preamble, bos, trims or {}
        self.control, self.stop_ids = control, frozenset(stop_ids)
        self.bpe = bpe or byte_pairs(tokens, PATTERNS[pattern], top)
        self.known = frozenset(tokens)
        # what ends an answer is no part of it, whatever a file says
        shown = {control[text]: text for text in shown if text not in MARKS}
        self.shown = {i: text.encode() for i, text in shown.items() if i not in self.stop_ids}
        missing = [c for c in CHATS.get(chat, ()) if c not in control]
        if missing:
            raise ValueError(f"the chat format {chat} needs the token {missing[0]!r}, which this "
                             "vocabulary lacks")
        # no text may end a turn, or begin one
        turns = {control[c] for c in (*CHATS.get(chat, ()), *STOP_TOKENS) if c in control}
        self.unk_id = None if unk_id in turns | self.stop_ids | {bos} else unk_id
        self.eye = None                     # sight.eye.Eye, where the model can see

    def encode(self, text, start=False, behind=False):
        """Plain text -> list of ids. Never a control token, but for an unknown token that ends
        nothing. Raises ValueError for a text of over MAX_CHARS.

        start: the text begins a prompt; behind: it follows a control token. A SentencePiece
        vocabulary writes a space first there.
        """
        if len(text) > MAX_CHARS:
            raise ValueError(f"the text has {len(text):,} characters; at most {MAX_CHARS:,} are "
                             "accepted")
        if self.pattern == "qwen2":
            text = unicodedata.normalize("NFC", text)
        text = text.encode("utf-8", "replace").decode()     # lone surrogates have no bytes
        if self.pattern == "spm":
            ids = self.bpe.encode_ordinary(text, start, behind)
        else:
            ids = self.bpe.encode_ordinary(text)
        # a byte that the vocabulary lacks has an id above it
        ids = [i if i < self.n_vocab else self.unk_id for i in ids]
        return [i for i in ids if i is not None]

    def decode(self, ids):
        """Ids -> text. Control tokens print nothing; a cut UTF-8 character becomes the replacement
        mark."""
        text = self.raw_text(ids)
        if self.pattern == "spm" and self.bpe.prefix != "never":
            return text.removeprefix(" ")
        return text

    def raw_text(self, ids):
        """As `decode`, with the space that a SentencePiece vocabulary may have put in front:
        encoded, it is the same text again."""
        pieces = []
        for i in ids:
            if i in self.known:
                pieces.append(self.bpe.decode_single_token_bytes(i))
            else:
                pieces.append(self.shown.get(i, b""))
        return b"".join(pieces).decode("utf-8", "replace")

    def prompt(self, user, system=None, opener=""):
        """Ids of one user message in the model's chat format, up to where the assistant speaks (BOS
        exactly once).

        opener: words put into the assistant's mouth, which its answer then goes on from.
        ValueError where the message is no text.
        """
        if not isinstance(user, str):
            raise ValueError(f"a prompt is one text, not {user!r:.40}")
        start = self.chat in ("llama2", "mistral")
        return self.turns(user, system) + self.encode(opener, start)

    def answer(self, text, opener=""):
        """Ids of a whole answer as the model would write it behind a prompt, with a stop token of
        its format unless it ends in one of `stops`."""
        ids = self.encode(text, start=not opener and self.chat in ("llama2", "mistral"))
        if ids and ids[-1] in self.stops(opener):
            return ids
        turns = () if self.chat else TURN_ENDS          # a base model has never seen them
        named = [self.control[s] for s in STOP_TOKENS if s in self.control and s not in turns]
        return ids + (named or sorted(self.stop_ids))[:1]

    def stops(self, opener=""):
        """Ids that end an answer. Where its opener opens a quotation, so do all tokens with a
        closing mark: what a model says behind it nobody grades, so it is neither waited for nor
        rewarded."""
        return self.stop_ids | self.closing if opener.endswith('"') else self.stop_ids

    @cached_property
    def closing(self):
        return {i for i in self.known if b'"' in self.bpe.decode_single_token_bytes(i)}

    def image(self, text):
        """Ids of the image that a text carries, [] where it carries none. ValueError for an image
        that cannot be shown to this model."""
        image = getattr(text, "image", None)
        if image is None:
            return []
        if self.eye is None or self.chat != "chatml":
            raise ValueError("this question is about an image, and this model has no eye for one")
        return self.eye.ids(image)

    def turns(self, user, system):
        """The chat itself, without an opener. Before an image the default system message is left
        out: it would be two fifths of such a prompt."""
        c = self.control
        image = self.image(user)
        default = "" if image else self.system or ""
        system = system or default
        if self.chat == "llama3":           # its template trims messages, not the preamble's end
            system, user = system.strip(), user.strip()
        system = self.preamble + system
        said = [(role, text) for role, text in (("system", system), ("user", user)) if text]
        ids = [] if self.bos is None else [self.bos]
        if self.chat == "chatml":
            parts = []
            for role, text in said:
                words = [f"{role}\n{text}"]
                if image and role == "user":
                    words = [f"{role}\n", *image, text]
                parts += [c["<|im_start|>"], *words, c["<|im_end|>"], "\n"]
            return ids + self.joined([*parts, c["<|im_start|>"], "assistant\n"])
        if self.chat == "llama3":
            begin, head, end, stop = (c[name] for name in CHATS["llama3"])
            parts = [begin]
            for role, text in said:
                parts += [head, role, end, "\n\n" + text, stop]
            return self.joined([*parts, head, "assistant", end, "\n\n"])
        if self.chat == "zephyr":
            parts, line = [], ""
            for role, text in said:
                parts += [f"{line}<|{role}|>\n{text}", c["</s>"]]
                line = "\n"
            return ids + self.joined([*parts, f"{line}<|assistant|>\n"])
        if self.chat == "llama2":
            text = f"<<SYS>>\n{system}\n<</SYS>>\n\n{user}" if system else user
            return ids + self.encode(f"[INST] {text.strip()} [/INST]", start=True)
        text = f"{system}\n\n{user}" if system else user
        if self.chat == "mistral" and "[INST]" in c:        # v0.3 made the brackets control tokens
            return ids + [c["[INST]"], *self.encode(text, start=True), c["[/INST]"]]
        if self.chat == "mistral":
            return ids + self.encode(f"[INST] {text} [/INST]", start=True)
        return ids + self.encode(text + "\n", start=True)

    def joined(self, parts):
        """Control tokens (as ids) and texts in turn -> ids. The text between two control tokens is
        encoded as one."""
        ids = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
                continue
            if i > 0 and self.trims.get(parts[i - 1], (False, False))[1]:
                part = part.lstrip()
            if i + 1 < len(parts) and self.trims.get(parts[i + 1], (False, False))[0]:
                part = part.rstrip()
            ids += self.encode(part, start=i == 0, behind=i > 0)
        return ids


def byte_pairs(tokens, pattern, top):
    """A tiktoken encoding of `tokens`. A byte that the vocabulary lacks would crash tiktoken: it
    gets an id from `top` on, above the vocabulary."""
    alphabet, ranks = byte_alphabet(), {}
    for i, token in tokens.items():
        try:
            piece = bytes(alphabet[c] for c in token)
        except KeyError:
            raise ValueError(f"vocabulary entry {i} ({token!r}) is not in the GPT-2 byte "
                             "alphabet") from None
        if not piece or ranks.setdefault(piece, i) != i:
            raise ValueError(f"vocabulary entry {i} ({token!r}) is empty or there twice (damaged "
                             "file)")
    for b in range(256):
        if bytes([b]) not in ranks:
            ranks[bytes([b])] = top
            top += 1
    return tiktoken.Encoding("t2mini", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def check_merges(merges, rank_of):
    """tiktoken merges by rank alone; that equals the merge list only if products come in rank
    order."""
    last = -1
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rank = rank_of.get(left + right)
        if rank is None or rank < last:
            raise ValueError(f"merge {left!r} + {right!r} is out of order; tiktoken cannot express "
                             "this vocabulary")
        last = rank


# ------------------------------------------------------------------------------------ GGUF metadata
def id_of(meta, kind, usual=None):
    """The id of a GGUF's bos, eos or unknown token; None where it has none, which some files say
    by an id that no token has."""
    at = meta.get(f"tokenizer.ggml.{kind}_token_id", usual)
    return at if at is not None and 0 <= at < len(meta["tokenizer.ggml.tokens"]) else None


def from_gguf(meta):
    """GGUF metadata -> Tokenizer. ValueError for vocabularies that neither tiktoken nor spm.py can
    express."""
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    if kind != "llama" and (kind != "gpt2" or pre not in GGUF_PRE):
        raise ValueError(f"tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported "
                         f"(supported: llama, and gpt2 with {', '.join(GGUF_PRE)})")
    words, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    if len(words) != len(types):
        raise ValueError("the GGUF vocabulary and its token types differ in length (damaged file)")
    # types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    ordinary = (1, 6) if kind == "llama" else (1,)
    plain = [t in ordinary and w not in MARKS for w, t in zip(words, types)]
    tokens = {i: w for i, w in enumerate(words) if plain[i]}
    used = 1 + max((i for i, t in enumerate(types) if t != 5), default=-1)      # then padding
    control = {w: i for i, w in enumerate(words[:used]) if not plain[i]}
    bos = id_of(meta, "bos", 1 if kind == "llama" else None)
    if not meta.get("tokenizer.ggml.add_bos_token", kind == "llama" or pre == "llama-bpe"):
        bos = None
    stop = {control[s] for s in STOP_TOKENS if s in control}
    stop |= {id_of(meta, "eos")} - {None}
    settings = chat_settings(meta.get("tokenizer.chat_template"), bos)
    settings |= dict(stop_ids=stop, shown=[w for w, i in control.items() if types[i] == 4])
    if kind == "gpt2":
        check_merges(meta.get("tokenizer.ggml.merges", []), {w: i for i, w in tokens.items()})
        return Tokenizer(tokens, control, GGUF_PRE[pre], **settings)
    scores = meta["tokenizer.ggml.scores"]
    if len(words) != len(scores):
        raise ValueError("the GGUF vocabulary and its scores differ in length (damaged file)")
    rank = spm.by_scores({w: scores[i] for i, w in tokens.items() if types[i] == 1})
    prefix = "always" if meta.get("tokenizer.ggml.add_space_prefix", True) else "never"
    unk = id_of(meta, "unknown", 0)
    bpe = spm.MergeEncoder(tokens, rank, max(len(words), 1), prefix)
    return Tokenizer(tokens, control, "spm", **settings, unk_id=unk, bpe=bpe)


# ----------------------------------------------------------------------------------- tokenizer.json
def pattern_of(pre):
    """The `pre_tokenizer` entry of a tokenizer.json -> a name in PATTERNS; ValueError for
    others."""
    steps = [pre or {}]
    if pre and pre.get("type") == "Sequence":
        steps = pre.get("pretokenizers", [])
    kinds = [s.get("type") for s in steps]
    if any(s.get("add_prefix_space") for s in steps):
        raise ValueError(f"pre-tokenizer {kinds} adds a space before the text, which is not "
                         "supported")
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt2"
    if kinds == ["Digits", "ByteLevel"]:
        if steps[0].get("individual_digits") and steps[1].get("use_regex", True):
            return "smollm2"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        isolated = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
        pattern = steps[0].get("pattern", {}).get("Regex")
        for name, known in PATTERNS.items():
            if isolated and pattern == known:
                return name
    raise ValueError(f"pre-tokenizer {kinds} is not supported (supported: {', '.join(PATTERNS)})")


def from_folder(folder, eos_ids=()):
    """A Hugging Face folder with tokenizer.json -> Tokenizer; None where it has none."""
    folder = Path(folder)
    if not (folder / "tokenizer.json").exists():
        return None
    spec = read_json(folder / "tokenizer.json")
    extra = {}
    if (folder / "tokenizer_config.json").exists():
        extra = read_json(folder / "tokenizer_config.json")
    template = extra.get("chat_template")
    if (folder / "chat_template.jinja").exists():           # the newer place of it
        template = read_text(folder / "chat_template.jinja")

    model = spec.get("model", {})
    kind = model.get("type", "BPE" if "merges" in model else None)      # GPT-2's file has no type
    if kind != "BPE":
        raise ValueError(f"{folder}/tokenizer.json: model {kind!r} is not supported (BPE is)")
    for odd in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(odd):
            raise ValueError(f"{folder}/tokenizer.json: a BPE model with {odd} is not supported")
    added = {t["id"]: t for t in spec.get("added_tokens", [])}
    added |= {int(i): t for i, t in extra.get("added_tokens_decoder", {}).items()}
    control = {t["content"]: i for i, t in added.items()}
    vocab = {w: i for w, i in model["vocab"].items() if w not in control}
    tokens, merges = {i: w for w, i in vocab.items()}, model.get("merges", [])

    settings = chat_settings(template, bos_of(spec, extra, control))
    settings["stop_ids"] = {control[s] for s in STOP_TOKENS if s in control} | set(eos_ids)
    settings["shown"] = [t["content"] for t in added.values() if not t.get("special", True)]
    settings["unk_id"] = control.get(model.get("unk_token"), vocab.get(model.get("unk_token")))
    settings["trims"] = {i: (t.get("lstrip"), t.get("rstrip")) for i, t in added.items()}
    if model.get("byte_fallback"):
        prefix = spm.prefix_of(spec)
        check_added(added, CHATS.get(settings["chat"], ()), prefix)
        above = max([*tokens, *control.values()]) + 1
        bpe = spm.MergeEncoder(tokens, spm.by_pairs(merges, vocab), above, prefix)
        return Tokenizer(tokens, control, "spm", **settings, bpe=bpe)
    pattern = pattern_of(spec.get("pre_tokenizer"))
    norm = spec.get("normalizer")
    if norm and not (pattern == "qwen2" and norm.get("type") == "NFC"):
        raise ValueError(f"{folder}/tokenizer.json: normalizer {norm.get('type')!r} is not "
                         "supported")
    check_merges(merges, vocab)
    return Tokenizer(tokens, control, pattern, **settings)


def check_added(added, marks, prefix):
    """ValueError where the marks of the chat are looked for in the text that `prefix` has changed
    already: the reference library then finds only the first of them."""
    for t in added.values():
        if prefix == "always" and t.get("normalized") and t["content"] in marks:
            raise ValueError(f"the token {t['content']!r} is normalised before it is found, which "
                             "is not supported; set \"normalized\": false in tokenizer.json")


def bos_of(spec, extra, control):
    """The id that the files want at the start of a text, or None: the post-processor's word, else
    tokenizer_config's."""
    post = spec.get("post_processor") or {}
    for step in post.get("processors", [post]):
        first = (step.get("single") or [{}])[0]
        if "SpecialToken" in first:
            return control.get(first["SpecialToken"]["id"])
    name = extra.get("bos_token")
    if isinstance(name, dict):
        name = name["content"]
    return control.get(name) if extra.get("add_bos_token") else None
