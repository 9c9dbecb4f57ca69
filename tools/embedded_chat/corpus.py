"""Generate the training corpus of the embedded chat model from a seed.

    python corpus.py --seed 2026 --documents 130000 --out DIR

writes ``train.jsonl`` and ``heldout.jsonl``, one document per line: ``{"kind": ..., "messages": [...]}`` or ``{"kind": ..., "text": ...}``.

Every document names what it is about (see ``kinds.example``). A keyed hash of those names reserves one in sixteen of them:
training skips every document that touches a reserved one, the held-out set keeps only such documents.
"""

import argparse
import json
import random
import zlib
from dataclasses import replace
from pathlib import Path

from kinds import about_tidegate, arithmetic, json_replies, pictures, scenes, small_talk, stories
from kinds.example import Example

RESERVED_SHARE = 16
# how many documents of each kind in a hundred; stories are the longest, so they are still the largest part of the tokens
MIX = (
    (15, stories.story),
    (26, small_talk.small_talk),
    (30, arithmetic.arithmetic),
    (19, json_replies.json_reply),
    (8, about_tidegate.about_tidegate),
    (1, pictures.blind),
)
CONVERSATION_SHARE = 0.02
SYSTEM_SHARE = 0.15
DRILL_SHARE = 0.4


def is_reserved(key):
    """Whether a key belongs to the held-out side. "table" marks facts that have to be learned by heart."""
    return key != "table" and zlib.crc32(key.lower().encode()) % RESERVED_SHARE == 0


def is_held_out(example):
    return any(is_reserved(key) for key in example.keys)


def document(rng):
    """One text document of a random kind."""
    if rng.random() < CONVERSATION_SHARE:
        return with_system(rng, conversation(rng))
    weights, generators = zip(*MIX)
    return with_system(rng, rng.choices(generators, weights)[0](rng))


def conversation(rng):
    """A long chat that wanders from one kind to another."""
    weights, generators = zip(*MIX)
    messages, keys = [], []
    for _ in range(rng.randint(3, 7)):
        part = rng.choices(generators, weights)[0](rng)
        if part.messages and not any(key.startswith("memory") for key in part.keys):
            messages += part.messages
            keys += part.keys
    return Example("conversation", tuple(keys), tuple(messages)) if messages else conversation(rng)


def with_system(rng, example):
    """Some chats begin with a system message, which small models must not stumble over."""
    if not example.messages or rng.random() >= SYSTEM_SHARE:
        return example
    system = ("system", rng.choice(small_talk.SYSTEMS))
    return replace(example, messages=(system, *example.messages))


def picture_document(rng):
    """A chat about a picture, or many questions about one; some wander off to other things."""
    example = pictures.drill(rng) if rng.random() < DRILL_SHARE else pictures.picture(rng)
    if rng.random() < 0.06 and (more := document(rng)).messages and more.messages[0][0] != "system":
        example = replace(example, keys=example.keys + more.keys, messages=example.messages + more.messages)
    return with_system(rng, example)


def documents(seed, count, held_out=False, of=document):
    """``count`` documents of one side of the split, the same for the same seed."""
    rng = random.Random(f"{seed} {'held out' if held_out else 'train'}{'' if of is document else ' pictures'}")
    made = 0
    while made < count:
        example = of(rng)
        if is_held_out(example) == held_out:
            made += 1
            yield example


def held_out_scenes(seed, **wanted):
    """Scenes that training was kept from, and the generator that drew them, to ask about them."""
    rng = random.Random(f"{seed} evaluation")
    while True:
        scene = scenes.scene(rng, **wanted)
        if is_reserved(pictures.subject(scene)):
            yield rng, scene


def as_json(example):
    if example.text:
        return {"kind": example.kind, "text": example.text}
    value = {"kind": example.kind, "messages": [{"role": role, "content": content} for role, content in example.messages]}
    return {**value, "pictures": list(example.pictures)} if example.pictures else value


def write(path, examples):
    with open(path, "w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(as_json(example), ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--documents", type=int, default=130_000)
    parser.add_argument("--pictures", type=int, default=120_000)
    parser.add_argument("--held-out", type=int, default=2_000)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "train.jsonl", documents(args.seed, args.documents))
    write(args.out / "heldout.jsonl", documents(args.seed, args.held_out, held_out=True))
    write(args.out / "train_pictures.jsonl", documents(args.seed, args.pictures, of=picture_document))
    write(args.out / "heldout_pictures.jsonl", documents(args.seed, args.held_out, held_out=True, of=picture_document))


if __name__ == "__main__":
    main()
