"""From a picture to the patches that the vision tower reads, as the reference preprocessor of Qwen3-VL makes them."""

import math

import numpy as np
from PIL import Image

PATCH, TEMPORAL, MERGE = 16, 2, 2
CELL = PATCH * MERGE  # the side, in pixels, of what one token sees
SMALLEST, LARGEST = 96 * 96, 128 * 128  # areas in pixels: nine to sixteen tokens for an ordinary picture
PREPROCESSOR = {
    "size": {"longest_edge": LARGEST, "shortest_edge": SMALLEST},
    "patch_size": PATCH, "temporal_patch_size": TEMPORAL, "merge_size": MERGE,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "processor_class": "Qwen3VLProcessor",
}


def fitted(width, height):
    """The size a picture is resized to: whole cells, about the same proportions, an area within the limits."""
    wide, high = round(width / CELL) * CELL, round(height / CELL) * CELL
    if wide * high > LARGEST:
        scale = math.sqrt(width * height / LARGEST)
        wide, high = (max(CELL, math.floor(side / scale / CELL) * CELL) for side in (width, height))
    elif wide * high < SMALLEST:
        scale = math.sqrt(SMALLEST / (width * height))
        wide, high = (math.ceil(side * scale / CELL) * CELL for side in (width, height))
    return wide, high


def grid(width, height):
    """Rows and columns of patches of a picture of this size."""
    wide, high = fitted(width, height)
    return high // PATCH, wide // PATCH


def patches(image):
    """[rows * columns, 3 * 16 * 16] bytes: the patches of a picture, those of one cell after each other.

    The second frame that a still picture has in Qwen3-VL equals the first and is left out.
    """
    size = fitted(*image.size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    rows, columns = size[1] // CELL, size[0] // CELL
    cells = np.asarray(image).reshape(rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    return cells.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns * MERGE * MERGE, 3 * PATCH * PATCH)


def places(rows, columns):
    """Row and column of every patch, in the order of ``patches``: two arrays of [rows * columns]."""
    index = np.arange(rows * columns).reshape(rows // MERGE, MERGE, columns // MERGE, MERGE).transpose(0, 2, 1, 3).reshape(-1)
    return index // columns, index % columns
