"""Where items wait: bounded, in the order of a policy, and, if wished, until they are done, also through a crash."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Literal

from . import _tidegate


class QueueAlgorithm(Enum):
    """In what order items are taken."""

    FIFO = "fifo"
    PRIORITY = "priority"
    FAIR = "fair_share"
    ROUND_ROBIN = "round_robin"
    DEADLINE = "deadline"


class Priority(IntEnum):
    """How urgent an item is; 0 goes first. Waiting makes an item more urgent, so none starves."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


@dataclass
class QueueConfig:
    """How a queue works.

    ``rate_limit`` items are taken in per second, ``owner_rate_limit`` of each owner; ``burst`` at once after a quiet
    time. ``overflow`` says what happens to an item for which there is no room. With ``path`` the queue is durable: an
    item is on the disk when ``put`` returns. Items are pickled there, so open only folders that you wrote.
    ``lease_seconds`` is how long a taker has for an item before another one gets it, ``max_attempts`` how often it may
    be taken before it is a dead letter, of which ``dead_letters`` are kept.
    """

    algorithm: QueueAlgorithm = QueueAlgorithm.PRIORITY
    max_size: int | None = None
    rate_limit: int | None = None
    burst: int | None = None
    owner_rate_limit: int | None = None
    overflow: Literal["wait", "reject", "drop_oldest", "dead_letter"] = "wait"
    lease_seconds: float | None = None
    max_attempts: int | None = None
    dead_letters: int = 10_000
    path: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class DeadLetter:
    """An item that was given up, and why."""

    id: int
    item: Any
    cause: str
    attempts: int


class Lease:
    """An item that was handed out and is not done until :meth:`ack` says so. What is dropped may be taken again."""

    def __init__(self, native: _tidegate.Leased) -> None:
        self._native = native

    @property
    def item(self) -> Any:
        """The item."""
        return self._native.item

    @property
    def attempt(self) -> int:
        """The how-manieth time it is that the item is out."""
        return self._native.attempt

    async def ack(self) -> None:
        """The item is done; a durable queue has that on the disk when this returns."""
        await self._native.ack()

    async def nack(self, after: float = 0.0) -> None:
        """The item is not done, and may be taken again after so many seconds."""
        await self._native.nack(after)

    async def dead_letter(self, cause: str) -> None:
        """The item can never be done."""
        await self._native.dead_letter(cause)


class AdvancedQueue:
    """A queue of any objects for tasks of event loops and for threads.

    ``get`` takes an item for good. :meth:`lease` takes it until it is acknowledged, so that an item outlives its taker.
    """

    def __init__(self, config: QueueConfig | None = None) -> None:
        self.config = config or QueueConfig()
        self._native = _tidegate.Queue(
            {
                "max_size": self.config.max_size,
                "policy": self.config.algorithm.value,
                "overflow": self.config.overflow,
                "rate_limit": self.config.rate_limit,
                "burst": self.config.burst,
                "owner_rate_limit": self.config.owner_rate_limit,
                "lease": self.config.lease_seconds,
                "max_attempts": self.config.max_attempts,
                "dead_letters": self.config.dead_letters,
                "path": None if self.config.path is None else os.fspath(self.config.path),
            }
        )

    async def put(
        self,
        item: Any,
        priority: Priority | int = Priority.NORMAL,
        *,
        owner: str | None = None,
        cost: int = 1,
        key: str | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> int:
        """Puts an item in, waiting for room but not longer than ``timeout`` seconds; answers its number.

        ``owner`` is whose it is, for fair shares of ``cost``; after ``deadline`` seconds it is of no use.
        """
        terms = _terms(priority, owner, cost, key, deadline)
        terms["timeout"] = timeout
        return await self._native.put(item, terms)

    def put_nowait(
        self,
        item: Any,
        priority: Priority | int = Priority.NORMAL,
        *,
        owner: str | None = None,
        cost: int = 1,
        deadline: float | None = None,
    ) -> int:
        """Puts an item in if there is room now; raises :class:`QueueFullError`, which says when to come again."""
        return self._native.put_nowait(item, _terms(priority, owner, cost, None, deadline))

    async def get(self) -> Any:
        """The next item. Raises :class:`QueueClosedError` when none can come any more."""
        return await self._native.get()

    def get_nowait(self) -> Any:
        """The next item, or ``asyncio.QueueEmpty``."""
        if not len(self._native):
            raise asyncio.QueueEmpty("nothing waits in the queue")
        return self._native.get_nowait()

    async def lease(self) -> Lease:
        """The next item, until it is acknowledged."""
        return Lease(await self._native.lease())

    @asynccontextmanager
    async def processing(self) -> AsyncIterator[Any]:
        """The next item; done if the block ends well, to be taken again if it raises."""
        lease = await self.lease()
        try:
            yield lease.item
        except BaseException:
            await lease.nack()
            raise
        await lease.ack()

    def qsize(self) -> int:
        """Items that wait."""
        return len(self._native)

    def empty(self) -> bool:
        """Whether none waits."""
        return not len(self._native)

    def full(self) -> bool:
        """Whether one more would have to wait."""
        return self.config.max_size is not None and len(self._native) >= self.config.max_size

    def set_algorithm(self, algorithm: QueueAlgorithm) -> None:
        """Serves in another order from now on."""
        self._native.set_policy(algorithm.value)

    def dead_letters(self) -> list[DeadLetter]:
        """The items that were given up."""
        return [DeadLetter(*letter) for letter in self._native.dead_letters()]

    async def retry_dead_letters(self) -> int:
        """Has them wait again; answers how many."""
        return await self._native.retry_dead_letters()

    async def purge_dead_letters(self) -> int:
        """Throws them away; answers how many."""
        return await self._native.purge_dead_letters()

    def close(self) -> None:
        """Takes nothing more in; what is there can still be taken."""
        self._native.close()

    def stats(self) -> dict[str, Any]:
        """The queue at this moment and what it has done; waits in milliseconds."""
        stats: dict[str, Any] = json.loads(self._native.stats())
        return stats

    def __len__(self) -> int:
        return len(self._native)


def _terms(
    priority: Priority | int, owner: str | None, cost: int, key: str | None, deadline: float | None
) -> dict[str, Any]:
    return {"level": int(priority), "owner": owner, "cost": cost, "key": key, "deadline": deadline}
