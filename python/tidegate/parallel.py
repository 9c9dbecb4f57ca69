"""Many queries at once, and operations spread over lanes."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from . import _tidegate
from .callables import RunIn
from .engine import Engine
from .pipeline import AsyncPipeline, PipelineConfig


@dataclass(frozen=True)
class QueryResult:
    """What became of one query: a result or an error, when it ended (Unix time) and how many seconds it took."""

    query: Any
    result: Any = None
    error: BaseException | None = None
    timestamp: float = 0.0
    seconds: float = 0.0

    @property
    def is_ok(self) -> bool:
        """Whether there is a result."""
        return self.error is None


async def parallel_run(
    run: Callable[[Any], Any] | Engine,
    queries: Iterable[Any],
    *,
    max_concurrent: int = 10,
    timeout: float | None = None,
    run_in: RunIn = "auto",
    **request: Any,
) -> list[QueryResult]:
    """Runs all queries, ``max_concurrent`` at a time; answers in their order, and leaves none out.

    ``run`` is a function of a query, or an engine that is asked with the options in ``request``. A query that fails has
    its error in its own result and stops no other.
    """
    work: Callable[[Any], Any] = run if callable(run) else lambda query: run.generate(query, **request)
    pipeline = AsyncPipeline(PipelineConfig(max_concurrent_tasks=max_concurrent, buffer_size=max(max_concurrent, 1)))
    pipeline.add_task("query", work, run_in=run_in if callable(run) else "loop")

    async def one(query: Any) -> QueryResult:
        began = time.perf_counter()
        result, error = None, None
        try:
            result = await pipeline.submit(query, timeout=timeout)
        except Exception as failure:
            error = failure
        return QueryResult(query, result, error, time.time(), time.perf_counter() - began)

    return list(await asyncio.gather(*(one(query) for query in queries)))


class ExecutionLanes:
    """Places where operations run side by side: CUDA streams where there is a GPU, groups of processors where there is none.

    Every operation has a lane to itself while it runs; lanes are taken in turns, in the order in which operations come. A lane
    is a thread that stays on its group of processors, and goes anywhere if there are more lanes than processors; with
    streams, its stream is the current one while an operation runs, and is synchronized when the operation ends.
    """

    def __init__(self, lanes: int = 4, *, streams: Sequence[Any] | None = None) -> None:
        self._streams = dict(enumerate(streams)) if streams is not None else _cuda_streams(lanes)
        self._native = _tidegate.Lanes(len(self._streams) or lanes)

    @property
    def count(self) -> int:
        """How many operations run at once."""
        return self._native.count

    async def run(self, operation: Callable[[], Any]) -> Any:
        """The result of one operation, run on a lane of its own, with the context variables of whoever asks."""
        context = contextvars.copy_context()
        return await self._native.run(lambda lane: context.run(self._on_lane, lane, operation))

    async def run_all(self, operations: Iterable[Callable[[], Any]], *, return_exceptions: bool = False) -> list[Any]:
        """The results of all operations, in their order."""
        work = (self.run(operation) for operation in operations)
        return list(await asyncio.gather(*work, return_exceptions=return_exceptions))

    def _on_lane(self, lane: int, operation: Callable[[], Any]) -> Any:
        stream = self._streams.get(lane)
        if stream is None:
            return operation()
        import torch

        with torch.cuda.stream(stream):
            result = operation()
        stream.synchronize()
        return result


def _cuda_streams(lanes: int) -> dict[int, Any]:
    """Streams, where torch was imported by whoever uses this and has a GPU."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {number: torch.cuda.Stream() for number in range(lanes)}


@asynccontextmanager
async def mixed_precision(dtype: Any = None) -> AsyncIterator[None]:
    """Has torch compute in ``dtype`` (bfloat16) within the block where it was imported; for an :class:`Engine`, the
    precision is its option ``dtype``: ``bf16``, ``int8`` or ``int4``."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.autocast(device, dtype=dtype or torch.bfloat16):
        yield
