"""Train the embedded chat model on a generated corpus and export it as a Hugging Face folder.

    python train.py --corpus DIR --out DIR --steps 2000 --seed 2026

learns to talk. With ``--init`` the training goes on from an exported folder. With ``--pictures FILE`` it begins with the tower that
``look.py`` wrote, and of six batches four are chats about pictures, one is text and one is what ``look.py`` teaches. The loss counts what the model writes (replies and plain stories),
not what it is told. ``--minutes`` ends the schedule early on a slow machine; only a run by steps can be reproduced.
``--resume`` goes on where an interrupted run of the same command last wrote its state.
"""

import argparse
import itertools
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from tokenizers import Tokenizer

import look
import pixels
import template
import tokenizer as bpe
from batches import Batch, encode, endless, patches, read
from model import Config, Qwen3VL
from optimiser import learning_rate, optimisers, set_rates

# the batches of one step, then of the next and so on: few of them a step, since momentum adds up over the steps anyway
TALK, SEE = (("text",) * 4,), (("text", "pictures"), ("pictures", "pictures"), ("look", "pictures"))
LOOK_WEIGHT = 0.1  # of the dense labels' loss beside that of the chats
LOOK_BATCH = 24
KEEP_WEIGHT = 2.0  # of what is to be kept of the text, beside what is to be learned
GENERATION = {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9}


# Training


def gradients(learner, parameters, work, counted):
    """The loss of one batch, as its share of ``counted`` tokens, and its gradients (None where the batch has no say)."""
    if isinstance(work, Batch):
        loss = chat_loss(learner, work) / counted
    else:
        loss = LOOK_WEIGHT * look.losses(learner.heads, learner.tower, *work)[0]
    return loss.item(), torch.autograd.grad(loss, parameters, allow_unused=True)


def chat_loss(learner, batch):
    """The summed loss of what is to be written in a batch; of text that is to be kept, how far the model has gone from the one it was.

    The words of the text themselves are left out then: what a story does next is chance, and the noise of that is larger than all
    that is left to learn from the pictures.
    """
    with torch.autocast("cpu", torch.bfloat16):
        logits = written_logits(learner.model, batch).float()
        if batch.scenes or learner.before is None:
            return F.cross_entropy(logits, batch.targets, reduction="sum")
        with torch.no_grad():
            before = written_logits(learner.before, batch).float().log_softmax(-1)
    return KEEP_WEIGHT * F.kl_div(logits.log_softmax(-1), before, reduction="sum", log_target=True)


def written_logits(model, batch):
    """The logits of the tokens that are to be written."""
    seen = (model.model.visual(patches(batch.scenes), *batch.grid), batch.pictured) if batch.scenes else None
    return model.logits(model.hidden(batch.tokens, batch.positions, seen).flatten(0, 1)[batch.where])


def added(parts):
    """The sum of one parameter's gradients over the batches, in their order."""
    present = [part for part in parts if part is not None]
    return torch.stack(present).sum(0) if present else None


class Learner(nn.Module):
    """What is trained: the model, and with pictures the heads that teach its tower, beside the model it must stay close to in text."""

    def __init__(self, args):
        super().__init__()
        self.model = Qwen3VL(Config())
        self.heads = look.Heads(self.tower.config) if args.pictures else nn.Identity()
        if args.init:
            self.model.load_state_dict(load_file(args.init / "model.safetensors"))
        self.before = None
        if args.keep:
            self.before = Qwen3VL(Config()).requires_grad_(False)
            self.before.load_state_dict(load_file(args.keep / "model.safetensors"))
        if args.pictures:
            look.load(args.pictures, self.tower, self.heads)

    @property
    def tower(self):
        return self.model.model.visual

    def optimisers(self, args):
        """Text model and tower at their own rates; without pictures the tower stays as it is."""
        text, tower = self.model.model.language_model, self.tower
        rest = [text.embed_tokens.weight, *text.norm.parameters()]
        parts = optimisers(list(text.layers.parameters()), rest, args.matrix_lr, args.vector_lr)
        if args.pictures:
            inside, rest = look.parts_of(tower)
            rest += [*tower.deepstack_merger_list.parameters(), *self.heads.parameters()]
            parts += optimisers(inside, rest, args.tower_matrix_lr, args.tower_vector_lr)
        return parts


def steps(rows, args, image_pad):
    """The batches of every step."""
    limits = (args.tokens_per_batch, Config.max_position_embeddings)
    streams = {kind: endless(of_kind, image_pad, limits, random.Random(f"{args.seed} {kind}")) for kind, of_kind in rows.items()}
    streams["look"] = look.batches(args.seed, LOOK_BATCH)
    for kinds in itertools.cycle(SEE if args.pictures else TALK):
        yield [next(streams[kind]) for kind in kinds]


