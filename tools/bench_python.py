"""What the Python package costs and saves, as ratios within one run.

    python tools/bench_python.py pipeline          submissions beside a pool of workers around asyncio.Queue
    python tools/bench_python.py ticker [ROUNDS]   how long the event loop stands still while the engine generates, and
                                                   while other processes do nothing but count
    python tools/bench_python.py cancel            1,000 of 2,000 running tasks, and what they leave behind
    python tools/bench_python.py glm FOLDER [N]    AsyncGLM on a GPT-2 beside a thread around generate, N prompts
    python tools/bench_python.py offload [FOLDER]  4 GB of arrays through 512 MB of memory to the disk and back
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import tidegate

ITEMS = 10_000


Waiting = asyncio.Queue[tuple[Any, asyncio.Future[Any]]]


@contextlib.asynccontextmanager
async def workers(stage: Callable[[Any], Any], room: int) -> AsyncIterator[Waiting]:
    """A queue and four workers that do what is in it."""
    waiting: Waiting = asyncio.Queue(room)

    async def worker() -> None:
        while True:
            item, future = await waiting.get()
            result = stage(item)
            future.set_result(await result if asyncio.iscoroutine(result) else result)

    tasks = [asyncio.create_task(worker()) for _ in range(4)]
    yield waiting
    for task in tasks:
        task.cancel()


async def pool(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for awaited submissions to four workers around a queue."""
    loop = asyncio.get_running_loop()
    async with workers(stage, 1000) as waiting:
        began = time.perf_counter()
        for item in range(items):
            future = loop.create_future()
            await waiting.put((item, future))
            await future
        return time.perf_counter() - began


