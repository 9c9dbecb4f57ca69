"""Pipelines, queues, schedulers and graphs around the embedded model: ``python framework.py``."""

import asyncio

import tidegate


async def main() -> None:
    async with await tidegate.Engine.open() as engine:
        config = tidegate.PipelineConfig(max_concurrent_tasks=4, buffer_size=100, max_retries=2)
        pipeline = tidegate.AsyncPipeline(config)

        async def answer(prompt: str) -> str:
            return (await engine.generate(prompt, max_tokens=12, temperature=0.0)).text

        pipeline.add_task("tidy", str.strip, run_in="loop").add_task("answer", answer)
        print("pipeline:", await pipeline.map(["  The sea ", " The moon  "]))

        queue = tidegate.AdvancedQueue(tidegate.QueueConfig(algorithm=tidegate.QueueAlgorithm.FAIR, max_size=100))
        for owner in ("ann", "ann", "bob"):
            await queue.put(f"a letter of {owner}", priority=tidegate.Priority.HIGH, owner=owner)
        print("queue:", [await queue.get() for _ in range(3)])

        scheduler = tidegate.ResourceScheduler(tidegate.SchedulerConfig(max_workers=2))
        needs = {"memory": "64MB", "gpu": True}
        print("scheduler:", await scheduler.schedule(lambda: sum(range(100)), resource_requirements=needs))

        graph = tidegate.LazyGraph()
        words = graph.add_node("words", str.split)
        count = graph.add_node("count", len)
        graph.add_edge(words, count)
        print("graph:", await graph.execute("high water is at noon"), graph.stats())

        results = await tidegate.parallel_run(answer, ["One", "Two", "Three"], max_concurrent=2)
        print("queries:", [one.result for one in results])


asyncio.run(main())
