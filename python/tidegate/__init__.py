"""Tidegate: an asynchronous inference engine. Start with :class:`Engine`; the rest of the package runs on it or beside it.

Importing this package imports neither torch nor numpy. Objects of theirs are understood when they are handed over.
"""

from __future__ import annotations

from .engine import Choice, Completion, Embeddings, Engine, Event, Logprob, Timing, Usage
from .errors import (
    CircuitOpenError,
    DeadlineExceededError,
    EngineError,
    EngineStoppedError,
    ImpossibleError,
    InvalidRequestError,
    ModelLoadError,
    ModelMissingError,
    QueueClosedError,
    QueueFullError,
    RateLimitedError,
    TaskFailedError,
    TidegateError,
    UnknownModelError,
)
from .graph import ComputationNode, LazyGraph
from .handle import Handle, as_completed
from .metrics import AsyncMetrics
from .pipeline import AsyncPipeline, PipelineConfig
from .queues import AdvancedQueue, DeadLetter, Lease, Priority, QueueAlgorithm, QueueConfig
from .scheduling import Device, ResourceScheduler, SchedulerConfig, TaskPriority
from .streaming import StreamConfig, StreamProcessor

__all__ = [
    "AdvancedQueue",
    "AsyncMetrics",
    "AsyncPipeline",
    "Choice",
    "CircuitOpenError",
    "Completion",
    "ComputationNode",
    "DeadLetter",
    "DeadlineExceededError",
    "Device",
    "Embeddings",
    "Engine",
    "EngineError",
    "EngineStoppedError",
    "Event",
    "Handle",
    "ImpossibleError",
    "InvalidRequestError",
    "LazyGraph",
    "Lease",
    "Logprob",
    "ModelLoadError",
    "ModelMissingError",
    "PipelineConfig",
    "Priority",
    "QueueAlgorithm",
    "QueueClosedError",
    "QueueConfig",
    "QueueFullError",
    "RateLimitedError",
    "ResourceScheduler",
    "SchedulerConfig",
    "StreamConfig",
    "StreamProcessor",
    "TaskFailedError",
    "TaskPriority",
    "TidegateError",
    "Timing",
    "UnknownModelError",
    "Usage",
    "as_completed",
]
