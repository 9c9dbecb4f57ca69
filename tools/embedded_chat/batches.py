"""Documents to batches: rows of token ids, what of them is to be written, and the pictures in them.

Documents are never cut and never share a row: rows of similar length are batched together, so a document sees itself alone,
exactly as it will when it is served. The pictures of one batch share their grid; they are drawn when the batch is worked on.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
import torch

import draw
import pixels
import template
import tokenizer as bpe
from model import positions

ROW_MULTIPLE = 16


@dataclass(frozen=True)
class Row:
    """One document: its ids, which of them the model is to write, the scenes of its pictures, and their common grid."""

    ids: np.ndarray
    written: np.ndarray
    scenes: tuple = ()
    grid: tuple = ()


@dataclass(frozen=True)
class Batch:
    """Inputs [rows, length], the flat places and values of the targets that count, and what the pictures need."""

    tokens: torch.Tensor
    positions: torch.Tensor
    where: torch.Tensor
    targets: torch.Tensor
    scenes: tuple = ()
    grid: tuple = ()
    pictured: torch.Tensor = None


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def encode(tokenizer, documents):
    """The rows of the documents; one whose pictures differ in their grid is left out."""
    ids = bpe.special_ids(tokenizer)
    header = [ids.im_start] + tokenizer.encode("assistant\n").ids
    grids = [[pixels.grid(*scene["size"]) for scene in document.get("pictures", ())] for document in documents]
    documents, grids = zip(*((d, g) for d, g in zip(documents, grids) if len(set(g)) <= 1))
    texts = [expanded(template.render(d), g) for d, g in zip(documents, grids)]
    rows = []
    for document, grid, encoding in zip(documents, grids, tokenizer.encode_batch(texts)):
        row = np.array(encoding.ids, dtype=np.int16)
        mask = np.ones(len(row), bool) if "text" in document else written(row, header, ids.im_end)
        rows.append(Row(row, mask, tuple(document.get("pictures", ())), grid[0] if grid else ()))
    return rows


def expanded(text, grids):
    """Every picture's mark repeated as often as the picture has tokens."""
    parts = text.split(template.IMAGE_PAD)
    marks = [template.IMAGE_PAD * (rows * columns // pixels.MERGE**2) for rows, columns in grids]
    return "".join(part + mark for part, mark in zip(parts, [*marks, ""]))


def written(ids, header, im_end):
    """The tokens after every assistant header, up to and with the end of the message."""
    mask = np.zeros(len(ids), bool)
    for start in np.flatnonzero(ids == header[0]):
        begin = start + len(header)
        if list(ids[start:begin]) == header:
            mask[begin : begin + 1 + np.flatnonzero(ids[begin:] == im_end)[0]] = True
    return mask


def padded(row):
    return math.ceil((len(row.ids) - 1) / ROW_MULTIPLE) * ROW_MULTIPLE


def one_pass(rows, image_pad, limits, rng):
    """One pass over the rows: batches of similar length, about the same number of tokens each, in random order."""
    tokens_per_batch, max_length = limits
    groups = {}
    for index, row in enumerate(rows):
        if padded(row) <= max_length:
            groups.setdefault((padded(row), row.grid), []).append(index)
    order = []
    for (length, _), members in sorted(groups.items()):
        rng.shuffle(members)
        size = max(1, tokens_per_batch // length)
        order += [(length, members[i : i + size]) for i in range(0, len(members), size)]
    rng.shuffle(order)
    for length, members in order:
        yield collate([rows[i] for i in members], length, image_pad)


def endless(rows, image_pad, limits, rng):
    while True:
        yield from one_pass(rows, image_pad, limits, rng)


def collate(rows, length, image_pad):
    """The batch of some rows, padded to ``length``."""
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.zeros(len(rows), length, dtype=torch.long)
    counted = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        size = len(row.ids) - 1
        tokens[index, :size] = torch.from_numpy(row.ids[:-1].astype(np.int64))
        targets[index, :size] = torch.from_numpy(row.ids[1:].astype(np.int64))
        counted[index, :size] = torch.from_numpy(row.written[1:])
    where = counted.flatten().nonzero().flatten()
    plain = torch.arange(length).expand(3, 1, length)
    if not any(row.scenes for row in rows):
        return Batch(tokens, plain, where, targets.flatten()[where])
    placed = [positions(row.tolist(), [at.grid] * len(at.scenes), image_pad) for row, at in zip(tokens, rows)]
    pictured = (tokens == image_pad).flatten().nonzero().flatten()
    return Batch(
        tokens, torch.tensor(placed).transpose(0, 1), where, targets.flatten()[where],
        tuple(scene for row in rows for scene in row.scenes), rows[0].grid, pictured,
    )


def patches(scenes):
    """The pictures of some scenes that share their grid: [pictures, patches, 3 * 16 * 16], normalised."""
    drawn = np.stack([pixels.patches(draw.picture(scene)) for scene in scenes])
    return torch.from_numpy(drawn).float() / 127.5 - 1.0
