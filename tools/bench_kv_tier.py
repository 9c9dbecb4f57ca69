"""What `--kv-dir` brings to conversations that memory has no room for, and what it costs where nothing is asked twice.

    python tools/bench_kv_tier.py target/release/tidegate --model MODEL --kv-memory 640MiB

Two servers of the same model, one with and one without the disk, get the same requests in turns, one at a time, so a busy
minute hurts both alike. First conversations over shared beginnings: each comes back for its next turn only after all others
have had theirs. Then as many prompts that have nothing in common. Prints the time to the first token in milliseconds,
medians, and ratios; the keys and values of the whole beside what memory holds. `--trace FILE` keeps what the server with
the disk records, for `tidegate sim FILE --eviction`. The folder of the disk is made beside it and removed.
"""

import argparse
import http.client
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

WORDS = 20_000  # Token ids are drawn below this, which every vocabulary has.
PAGE = 32


class Server:
    """A server of its own, on a port that the system chose."""

    def __init__(self, arguments):
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        log = []
        for line in self.process.stderr:
            log.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=600)
                break
        else:
            sys.exit("the server did not start:\n" + "".join(log))
        # What it still says is read, or it would wait for a reader.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def first_token(self, prompt, tokens):
        """Seconds until the first token of a reply; the rest of it is read, too."""
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "stream": True}
        headers = {"content-type": "application/json"}
        began = time.perf_counter()
        reply = self.ask("POST", "/v1/completions", json.dumps({**body, "reuse": "none"}), headers)
        if reply.status != 200:
            sys.exit(f"{reply.status}: {reply.read().decode()}")
        # Comments keep the line open while a request waits; the first event with a choice in it is the first token.
        while not any(choice.get("text") is not None for choice in event(reply.readline())):
            pass
        took = time.perf_counter() - began
        reply.read()
        return took

    def ask(self, *request):
        # The server closes a connection that stands idle for long, as one may while the other server has its turn.
        self.connection.close()
        self.connection.request(*request)
        return self.connection.getresponse()

    def metric(self, name):
        text = self.ask("GET", "/metrics").read().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"tidegate_{name}(\{{| )", line))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def event(line):
    """The choices in a line of a stream of events."""
    if not line:
        sys.exit("the stream ended before its first token")
    data = line.decode().removeprefix("data: ").strip() if line.startswith(b"data: {") else "{}"
    return json.loads(data).get("choices", [])


def in_turns(servers, prompt, tokens, number):
    """Seconds of each server for the same prompt; which one goes first alternates."""
    order = (0, 1) if number % 2 else (1, 0)
    took = {place: servers[place].first_token(prompt, tokens) for place in order}
    return took[0], took[1]


def conversations(servers, options, draw):
    systems = [draw(options.system) for _ in range(options.systems)]
    texts = [systems[number % options.systems] + draw(options.first) for number in range(options.conversations)]
    turns = []
    for turn in range(options.turns):
        turns.append([in_turns(servers, text, options.reply, number) for number, text in enumerate(texts)])
        report(f"turn {turn + 1}, {len(texts[0])} tokens", turns[-1])
        if turn + 1 < options.turns:
            texts = [text + draw(options.reply) + draw(options.words) for text in texts]
    later = [pair for turn in turns[1:] for pair in turn]
    report("all turns but the first", later)
    report("all turns", [pair for turn in turns for pair in turn])
    own = sum(len(text) - options.system for text in texts)
    return own + options.systems * options.system


def report(what, pairs):
    without, beside = (1000 * statistics.median(times) for times in zip(*pairs))
    ratios = statistics.median(with_disk / alone for alone, with_disk in pairs)
    whole = sum(pair[1] for pair in pairs) / sum(pair[0] for pair in pairs)
    print(
        f"{what}: {without:.1f} ms from memory alone, {beside:.1f} with the disk: {without / beside:.2f} times sooner"
        f" (pairs take {ratios:.3f} times as long by the median, {whole:.3f} in all)",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidegate", type=pathlib.Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kv-memory", default="640MiB")
    parser.add_argument("--kv-policy", default="lirs")
    parser.add_argument("--kv-disk", default="16GiB")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("."), help="folder in which the disk's folder is made")
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--systems", type=int, default=10, help="beginnings that conversations share")
    parser.add_argument("--system", type=int, default=192, help="tokens of each")
    parser.add_argument("--first", type=int, default=256, help="tokens of the first turn")
    parser.add_argument("--words", type=int, default=32, help="tokens that a later turn adds")
    parser.add_argument("--reply", type=int, default=8, help="tokens of a reply")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=200, help="prompts that have nothing in common")
    parser.add_argument("--trace", type=pathlib.Path)
    options = parser.parse_args()
    drawn = random.Random(1)

    def draw(count):
        return [drawn.randrange(10, WORDS) for _ in range(count)]

    with tempfile.TemporaryDirectory(prefix="bench-kv-", dir=options.folder) as folder:
        plain = [options.tidegate, "serve", "--port", "0", "--model", options.model, "--kv-memory", options.kv_memory]
        disk = ["--kv-dir", folder, "--kv-disk", options.kv_disk, "--kv-policy", options.kv_policy]
        trace = ["--trace", options.trace] if options.trace else []
        servers = [Server(plain), Server([*plain, *disk, *trace])]
        try:
            for server in servers:
                server.first_token(draw(64), 2)
            tokens = conversations(servers, options, draw)
            pages = servers[1].metric("kv_pages")
            print(f"{tokens / PAGE:.0f} pages in all, {pages:.0f} in memory")
            for name in ("written", "loaded", "declined"):
                print(f"  pages {name}: {servers[1].metric(f'kv_disk_pages_{name}_total'):.0f}")
            length = options.system + options.first
            fresh = [in_turns(servers, draw(length), options.reply, number) for number in range(options.fresh)]
            if fresh:
                report(f"nothing in common, {length} tokens", fresh)
                print(f"  pages written: {servers[1].metric('kv_disk_pages_written_total'):.0f}")
        finally:
            for server in servers:
                server.stop()


if __name__ == "__main__":
    main()
