"""Draw held-out pictures as PNG files, with a question about each and the answer that is right.

    python show.py --seed 7 --count 12 --out DIR

``questions.json`` lists them; the files in ``crates/tidegate/test_data/pictures`` were made this way.
"""

import argparse
import json
from pathlib import Path

import corpus
import draw
from kinds import pictures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    asked, asks = [], (pictures.ask_colour, pictures.ask_shape, pictures.ask_count, pictures.ask_position)
    for rng, scene in corpus.held_out_scenes(args.seed, word=False):
        if len(asked) == args.count:
            break
        ask = asks[len(asked) % len(asks)]
        if made := ask(rng, scene):
            kind, question, answer = made
            name = f"{len(asked):02}.png"
            draw.picture(dict(scene, noise=0, jpeg=0)).save(args.out / name, optimize=True)
            asked.append({"picture": name, "kind": kind, "question": question, "answer": answer})
    (args.out / "questions.json").write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
