"""Embeddings of texts beside sentence-transformers (torch), in turns within one run, on the same threads and weights.

    cargo build --release
    python tools/bench_embeddings.py ./all-MiniLM-L6-v2 target/release/tidegate

needs sentence-transformers. Tidegate is asked over HTTP, JSON included; torch is called in this process. Prints, for each load,
the median and the spread of the seconds and the ratio of texts per second.
"""

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import time

LOADS = [(32, 32), (256, 32), (16, 1), (128, 1)]
WORDS = "tide water moon high low day night boat sea wind wave shore sand rock bird fish sun rain cloud star".split()


def texts(tokens, count, seed):
    """Texts of that many tokens: every word is one, and two are put around them."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=tokens - 2)) for _ in range(count)]


class Ours:
    def __init__(self, program, model, threads, dtype):
        command = [program, "serve", "--port", "0", "--quiet", "--model", f"embed={model}"]
        command += ["--threads", str(threads), "--dtype", dtype, "--log", "error"]
        self.name = f"tidegate {dtype}"
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"listening on http://(\S+)", line)
            if found:
                break
        self.connection = http.client.HTTPConnection(found.group(1))

    def run(self, batch):
        body = json.dumps({"model": "embed", "input": batch, "encoding_format": "base64"})
        began = time.perf_counter()
        self.connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        reply = json.loads(self.connection.getresponse().read())
        took = time.perf_counter() - began
        assert len(reply["data"]) == len(batch), reply
        return took


class Torch:
    def __init__(self, model, threads, dtype):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.name = f"torch {dtype}"
        kinds = {"f32": torch.float32, "bf16": torch.bfloat16}
        self.model = SentenceTransformer(model, device="cpu", model_kwargs={"torch_dtype": kinds[dtype]})

    def run(self, batch):
        began = time.perf_counter()
        self.model.encode(batch, batch_size=len(batch), show_progress_bar=False)
        return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    engines = [Ours(arguments.program, arguments.model, arguments.threads, dtype) for dtype in ("f32", "bf16")]
    engines += [Torch(arguments.model, arguments.threads, dtype) for dtype in ("f32", "bf16")]
    taken = {}
    for turn in range(-1, arguments.rounds):
        for load in LOADS:
            batch = texts(*load, seed=turn)
            for engine in engines:
                seconds = engine.run(batch)
                # The first round warms everything up.
                if turn >= 0:
                    taken.setdefault((load, engine.name), []).append(seconds)
    for engine in engines[:2]:
        engine.process.terminate()
    for tokens, count in LOADS:
        best = min(statistics.median(taken[(tokens, count), engine.name]) for engine in engines if isinstance(engine, Torch))
        for engine in engines:
            seconds = taken[(tokens, count), engine.name]
            median = statistics.median(seconds)
            print(
                f"{tokens:4} tokens x {count:2}  {engine.name:14} {count / median:8.1f} texts/s  "
                f"{median * 1e3:8.2f} ms ({min(seconds) * 1e3:.2f} to {max(seconds) * 1e3:.2f})  "
                f"{best / median:5.2f} x the best torch"
            )


if __name__ == "__main__":
    main()
