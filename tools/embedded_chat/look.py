"""Teach the vision tower to see before it is joined to the text model: what lies under every patch and in every token.

    python look.py --out FILE --steps 1500 --seed 2026

Every scene says where its shapes and letters are, so the tower can be taught densely: linear heads on its patches and its tokens
name the colour, the shape and the letter there, and of the whole picture how many shapes of every kind there are and what the ground
is. The heads are thrown away in the end; ``train.py --pictures FILE`` goes on with the tower.
"""

import argparse
import random
import string
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import draw
import pixels
from batches import patches
from corpus import is_reserved
from kinds import pictures, scenes
from optimiser import learning_rate, optimisers, set_rates
from tower import Tower, VisionConfig

COLOURS, SHAPES = ["", *scenes.COLOURS], ["", *scenes.SHAPES]
LETTERS = " " + string.ascii_uppercase
GROUNDS = ["", *scenes.COLOURS, "grey"]
PATCH_HEADS = (len(COLOURS), len(SHAPES), len(LETTERS))  # what covers the middle of a patch
# what has its middle in a token, and in which cell of the picture; the letters in its two halves; the ground; the shapes in all
TOKEN_HEADS = (len(COLOURS), len(SHAPES), 1 + len(scenes.PLACES), len(LETTERS), len(LETTERS), len(GROUNDS), len(pictures.NUMBERS))
# how many are like the one in the token: of its colour, of its shape, of both; then how many of every colour and shape the picture has.
# Nothing else teaches the model to count the shapes of one kind: the words of an answer say too little about too few of them.
KINDS = [("colour", colour) for colour in scenes.COLOURS] + [("shape", shape) for shape in scenes.SHAPES]
LIKE = (("colour",), ("shape",), ("colour", "shape"))
COUNT_HEADS = (len(pictures.NUMBERS),) * (len(LIKE) + len(KINDS))
MIDDLE_HEADS = (len(COLOURS), len(SHAPES))  # what has its middle in a patch, named halfway up: what is to be counted must first be one
NOTHING_WEIGHT = 0.25  # most patches show only the ground
COUNT_WEIGHTS = (0.25, 1.0, 3.0, 6.0, 8.0)  # few pictures have three of one kind
COVERED = 0.7  # how much of a shape's extent surely belongs to it
MICRO_BATCHES_PER_STEP = 2
HEADS_ALONE = 0.15  # of a schedule that goes on with a trained tower: new heads would first only spoil it


class Heads(nn.Module):
    """What is named of a patch and of a token."""

    def __init__(self, c):
        super().__init__()
        self.patch = nn.Linear(c.hidden_size, sum(PATCH_HEADS))
        self.middle = nn.Linear(c.hidden_size, sum(MIDDLE_HEADS))
        self.token = nn.Linear(c.out_hidden_size, sum(TOKEN_HEADS + COUNT_HEADS))


