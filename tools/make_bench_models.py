#!/usr/bin/env python3
"""Writes random-weight checkpoints in real shapes, for benchmarks: GPT-2 124M, Qwen3-0.6B and Qwen3-VL-2B.

    pip install numpy tokenizers
    python3 tools/make_bench_models.py --out models [--only gpt2|qwen3|qwen3_vl] [--dtype bf16|f32] [--seed 0]

Each folder holds config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
vocab.json and merges.txt, and loads in Tidegate and in transformers (GPT2LMHeadModel, Qwen3ForCausalLM,
Qwen3VLForConditionalGeneration). Weights are
written tensor by tensor, so memory stays small; every tensor has its own generator, seeded by its name, so that two
runs give the same bytes. The tokenizers are trained on a seeded invented language: they are of real size, and useless
for real text, as are the weights.
"""

import argparse
import json
import pathlib
import struct
import sys
import zlib

import numpy as np

ROWS_AT_ONCE = 4096


class Constant:
    """A tensor of one value."""

    def __init__(self, value, *shape):
        self.value, self.shape = value, shape

    def rows(self, _generator, first, last):
        return np.full((last - first, *self.shape[1:]), self.value, dtype=np.float32)


class Normal:
    """A tensor of normally distributed values."""

    def __init__(self, deviation, *shape):
        self.deviation, self.shape = deviation, shape

    def rows(self, generator, first, last):
        values = generator.standard_normal((last - first, *self.shape[1:]), dtype=np.float32)
        return values * np.float32(self.deviation)


def gpt2_tensors(config):
    """Name to tensor, with the names that save_pretrained writes. Linear weights are [inputs, outputs]."""
    width, deviation = config["n_embd"], config["initializer_range"]
    residual = deviation / (2 * config["n_layer"]) ** 0.5
    tensors = {
        "transformer.wte.weight": Normal(deviation, config["vocab_size"], width),
        "transformer.wpe.weight": Normal(deviation, config["n_positions"], width),
    }
    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}."
        for norm in ("ln_1", "ln_2"):
            tensors[f"{prefix}{norm}.weight"] = Constant(1.0, width)
            tensors[f"{prefix}{norm}.bias"] = Constant(0.0, width)
        for name, inputs, outputs, spread in (
            ("attn.c_attn", width, 3 * width, deviation),
            ("attn.c_proj", width, width, residual),
            ("mlp.c_fc", width, 4 * width, deviation),
            ("mlp.c_proj", 4 * width, width, residual),
        ):
            tensors[f"{prefix}{name}.weight"] = Normal(spread, inputs, outputs)
            tensors[f"{prefix}{name}.bias"] = Constant(0.0, outputs)
    tensors["transformer.ln_f.weight"] = Constant(1.0, width)
    tensors["transformer.ln_f.bias"] = Constant(0.0, width)
    return tensors


