"""
SentencePiece-style byte-pair merging (Llama-2, TinyLlama, Mistral), which tiktoken cannot express.

tiktoken cuts a text into words and merges bytes inside each. Here nothing is cut: spaces become
`▁`, the pieces start as characters, and a pair may merge across words. A character that the
vocabulary lacks is spelt in byte tokens `<0xE2>`. The best pair of all merges first, the leftmost
of equals; a heap of candidates keeps that at n log n.
"""
import heapq

SPACE = "\u2581"                            # ▁


class MergeEncoder:
    """
    tokens   dict id -> piece, byte tokens included, control tokens not
    rank     (left piece, right piece) -> number, the lowest merges first, or None where they do not
             merge
    unk_id   written for a byte whose token is not there
    prefix   what a text starts with: "always" ▁, "unless" it starts with a space anyway, "first"
             the same, but not behind a control token, "never"
    """

    def __init__(self, tokens, rank, unk_id=0, prefix="always"):
        self.ids = {piece: i for i, piece in tokens.items()}
        if len(self.ids) != len(tokens):
            raise ValueError("a vocabulary entry is there twice (damaged file)")
        self.byte_ids = [self.ids.get(f"<0x{b:02X}>", unk_id) for b in range(256)]
        value = {i: bytes([b]) for b, i in enumerate(self.byte_ids) if i != unk_id}
        self.value = {}
        for i, piece in tokens.items():
            self.value[i] = value.get(i) or piece.replace(SPACE, " ").encode()
        self.rank, self.prefix = rank, prefix

    def encode_ordinary(self, text, start=False, behind=False):
        """Text -> ids. start: the text begins a prompt; behind: it follows a control token."""
        text = text.replace(" ", SPACE)
        if text and self.wants_space(text[0], start, behind):
            text = SPACE + text
        parts = []  # a piece as str; a byte of a foreign character as int
        for c in text:
            parts += [c] if c in self.ids else c.encode()
        parts = self.merged(parts)
        return [self.byte_ids[p] if isinstance(p, int) else self.ids[p] for p in parts]

    def wants_space(self, first, start, behind):
        """Does a text that begins with this character get a ▁ before it?"""
        if self.prefix == "never" or not (start or behind and self.prefix != "first"):
            return False
        return self.prefix == "always" or first != SPACE

    def merged(self, parts):
        """The list after all merges."""
        n = len(parts)
        # a linked list over the positions
        before, after = list(range(-1, n - 1)), list(range(1, n + 1))
        heap = []

        def offer(i):
            j = after[i]
            if j < n and isinstance(parts[i], str) and isinstance(parts[j], str):
                rank = self.rank(parts[i], parts[j])
                if rank is not None:
                    heapq.heappush(heap, (rank, i, parts[i], parts[j]))

        for i in range(n):
            offer(i)
        while heap:
            _, i, left, right = heapq.heappop(heap)
            j = after[i]
            # one of the two has merged elsewhere since
            if parts[i] != left or j >= n or parts[j] != right:
                continue
            parts[i], parts[j], after[i] = left + right, None, after[j]
            if after[i] < n:
                before[after[i]] = i
            offer(i)
            if before[i] >= 0:
                offer(before[i])
        return [p for p in parts if p is not None]

    def decode_single_token_bytes(self, i):
        return self.value[i]


def by_pairs(merges, ids):
    """The merge list of a tokenizer.json -> rank function. ValueError for a merge outside the
    vocabulary."""
    ranks = {}
    for n, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if not {left, right, left + right} <= ids.keys():
            raise ValueError(f"merge {left!r} + {right!r} is not in the vocabulary (damaged file)")
        ranks.setdefault((left, right), n)
    return lambda left, right: ranks.get((left, right))


def by_scores(score):
    """The scores of a GGUF vocabulary (dict piece -> number) -> rank function: the pair with the
    best product first."""
    ranks = {piece: -s for piece, s in score.items()}
    return lambda left, right: ranks.get(left + right)


def prefix_of(spec):
    """How a tokenizer.json spells the SentencePiece space rule -> `prefix` of MergeEncoder;
    ValueError for any other rule."""
    norm, pre = spec.get("normalizer"), spec.get("pre_tokenizer")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    if not pre and norm == {"type": "Sequence", "normalizers": [prepend, replace]}:
        return "always"
    if not pre and norm in (replace, {"type": "Sequence", "normalizers": [replace]}):
        return "never"
    if not norm and pre and pre.get("type") == "Metaspace" and pre.get("replacement") == SPACE:
        schemes = {"first": "first", "always": "unless", "never": "never"}
        scheme = schemes.get(pre.get("prepend_scheme"))
        if scheme and pre.get("split") is False:
            return scheme
    raise ValueError(f"normalizer {norm} with pre-tokenizer {pre} is not supported for a "
                     "byte-fallback vocabulary")
