"""Measure an exported chat model on held-out documents: perplexity per kind, sums, JSON, names kept, pictures, and samples.

    python evaluate.py --model DIR --corpus DIR --out DIR

The folder is loaded by transformers, as any user of it would. ``metrics.json`` and ``samples.md`` are written to ``--out``.
Sums, JSON and questions about pictures are answered greedily; the samples are drawn with the shipped sampling settings and are not edited.
"""

import argparse
import copy
import json
import math
import re
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

import corpus
import draw
import tokenizer as bpe
from batches import collate, encode, read
from kinds import pictures

SHOWN = (  # typical prompts for the model card; some of them are in the corpus word for word, the held-out ones below are not
    "Once upon a tide",
    "Tell me a story about a heron named Quill and a green umbrella.",
    "Write a short story about sharing.",
    "Hello there! I'm Saskia.",
    "I feel a bit lonely today.",
    "What is 47 + 38?",
    "Bo has 14 shells and finds 23 more. How many shells does Bo have?",
    "Reply in JSON with the name and age of Henrik, who is 41 years old.",
    "Give me a JSON list of three colours.",
    "What is Tidegate?",
    "What does continuous batching mean?",
    "What is the capital of Portugal?",
)
CONVERSATION = ("Hi! My name is Torvald.", "How are you today?", "What is my name?")


class Chat:
    """The model behind its chat template."""

    def __init__(self, folder):
        self.folder = folder
        self.processor = AutoProcessor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.shipped = GenerationConfig.from_pretrained(folder)
        self.greedy = GenerationConfig(
            do_sample=False, eos_token_id=self.shipped.eos_token_id, pad_token_id=self.shipped.pad_token_id
        )

    @torch.no_grad()
    def replies(self, chats, images=(), sample=False, max_new_tokens=96, batch_size=32):
        """One reply per chat; ``images`` has the picture of every chat, or is empty."""
        settings, out = copy.deepcopy(self.shipped if sample else self.greedy), []
        settings.max_new_tokens = max_new_tokens
        for start in range(0, len(chats), batch_size):
            part = slice(start, start + batch_size)
            prompts = self.processor.tokenizer.apply_chat_template(chats[part], add_generation_prompt=True, tokenize=False)
            shown = [[image] for image in images[part]] or None
            inputs = self.processor(text=prompts, images=shown, return_tensors="pt", padding=True)
            tokens = self.model.generate(**inputs, generation_config=settings)
            out += self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return out

    def ask(self, *turns, max_new_tokens=400):
        """The whole conversation that follows from the user's turns, sampled."""
        messages = []
        for turn in turns:
            messages.append({"role": "user", "content": turn})
            messages.append({"role": "assistant", "content": self.replies([messages], sample=True, max_new_tokens=max_new_tokens)[0]})
        return messages


@torch.no_grad()
def perplexity(chat, documents):
    """Perplexity per kind over the tokens the model is to write."""
    losses, counts = defaultdict(float), defaultdict(int)
    # Not the tokenizer of the chat: that one goes on padding whatever it is given after it has padded once.
    tokenizer = Tokenizer.from_file(str(chat.folder / "tokenizer.json"))
    image_pad = bpe.special_ids(tokenizer).image_pad
    for document, row in zip(documents, encode(tokenizer, documents)):
        batch = collate([row], len(row.ids) - 1, image_pad)
        logits = chat.model(batch.tokens).logits.flatten(0, 1)[batch.where]
        for kind in (document["kind"], "all"):
            losses[kind] += F.cross_entropy(logits, batch.targets, reduction="sum").item()
            counts[kind] += len(batch.targets)
    return {kind: round(math.exp(losses[kind] / counts[kind]), 3) for kind in sorted(losses)}


def first_exchanges(documents, kind):
    """Prompt and expected reply of the single-exchange chats of a kind."""
    chats = [d["messages"] for d in documents if d["kind"] == kind and "messages" in d]
    return [(m[:-1], m[-1]["content"]) for m in chats if sum(x["role"] == "user" for x in m) == 1]


def sums(chat, documents):
    """Share of held-out sums answered exactly, by what they ask."""
    exchanges = first_exchanges(documents, "arithmetic")
    right, total = defaultdict(int), defaultdict(int)
    for (prompt, expected), reply in zip(exchanges, chat.replies([p for p, _ in exchanges])):
        ask = prompt[-1]["content"]
        equation = re.search(r"\d+ ([-+x]) \d+ = ", expected)
        names = {"+": "addition", "-": "subtraction", "x": "multiplication"}
        kind = "comparing and counting" if not equation else "word problem" if len(ask.split()) > 11 else names[equation[1]]
        for key in (kind, "all"):
            total[key] += 1
            right[key] += reply.strip() == expected
    return {key: {"right": right[key], "of": total[key]} for key in sorted(total)}


