"""What the Python package costs and saves, as ratios within one run: ``python tools/bench_python.py [MODEL_FOLDER [PROMPTS]]``.

Without a folder: submissions through a pipeline beside a pool of workers around ``asyncio.Queue``, and how long the event
loop stands still while the engine generates. With the folder of a GPT-2: ``AsyncGLM`` beside a thread that takes tasks from
a ``queue.Queue`` and calls ``generate``, 64 prompts of 8 tokens and more, 16 new tokens each, with work on each result.
"""

from __future__ import annotations

import asyncio
import queue
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import tidegate

ITEMS = 10_000


async def pool(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for awaited submissions to four workers around a queue."""
    waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue(1000)

    async def worker() -> None:
        while True:
            item, future = await waiting.get()
            result = stage(item)
            future.set_result(await result if asyncio.iscoroutine(result) else result)

    loop = asyncio.get_running_loop()
    workers = [asyncio.create_task(worker()) for _ in range(4)]
    began = time.perf_counter()
    for item in range(items):
        future = loop.create_future()
        await waiting.put((item, future))
        await future
    took = time.perf_counter() - began
    for one in workers:
        one.cancel()
    return took


async def pipeline(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for as many awaited submissions to a pipeline."""
    built = tidegate.AsyncPipeline().add_task("stage", stage, run_in="loop")
    began = time.perf_counter()
    for item in range(items):
        await built.submit(item)
    return time.perf_counter() - began


async def coroutine(item: int) -> int:
    return item + 1


async def suspending(item: int) -> int:
    await asyncio.sleep(0)
    return item + 1


async def ratios() -> None:
    for name, stage in (("native stage (abs)", abs), ("coroutine", coroutine), ("suspending coroutine", suspending)):
        runs = [(await pool(stage, ITEMS), await pipeline(stage, ITEMS)) for _ in range(5)]
        ours = statistics.median(took for _, took in runs)
        ratio = statistics.median(theirs / took for theirs, took in runs)
        print(f"{name}: {ITEMS / ours:,.0f} submissions/s, {ratio:.1f} times an asyncio.Queue pool")


async def ticker(busy: Callable[[], Awaitable[Any]]) -> list[float]:
    """Milliseconds by which a tick every millisecond came late while something was going on."""
    late: list[float] = []
    task = asyncio.ensure_future(busy())
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - before - 0.001) * 1e3)
    await task
    return sorted(late)


async def stillness() -> None:
    async with await tidegate.Engine.open(cache=False) as engine:

        async def one(number: int) -> None:
            async for _ in engine.stream(f"Story {number}", max_tokens=100, ignore_eos=True, share=False):
                pass

        late = await ticker(lambda: asyncio.gather(*(one(number) for number in range(32))))
    print(f"32 streams: {len(late)} ticks, late p99 {late[len(late) * 99 // 100]:.2f} ms, most {late[-1]:.2f} ms")


def generations(folder: str, many: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    prompts = [torch.randint(1000, 40_000, (1, 8 + number)) for number in range(many)]
    kwargs = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0, "eos_token_id": 50_255}

    def plain() -> tuple[float, list[Any]]:
        tasks: queue.Queue[Any] = queue.Queue(10)
        results: queue.Queue[Any] = queue.Queue()

        def worker() -> None:
            while (prompt := tasks.get()) is not None:
                results.put(model.generate(prompt, **kwargs))

        thread = threading.Thread(target=worker)
        began = time.perf_counter()
        thread.start()
        for prompt in prompts:
            tasks.put(prompt)
        tasks.put(None)
        found = [after(results.get()) for _ in prompts]
        thread.join()
        return time.perf_counter() - began, found

    def after(result: Any) -> Any:
        return result.tolist()

    with tidegate.AsyncGLM(model, max_queue_size=10, generation_kwargs=kwargs) as glm:

        def ours() -> tuple[float, list[Any]]:
            began = time.perf_counter()
            tasks = [glm.submit(prompt) for prompt in prompts]
            found = [after(glm.get_result(task)) for task in tasks]
            return time.perf_counter() - began, found

        slow, expected = plain()
        fast, found = ours()
    equal = sum(a == b for a, b in zip(expected, found, strict=True))
    print(f"AsyncGLM: {fast:.1f} s, plain generate {slow:.1f} s: {slow / fast:.1f} times; {equal} of {many} outputs equal")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        generations(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 64)
    else:
        asyncio.run(ratios())
        asyncio.run(stillness())
