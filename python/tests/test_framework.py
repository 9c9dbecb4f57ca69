"""The usage examples of the asynchronous framework, and what they promise: pipelines, queues, schedulers, graphs."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import pickle
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tidegate import (
    AdvancedQueue,
    AsyncMetrics,
    AsyncPipeline,
    LazyGraph,
    PipelineConfig,
    Priority,
    QueueAlgorithm,
    QueueConfig,
    ResourceScheduler,
    SchedulerConfig,
    StreamConfig,
    StreamProcessor,
    TaskPriority,
)

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_example_basic_async_pipeline(engine: tidegate.Engine) -> None:
    data = "Once upon a tide"
    config = PipelineConfig(max_concurrent_tasks=4, buffer_size=1000, enable_backpressure=True)
    pipeline = AsyncPipeline(config)

    async def process_data(data: str) -> str:
        processed_data = (await engine.generate(data, max_tokens=8, temperature=0.0)).text
        return processed_data

    pipeline.add_task("process", process_data)
    result = await pipeline.submit(data)
    print(f"Processed result: {result}")
    assert result == (await engine.generate(data, max_tokens=8, temperature=0.0)).text


async def test_example_streaming_inference(engine: tidegate.Engine) -> None:
    async def data_stream() -> AsyncIterator[str]:
        for chunk in ("The sea", "The moon"):
            yield chunk

    config = StreamConfig(batch_size=32, max_latency=100, enable_real_time=True)
    processor = StreamProcessor(config)

    async def results() -> AsyncIterator[str]:
        async for chunk in data_stream():
            result = await processor.process_chunk(chunk)
            yield result

    async with processor:
        assert [bool(result) async for result in results()] == [True, True]


async def test_example_resource_aware_scheduling() -> None:
    async def compute_task() -> int:
        return sum(range(10))

    config = SchedulerConfig(max_workers=8, priority_enabled=True, load_balancing=True)
    scheduler = ResourceScheduler(config)
    result = await scheduler.schedule(
        task=compute_task, priority=TaskPriority.HIGH, resource_requirements={"memory": "2GB", "gpu": True}
    )
    assert result == 45 and scheduler.stats()["degraded"] == 1


async def test_example_queue_management() -> None:
    item = object()
    config = QueueConfig(algorithm=QueueAlgorithm.FAIR, max_size=10000, rate_limit=1000)
    queue = AdvancedQueue(config)
    await queue.put(item, priority=Priority.HIGH)
    assert await queue.get() is item


async def test_example_lazy_loading_with_computation_graphs() -> None:
    def preprocess_func(text: str) -> list[str]:
        return text.split()

    async def compute_func(words: list[str]) -> int:
        await asyncio.sleep(0)
        return len(words)

    def postprocess_func(count: int) -> str:
        return f"{count} words"

    input_data = "the tide turns"
    graph = LazyGraph()
    node1 = graph.add_node("preprocess", preprocess_func)
    node2 = graph.add_node("compute", compute_func)
    node3 = graph.add_node("postprocess", postprocess_func)
    graph.add_edge(node1, node2)
    graph.add_edge(node2, node3)
    result = await graph.execute(input_data)
    assert result == "3 words"
    assert await graph.execute(input_data) == result and graph.stats()["runs"] == 3
    # Another input with the same number of words: what depends on that number alone is not run again.
    assert await graph.execute("one two three") == result and graph.stats()["runs"] == 5


async def test_example_performance_monitoring(engine: tidegate.Engine) -> None:
    async def process_data(data: str) -> str:
        return (await engine.generate(data, max_tokens=2)).text

    metrics = AsyncMetrics()
    with metrics.track_processing_time("data_processing"):
        result = await process_data("data")
    memory_stats = metrics.get_memory_stats()
    print(f"Memory usage: {memory_stats} {result}")
    assert (memory_stats["process_bytes"] or 0) > 1 << 20
    with pytest.raises(KeyError), metrics.track_processing_time("data_processing"):
        raise KeyError
    times = metrics.get_processing_times()["data_processing"]
    assert times["count"] == 2 and times["failed"] == 1 and times["max_ms"] > 0.0
    assert "data_processing" in metrics.to_prometheus()
    metrics.add_alert("data_processing", above=0.0, call=lambda name, value: None)
    assert metrics.check_alerts() == ["data_processing"]


async def test_tasks_of_every_kind_follow_one_another() -> None:
    seen: list[tuple[str, bool]] = []
    main = threading.get_ident()

    async def first(number: int) -> int:
        await asyncio.sleep(0)
        seen.append((who.get(), threading.get_ident() == main))
        return number + 1

    def second(number: int) -> int:
        seen.append((who.get(), threading.get_ident() == main))
        return number * 2

    async def third(number: int) -> AsyncIterator[int]:
        yield number
        yield -number

    pipeline = AsyncPipeline().add_task("first", first).add_task("second", second).add_task("third", third)
    pipeline.add_task("fourth", sum, run_in="loop")
    who.set("somebody")
    assert await pipeline.submit(4) == 0 and await pipeline.submit(4, task="second") == 8
    assert seen == [("somebody", True), ("somebody", False), ("somebody", False)]
    assert await pipeline.map(range(50)) == [0] * 50
    with pytest.raises(ValueError, match="no task 'fifth'"):
        await pipeline.submit(1, task="fifth")


async def test_a_pipeline_bounds_what_is_inside() -> None:
    inside, most = 0, 0
    gate = asyncio.Event()

    async def work(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await gate.wait()
        inside -= 1
        return number

    pipeline = AsyncPipeline(PipelineConfig(max_concurrent_tasks=3, buffer_size=5, enable_backpressure=False))
    pipeline.add_task("work", work)
    running = [asyncio.ensure_future(pipeline.submit(number)) for number in range(5)]
    await until(lambda: inside == 3)
    with pytest.raises(tidegate.QueueFullError, match="buffer_size"):
        await pipeline.submit(6)
    gate.set()
    assert await asyncio.gather(*running) == list(range(5)) and most == 3


async def test_failures_are_retried_told_apart_and_isolated() -> None:
    attempts: dict[int, int] = {}

    async def flaky(number: int) -> int:
        attempts[number] = attempts.get(number, 0) + 1
        if number == 3:
            raise KeyError("never")
        if attempts[number] < 3:
            raise OSError("not yet")
        return number

    config = PipelineConfig(max_retries=3, retry_delay=0.0, retry_on=(OSError,))
    pipeline = AsyncPipeline(config).add_task("flaky", flaky)
    outcomes = await pipeline.map(range(5), return_exceptions=True)
    assert [repr(outcome) for outcome in outcomes] == ["0", "1", "2", "KeyError('never')", "4"]
    assert attempts == {0: 3, 1: 3, 2: 3, 3: 1, 4: 3}
    stats = pipeline.stats()
    assert (stats["completed"], stats["failed"], stats["tasks"][0]["retries"]) == (4, 1, 8)
    kept = AsyncPipeline().add_task("flaky", flaky, fallback=lambda item, error: (item, type(error)))
    assert await kept.submit(3) == (3, KeyError)


async def test_the_books_are_right_while_tasks_are_added() -> None:
    gate = asyncio.Event()

    async def first(number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        if number > 100:
            await gate.wait()
        return number

    def counts() -> tuple[int, ...]:
        stats = pipeline.stats()
        return tuple(stats[name] for name in ("accepted", "completed", "failed", "expired", "cancelled", "in_flight"))

    pipeline = AsyncPipeline(PipelineConfig(buffer_size=3, enable_backpressure=False)).add_task("first", first)
    assert await pipeline.map([1, -2, 3], return_exceptions=True) and counts() == (3, 2, 1, 0, 0, 0)
    inside = [asyncio.ensure_future(pipeline.submit(number)) for number in (101, 102, 103)]
    await until(lambda: counts()[-1] == 3)
    with pytest.raises(tidegate.QueueFullError):
        await pipeline.submit(4)
    with pytest.raises(ValueError, match="3 items are in the only task"):
        pipeline.add_task("second", abs)
    inside[0].cancel()
    await asyncio.wait(inside[:1])
    with pytest.raises(TimeoutError):
        await pipeline.submit(104, timeout=0.001)
    gate.set()
    assert await asyncio.gather(*inside[1:]) == [102, 103] and counts() == (7, 4, 1, 1, 1, 0)
    waiting = pipeline.submit(5)
    pipeline.add_task("second", lambda number: number + 1, run_in="loop")
    assert await waiting == 6 and await pipeline.submit(6, task="first") == 6
    with pytest.raises(ValueError, match="negative"):
        await pipeline.submit(-1)
    assert counts() == (10, 6, 2, 1, 1, 0)
    assert await pipeline.drain() == 0
    with pytest.raises(tidegate.QueueClosedError):
        await pipeline.submit(1)
    alone = AsyncPipeline().add_task("first", first)
    gate.clear()
    cut = asyncio.ensure_future(alone.submit(101))
    await until(lambda: alone.stats()["in_flight"] == 1)
    assert await alone.drain(0.0) == 1
    with pytest.raises(tidegate.QueueClosedError):
        await cut


async def test_what_needs_not_wait_is_a_call_with_the_same_outcomes() -> None:
    pipeline = AsyncPipeline(PipelineConfig(max_concurrent_tasks=1, buffer_size=1))
    inside: list[int] = []

    async def later(item: int) -> int:
        await asyncio.sleep(0)
        return -item

    def sometimes(item: int) -> Any:
        inside.append(pipeline.stats()["in_flight"])
        if item == 13:
            raise ValueError("13 is right out")
        return later(item) if item % 3 == 0 else item

    pipeline.add_task("sometimes", sometimes, run_in="loop")
    with pytest.raises(ValueError, match="13 is right out"):
        await pipeline.submit(13)
    assert [await pipeline.submit(item) for item in range(1, 8)] == [1, 2, -3, 4, 5, -6, 7]
    with pytest.raises(ValueError, match="13 is right out"):
        await pipeline.submit(13)
    stats = pipeline.stats()
    assert inside == [1] * 9
    assert (stats["accepted"], stats["completed"], stats["failed"], stats["cancelled"]) == (9, 7, 2, 0)
    task = stats["tasks"][0]
    assert (task["completed"], task["errors"], task["cancelled"], task["running"]) == (7, 2, 0, 0)
    # Nothing happens before it is awaited, and one that was awaited is over.
    forgotten = pipeline.submit(1)
    assert pipeline.stats()["accepted"] == 9
    assert await forgotten == 1
    with pytest.raises(RuntimeError, match="awaited already"):
        await forgotten


async def test_a_class_of_ones_own_may_be_a_pipeline() -> None:
    class Doubles(AsyncPipeline):
        def __init__(self, times: int) -> None:
            super().__init__(PipelineConfig(buffer_size=times))
            self.add_task("doubles", lambda item: item * 2, run_in="loop")

    class Unmade(AsyncPipeline):
        def __init__(self) -> None:
            pass

    assert await Doubles(4).map([1, 2, 3]) == [2, 4, 6]
    with pytest.raises(RuntimeError, match="super"):
        await Unmade().submit(1)


async def test_many_items_share_a_wake_up() -> None:
    native = AsyncPipeline(PipelineConfig(buffer_size=8)).add_task("abs", abs, run_in="loop").add_task("text", str)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    assert await native.map(-number for number in range(5000)) == [str(number) for number in range(5000)]
    beside.cancel()
    assert turns > 5  # The event loop had its turns meanwhile.
    assert native.stats()["completed"] == 5000 and native.stats()["in_flight"] == 0
    assert await native.map([]) == []
    outcomes = await native.map([1, "two", -3], return_exceptions=True)
    assert outcomes[::2] == ["1", "3"] and isinstance(outcomes[1], TypeError)
    with pytest.raises(TypeError, match="abs"):
        await native.map([1, "two", -3])

    gate = threading.Barrier(3)

    def on_threads(number: int) -> int:
        gate.wait(60)  # It opens only if three items are worked on at once.
        return -number

    threads = AsyncPipeline(PipelineConfig(max_concurrent_tasks=3)).add_task("threads", on_threads)
    assert await threads.map(range(30)) == [-number for number in range(30)]

    stuck = threading.Event()
    waiting = AsyncPipeline(PipelineConfig(max_concurrent_tasks=2)).add_task("stuck", lambda _: stuck.wait(60))
    task = asyncio.create_task(waiting.map(range(100)))
    await until(lambda: waiting.stats()["tasks"][0]["running"] == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiting.stats()["in_flight"] == 0
    stuck.set()

    box = {number: asyncio.sleep(0, number) for number in (5, 6)}
    coroutines = AsyncPipeline().add_task("pop", box.pop, run_in="loop")
    assert await coroutines.submit(5) == 5
    with pytest.raises(TypeError, match="async def"), pytest.warns(RuntimeWarning, match="never awaited"):
        await coroutines.map([6])
        gc.collect()


@pytest.mark.parametrize("value", [None, 1, "a", (), (1, 2), ((1,),), [], ValueError("x"), StopIteration(3), KeyError])
async def test_every_object_comes_out_as_it_is(value: Any) -> None:
    pipeline = AsyncPipeline().add_task("same", copy.copy, run_in="loop").add_task("box", lambda one: [one], run_in="loop")
    assert (await AsyncPipeline().add_task("pick", lambda one: one, run_in="loop").submit(value)) is value
    (inside,) = await pipeline.submit(value)
    assert type(inside) is type(value) and repr(inside) == repr(value)


async def test_a_circuit_opens_and_time_runs_out() -> None:
    async def fails(_: Any) -> None:
        raise OSError

    pipeline = AsyncPipeline(PipelineConfig(breaker_failure_rate=0.5, breaker_calls=3)).add_task("fails", fails)
    for _ in range(3):
        with pytest.raises(OSError):
            await pipeline.submit(0)
    with pytest.raises(tidegate.CircuitOpenError) as opened:
        await pipeline.submit(0)
    assert opened.value.retry_after and opened.value.stage == "fails"
    ended = []

    async def hangs(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    slow = AsyncPipeline().add_task("hangs", hangs)
    with pytest.raises(TimeoutError):
        await slow.submit(0, timeout=0.01)
    limited = AsyncPipeline(PipelineConfig(timeout=0.01)).add_task("hangs", hangs)
    with pytest.raises(TimeoutError):
        await limited.submit(0)
    assert ended == ["cleaned up"] * 2


async def test_cancelling_half_of_many_leaves_nothing() -> None:
    gate, ended = asyncio.Event(), []

    async def work(number: int) -> int:
        try:
            await gate.wait()
            return number
        except asyncio.CancelledError:
            ended.append(number)
            raise

    pipeline = AsyncPipeline(PipelineConfig(max_concurrent_tasks=2000, buffer_size=2000)).add_task("work", work)
    tasks = [asyncio.ensure_future(pipeline.submit(number)) for number in range(2000)]
    await until(lambda: pipeline.stats()["tasks"][0]["running"] == 2000)
    threads = threading.active_count()
    for task in tasks[::2]:
        task.cancel()
    await until(lambda: len(ended) == 1000)
    await until(lambda: pipeline.stats()["in_flight"] == 1000)
    gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == list(range(1, 2000, 2))
    stats = pipeline.stats()
    assert (stats["in_flight"], stats["cancelled"], stats["completed"]) == (0, 1000, 1000)
    assert threading.active_count() == threads
    del tasks, outcomes, task
    await asyncio.sleep(0)  # The loop lets go of what woke this task.
    gc.collect()
    assert sum(type(one).__name__ == "Awaitable" for one in gc.get_objects()) == 0


async def test_cancellation_reaches_what_a_task_awaits() -> None:
    heard = []

    async def inner() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append("inner")
            raise

    async def outer(_: Any) -> None:
        try:
            await asyncio.create_task(inner())
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            heard.append("outer")
            raise

    pipeline = AsyncPipeline().add_task("outer", outer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await pipeline.submit(0)
    assert heard == ["inner", "outer"]


async def test_queues_serve_by_their_policy() -> None:
    async def order(algorithm: QueueAlgorithm) -> list[str]:
        queue = AdvancedQueue(QueueConfig(algorithm=algorithm))
        for name, owner, priority in [("a1", "a", 2), ("a2", "a", 2), ("a3", "a", 0), ("b1", "b", 2)]:
            await queue.put(name, Priority(priority), owner=owner)
        return [await queue.get() for _ in range(4)]

    assert await order(QueueAlgorithm.FIFO) == ["a1", "a2", "a3", "b1"]
    assert await order(QueueAlgorithm.PRIORITY) == ["a3", "a1", "a2", "b1"]
    assert (await order(QueueAlgorithm.ROUND_ROBIN)).index("b1") == 1
    assert (await order(QueueAlgorithm.FAIR)).index("b1") <= 2


async def test_queues_wait_refuse_and_close() -> None:
    queue = AdvancedQueue(QueueConfig(max_size=1))
    taking = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    await queue.put(1)
    assert await taking == 1
    await queue.put(2)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(3)
    with pytest.raises(TimeoutError):
        await queue.put(3, timeout=0.01)
    putting = asyncio.create_task(queue.put(3))
    await asyncio.sleep(0)
    assert queue.full() and await queue.get() == 2
    await putting
    queue.close()
    assert await queue.get() == 3
    with pytest.raises(tidegate.QueueClosedError):
        await queue.get()
    with pytest.raises(tidegate.QueueClosedError):
        await queue.put(4)
    limited = AdvancedQueue(QueueConfig(rate_limit=1))
    limited.put_nowait(1)
    with pytest.raises(tidegate.RateLimitedError) as refused:
        limited.put_nowait(2)
    assert refused.value.retry_after


async def test_a_durable_queue_survives_and_buries(tmp_path: Path) -> None:
    config = QueueConfig(path=tmp_path / "letters", max_attempts=2, lease_seconds=60)
    queue = AdvancedQueue(config)
    for letter in ({"to": "Ann"}, {"to": "Bob"}):
        await queue.put(letter)
    lease = await queue.lease()
    assert lease.item == {"to": "Ann"} and lease.attempt == 1
    await lease.ack()
    del queue, lease
    gc.collect()
    again = AdvancedQueue(config)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            async with again.processing() as letter:
                raise RuntimeError(letter)
    (dead,) = again.dead_letters()
    assert dead.item == {"to": "Bob"} and dead.attempts == 2
    assert await again.retry_dead_letters() == 1 and await again.get() == {"to": "Bob"}
    assert again.stats()["size"] == 0


async def test_a_scheduler_promises_nothing_twice() -> None:
    scheduler = ResourceScheduler(SchedulerConfig(max_workers=8, memory=1000, device_fallback=False))
    inside, most, order = 0, 0, []

    def work(name: str) -> Any:
        async def run() -> str:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            order.append(name)
            inside -= 1
            return name

        return run

    names = [f"{number}" for number in range(6)]
    needs = {"memory": 400}
    assert await asyncio.gather(*(scheduler.schedule(work(n), resource_requirements=needs) for n in names)) == names
    assert most == 2
    with pytest.raises(tidegate.ImpossibleError):
        await scheduler.schedule(work("huge"), resource_requirements={"memory": "1GB"})
    with pytest.raises(tidegate.ImpossibleError, match="gpu"):
        await scheduler.schedule(work("gpu"), resource_requirements={"gpu": True})
    assert await scheduler.schedule(work("coroutine")()) == "coroutine"
    assert await scheduler.schedule(lambda: "thread") == "thread"
    with pytest.raises(TimeoutError):
        await scheduler.schedule(asyncio.Event().wait, timeout=0.01)
    stats = scheduler.stats()
    assert stats["running"] == 0 and stats["resources"]["memory"] == {"capacity": 1000, "reserved": 0}


async def test_graphs_run_what_is_needed_and_say_what_failed() -> None:
    runs: list[str] = []

    def node(name: str, result: Any = None) -> Any:
        async def run(*inputs: Any) -> Any:
            runs.append(name)
            return (name, *inputs) if result is None else result

        return run

    graph = LazyGraph()
    for name in ("left", "right", "joined", "unused"):
        graph.add_node(name, node(name))
    graph.add_edge("left", "joined")
    graph.add_edge("right", "joined")
    joined = await graph.execute(1, nodes=["joined"])
    assert joined == {"joined": ("joined", ("left", 1), ("right", 1))} and sorted(runs) == ["joined", "left", "right"]
    graph.invalidate("left")
    await graph.execute(1, nodes=["joined"])
    assert runs.count("left") == 2 and runs.count("joined") == 1

    def broken(_: Any) -> None:
        raise ZeroDivisionError("by nothing")

    graph.add_node("broken", broken)
    graph.add_edge("left", "broken")
    with pytest.raises(ZeroDivisionError, match="by nothing"):
        await graph.execute(1, nodes=["broken"])
    graph.add_edge("joined", "left")
    with pytest.raises(ValueError, match="circle"):
        await graph.execute(1)


async def test_streams_are_served_in_batches() -> None:
    sizes = []

    def double(batch: list[int]) -> list[Any]:
        sizes.append(len(batch))
        time.sleep(0)
        return [ValueError("odd one") if number == 13 else number * 2 for number in batch]

    async with StreamProcessor(StreamConfig(batch_size=8, max_latency=50), double) as processor:
        work = (processor.process_chunk(number) for number in range(40))
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert outcomes[12] == 24 and isinstance(outcomes[13], ValueError) and outcomes[14] == 28
        assert max(sizes) == 8 and len(sizes) < 40

        async def numbers() -> AsyncIterator[int]:
            for number in range(5):
                yield number

        assert [result async for result in processor.process_stream(numbers())] == [0, 2, 4, 6, 8]
        assert processor.stats()["items"] == 45


def test_configurations_can_be_pickled() -> None:
    for config in (PipelineConfig(), QueueConfig(), SchedulerConfig(), StreamConfig()):
        assert pickle.loads(pickle.dumps(config)) == config
        assert type(config).__name__ in repr(config)


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)