def qwen3_tensors(config):
    """Name to tensor. Linear weights are [outputs, inputs]; the output head is tied to the embedding."""
    width, inner, deviation = config["hidden_size"], config["intermediate_size"], config["initializer_range"]
    head = config["head_dim"]
    query, key = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    tensors = {"model.embed_tokens.weight": Normal(deviation, config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors[prefix + "input_layernorm.weight"] = Constant(1.0, width)
        tensors[prefix + "post_attention_layernorm.weight"] = Constant(1.0, width)
        tensors[prefix + "self_attn.q_norm.weight"] = Constant(1.0, head)
        tensors[prefix + "self_attn.k_norm.weight"] = Constant(1.0, head)
        for name, outputs, inputs in (
            ("self_attn.q_proj", query, width),
            ("self_attn.k_proj", key, width),
            ("self_attn.v_proj", key, width),
            ("self_attn.o_proj", width, query),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ):
            tensors[f"{prefix}{name}.weight"] = Normal(deviation, outputs, inputs)
    tensors["model.norm.weight"] = Constant(1.0, width)
    return tensors


def qwen3_vl_tensors(text, vision):
    """Name to tensor: the decoder's under their own prefix, and the tower's."""
    decoder = qwen3_tensors(text).items()
    tensors = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in decoder}
    width, inner, deviation = vision["hidden_size"], vision["intermediate_size"], text["initializer_range"]
    merged = width * vision["spatial_merge_size"] ** 2

    def linear(name, outputs, *inputs):
        tensors[f"model.visual.{name}.weight"] = Normal(deviation, outputs, *inputs)
        tensors[f"model.visual.{name}.bias"] = Constant(0.0, outputs)

    def norm(name, size):
        tensors[f"model.visual.{name}.weight"] = Constant(1.0, size)
        tensors[f"model.visual.{name}.bias"] = Constant(0.0, size)

    side = vision["patch_size"]
    linear("patch_embed.proj", width, vision["in_channels"], vision["temporal_patch_size"], side, side)
    tensors["model.visual.pos_embed.weight"] = Normal(deviation, vision["num_position_embeddings"], width)
    for block in range(vision["depth"]):
        norm(f"blocks.{block}.norm1", width)
        norm(f"blocks.{block}.norm2", width)
        linear(f"blocks.{block}.attn.qkv", 3 * width, width)
        linear(f"blocks.{block}.attn.proj", width, width)
        linear(f"blocks.{block}.mlp.linear_fc1", inner, width)
        linear(f"blocks.{block}.mlp.linear_fc2", width, inner)
    mergers = [f"deepstack_merger_list.{level}" for level in range(len(vision["deepstack_visual_indexes"]))]
    for name in ["merger", *mergers]:
        norm(f"{name}.norm", width if name == "merger" else merged)
        linear(f"{name}.linear_fc1", merged, merged)
        linear(f"{name}.linear_fc2", vision["out_hidden_size"], merged)
    return tensors


def bf16_bits(values):
    """Rounds float32 to bfloat16, to nearest with ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path, tensors, dtype, seed):
    """Writes the header, then one slice of rows after another. Returns the number of parameters."""
    size = {"bf16": 2, "f32": 4}[dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        end = offset + int(np.prod(tensor.shape)) * size
        header[name] = {"dtype": dtype.upper(), "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
            for first in range(0, tensor.shape[0], ROWS_AT_ONCE):
                values = tensor.rows(generator, first, min(first + ROWS_AT_ONCE, tensor.shape[0]))
                file.write((bf16_bits(values) if dtype == "bf16" else values.astype("<f4")).tobytes())
    return offset // size


def invented_text(seed, words=90_000, lines=200_000, per_line=10):
    """Lines of a seeded invented language whose words are used as unevenly as words are in real ones."""
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    onsets = "b br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sk sl sp st str t th tr v w y z".split()
    vowels = "a e i o u ai ea ee ie oa oo ou".split()
    codas = ["", "", "", *"b ck d g l ll m n nd ng nt p r rd rk rn s sh ss st t th x".split()]
    lexicon, seen = [], set()
    while len(lexicon) < words:
        syllables = generator.integers(1, 5)
        word = "".join(
            onsets[generator.integers(len(onsets))] + vowels[generator.integers(len(vowels))]
            for _ in range(syllables)
        ) + codas[generator.integers(len(codas))]
        if word not in seen:
            seen.add(word)
            lexicon.append(word)
    weights = 1.0 / np.arange(10, words + 10)
    weights /= weights.sum()
    for line in generator.choice(words, (lines, per_line), p=weights):
        yield " ".join(lexicon[index] for index in line)
    for first in range(0, words, per_line):
        yield " ".join(lexicon[first : first + per_line])


def train_tokenizer(size, special, seed):
    """A byte-level BPE of exactly `size` tokens, the special ones first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(invented_text(seed), trainer)
    if tokenizer.get_vocab_size() != size:
        sys.exit(f"the invented language gave {tokenizer.get_vocab_size()} tokens instead of {size}")
    return tokenizer


CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def gpt2():
    """Configuration, tokenizer size, special tokens and tokenizer_config of GPT-2 124M."""
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_ctx": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    words = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    return "gpt2-124m", config, gpt2_tensors(config), 50257, ["<|endoftext|>"], words


def qwen3():
    """Configuration, tokenizer size, special tokens and tokenizer_config of Qwen3-0.6B."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "max_position_embeddings": 40960,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 28,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHAT_TEMPLATE}
    return "qwen3-0.6b", config, qwen3_tensors(config), 50000, special, words


def qwen3_vl():
    """The same of Qwen3-VL-2B."""
    _, config, _, tokens, special, words = qwen3()
    text = {
        **config,
        "model_type": "qwen3_vl_text",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 262144,
        "rope_theta": 5000000,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
    }
    for name in ("architectures", "rope_parameters", "sliding_window", "use_sliding_window", "max_window_layers"):
        del text[name]
    vision = {
        "model_type": "qwen3_vl",
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "in_channels": 3,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
        "out_hidden_size": 2048,
        "hidden_act": "gelu_pytorch_tanh",
    }
    special = [*special, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "vision_config": vision,
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
        "image_token_id": 5,
        "video_token_id": 6,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "max_position_embeddings": text["max_position_embeddings"],
    }
    return "qwen3-vl-2b", config, qwen3_vl_tensors(text, vision), tokens, special, words


# How the published Qwen3-VL models want their images.
IMAGES = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make(recipe, arguments):
    name, config, tensors, tokens, special, words = recipe()
    folder = arguments.out / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(tokens, special, arguments.seed)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    stored = {"bf16": "bfloat16", "f32": "float32"}[arguments.dtype]
    write_json(folder / "config.json", {**config, "torch_dtype": stored})
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"], "do_sample": False},
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.get("n_positions") or config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            **words,
        },
    )
    if "vision_config" in config:
        write_json(folder / "preprocessor_config.json", IMAGES)
    parameters = write_safetensors(folder / "model.safetensors", tensors, arguments.dtype, arguments.seed)
    print(f"{folder}: {parameters:,} parameters in {arguments.dtype}, {tokens:,} tokens")


RECIPES = {"gpt2": gpt2, "qwen3": qwen3, "qwen3_vl": qwen3_vl}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder that the model folders go into")
    parser.add_argument("--only", choices=sorted(RECIPES), help="make one of them")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16", help="type of the stored weights")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, recipe in RECIPES.items():
        if arguments.only in (None, name):
            make(recipe, arguments)


if __name__ == "__main__":
    main()
