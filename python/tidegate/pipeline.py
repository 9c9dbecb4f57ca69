"""Items through tasks, one after the other, under backpressure; each ends in exactly one outcome."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from . import _tidegate
from .callables import RunIn, collected, is_native, place_of


@dataclass
class PipelineConfig:
    """How a pipeline works.

    ``max_concurrent_tasks`` items are worked on at once by each task; ``buffer_size`` items are inside in all, those
    that wait included. With ``enable_backpressure`` whoever submits one more waits; without, it raises
    :class:`QueueFullError`. A task that fails with one of ``retry_on`` is tried again ``max_retries`` times, after
    random waits up to ``retry_delay`` seconds that double up to ``longest_retry_delay``. ``timeout`` is of one attempt.
    With ``breaker_failure_rate``, a task of whose last ``breaker_calls`` calls that share failed is not called for
    ``breaker_open_for`` seconds.
    """

    max_concurrent_tasks: int = 4
    buffer_size: int = 1000
    enable_backpressure: bool = True
    timeout: float | None = None
    max_retries: int = 0
    retry_delay: float = 0.1
    longest_retry_delay: float = 10.0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    rate_limit: int | None = None
    breaker_failure_rate: float | None = None
    breaker_calls: int = 10
    breaker_open_for: float = 5.0


class AsyncPipeline(_tidegate.Pipeline):
    """Items go through the tasks in the order in which these were added.

    A task is a coroutine function, which runs within the task that submits; a plain function, which runs on a thread
    unless ``run_in="loop"`` says that it is quick; or a generator of either kind, whose whole output is the result.
    All see the context variables of whoever submits, and cancelling that cancels them.
    """

    def __init__(self, config: PipelineConfig | None = None) -> None:
        self.config = config or PipelineConfig()
        self._open(self.config.buffer_size, "wait" if self.config.enable_backpressure else "refuse")
        self._needs_tasks = False

    def add_task(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        workers: int | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        rate_limit: int | None = None,
        fallback: Callable[[Any, BaseException], Any] | None = None,
        run_in: RunIn = "auto",
    ) -> AsyncPipeline:
        """Adds a task behind the others. ``fallback`` is given an item that was given up, and the error. A second task can be
        added only while no items are in the first."""
        config, place = self.config, place_of(function, run_in)
        self._needs_tasks |= fallback is not None or (place == "loop" and not is_native(function))
        settings = {
            "place": place,
            "workers": config.max_concurrent_tasks if workers is None else workers,
            "timeout": config.timeout if timeout is None else timeout,
            "retries": config.max_retries if max_retries is None else max_retries,
            "retry_delay": config.retry_delay,
            "longest_retry_delay": config.longest_retry_delay,
            "retry_on": config.retry_on,
            "rate": config.rate_limit if rate_limit is None else rate_limit,
            "breaker_failure_rate": config.breaker_failure_rate,
            "breaker_calls": config.breaker_calls,
            "breaker_open_for": config.breaker_open_for,
            "fallback": fallback,
        }
        self._add(name, collected(function), settings)
        return self

    async def map(self, items: Iterable[Any], *, return_exceptions: bool = False) -> list[Any]:
        """The results of all items, in their order. Without ``return_exceptions`` the first that failed is raised.

        Where no task is a Python function on the loop, one wake-up serves many items: this is the quickest way through.
        """
        if not self._needs_tasks:
            return await self._map(list(items), "keep" if return_exceptions else "raise")
        if return_exceptions:
            return [outcome async for outcome in self._outcomes(items)]
        return [result async for result in self.stream(items)]

    async def stream(self, items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
        """The results of a stream of items, in their order. What is read ahead is bounded by ``buffer_size``."""
        outcomes = self._outcomes(items)
        try:
            async for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:
            await outcomes.aclose()

    async def _outcomes(self, items: Iterable[Any] | AsyncIterable[Any]) -> Any:
        running: deque[asyncio.Task[Any]] = deque()

        async def outcome(item: Any) -> Any:
            try:
                return await self._pass(item)
            except Exception as error:
                return error

        try:
            async for item in _each(items):
                if len(running) >= self.config.buffer_size:
                    yield await running.popleft()
                running.append(asyncio.create_task(outcome(item)))
                while running and running[0].done():
                    yield running.popleft().result()
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()

    def set_workers(self, task: str, workers: int) -> None:
        """Changes how many items a task works on at once."""
        self._set_workers(task, workers)

    def stats(self) -> dict[str, Any]:
        """What has become of the items; every accepted one is in exactly one place."""
        stats: dict[str, Any] = json.loads(self._stats())
        return stats

    async def drain(self, timeout: float = 3600.0) -> int:
        """Takes nothing more and waits for what is inside; answers how many items were cut short."""
        return await self._drain(timeout)

    async def __aenter__(self) -> AsyncPipeline:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.drain(0.0 if error else 3600.0)


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