class Progress:
    """What a training has done so far; it survives an interruption."""

    def __init__(self, args):
        self.facts = {"seed": args.seed, "steps": 0, "tokens_seen": 0, "pictures_seen": 0, "minutes": 0.0}
        self.averaged, self.args, self.started = {}, args, time.monotonic()

    def restore(self, learner, parts):
        """Go on with the interrupted run whose state is in the output folder."""
        state = torch.load(self.args.out / "state.pt")
        learner.load_state_dict(state["learner"])
        for part, saved in zip(parts, state["optimisers"]):
            part.load_state_dict(saved)
        self.facts = state["facts"]
        self.started -= 60 * self.facts["minutes"]

    def share(self):
        """How much of the schedule is over."""
        self.facts["minutes"] = (time.monotonic() - self.started) / 60
        return max(self.facts["steps"] / self.args.steps, self.facts["minutes"] / self.args.minutes if self.args.minutes else 0.0)

    def add(self, work, losses, counted):
        """Count a step, and say now and then how it goes: the loss per token, or that of the dense labels."""
        facts = self.facts
        facts["steps"] += 1
        for batch, loss in zip(work, losses):
            chat = isinstance(batch, Batch)
            facts["tokens_seen"] += batch.tokens.numel() if chat else 0
            facts["pictures_seen"] += len(batch.scenes if chat else batch[0])
            kind = ("pictures" if batch.scenes else "text") if chat else "look"
            value = loss * counted / len(batch.targets) if chat else loss / LOOK_WEIGHT
            self.averaged[kind] = 0.98 * self.averaged.get(kind, value) + 0.02 * value
        if facts["steps"] % 20 == 0:
            told = "  ".join(f"{kind} {value:.4f}" for kind, value in sorted(self.averaged.items()))
            print(f"step {facts['steps']}  {told}  tokens {facts['tokens_seen']}  minutes {facts['minutes']:.1f}", flush=True)


def train(learner, batches, args, on_checkpoint):
    """Run the schedule to its end; ``on_checkpoint`` is called with the facts of the training.

    The batches of a step are worked on side by side, one thread each, and their gradients are added in a fixed order:
    that is faster on a busy machine than giving every operation all the cores, and the result does not depend on timing.
    """
    parts, progress = learner.optimisers(args), Progress(args)
    parameters = [p for part in parts for group in part.param_groups for p in group["params"]]
    workers = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    if args.resume:
        progress.restore(learner, parts)
        for _ in range(progress.facts["steps"]):
            next(batches)
    while (share := progress.share()) < 1.0:
        set_rates(parts, learning_rate(share))
        work = next(batches)
        counted = sum(len(batch.targets) for batch in work if isinstance(batch, Batch))
        results = list(workers.map(lambda batch: gradients(learner, parameters, batch, counted), work))
        for parameter, *parts_of_it in zip(parameters, *(grads for _, grads in results)):
            parameter.grad = added(parts_of_it)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for part in parts:
            part.step()
        progress.add(work, [loss for loss, _ in results], counted)
        if progress.facts["steps"] % args.checkpoint_every == 0:
            on_checkpoint(progress.facts, parts)
    on_checkpoint(progress.facts, parts)


# Export


def export(model, tokenizer, folder, facts):
    """The folder that is embedded: bf16 weights, tokenizer, and the configuration files."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ids = bpe.special_ids(tokenizer)
    bpe.save(tokenizer, folder, model.config.max_position_embeddings)
    generation = {"bos_token_id": ids.end_of_text, "eos_token_id": [ids.im_end, ids.end_of_text], "pad_token_id": ids.end_of_text, **GENERATION}
    for name, value in (
        ("config.json", model.config.to_hub(model.model.visual.config, ids)),
        ("preprocessor_config.json", {**pixels.PREPROCESSOR, "image_processor_type": "Qwen2VLImageProcessorFast"}),
        ("video_preprocessor_config.json", {**pixels.PREPROCESSOR, "video_processor_type": "Qwen3VLVideoProcessor"}),
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
    parser.add_argument("--tower-matrix-lr", type=float, default=0.02)
    parser.add_argument("--tower-vector-lr", type=float, default=0.002)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2, help="batches worked on at once")
    parser.add_argument("--init", type=Path, help="go on from the weights and the tokenizer of an exported folder")
    parser.add_argument("--pictures", type=Path, help="also learn from chats about pictures, with the tower in this file of look.py")
    parser.add_argument("--keep", type=Path, help="an exported folder that the model is not to forget the text of")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    args = parser.parse_args()
    torch.set_num_threads(1)  # also of the optimiser: on a busy machine, threads that wait for each other cost more than they save
    torch.manual_seed(args.seed)

    documents = read(args.corpus / "train.jsonl")
    if args.init:
        tokenizer = Tokenizer.from_file(str(args.init / "tokenizer.json"))
    else:
        tokenizer = bpe.train(template.render(d) for d in documents[:40_000])
    rows = {"text": encode(tokenizer, documents)}
    if args.pictures:
        rows["pictures"] = encode(tokenizer, read(args.corpus / "train_pictures.jsonl"))
    for kind, of_kind in rows.items():
        print(f"{kind}: {len(of_kind)} documents, {sum(len(row.ids) for row in of_kind)} tokens, {sum(int(row.written.sum()) for row in of_kind)} counted", flush=True)

    learner = Learner(args)
    print(f"{sum(p.numel() for p in learner.model.parameters())} parameters", flush=True)

    def checkpoint(facts, parts):
        export(learner.model, tokenizer, args.out, {**facts, "documents": sum(map(len, rows.values()))})
        torch.save({"learner": learner.state_dict(), "optimisers": [part.state_dict() for part in parts], "facts": facts}, args.out / "state.new")
        (args.out / "state.new").replace(args.out / "state.pt")

    train(learner, steps(rows, args, bpe.special_ids(tokenizer).image_pad), args, checkpoint)


if __name__ == "__main__":
    main()
