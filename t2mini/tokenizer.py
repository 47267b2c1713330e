"""
Text to token ids and back: tiktoken does the byte-pair merging, this file feeds it open vocabularies.

Kept:     GGUF vocabularies and `tokenizer.json` of GPT-2, SmolLM2, Llama-3 and Qwen2; chat formats ChatML and Llama-3.
Left out: SentencePiece vocabularies (Llama-2, Mistral), which tiktoken cannot express; they are refused by name.
Safety:   control tokens are written by id only. tiktoken never learns their text, so `<|im_end|>` typed by a user
          becomes ordinary pieces and can never end a turn.
"""
import json
import unicodedata
from pathlib import Path

import tiktoken

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
# SmolLM2 first cuts out single digits, then splits the rest as GPT-2 does. One pattern equals the two stages only
# with the extra alternative \s+(?=\p{N}): spaces before a digit end a stage-one piece.
SMOLLM2 = r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
PATTERNS = {"gpt2": GPT2, "llama3": LLAMA3, "qwen2": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"), "smollm2": SMOLLM2}
GGUF_PRE = {"gpt-2": "gpt2", "llama-bpe": "llama3", "qwen2": "qwen2", "smollm": "smollm2"}

DEFAULT_SYSTEM = {"SmolLM": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
                  "Alibaba": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."}
CHAT_TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>"),
               "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")}
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
    control  dict text -> id of the control tokens
    pattern  a name in PATTERNS
    chat     "chatml", "llama3" or None (a base model: the prompt is plain text)
    """

    def __init__(self, tokens, control, pattern, chat=None, system=None, stop_ids=(), unk_id=0):
        alphabet = byte_alphabet()
        ranks = {}
        for i, token in tokens.items():
            try:
                piece = bytes(alphabet[c] for c in token)
            except KeyError:
                raise ValueError(f"vocabulary entry {i} ({token!r}) is not in the GPT-2 byte alphabet") from None
            if not piece or ranks.setdefault(piece, i) != i:
                raise ValueError(f"vocabulary entry {i} ({token!r}) is empty or there twice (damaged file)")
        top = max([*tokens, *control.values()]) + 1
        self.n_vocab, self.unk_id = top, unk_id
        # A byte that the vocabulary lacks would crash tiktoken. Give it an id above the vocabulary, mapped to unk below.
        for b in range(256):
            if bytes([b]) not in ranks:
                ranks[bytes([b])] = top
                top += 1
        self.pattern, self.chat, self.system = pattern, chat, system
        self.control, self.stop_ids = control, frozenset(stop_ids)
        self.bpe = tiktoken.Encoding(pattern, pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})
        self.known = frozenset(tokens)
        missing = [t for t in CHAT_TOKENS.get(chat, ()) if t not in control]
        if missing:
            raise ValueError(f"the chat format {chat} needs the token {missing[0]!r}, which this vocabulary lacks")

    def encode(self, text):
        """Plain text -> list of ids. Never a control token. Raises ValueError for a text of over MAX_CHARS."""
        if len(text) > MAX_CHARS:
            raise ValueError(f"the text has {len(text):,} characters; at most {MAX_CHARS:,} are accepted")
        if self.pattern == "qwen2":
            text = unicodedata.normalize("NFC", text)
        text = text.encode("utf-8", "replace").decode()     # lone surrogates have no bytes
        return [i if i < self.n_vocab else self.unk_id for i in self.bpe.encode_ordinary(text)]

    def decode(self, ids):
        """Ids -> text. Control tokens print nothing; a cut UTF-8 character becomes the replacement mark."""
        pieces = [self.bpe.decode_single_token_bytes(i) for i in ids if i in self.known]
        return b"".join(pieces).decode("utf-8", "replace")

    def prompt(self, user, system=None, opener=""):
        """Ids of one user message in the model's chat format, up to where the assistant speaks (BOS exactly once).

        opener: words put into the assistant's mouth, which its answer then goes on from.
        """
        return self.turns(user, system) + self.encode(opener)

    def turns(self, user, system):
        """The chat itself, without an opener."""
        c = self.control
        if self.chat == "chatml":
            turns = [("system", system or self.system), ("user", user)]
            ids = []
            for role, text in turns:
                if text:
                    ids += [c["<|im_start|>"], *self.encode(f"{role}\n{text}"), c["<|im_end|>"], *self.encode("\n")]
            return ids + [c["<|im_start|>"], *self.encode("assistant\n")]
        if self.chat == "llama3":
            ids = [c["<|begin_of_text|>"]]
            for role, text in [("system", system or self.system), ("user", user), ("assistant", None)]:
                if text or role == "assistant":
                    ids += [c["<|start_header_id|>"], *self.encode(role), c["<|end_header_id|>"], *self.encode("\n\n")]
                if text:
                    ids += [*self.encode(text.strip()), c["<|eot_id|>"]]
            return ids
        return self.encode(f"{system}\n\n{user}\n" if system else f"{user}\n")


def chat_format(template):
    """Chat template text (Jinja) -> (format name, default system message); the template itself is never executed."""
    system = next((text for mark, text in DEFAULT_SYSTEM.items() if template and mark in template), None)
    if not template:
        return None, None
    if "<|im_start|>" in template:
        return "chatml", system
    if "<|start_header_id|>" in template:
        return "llama3", system
    return None, None


def check_merges(merges, rank_of):
    """tiktoken merges by rank alone; that equals the merge list only if products come in rank order."""
    last = -1
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rank = rank_of.get(left + right)
        if rank is None or rank < last:
            raise ValueError(f"merge {left!r} + {right!r} is out of order; tiktoken cannot express this vocabulary")
        last = rank


STOP_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>")


def from_gguf(meta):
    """GGUF metadata -> Tokenizer. Raises ValueError for vocabularies that tiktoken cannot express."""
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in GGUF_PRE:
        raise ValueError(f"tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported "
                         f"(supported: gpt2 with {', '.join(GGUF_PRE)})")
    words, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    if len(words) != len(types):
        raise ValueError("the GGUF vocabulary and its token types differ in length (damaged file)")
    tokens = {i: w for i, (w, t) in enumerate(zip(words, types)) if t == 1}            # 1 normal, 3 control, 4 user
    control = {w: i for i, (w, t) in enumerate(zip(words, types)) if t != 1}
    check_merges(meta.get("tokenizer.ggml.merges", []), {w: i for i, w in tokens.items()})
    chat, system = chat_format(meta.get("tokenizer.chat_template"))
    stop = {control[s] for s in STOP_TOKENS if s in control} | {meta.get("tokenizer.ggml.eos_token_id", -1)}
    return Tokenizer(tokens, control, GGUF_PRE[pre], chat, system, stop - {-1},
                     meta.get("tokenizer.ggml.unknown_token_id", 0))


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
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
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
    if spec.get("model", {}).get("type") != "BPE":
        raise ValueError(f"{folder}/tokenizer.json: model {spec.get('model', {}).get('type')!r} is not supported (BPE is)")
    pattern = pattern_of(spec.get("pre_tokenizer"))
    if spec.get("normalizer") and not (pattern == "qwen2" and spec["normalizer"].get("type") == "NFC"):
        raise ValueError(f"{folder}/tokenizer.json: normalizer {spec['normalizer'].get('type')!r} is not supported")
    control = {t["content"]: t["id"] for t in spec.get("added_tokens", [])}
    control.update({t["content"]: int(i) for i, t in extra.get("added_tokens_decoder", {}).items()})
    vocab = {w: i for w, i in spec["model"]["vocab"].items() if w not in control}
    check_merges(spec["model"].get("merges", []), vocab)
    template = folder / "chat_template.jinja"
    chat, system = chat_format(template.read_text(encoding="utf-8") if template.exists() else extra.get("chat_template"))
    stop = {control[s] for s in STOP_TOKENS if s in control} | set(eos_ids)
    return Tokenizer({i: w for w, i in vocab.items()}, control, pattern, chat, system, stop,
                     control.get("<|endoftext|>", 0))
