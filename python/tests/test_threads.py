"""Threads, each with an event loop of its own, that share what they work with. It is where a Python without a global lock
differs from one with it, and holds for both."""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import tidegate
from tidegate import AdvancedQueue, AsyncMetrics, AsyncPipeline, InferenceEngine, PipelineConfig, QueueConfig

from waiting import until

LOOPS = 4


def in_loops(work: Callable[[int], Coroutine[Any, Any, Any]]) -> list[Any]:
    """The results of ``work`` on as many threads at once, each of which has a loop; the first error is raised."""
    results: list[Any] = [None] * LOOPS
    together = threading.Barrier(LOOPS)

    def run(number: int) -> None:
        together.wait()
        try:
            results[number] = asyncio.run(work(number))
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(LOOPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a global lock")
def test_importing_the_package_brings_no_global_lock_back() -> None:
    assert not sys._is_gil_enabled()


def test_loops_share_a_pipeline() -> None:
    pipeline = AsyncPipeline(PipelineConfig(max_concurrent_tasks=3, buffer_size=5))

    async def gives_way(item: int) -> int:
        await asyncio.sleep(0)
        return item + 1

    pipeline.add_task("double", lambda item: item * 2, run_in="loop")
    pipeline.add_task("thread", lambda item: item + 1, run_in="thread")
    pipeline.add_task("way", gives_way)

    async def work(number: int) -> list[int]:
        return await asyncio.gather(*(pipeline.submit(number * 100 + item) for item in range(100)))

    assert in_loops(work) == [[2 * (number * 100 + item) + 2 for item in range(100)] for number in range(LOOPS)]
    stats = pipeline.stats()
    assert (stats["accepted"], stats["completed"], stats["in_flight"]) == (LOOPS * 100, LOOPS * 100, 0)


def test_loops_share_a_stage_that_need_not_wait_and_some_leave() -> None:
    pipeline = AsyncPipeline(PipelineConfig(max_concurrent_tasks=2, buffer_size=3))

    async def later(item: int) -> int:
        await asyncio.sleep(0.0001)
        return item

    pipeline.add_task("sometimes", lambda item: later(item) if item % 5 == 0 else item, run_in="loop")

    async def work(number: int) -> int:
        kept = 0
        for item in range(200):
            task = asyncio.ensure_future(pipeline.submit(item))
            await asyncio.sleep(0)
            if item % 7 == number:
                task.cancel()
            kept += (await asyncio.wait([task]))[0].pop().cancelled() is False
        return kept

    kept = sum(in_loops(work))
    stats = pipeline.stats()
    assert stats["completed"] == kept and stats["in_flight"] == 0
    assert stats["accepted"] == kept + stats["cancelled"]
    assert (stats["tasks"][0]["running"], stats["tasks"][0]["waiting"]) == (0, 0)


def test_loops_share_a_queue() -> None:
    queue = AdvancedQueue(QueueConfig(max_size=7))

    async def work(number: int) -> list[int]:
        async def put() -> None:
            for item in range(100):
                await queue.put(number * 100 + item)

        async def get() -> list[int]:
            return [await queue.get() for _ in range(100)]

        return (await asyncio.gather(get(), put()))[0]

    got = [item for items in in_loops(work) for item in items]
    assert sorted(got) == list(range(LOOPS * 100))


def test_loops_share_an_engine_around_a_function_and_metrics() -> None:
    metrics = AsyncMetrics()
    calls: list[int] = []

    def squares(items: list[int]) -> list[int]:
        calls.extend(items)
        return [item * item for item in items]

    inference = InferenceEngine(squares)
    asyncio.run(inference.start())

    async def work(number: int) -> list[int]:
        async def one(item: int) -> int:
            with metrics.track_processing_time("one"):
                result: int = await inference.process_request(item, priority=item % 3)
                return result

        return await asyncio.gather(*(one(number * 50 + item) for item in range(50)))

    assert in_loops(work) == [[(number * 50 + item) ** 2 for item in range(50)] for number in range(LOOPS)]
    asyncio.run(inference.stop())
    assert sorted(calls) == list(range(LOOPS * 50))
    assert metrics.get_processing_times()["one"]["count"] == LOOPS * 50


def test_loops_share_the_streams_of_an_engine(engine: tidegate.Engine) -> None:
    async def text(number: int, leave_after: int) -> str:
        said = ""
        async for event in engine.stream(f"Tide {number}", max_tokens=12, temperature=0.0, ignore_eos=True, share=False):
            said += event.text or ""
            leave_after -= 1
            if leave_after == 0:
                break
        return said

    async def work(_: int) -> list[str]:
        left = asyncio.gather(*(text(number, 2) for number in range(4)))
        whole = await asyncio.gather(*(text(number, 1000) for number in range(4)))
        await left
        return list(whole)

    answers = in_loops(work)
    assert all(answer == answers[0] for answer in answers) and all(answers[0])
    gc.collect()
    asyncio.run(until(lambda: engine.status()["load"]["running"] == 0))
