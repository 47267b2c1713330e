"""Tiny models made on the spot: random weights, a byte vocabulary, no network,
float32 on one thread.
"""
import gc
import json
import os
import signal
import time
import traceback
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

import t2mini
from t2mini import experts
from t2mini.model import Config, Transformer
from t2mini.formats.tokenizer import byte_alphabet

# the programs of these tests may run where not all can be locked
os.environ.setdefault("T2MINI_UNLOCKED", "yes")
os.environ["no_proxy"] = "127.0.0.1"            # test servers are here, whatever proxy there is
torch.set_num_threads(1)                        # exact-equality tests need a fixed thread count

# fewer key/value heads than heads, an odd rope base: sizes at which known bugs show
TINY = dict(model_type="llama", vocab_size=272, hidden_size=48, num_hidden_layers=2,
            num_attention_heads=6, num_key_value_heads=2, head_dim=8, intermediate_size=96,
            rope_theta=500_000.0, rms_norm_eps=1e-5,
            max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=257)
CONTROL = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]       # ids 256, 257, 258


def random_model(seed=0, **changes):
    """A float32 Transformer with random weights, large enough that positions and heads matter."""
    spec = ({k: v for k, v in TINY.items() if k in Config.__dataclass_fields__}
            | {"norm_eps": 1e-5} | changes)
    torch.manual_seed(seed)
    model = Transformer(Config(**spec)).requires_grad_(False).eval()
    for name, p in model.named_parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(
                p, std=0.3 if "embed" in name or "wte" in name else p.shape[1] ** -0.5)
        elif "norm" in name or "ln" in name:
            p.add_(0.1 * torch.randn_like(p))
    model.name, model.base_sha256 = "tiny", "0" * 64
    return model


def write_folder(folder, seed=0, **changes):
    """A Hugging Face folder of a tiny Llama with a ChatML byte tokenizer,
    as people have them on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = TINY | changes
    model = random_model(seed,
                         **{k: v for k, v in spec.items() if k in Config.__dataclass_fields__})
    (folder / "config.json").write_text(json.dumps(spec))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()},
              str(folder / "model.safetensors"))
    vocab = {c: b for c, b in byte_alphabet().items()}
    added = [{"id": 256 + i, "content": c, "special": True} for i, c in enumerate(CONTROL)]
    (folder / "tokenizer.json").write_text(json.dumps({
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "<|im_start|>...<|im_end|>"}))
    return folder


def pytest_collection():
    """Torch and thousands of tests are no garbage: they are not looked through again and again."""
    gc.disable()


def pytest_collection_finish():
    """Garbage is collected as ever, but what is there before the first test is left out."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def model():
    return random_model()


@pytest.fixture(scope="session", autouse=True)
def no_traces(tmp_path_factory):
    """Decompositions that this process makes of tiny models do not stay in weights/."""
    experts.SVD_CACHE = tmp_path_factory.mktemp("svd")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def loaded(tiny_folder):
    """(model, tokenizer) of the tiny folder, freshly loaded in float32."""
    return t2mini.load(tiny_folder, device="cpu", dtype="float32")


def forked(work):
    """Run work() in a copy of this process. -> its id; its exit status is 0 if work returned."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def wait_for(happened, seconds=60):
    """Until it happens; an AssertionError if it never does."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


@contextmanager
def soon(seconds=30):
    """An AssertionError in the block, were it to hang or to read without end."""
    def stop(*args):
        raise AssertionError("it hung")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