def labels(scene, rows, columns):
    """The labels of a scene's patches and tokens, [patches, 5] and [tokens, 24], zero where there is nothing."""
    row, column = pixels.places(rows, columns)
    x, y = (column + 0.5) / columns, (row + 0.5) / rows
    patch = np.zeros((rows * columns, len(PATCH_HEADS + MIDDLE_HEADS)), np.int64)
    things, first, every = scene["things"], len(TOKEN_HEADS), len(TOKEN_HEADS + COUNT_HEADS)
    token = np.zeros((rows // 2, columns // 2, every), np.int64)
    token[..., 5:first] = GROUNDS.index(scene["ground"]["name"]), len(things)
    token[..., first + len(LIKE) :] = [sum(item[field] == value for item in things) for field, value in KINDS]
    width, height = scene["size"]
    for item in things:
        named = COLOURS.index(item["colour"]), SHAPES.index(item["shape"])
        half = COVERED * item["half"] * min(width, height)
        patch[(abs(x - item["x"]) * width < half) & (abs(y - item["y"]) * height < half), :2] = named
        patch[(row == int(item["y"] * rows)) & (column == int(item["x"] * columns)), len(PATCH_HEADS) :] = named
        there = token[int(item["y"] * rows / 2), int(item["x"] * columns / 2)]
        there[:3] = *named, 1 + item["cell"]
        there[first : first + len(LIKE)] = [sum(all(item[f] == other[f] for f in fields) for other in things) for fields in LIKE]
    if word := scene["word"]:
        _, ends, middle = draw.letters(word, width, height)
        near = abs(y * height - middle) < 0.5 * word["height"] * min(width, height)
        token_row = token[min(rows // 2 - 1, int(middle / height * rows / 2))]
        for letter, (left, right) in zip(word["text"], ends):
            index = LETTERS.index(letter)
            patch[near & (x * width >= left) & (x * width < right), 2] = index
            for half in range(columns):
                if left <= (half + 0.5) / columns * width < right:
                    token_row[half // 2, 3 + half % 2] = index
    return patch, token.reshape(-1, every)


def losses(heads, tower, batch, grid):
    """The sum of the heads' mean losses, and the share of things that each names rightly."""
    drawn = [labels(scene, *grid) for scene in batch]
    wanted_patch, wanted_token = (torch.from_numpy(np.concatenate(part)) for part in zip(*drawn))
    with torch.autocast("cpu", torch.bfloat16):
        x, levels = tower.patches(patches(batch), *grid)
        middle = heads.middle(F.layer_norm(levels[0], x.shape[-1:])).flatten(0, 1).float().split(MIDDLE_HEADS, -1)
        patch = heads.patch(F.layer_norm(x, x.shape[-1:])).flatten(0, 1).float().split(PATCH_HEADS, -1)
        token = heads.token(F.rms_norm(tower.merger(x), (tower.config.out_hidden_size,))).flatten(0, 1).float().split(TOKEN_HEADS + COUNT_HEADS, -1)
    every = [*zip((*patch, *middle), wanted_patch.T), *zip(token, wanted_token.T)]
    counts = len(every) - len(COUNT_HEADS)
    loss = sum(named(logits, wanted) for logits, wanted in every[:counts])
    loss += sum(F.cross_entropy(logits, wanted, torch.tensor(COUNT_WEIGHTS)) for logits, wanted in every[counts:])
    right = [float((logits.argmax(-1) == wanted)[wanted > 0].float().mean()) if (wanted > 0).any() else float("nan") for logits, wanted in every]
    return loss, right


def named(logits, wanted):
    weight = torch.ones(logits.shape[-1])
    weight[0] = NOTHING_WEIGHT
    return F.cross_entropy(logits, wanted, weight)


def batches(seed, size):
    """Batches of scenes of one grid, none of which the held-out pictures show."""
    rng, groups = random.Random(f"{seed} look"), {}
    while True:
        scene = scenes.scene(rng)
        if is_reserved(pictures.subject(scene)) or (rng.random() < 0.5 and not repeats(scene)):
            continue
        group = groups.setdefault(pixels.grid(*scene["size"]), [])
        group.append(scene)
        if len(group) == size:
            grid = pixels.grid(*scene["size"])
            yield groups.pop(grid), grid


def repeats(scene):
    """Whether a scene shows several shapes of one kind, which is what counting is learned from."""
    return any(len({item[field] for item in scene["things"]}) < len(scene["things"]) for field in ("colour", "shape"))


def train(tower, heads, args):
    """Run the schedule to its end, saving now and then; the batches of a step are worked on side by side."""
    inside, rest = parts_of(tower)
    named_by = torch.optim.AdamW(heads.parameters(), lr=args.vector_lr, betas=(0.9, 0.98), weight_decay=0.0)
    parts, parameters = [*optimisers(inside, rest, args.matrix_lr, args.vector_lr), named_by], [*inside, *rest, *heads.parameters()]
    stream, started, averaged = batches(args.seed, args.batch), time.monotonic(), None
    workers = ThreadPoolExecutor(MICRO_BATCHES_PER_STEP, initializer=torch.set_num_threads, initargs=(1,))

    def gradients(work):
        loss, right = losses(heads, tower, *work)
        return [loss.item(), *right], torch.autograd.grad(loss / MICRO_BATCHES_PER_STEP, parameters)

    for step in range(args.steps):
        minutes = (time.monotonic() - started) / 60
        progress = max(step / args.steps, minutes / args.minutes if args.minutes else 0.0)
        if progress >= 1.0:
            break
        set_rates(parts, learning_rate(progress))
        results = list(workers.map(gradients, [next(stream) for _ in range(MICRO_BATCHES_PER_STEP)]))
        for parameter, *grads in zip(parameters, *(grads for _, grads in results)):
            parameter.grad = torch.stack(grads).sum(0)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for part in [named_by] if args.model and progress < HEADS_ALONE else parts:
            part.step()
        averaged = smoothed(averaged, np.array([told for told, _ in results]).mean(0))
        if (step + 1) % 20 == 0:
            right = " ".join(f"{share:.3f}" for share in averaged[1:])
            print(f"step {step + 1}  progress {progress:.3f}  loss {averaged[0]:.3f}  right {right}  minutes {minutes:.1f}", flush=True)
        if (step + 1) % 200 == 0:
            save(args.out, tower, heads)
    save(args.out, tower, heads)


def parts_of(tower):
    """What Muon trains of the tower that this program reaches, and what Adam does: its ends, whose scale matters."""
    inside = [*tower.blocks.parameters(), *tower.merger.norm.parameters(), *tower.merger.linear_fc1.parameters()]
    return inside, [*tower.patch_embed.parameters(), *tower.pos_embed.parameters(), *tower.merger.linear_fc2.parameters()]


def smoothed(averaged, now):
    """A moving average that passes over what a batch has nothing of."""
    if averaged is None:
        return now
    return np.where(np.isnan(now), averaged, np.where(np.isnan(averaged), now, 0.95 * averaged + 0.05 * now))


def save(path, tower, heads):
    save_file({name: value.detach().contiguous() for name, value in nn.ModuleDict({"tower": tower, "heads": heads}).state_dict().items()}, path)


def load(path, tower, heads):
    nn.ModuleDict({"tower": tower, "heads": heads}).load_state_dict(load_file(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--minutes", type=float, help="end the schedule after so many minutes")
    parser.add_argument("--init", type=Path, help="go on from a file that this program wrote")
    parser.add_argument("--model", type=Path, help="go on with the tower of a folder that train.py exported, and with new heads")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--matrix-lr", type=float, default=0.02)
    parser.add_argument("--vector-lr", type=float, default=0.003)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tower = Tower(VisionConfig())
    heads = Heads(tower.config)
    if args.init:
        load(args.init, tower, heads)
    if args.model:
        prefix, weights = "model.visual.", load_file(args.model / "model.safetensors")
        tower.load_state_dict({name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)})
    train(tower, heads, args)


if __name__ == "__main__":
    main()
