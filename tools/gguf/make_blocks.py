#!/usr/bin/env python3
"""Writes crates/tensor/test_data/blocks.gguf: blocks of every quantised format that is read, and their values.

    pip install -r tools/gguf/requirements.txt
    python3 tools/gguf/make_blocks.py

For a format `X` the file has a tensor `X` of that type with random bits in it, and a tensor `X.values` of type F32 with
what the `gguf` package makes of these blocks. Scales are any finite half-precision numbers, zeros, subnormals and
negative ones included. Two runs give the same bytes.
"""

import pathlib

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/tensor/test_data/blocks.gguf"
ROWS, COLUMNS = 2, 512

# Where the half-precision numbers of a block stand.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
    "Q6_K": [208],
}


def halves(random, count):
    """Half-precision numbers with any bits but those of infinities and NaNs; the first four are the awkward ones."""
    bits = random.integers(0, 1 << 16, count, dtype=np.uint16)
    bits[(bits >> 10) & 31 == 31] ^= 1 << 14
    bits[:4] = [0x0000, 0x8000, 0x0001, 0x7BFF]
    return bits


def blocks(name, random):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    count = ROWS * COLUMNS // elements
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES[name]:
        data[:, at:at + 2] = halves(random, count).view(np.uint8).reshape(count, 2)
    return data.reshape(ROWS, -1)


def main():
    writer = gguf.GGUFWriter(OUT, "blocks")
    for number, name in enumerate(HALVES):
        kind = gguf.GGMLQuantizationType[name]
        data = blocks(name, np.random.default_rng(number))
        writer.add_tensor(name, data, raw_dtype=kind)
        writer.add_tensor(f"{name}.values", gguf.quants.dequantize(data, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
