"""Prepares the same JPEGs with the reference processor (transformers, torchvision, one thread) and with Tidegate, in turns.

    cargo build --release -p tidegate-images --example prepare
    python tools/bench_images.py target/release/examples/prepare ROUNDS PICTURE...

Both decode from files in memory (or, here, in the page cache), resize, normalise and cut into patches. Prints
milliseconds per picture for every round and the ratio of the medians. Needs torch, torchvision, transformers and Pillow.
"""

import io
import statistics
import subprocess
import sys
import time

import torch
from PIL import Image
from transformers import Qwen2VLImageProcessor

HALF = [0.5, 0.5, 0.5]


def main(prepare, rounds, files):
    torch.set_num_threads(1)
    processor = Qwen2VLImageProcessor(
        size={"shortest_edge": 65536, "longest_edge": 16777216}, patch_size=16, merge_size=2, image_mean=HALF, image_std=HALF
    )
    pictures = [open(name, "rb").read() for name in files]

    def reference():
        begun = time.perf_counter()
        for picture in pictures:
            processor(images=Image.open(io.BytesIO(picture)), return_tensors="pt")
        return (time.perf_counter() - begun) * 1000 / len(pictures)

    def tidegate(threads):
        run = subprocess.run([prepare, "3", str(threads), *files], capture_output=True, text=True, check=True)
        return statistics.median(map(float, run.stdout.split())) * 1000 / len(pictures)

    reference()
    seen = {"reference": [], "tidegate": [], "pool of 1": [], "pool of 2": []}
    for _ in range(rounds):
        seen["reference"].append(reference())
        seen["tidegate"].append(tidegate(0))
        seen["pool of 1"].append(tidegate(1))
        seen["pool of 2"].append(tidegate(2))
    for name, times in seen.items():
        print(f"{name}: {statistics.median(times):.1f} ms a picture ({', '.join(f'{time:.1f}' for time in times)})")
    median = {name: statistics.median(times) for name, times in seen.items()}
    print(f"{median['reference'] / median['tidegate']:.2f} times the reference on one thread,", end=" ")
    print(f"{median['pool of 1'] / median['pool of 2'] / 2:.2f} of linear with two")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
