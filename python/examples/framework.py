"""Pipelines, queues, schedulers and graphs around the embedded model, in cells that run in a notebook or from top to
bottom: ``python framework.py``."""

# %% The engine, and a thread whose event loop runs what the cells ask for, so that a notebook's own is not in the way.
import asyncio
import concurrent.futures
from collections.abc import Coroutine
from typing import Any

import tidegate

engine = tidegate.Engine()
thread = concurrent.futures.ThreadPoolExecutor(1)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return thread.submit(asyncio.run, work).result()


async def answer(prompt: str) -> str:
    return (await engine.generate(prompt, max_tokens=12, temperature=0.0)).text


# %% A pipeline: stages with bounded buffers, tried again when they fail.
config = tidegate.PipelineConfig(max_concurrent_tasks=4, buffer_size=100, max_retries=2)
pipeline = tidegate.AsyncPipeline(config).add_task("tidy", str.strip, run_in="loop").add_task("answer", answer)
print("pipeline:", run(pipeline.map(["  The sea ", " The moon  "])))

# %% A queue that is fair to its owners.
queue = tidegate.AdvancedQueue(tidegate.QueueConfig(algorithm=tidegate.QueueAlgorithm.FAIR, max_size=100))


async def letters() -> list[str]:
    for owner in ("ann", "ann", "bob"):
        await queue.put(f"a letter of {owner}", priority=tidegate.Priority.HIGH, owner=owner)
    return [await queue.get() for _ in range(3)]


print("queue:", run(letters()))

# %% Work that says what it needs.
scheduler = tidegate.ResourceScheduler(tidegate.SchedulerConfig(max_workers=2))
needs = {"memory": "64MB", "gpu": True}
print("scheduler:", run(scheduler.schedule(lambda: sum(range(100)), resource_requirements=needs)))

# %% A graph that computes what is asked for, and remembers it.
graph = tidegate.LazyGraph()
words = graph.add_node("words", str.split)
count = graph.add_node("count", len)
graph.add_edge(words, count)
print("graph:", run(graph.execute("high water is at noon")), graph.stats())

# %% Many queries within a limit.
results = run(tidegate.parallel_run(answer, ["One", "Two", "Three"], max_concurrent=2))
print("queries:", [one.result for one in results])
engine.close()
