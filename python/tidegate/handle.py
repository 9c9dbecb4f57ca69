"""Outcomes that are waited for: with ``await``, with ``result()`` on a thread, or with what ``concurrent.futures`` has."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Handle(concurrent.futures.Future[T], Generic[T]):
    """The outcome of submitted work: a concurrent future that can also be awaited, and cancelled at any time.

    Unlike other concurrent futures it can be cancelled while the work runs: the work ends within one step.
    """

    def __init__(self, convert: Callable[[Any], T]) -> None:
        super().__init__()
        self._convert: Callable[[Any], T] | None = convert
        self._abort: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """Ends the work wherever it is. Answers whether it had not ended before."""
        if self.done() or not super().cancel():
            return False
        # Whoever waits with concurrent.futures.wait is told by this.
        self.set_running_or_notify_cancel()
        abort, self._abort = self._abort, None
        if abort is not None:
            abort()
        return True

    def running(self) -> bool:
        """Whether there is no outcome yet."""
        return not self.done()

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()

    def _begin(self, abort: Callable[[], None]) -> None:
        self._abort = abort
        if self.cancelled():
            abort()

    def _succeed(self, value: Any) -> None:
        convert, self._convert, self._abort = self._convert, None, None
        assert convert is not None
        try:
            outcome = convert(value)
        except BaseException as error:  # noqa: B902 - whatever it is, whoever waits is to have it
            self._fail(error)
            return
        try:
            self.set_result(outcome)
        except concurrent.futures.InvalidStateError:
            pass  # It was cancelled meanwhile.

    def _fail(self, error: BaseException) -> None:
        self._convert = self._abort = None
        try:
            self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass


async def as_completed(handles: Iterable[Handle[T]]) -> AsyncIterator[Handle[T]]:
    """Gives handles in the order in which they end. Leaving the loop early cancels nothing."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[Handle[T]] = asyncio.Queue()

    def tell(handle: concurrent.futures.Future[T]) -> None:
        try:
            loop.call_soon_threadsafe(ended.put_nowait, cast("Handle[T]", handle))
        except RuntimeError:
            pass  # The loop was closed, so nobody waits.

    waiting = list(handles)
    for handle in waiting:
        handle.add_done_callback(tell)
    for _ in waiting:
        yield await ended.get()