def json_replies(chat, documents):
    """How many replies parse, and how many equal the expected value where the request determines it."""
    exchanges = first_exchanges(documents, "json")
    valid = exact = determined = 0
    for (prompt, expected), reply in zip(exchanges, chat.replies([p for p, _ in exchanges])):
        value, ask = json.loads(expected), prompt[-1]["content"]
        items = list(value.values()) if isinstance(value, dict) else value
        fixed = all(not isinstance(item, list) and str(item).lower() in ask.lower() for item in items)
        determined += fixed
        try:
            answer = json.loads(reply)
        except ValueError:
            continue
        valid += 1
        exact += fixed and answer == value
    return {"valid": valid, "of": len(exchanges), "exact": exact, "determined by the request": determined}


def names_kept(chat, documents):
    """Of the held-out story requests that name someone, how many stories are about them."""
    asked = []
    for prompt, _ in first_exchanges(documents, "story"):
        named = re.search(r"(?:named|called) ([A-Z]\w+)", prompt[-1]["content"])
        if named:
            asked.append((prompt, named[1]))
    replies = chat.replies([p for p, _ in asked], max_new_tokens=64)
    return {"kept": sum(name in reply for (_, name), reply in zip(asked, replies)), "of": len(asked)}


def seen(chat, seed, count):
    """Share of questions about held-out pictures that are answered word for word, by kind, and for pictures with four shapes."""
    asks = [*((ask, {"word": False}) for _, ask in pictures.ASKS), (pictures.ask_word, {"word": True})]
    out = {}
    for index, (ask, wanted) in enumerate(asks):
        made, source = [], corpus.held_out_scenes(seed + index, **wanted)
        while len(made) < count:
            rng, scene = next(source)
            if (answered := ask(rng, scene)) and (scene["things"] or ask in (pictures.ask_ground, pictures.ask_word)):
                made.append((scene, *answered))
        chats = [[{"role": "user", "content": pictures.PICTURE + question}] for _, _, question, _ in made]
        replies = chat.replies(chats, [draw.picture(scene) for scene, *_ in made], max_new_tokens=200)
        for (scene, kind, question, expected), reply in zip(made, replies):
            keys = [kind] + ([f"{kind}, four shapes"] if len(scene["things"]) == 4 else [])
            for key in keys:
                entry = out.setdefault(key, {"right": 0, "of": 0})
                entry["right"] += reply.strip() == expected
                entry["of"] += 1
    return out


def samples(chat, documents):
    """Unedited samples as Markdown: the shown prompts, a conversation, and held-out prompts by kind."""
    torch.manual_seed(7)
    parts = ["### Typical prompts\n"]
    parts += [quoted(chat.ask(prompt)) for prompt in SHOWN]
    parts += ["### A conversation\n", quoted(chat.ask(*CONVERSATION))]
    parts.append("### Held-out prompts, the first five of each kind\n")
    for kind in ("story", "small talk", "arithmetic", "json", "tidegate"):
        chats = [p for p, _ in first_exchanges(documents, kind)[:5]]
        for prompt, reply in zip(chats, chat.replies(chats, sample=True, max_new_tokens=400)):
            parts.append(quoted([*prompt, {"role": "assistant", "content": reply}]))
    return "\n".join(parts)


def quoted(messages):
    """A chat as Markdown: a quotation, so that nothing in a reply is taken for the card's own headings."""
    lines = "\n\n".join(f"**{m['role']}**: {m['content']}" for m in messages).split("\n")
    return "\n".join(f"> {line}".rstrip() for line in lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True, help="the folder with heldout.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=2_000, help="how many held-out documents to use")
    parser.add_argument("--pictures", type=int, default=400, help="how many questions of each kind to ask about pictures")
    parser.add_argument("--seed", type=int, default=31, help="of the pictures that are asked about")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # on a busy machine, threads that wait for each other cost more than they save
    chat, documents = Chat(args.model), read(args.corpus / "heldout.jsonl")[: args.limit]
    (args.out / "samples.md").write_text(samples(chat, documents), encoding="utf-8")
    metrics = {
        "documents": len(documents),
        "perplexity": perplexity(chat, documents),
        "sums": sums(chat, documents),
        "json": json_replies(chat, documents),
        "names kept in stories": names_kept(chat, documents),
        "pictures": seen(chat, args.seed, args.pictures),
    }
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