async def pipeline(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for as many awaited submissions to a pipeline."""
    built = tidegate.AsyncPipeline().add_task("stage", stage, run_in="loop")
    began = time.perf_counter()
    for item in range(items):
        await built.submit(item)
    return time.perf_counter() - began


async def pooled_map(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for all of them to such workers at once, and all results."""
    loop = asyncio.get_running_loop()
    async with workers(stage, 0) as waiting:
        began = time.perf_counter()
        futures = [loop.create_future() for _ in range(items)]
        for item, future in enumerate(futures):
            waiting.put_nowait((item, future))
        await asyncio.gather(*futures)
        return time.perf_counter() - began


async def mapped(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for all of them by ``map``."""
    built = tidegate.AsyncPipeline().add_task("stage", stage, run_in="loop")
    began = time.perf_counter()
    await built.map(range(items))
    return time.perf_counter() - began


async def pooled_gather(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for all of them at once, each put and awaited by a task of its own."""
    loop = asyncio.get_running_loop()
    async with workers(stage, 1000) as waiting:

        async def submit(item: Any) -> Any:
            future = loop.create_future()
            await waiting.put((item, future))
            return await future

        began = time.perf_counter()
        await asyncio.gather(*(submit(item) for item in range(items)))
        return time.perf_counter() - began


async def gathered(stage: Callable[[Any], Any], items: int) -> float:
    """Seconds for all of them at once, each submitted and awaited by a task of its own."""
    built = tidegate.AsyncPipeline().add_task("stage", stage, run_in="loop")
    began = time.perf_counter()
    await asyncio.gather(*(built.submit(item) for item in range(items)))
    return time.perf_counter() - began


async def coroutine(item: int) -> int:
    return item + 1


async def suspending(item: int) -> int:
    await asyncio.sleep(0)
    return item + 1


def python(item: int) -> int:
    return item + 1


async def ratios() -> None:
    cases = (
        ("native stage (abs)", abs, pool, pipeline),
        ("native stage (abs), all at once by map", abs, pooled_map, mapped),
        ("native stage (abs), all at once by gather", abs, pooled_gather, gathered),
        ("Python function", python, pool, pipeline),
        ("coroutine function", coroutine, pool, pipeline),
        ("coroutine function that gives way", suspending, pool, pipeline),
    )
    for name, stage, peer, own in cases:
        runs = [(await peer(stage, ITEMS), await own(stage, ITEMS)) for _ in range(9)]
        theirs, ours = (statistics.median(run[at] for run in runs) for at in (0, 1))
        ratio = statistics.median(theirs / ours for theirs, ours in runs)
        print(f"{name}: {ITEMS / ours:,.0f} a second, the pool {ITEMS / theirs:,.0f}: {ratio:.1f} times")


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


def count() -> None:
    """Keeps a processor busy with nothing that concerns anybody else."""
    while True:
        pass


@contextlib.contextmanager
def counting(many: int) -> Iterator[None]:
    """So many other processes that count meanwhile."""
    processes = [multiprocessing.Process(target=count, daemon=True) for _ in range(many)]
    for process in processes:
        process.start()
    yield
    for process in processes:
        process.terminate()
        process.join()


async def stillness(rounds: int) -> None:
    def told(what: str, late: list[float]) -> None:
        p99, above = late[len(late) * 99 // 100], sum(one > 5 for one in late)
        print(f"{what}: {len(late)} ticks, late p99 {p99:.2f} ms, most {late[-1]:.2f} ms, {above} above 5")

    async with await tidegate.Engine.open(cache=False) as engine:

        async def one(number: int) -> None:
            async for _ in engine.stream(f"Story {number}", max_tokens=200, ignore_eos=True, share=False):
                pass

        for _ in range(rounds):
            began = time.perf_counter()
            told("32 streams", await ticker(lambda: asyncio.gather(*(one(number) for number in range(32)))))
            took = time.perf_counter() - began
            with counting(os.cpu_count() or 1):
                told("beside processes that count", await ticker(lambda: asyncio.sleep(took)))


def resident(name: str = "VmRSS") -> int:
    """Bytes of memory of this process, now or (``VmHWM``) at most."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name))


async def cancelling() -> None:
    built = tidegate.AsyncPipeline(tidegate.PipelineConfig(max_concurrent_tasks=2000, buffer_size=2000))
    gate = asyncio.Event()

    async def waits(item: int) -> int:
        await gate.wait()
        return item

    built.add_task("waits", waits)

    async def round_of() -> tuple[float, dict[str, Any]]:
        gate.clear()
        tasks = [asyncio.ensure_future(built.submit(number)) for number in range(2000)]
        while built.stats()["tasks"][0]["running"] < 2000:
            await asyncio.sleep(0)
        began = time.perf_counter()
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks[::2])
        took = time.perf_counter() - began
        left = built.stats()
        gate.set()
        assert await asyncio.gather(*tasks[1::2]) == list(range(1, 2000, 2))
        return took, left

    threads, memory = 0, []
    for turn in range(6):
        took, left = await round_of()
        gc.collect()
        threads = threads or len(os.listdir("/proc/self/task"))
        memory.append(resident())
    after = built.stats()
    running = left["tasks"][0]["running"]
    print(f"cancelled 1,000 of 2,000 in {took * 1e3:.1f} ms; running then {running}, at the end {after['in_flight']} inside")
    print(f"threads {threads} then {len(os.listdir('/proc/self/task'))}; MB after each of 6 rounds: ", end="")
    print(", ".join(f"{one / 1e6:.1f}" for one in memory))


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
                results.put(model.generate(prompt, attention_mask=torch.ones_like(prompt), **kwargs))

        def fill() -> None:
            for prompt in prompts:
                tasks.put(prompt)
            tasks.put(None)

        threads = [threading.Thread(target=target) for target in (worker, fill)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        found = [after(results.get()) for _ in prompts]
        for thread in threads:
            thread.join()
        return time.perf_counter() - began, found

    def after(result: Any) -> Any:
        """Work on a result of the kind that scripts do: some milliseconds of counting."""
        ids = result[0].tolist()
        return ids, sum(hash((number, one)) & 1 for number in range(200) for one in ids)

    with tidegate.AsyncGLM(model, max_queue_size=10, generation_kwargs=kwargs) as glm:

        def ours() -> tuple[float, list[Any]]:
            began = time.perf_counter()
            tasks = [glm.submit(prompt) for prompt in prompts]
            found = [after(glm.get_result(task)) for task in tasks]
            return time.perf_counter() - began, found

        glm.get_result(glm.submit(prompts[0]))
        first, found = ours()
        slow, expected = plain()
        second, again = ours()
    equal = sum(a == b == c for a, b, c in zip(expected, found, again, strict=True))
    print(f"AsyncGLM: {first:.1f} and {second:.1f} s, plain generate between them {slow:.1f} s: ", end="")
    print(f"{2 * slow / (first + second):.1f} times; {equal} of {many} outputs equal")


async def offloading(folder: str) -> None:
    import numpy

    size, count, budget = 16 << 20, 256, 512 << 20
    random = numpy.random.default_rng(7)
    # Made anew from its number whenever it is needed, so that nothing but the offloader holds it.
    block = random.integers(0, 2**63, size // 8, dtype=numpy.int64)

    def made(number: int) -> Any:
        return block ^ numpy.int64(number)

    def compute(array: Any, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            numpy.sqrt(array[: 1 << 18].astype("f8"))

    base = resident()

    async def through(prefetch: bool, seconds: float) -> tuple[float, int]:
        """Seconds for loading everything once in order, computing on each, and how many were not the same."""
        config = tidegate.OffloadConfig(memory_bytes=budget, disk_path=folder, prefetch_enabled=prefetch)
        offloader = tidegate.GPUOffloader(config)
        handles = [await offloader.offload_to_cpu(made(number)) for number in range(count)]
        took, wrong = 0.0, 0
        for number, handle in enumerate(handles):
            began = time.perf_counter()
            array = await offloader.load_to_gpu(handle)
            if seconds:
                await asyncio.to_thread(compute, array, seconds)
            took += time.perf_counter() - began
            wrong += not numpy.array_equal(array, made(number))
            del array
        return took, wrong

    alone, wrong = await through(False, 0.0)
    seconds = 1.5 * alone / count
    both, also = await through(True, seconds)
    hidden = (alone + seconds * count - both) / alone
    peak = resident("VmHWM") - base
    print(f"{count * size / 1e9:.1f} GB read alone in {alone:.1f} s ({count * size / alone / 1e9:.2f} GB/s), with", end=" ")
    print(f"{seconds * count:.1f} s of computing in {both:.1f} s: {hidden:.0%} of reading hidden; {wrong + also} arrays differ")
    print(f"most memory above the start: {peak / 2**20:.0f} MiB for a budget of {budget >> 20} MiB and arrays of {size >> 20}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pipeline"]:
            asyncio.run(ratios())
        case ["ticker", *rounds]:
            asyncio.run(stillness(int(rounds[0]) if rounds else 1))
        case ["cancel"]:
            asyncio.run(cancelling())
        case ["glm", folder, *many]:
            generations(folder, int(many[0]) if many else 64)
        case ["offload", *where]:
            with tempfile.TemporaryDirectory(dir=where[0] if where else None) as folder:
                asyncio.run(offloading(folder))
        case _:
            sys.exit(__doc__)
