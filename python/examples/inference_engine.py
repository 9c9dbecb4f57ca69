"""A function of one's own behind an engine: batched, cached, measured, scaled; in cells that run in a notebook or from top
to bottom: ``python inference_engine.py``."""

# %% A model is a function from a list of inputs to a list of results.
import asyncio
import concurrent.futures

from tidegate import EngineConfig, InferenceConfig, InferenceEngine


def lengths(batch: list[str]) -> list[int]:
    return [len(text) for text in batch]


# %% The engine, and a thread whose event loop asks it, so that a notebook's own is not in the way.
config = InferenceConfig()
config.batch.batch_size = 16
engine = InferenceEngine(lengths, config, EngineConfig(parallel_workers=2))
thread = concurrent.futures.ThreadPoolExecutor(1)
thread.submit(asyncio.run, engine.start()).result()


# %% Many inputs at once.
async def many() -> list[int]:
    return await asyncio.gather(*(engine.process_request("tide" * number) for number in range(50)))


results = thread.submit(asyncio.run, many()).result()
metrics = engine.get_performance_metrics()
print(results[:5], f"{metrics['batch_stats']['average_batch_size']:.1f} inputs a batch")

# %% More workers, and how it is.
engine.scale_workers(4)
print(engine.health_check())

# %% The end. It says what was served.
print(thread.submit(asyncio.run, engine.stop()).result())
