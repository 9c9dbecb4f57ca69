"""What keeping an output to a form adds to a request's time: the same request with and without, in turns.

    tidegate serve --port 8080 --speculation off --model MODEL
    python tools/bench_forms.py http://127.0.0.1:8080 TOKENS ROUNDS

Every reply has TOKENS tokens: the forms allow more, and without one the end of a text is passed over. Prints the median
milliseconds of a request, alone and of 8 at once, and their ratio; and what the first request with a form, which is
prepared for it, took. Needs httpx.
"""

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

WORD = {"type": "string", "maxLength": 40}
ITEM = {"type": "object", "properties": {"name": WORD, "age": {"type": "integer"}}, "required": ["name", "age"]}
FORMS = {
    "JSON schema": {"structured_outputs": {"json": {"type": "array", "items": ITEM, "minItems": 400}}},
    "any JSON": {"structured_outputs": {"json": {"type": "array", "minItems": 400}}},
    "regular expression": {"structured_outputs": {"regex": "([a-z]{1,9}[ ,.]){900,1000}"}},
}


def main(url, tokens, rounds):
    client = httpx.Client(base_url=url, timeout=600)

    def milliseconds(seed, **form):
        body = {"prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "temperature": 1.0, "seed": seed, "reuse": "none"}
        begun = time.perf_counter()
        reply = client.post("/v1/completions", json={**body, **form}).raise_for_status().json()
        assert reply["usage"]["completion_tokens"] == tokens, reply["usage"]
        return 1000 * (time.perf_counter() - begun)

    def together(pool, seed, **form):
        begun = time.perf_counter()
        list(pool.map(lambda place: milliseconds(8 * seed + place, **form), range(8)))
        return 1000 * (time.perf_counter() - begun)

    milliseconds(0)
    with ThreadPoolExecutor(8) as pool:
        for name, form in FORMS.items():
            print(f"{name}: the first request took {milliseconds(0, **form):.0f} ms")
            for count, measure in (("one", milliseconds), ("eight", lambda *seed, **form: together(pool, *seed, **form))):
                free, kept = [], []
                for seed in range(1, rounds + 1):
                    free.append(measure(seed))
                    kept.append(measure(seed, **form))
                ratio = statistics.median(now / before for now, before in zip(kept, free))
                print(f"  {count}: {statistics.median(free):.0f} ms without, {statistics.median(kept):.0f} with, {ratio:.3f} times")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
