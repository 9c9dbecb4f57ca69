"""Where functions are called for an :class:`InferenceEngine`: lanes with batches of their own, and what is under way on them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import time
from collections.abc import Callable
from typing import Any

from . import _tidegate
from .errors import DeadlineExceededError
from .handle import Handle
from .metrics import AsyncMetrics


class Flight:
    """One computation, for all who ask for the same while it is under way. It belongs to no event loop and to no thread.

    ``waiting`` is how many wait for it; whoever counts cancels it when the last has gone.
    """

    def __init__(self, handle: Handle[Any], key: bytes | None = None) -> None:
        self.handle = handle
        self.key = key
        self.waiting = 1

    @classmethod
    def landed(cls, value: Any) -> Flight:
        """One that is over already."""
        handle: Handle[Any] = Handle(lambda result: result)
        handle._succeed(value)
        return cls(handle)

    async def outcome(self, timeout: float | None) -> Any:
        """Its result, for one that waits on an event loop; leaving leaves it as it is."""
        event_loop = asyncio.get_running_loop()
        ended = event_loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        def tell(_: object) -> None:
            try:
                event_loop.call_soon_threadsafe(wake)
            except RuntimeError:
                pass  # The loop was closed, so nobody waits.

        if not self.handle.done():
            self.handle.add_done_callback(tell)
            try:
                await asyncio.wait_for(ended, timeout)
            except asyncio.TimeoutError:
                raise _too_late(timeout) from None
        return self.handle.result()

    def outcome_here(self, timeout: float | None) -> Any:
        """Its result, for one that waits on a thread."""
        try:
            return self.handle.result(timeout)
        except (TimeoutError, concurrent.futures.TimeoutError):
            if self.handle.done():
                raise
            raise _too_late(timeout) from None


def _too_late(timeout: float | None) -> DeadlineExceededError:
    return DeadlineExceededError(f"there was no result within {timeout} s")


class _Ticket:
    """An input on its way into a batch of the lane that holds it."""

    def __init__(self, inputs: Any, level: str, handle: Handle[Any]) -> None:
        self.inputs = inputs
        self.level = level
        self.handle = handle
        self.abort: Callable[[], None] = lambda: None


class Lane:
    """One place where a function is called, with batches of its own: a device, or a thread that stands in for one.

    ``load`` counts what is here, ``served`` what came since the lanes were last made even, ``items`` what was computed,
    ``busy`` the seconds of computing.
    """

    def __init__(self, call: Callable[[list[Any]], list[Any]], settings: dict[str, Any], metrics: AsyncMetrics) -> None:
        self.served = self.items = 0
        self.busy = 0.0
        self._call = call
        self._metrics = metrics
        self._waiting: dict[int, _Ticket] = {}
        self._running: dict[int, _Ticket] = {}
        self._native = _tidegate.BatchEngine(self._run, settings)

    @property
    def waiting(self) -> int:
        """Inputs of which no batch has begun."""
        return len(self._waiting)

    @property
    def load(self) -> int:
        """Inputs that wait here or are being computed."""
        # A call that has been given up for hanging may never end; what it computes has.
        computing = [ticket for ticket in list(self._running.values()) if not ticket.handle.done()]
        return len(self._waiting) + len(computing)

    def begin(self, inputs: Any, level: str) -> Handle[Any]:
        """Has an input computed with others."""
        handle: Handle[Any] = Handle(lambda value: value)
        self._take(_Ticket(inputs, level, handle))
        return handle

    def give(self, other: Lane) -> bool:
        """Gives the input that came last, and has not begun, to another lane; answers whether there was one."""
        while self._waiting:
            number = next(reversed(self._waiting), None)
            ticket = None if number is None else self._waiting.pop(number, None)
            # Whoever removes a ticket has it: this lane's next batch, or the other lane.
            if ticket is not None and not ticket.handle.done():
                ticket.abort()
                other._take(ticket)
                return True
        return False

    def status(self) -> dict[str, Any]:
        """What the batcher says of itself."""
        status: dict[str, Any] = json.loads(self._native.status())
        return status

    async def stop(self) -> None:
        """Computes what is here and ends."""
        await self._native.stop(3600.0)

    def _take(self, ticket: _Ticket) -> None:
        self.served += 1
        self._waiting[id(ticket)] = ticket
        job = self._native.submit(ticket, {"priority": ticket.level}, ticket.handle)

        def abort() -> None:
            self._waiting.pop(id(ticket), None)
            job.abort()

        ticket.abort = abort
        ticket.handle._begin(abort)

    def _run(self, tickets: list[_Ticket]) -> list[Any]:
        """Computes those that are still this lane's; what becomes of the others is told by another lane."""
        mine = [at for at, ticket in enumerate(tickets) if self._waiting.pop(id(ticket), None) is not None]
        if not mine:
            return [None] * len(tickets)
        self.items += len(mine)
        self._running.update((id(tickets[at]), tickets[at]) for at in mine)
        began = time.perf_counter()
        try:
            with self._metrics.track_processing_time("batch"):
                results = self._call([tickets[at].inputs for at in mine])
        finally:
            self.busy += time.perf_counter() - began
            for at in mine:
                self._running.pop(id(tickets[at]), None)
        if len(results) != len(mine):
            return results  # The batcher says what is wrong with that.
        found = dict(zip(mine, results, strict=True))
        return [found.get(at) for at in range(len(tickets))]
