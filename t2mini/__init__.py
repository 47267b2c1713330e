"""
t2mini: Transformer-Squared, self-adaptive language models, small enough to read in an afternoon.

    model, tokenizer = t2mini.load()
"""
__all__ = ["load"]


def load(path=None, device=None, dtype=None):
    """Load open weights. -> (model, tokenizer), ready for `model(ids)`: ids (B, T) -> logits (B, T, V).

    path    a .gguf file, a folder with config.json and *.safetensors (with or without an index), or
            the name of a model that `t2mini download` fetched; default: its default model
    device  "cuda", "cpu", ...; default: CUDA when present
    dtype   "float32", "bfloat16" or a torch dtype; default: bfloat16 where this device is faster in it
    The model gets `name` and `base_sha256` (of the weight files; experts are tied to it). The tokenizer
    is None where a folder has no tokenizer.json. Raises FileNotFoundError or ValueError with one line
    that says what is wrong.
    """
    import torch

    from .formats import load as formats
    from .machine import files, memory
    from .machine.device import pick
    from .model import Config, Transformer

    checkpoint = formats.open_checkpoint(path)
    memory.keep_memory()
    device, dtype = pick(device, dtype)
    cfg, tokenizer = Config(**vars(checkpoint.settings)), checkpoint.tokenizer
    formats.check_config(cfg, len(checkpoint.tensors))
    if tokenizer is not None:
        formats.check_tokenizer(tokenizer, cfg.vocab_size)

    with torch.device("meta"):                              # shapes only: no memory is used twice
        model = Transformer(cfg)
    formats.load_into(model, checkpoint.tensors, device, dtype)
    model.name, model.base_sha256 = checkpoint.name, files.file_hash(checkpoint.files)
    if tokenizer is not None:
        model.valid_vocab = min(cfg.vocab_size, tokenizer.n_vocab)
    return model.eval().requires_grad_(False), tokenizer
