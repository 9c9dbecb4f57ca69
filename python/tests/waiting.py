"""Waiting for what other threads do: looking again and again, for a minute at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MINUTE = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Lets the event loop go on until the condition holds."""
    end = time.monotonic() + MINUTE
    while not condition():
        assert time.monotonic() < end, "it did not come to that within a minute"
        await asyncio.sleep(0)


def until_here(condition: Callable[[], object]) -> None:
    """As :func:`until`, on a thread."""
    end = time.monotonic() + MINUTE
    while not condition():
        assert time.monotonic() < end, "it did not come to that within a minute"
        time.sleep(0)
