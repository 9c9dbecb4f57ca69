#!/usr/bin/env python3
"""Runs `tidegate bench` behind the command line that the scripts of the other engines share, and prints one JSON line.

    python3 tools/bench_tidegate.py --model models/qwen3-0.6b --precision bf16 --prompt 512 --out 128 --concurrency 1
    --opt key=value is passed on as --key value, such as --opt max-batch-tokens=256 or --opt isa=avx2
    --opt binary=PATH runs another build than target/release/tidegate

Standard library only. The line begins with {"peer": "tidegate" and has the keys of the other scripts: prefill_tok_s,
ttft_ms, decode_tok_s, total_tok_s, steady_tok_s with their _spread, peak_rss_mb, other_cpu and so on.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DTYPES = {name: name for name in ("f32", "bf16", "int8", "int4", "int4-g128")} | {"fp32": "f32"}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", default="bf16", choices=sorted(DTYPES))
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--out", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--opt", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def main():
    arguments = parse()
    options = dict(option.split("=", 1) for option in arguments.opt)
    binary = options.pop("binary", str(ROOT / "target" / "release" / "tidegate"))
    command = [binary, "bench", "--json", "--quiet", "--model", arguments.model]
    command += ["--dtype", DTYPES[arguments.precision]]
    for name in ("prompt", "out", "concurrency", "threads", "repeat", "warmup"):
        command += [f"--{name}", str(getattr(arguments, name))]
    for key, value in options.items():
        command += [f"--{key}", value]
    try:
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"{binary} does not exist; run `cargo build --release` first, or give --opt binary=PATH")
    if finished.returncode != 0:
        sys.exit(finished.returncode)
    result = json.loads(finished.stdout.splitlines()[-1])
    result.update(precision=arguments.precision, opts=options)
    print(json.dumps({"peer": "tidegate", **{key: value for key, value in result.items() if key != "peer"}}))


if __name__ == "__main__":
    main()
