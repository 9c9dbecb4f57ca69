"""Chunks of streams, served soon and together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from . import _tidegate
from .callables import RunIn, place_of
from .engine import Engine


@dataclass
class StreamConfig:
    """At most ``batch_size`` chunks go together, and none waits for others longer than ``max_latency`` milliseconds.

    With ``enable_real_time`` a chunk does not wait at all while the model is idle; without, batches are filled.
    ``buffer_size`` chunks may be inside. ``max_tokens`` is of an answer where the model is an engine.
    """

    batch_size: int = 32
    max_latency: float = 100.0
    enable_real_time: bool = True
    buffer_size: int = 1024
    max_tokens: int = 64


class StreamProcessor:
    """Serves chunks with a model: a function from a list of chunks to a list of results, or an :class:`Engine`.

    Without a model it is the embedded engine, and chunks are texts to be continued. A result that is an exception is
    raised to whoever sent that chunk, and to nobody else.
    """

    def __init__(
        self,
        config: StreamConfig | None = None,
        model: Callable[[list[Any]], Any] | Engine | None = None,
        *,
        run_in: RunIn = "auto",
    ) -> None:
        self.config = config or StreamConfig()
        self._is_own = model is None
        self._engine = model if isinstance(model, Engine) else None
        self._batches: _tidegate.MicroBatches | None = None
        if callable(model):
            settings = {
                "size": self.config.batch_size,
                "delay": self.config.max_latency / 1e3,
                "eager": self.config.enable_real_time,
                "capacity": self.config.buffer_size,
            }
            self._batches = _tidegate.MicroBatches(model, place_of(model, run_in), settings)

    async def process_chunk(self, chunk: Any) -> Any:
        """The result of one chunk, which is served together with others that come meanwhile."""
        if self._batches is not None:
            return await self._batches.submit(chunk)
        if self._engine is None:
            self._engine = await Engine.open()
        return (await self._engine.generate(chunk, max_tokens=self.config.max_tokens)).text

    async def process_stream(self, chunks: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """The results of a stream, in its order; up to ``batch_size`` chunks are read ahead."""
        from .pipeline import AsyncPipeline, PipelineConfig

        ahead = PipelineConfig(max_concurrent_tasks=self.config.batch_size, buffer_size=self.config.batch_size)
        pipeline = AsyncPipeline(ahead).add_task("chunk", self.process_chunk)
        async for result in pipeline.stream(chunks):
            yield result

    def stats(self) -> dict[str, Any]:
        """What was served, in which batches; times in milliseconds. Of an engine, its status."""
        if self._batches is None:
            return {} if self._engine is None else self._engine.status()
        stats: dict[str, Any] = json.loads(self._batches.stats())
        return stats

    async def close(self) -> None:
        """Serves what is inside, and ends the engine if it is its own."""
        if self._batches is not None:
            await self._batches.drain(3600.0)
        if self._is_own and self._engine is not None:
            await self._engine.__aexit__(None, None, None)

    async def __aenter__(self) -> StreamProcessor:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
