"""Exceptions. Each subclasses the one of Python's that says the same, so code that knows only those works too."""

from __future__ import annotations

import asyncio
import queue
import sys


class TidegateError(Exception):
    """Any error of this package."""


class QueueFullError(TidegateError, queue.Full, asyncio.QueueFull):
    """There is no room; trying again after ``retry_after`` seconds is likely to succeed."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(QueueFullError):
    """More came than the rate allows."""


class QueueClosedError(TidegateError, RuntimeError):
    """Nothing is taken in any more."""


if sys.version_info >= (3, 11):
    _Timeout = TimeoutError
else:

    class _Timeout(TimeoutError, asyncio.TimeoutError):
        """Before Python 3.11 these are two kinds."""


class DeadlineExceededError(TidegateError, _Timeout):
    """The time that was given had passed before there was an outcome."""


class InvalidRequestError(TidegateError, ValueError):
    """The request can never be served as it stands; ``parameter`` says what is wrong where that is known."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class UnknownModelError(TidegateError, LookupError):
    """There is no model of that name."""


class UnknownTaskError(TidegateError, LookupError):
    """There is no task of that number, or nothing is known of it any more."""


class ModelMissingError(TidegateError, FileNotFoundError):
    """There is no model at that path."""


class ModelLoadError(TidegateError, OSError):
    """The files of a model are wrong or are not read."""


class EngineStoppedError(TidegateError, RuntimeError):
    """The engine does not run: it has not started, is draining, or was closed."""


class EngineError(TidegateError, RuntimeError):
    """The engine failed on an accepted request."""


class TaskFailedError(TidegateError, RuntimeError):
    """Work was given up after ``attempts`` attempts in ``stage``; the last error is its cause."""

    def __init__(self, message: str, stage: str | None = None, attempts: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.attempts = attempts


class CircuitOpenError(TidegateError, ConnectionError):
    """A stage failed so often that it is not called for ``retry_after`` seconds."""

    def __init__(self, message: str, stage: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.retry_after = retry_after


class ImpossibleError(TidegateError, ValueError):
    """Work asks for more than the machine has, or for something that it does not have."""


class OffloadFailedError(TidegateError, MemoryError):
    """A tensor could not be put away or brought back: there is no room, or the disk failed."""
