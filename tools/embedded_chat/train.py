"""Train the embedded chat model on a generated corpus and export it as a Hugging Face folder.

    python train.py --corpus DIR --out DIR --steps 2000 --seed 2026

Documents are never cut and never share a row: rows of similar length are batched together, so a document sees itself alone,
exactly as it will when it is served. The loss counts what the model writes (replies and plain stories), not what it is told.
``--minutes`` ends the schedule early on a slow machine; only a run by steps can be reproduced.
"""

import argparse
import json
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import template
import tokenizer as bpe
from model import Config, Qwen3

ROW_MULTIPLE = 16
MICRO_BATCHES_PER_STEP = 4
GENERATION = {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9}


# Data


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def encode(tokenizer, documents):
    """Token ids of every document, and for each the positions whose token the model is to write."""
    _, im_start, im_end = bpe.special_ids(tokenizer)
    header = [im_start] + tokenizer.encode("assistant\n").ids
    rows = []
    for document, encoding in zip(documents, tokenizer.encode_batch([template.render(d) for d in documents])):
        ids = np.array(encoding.ids, dtype=np.int16)
        rows.append((ids, np.ones(len(ids), bool) if "text" in document else written(ids, header, im_end)))
    return rows


def written(ids, header, im_end):
    """The tokens after every assistant header, up to and with the end of the message."""
    mask = np.zeros(len(ids), bool)
    for start in np.flatnonzero(ids == header[0]):
        begin = start + len(header)
        if list(ids[start:begin]) == header:
            mask[begin : begin + 1 + np.flatnonzero(ids[begin:] == im_end)[0]] = True
    return mask


def batches(rows, tokens_per_batch, max_length, rng):
    """One pass over the rows: batches of similar length, about the same number of tokens each, in random order."""
    groups = {}
    for index, (ids, _) in enumerate(rows):
        length = math.ceil((len(ids) - 1) / ROW_MULTIPLE) * ROW_MULTIPLE
        if length <= max_length:
            groups.setdefault(length, []).append(index)
    order = []
    for length, members in sorted(groups.items()):
        rng.shuffle(members)
        size = max(1, tokens_per_batch // length)
        order += [(length, members[i : i + size]) for i in range(0, len(members), size)]
    rng.shuffle(order)
    for length, members in order:
        yield collate([rows[i] for i in members], length)


def collate(rows, length):
    """Inputs [rows, length], and the flat positions and values of the targets that count."""
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.zeros(len(rows), length, dtype=torch.long)
    counted = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, (ids, mask) in enumerate(rows):
        size = len(ids) - 1
        tokens[row, :size] = torch.from_numpy(ids[:-1].astype(np.int64))
        targets[row, :size] = torch.from_numpy(ids[1:].astype(np.int64))
        counted[row, :size] = torch.from_numpy(mask[1:])
    where = counted.flatten().nonzero().flatten()
    return tokens, where, targets.flatten()[where]


def endless(rows, tokens_per_batch, max_length, rng):
    while True:
        yield from batches(rows, tokens_per_batch, max_length, rng)


def gradients(model, parameters, batch, counted):
    """The loss of one batch as its share of ``counted`` tokens, and its gradients."""
    tokens, where, targets = batch
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(tokens).flatten(0, 1)[where]
        logits = F.linear(hidden, model.model.embed_tokens.weight)
    loss = F.cross_entropy(logits.float(), targets, reduction="sum") / counted
    return loss.item(), torch.autograd.grad(loss, parameters)


# Optimiser


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised by a Newton-Schulz iteration; matrices of one shape are done together."""

    def __init__(self, matrices, lr, momentum=0.95, weight_decay=0.02):
        shapes = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        super().__init__([{"params": group} for group in shapes.values()], dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            parameters = group["params"]
            gradient = torch.stack([p.grad for p in parameters])
            state = self.state[parameters[0]]
            buffer = state.setdefault("momentum", torch.zeros_like(gradient))
            buffer.lerp_(gradient, 1 - group["momentum"])
            update = orthogonal(gradient.lerp(buffer, group["momentum"]))
            rows, columns = update.shape[-2:]
            update *= max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(parameters, update):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(change, alpha=group["lr"])


def orthogonal(x, steps=5):
    """The nearest matrix (of a stack) whose singular values are about one."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


def optimisers(model, matrix_lr, vector_lr):
    """Muon for the matrices inside the layers, Adam for the embedding and the norms."""
    inside = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in inside}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return Muon(inside, matrix_lr), torch.optim.AdamW(rest, lr=vector_lr, betas=(0.9, 0.98), weight_decay=0.0)


