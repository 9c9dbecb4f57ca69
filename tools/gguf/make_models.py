#!/usr/bin/env python3
"""Writes a GGUF file from a small Hugging Face folder of GPT-2 or Qwen3, as llama.cpp's converter does.

    pip install -r tools/gguf/requirements.txt
    python3 tools/gguf/make_models.py                            # the files of crates/models/test_data
    python3 tools/gguf/make_models.py FOLDER OUT.gguf --type q8_0

Names of tensors and keys come from the `gguf` package of llama.cpp, and so do special tokens and chat templates. One
dimensional tensors and GPT-2's positions stay F32; a matrix whose rows are not whole blocks becomes F16. Two runs give
the same bytes.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np
from safetensors import safe_open

TEST_DATA = pathlib.Path(__file__).resolve().parents[2] / "crates/models/test_data"
OWN = [("gpt2", "f32"), ("qwen3", "bf16")]
ARCHITECTURES = {"gpt2": gguf.MODEL_ARCH.GPT2, "qwen3": gguf.MODEL_ARCH.QWEN3}
# What the converter takes for the pre-tokenizer of these families.
SPLITTINGS = {"gpt2": "gpt-2", "qwen3": "qwen2"}


def read(folder, name):
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def tensors(folder):
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            for name in file.keys():
                yield name, raw(file, path, name)


def raw(file, path, name):
    """The tensor as float32; numpy has no bfloat16, so that is widened by hand."""
    if file.get_slice(name).get_dtype() != "BF16":
        return file.get_tensor(name).astype(np.float32)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:8 + length])[name]
    begin, end = (8 + length + at for at in entry["data_offsets"])
    wide = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
    return wide.view(np.float32).reshape(entry["shape"])


def add_settings(writer, config):
    if config["model_type"] == "gpt2":
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
        writer.add_block_count(config["n_layer"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return config["n_layer"]
    rope = config.get("rope_parameters") or config
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    return config["num_hidden_layers"]


def add_tokenizer(writer, folder, config):
    file = read(folder, "tokenizer.json")
    texts = {id: text for text, id in file["model"]["vocab"].items()}
    added = {token["id"]: token for token in file["added_tokens"]}
    texts.update({id: token["content"] for id, token in added.items()})
    tokens, kinds = [], []
    for id in range(config["vocab_size"]):
        tokens.append(texts.get(id, f"[PAD{id}]"))
        if id not in texts:
            kinds.append(gguf.TokenType.UNUSED)
        elif id not in added:
            kinds.append(gguf.TokenType.NORMAL)
        elif added[id]["special"] or texts[id].startswith("<|") and texts[id].endswith("|>"):
            kinds.append(gguf.TokenType.CONTROL)
        else:
            kinds.append(gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITTINGS[config["model_type"]])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(tokens)).add_to_gguf(writer)


def kind_of(name, tensor, wanted):
    if tensor.ndim < 2 or name.startswith("position_embd"):
        return gguf.GGMLQuantizationType.F32
    kind = gguf.GGMLQuantizationType[wanted.upper()]
    elements, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if tensor.shape[-1] % elements == 0 else gguf.GGMLQuantizationType.F16


def convert(folder, out, wanted):
    config = read(folder, "config.json")
    family = config["model_type"]
    writer = gguf.GGUFWriter(out, family)
    writer.add_name(folder.parent.name)
    layers = add_settings(writer, config)
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], layers)
    add_tokenizer(writer, folder, config)
    tied = config.get("tie_word_embeddings", family == "gpt2")
    for name, tensor in tensors(folder):
        stored = names.get_name(name.removeprefix("transformer."), try_suffixes=(".weight", ".bias"))
        is_mask = name.endswith((".attn.bias", ".attn.masked_bias"))
        if is_mask or tied and name == "lm_head.weight":
            continue
        if stored is None:
            raise SystemExit(f"{folder}: no name for the tensor {name}")
        if family == "gpt2" and ".c_" in name and name.endswith(".weight"):
            tensor = np.ascontiguousarray(tensor.T)
        kind = kind_of(stored, tensor, wanted)
        writer.add_tensor(stored, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--type", default="f32", help="f32, f16, bf16, q8_0, q4_0, q4_1, q5_0 or q5_1")
    arguments = parser.parse_args()
    if arguments.folder and arguments.out:
        return convert(arguments.folder, arguments.out, arguments.type)
    for family, kind in OWN:
        convert(TEST_DATA / family / "model", TEST_DATA / f"{family}-{kind}.gguf", kind)


if __name__ == "__main__":
    main()
