"""A model of transformers as an engine takes it: configuration, tokenizer, and the weights where they are."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def is_model(value: Any) -> bool:
    """Whether this is a model of transformers, and no path."""
    return hasattr(value, "state_dict") and hasattr(value, "config")


def in_memory(model: Any, tokenizer: Any = None) -> dict[str, Any]:
    """What the native engine asks for. Weights on the host are lent and not copied, unless there are gaps in them."""
    config = {
        **json.loads(model.config.to_json_string()),
        "architectures": [type(model).__name__],
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    files = {"config.json": json.dumps(config).encode()}
    if getattr(model, "generation_config", None) is not None:
        files["generation_config.json"] = model.generation_config.to_json_string().encode()
    files |= _unnamed(config["vocab_size"]) if tokenizer is None else _saved(tokenizer)
    weights = {name: weight.detach().cpu() for name, weight in model.state_dict().items() if weight.is_floating_point()}
    return {
        "name": os.path.basename(os.path.normpath(model.config.name_or_path or config["model_type"])),
        "files": list(files.items()),
        "tensors": [(name, weight.contiguous().__dlpack__()) for name, weight in weights.items()],
    }


def _saved(tokenizer: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="tidegate-") as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def _unnamed(size: int) -> dict[str, bytes]:
    """A vocabulary whose texts nobody needs, for models that are given ids and no tokenizer."""
    vocabulary = {f"<{number}>": number for number in range(size)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    parts = {"version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level, "model": model}
    return {"tokenizer.json": json.dumps(parts).encode()}