def learning_rate(progress):
    """Short warm-up, a plateau, then a straight line to zero."""
    return min(1.0, progress / 0.02, (1.0 - progress) / 0.65)


# Training


def train(model, rows, args, on_checkpoint):
    """Run the schedule to its end and return the steps made and the tokens seen.

    The batches of a step are worked on side by side, one thread each, and their gradients are added in a fixed order:
    that is faster on a busy machine than giving every operation all the cores, and the result does not depend on timing.
    """
    stream = endless(rows, args.tokens_per_batch, model.config.max_position_embeddings, random.Random(args.seed))
    parameters = list(model.parameters())
    parts = optimisers(model, args.matrix_lr, args.vector_lr)
    base = [[group["lr"] for group in part.param_groups] for part in parts]
    workers = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    started, seen, step, averaged = time.monotonic(), 0, 0, None
    while True:
        minutes = (time.monotonic() - started) / 60
        progress = max(step / args.steps, minutes / args.minutes if args.minutes else 0.0)
        if progress >= 1.0:
            return step, seen
        for part, rates in zip(parts, base):
            for group, rate in zip(part.param_groups, rates):
                group["lr"] = rate * learning_rate(progress)
        step_batches = [next(stream) for _ in range(MICRO_BATCHES_PER_STEP)]
        counted = sum(len(targets) for *_, targets in step_batches)
        results = list(workers.map(lambda batch: gradients(model, parameters, batch, counted), step_batches))
        for parameter, *parts_of_it in zip(parameters, *(grads for _, grads in results)):
            parameter.grad = torch.stack(parts_of_it).sum(0)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for part in parts:
            part.step()
        step += 1
        seen += sum(tokens.numel() for tokens, *_ in step_batches)
        loss = sum(value for value, _ in results)
        averaged = loss if averaged is None else 0.98 * averaged + 0.02 * loss
        if step % 20 == 0:
            print(f"step {step}  progress {progress:.3f}  loss {averaged:.4f}  tokens {seen}  minutes {minutes:.1f}", flush=True)
        if step % args.checkpoint_every == 0:
            on_checkpoint(step, seen)


# Export


def export(model, tokenizer, folder, facts):
    """The folder that is embedded: bf16 weights, tokenizer, and the three configuration files."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    end_of_text, _, im_end = bpe.special_ids(tokenizer)
    bpe.save(tokenizer, folder, model.config.max_position_embeddings)
    generation = {"bos_token_id": end_of_text, "eos_token_id": [im_end, end_of_text], "pad_token_id": end_of_text, **GENERATION}
    for name, value in (
        ("config.json", model.config.to_hub(end_of_text, im_end)),
        ("generation_config.json", generation),
        ("training.json", facts),
    ):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, help="end the schedule after so many minutes")
    parser.add_argument("--tokens-per-batch", type=int, default=1536)
    parser.add_argument("--matrix-lr", type=float, default=0.02)
    parser.add_argument("--vector-lr", type=float, default=0.004)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2, help="batches worked on at once")
    parser.add_argument("--init", type=Path, help="go on from the weights and the tokenizer of an exported folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    config = Config()
    documents = read(args.corpus / "train.jsonl")
    if args.init:
        tokenizer = Tokenizer.from_file(str(args.init / "tokenizer.json"))
    else:
        tokenizer = bpe.train((template.render(d) for d in documents[:40_000]), config.vocab_size)
    rows = encode(tokenizer, documents)
    print(f"{len(rows)} documents, {sum(len(ids) for ids, _ in rows)} tokens, {sum(int(m.sum()) for _, m in rows)} counted", flush=True)

    model = Qwen3(config)
    if args.init:
        model.load_state_dict(load_file(args.init / "model.safetensors"))
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)

    def checkpoint(step, seen):
        export(model, tokenizer, args.out, {"seed": args.seed, "steps": step, "tokens_seen": seen, "documents": len(rows)})

    checkpoint(*train(model, rows, args, checkpoint))


if __name__ == "__main__":
    main()
