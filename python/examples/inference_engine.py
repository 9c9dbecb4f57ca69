"""A function of one's own behind an engine: batched, cached, measured, scaled. ``python inference_engine.py``."""

import asyncio

from tidegate import EngineConfig, InferenceConfig, InferenceEngine


def lengths(batch: list[str]) -> list[int]:
    """A model is a function from a list of inputs to a list of results."""
    return [len(text) for text in batch]


async def main() -> None:
    config = InferenceConfig()
    config.batch.batch_size = 16
    engine = InferenceEngine(lengths, config, EngineConfig(parallel_workers=2))
    await engine.start()
    results = await asyncio.gather(*(engine.process_request("tide" * number) for number in range(50)))
    metrics = engine.get_performance_metrics()
    print(results[:5], f"{metrics['batch_stats']['average_batch_size']:.1f} inputs a batch")
    engine.scale_workers(4)
    print(engine.health_check())
    await engine.stop()


asyncio.run(main())
