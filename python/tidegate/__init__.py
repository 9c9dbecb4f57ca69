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
    OffloadFailedError,
    QueueClosedError,
    QueueFullError,
    RateLimitedError,
    TaskFailedError,
    TidegateError,
    UnknownModelError,
    UnknownTaskError,
)
from .glm import AsyncGLM
from .graph import ComputationNode, LazyGraph
from .handle import Handle, as_completed
from .inference import (
    BatchConfig,
    DeviceConfig,
    EngineConfig,
    InferenceConfig,
    InferenceEngine,
    InferenceRequest,
    MultiGPUConfig,
)
from .metrics import AsyncMetrics
from .multimodal import (
    AsyncMultimodalProcessor,
    AsyncMultimodalRequest,
    AsyncMultimodalResult,
    MultimodalModel,
    MultimodalPlugin,
    create_qwen3_vl_2b_instruct_plugin,
)
from .offloading import GPUOffloader, OffloadConfig, OffloadedTensor
from .parallel import ExecutionLanes, QueryResult, mixed_precision, parallel_run
from .pipeline import AsyncPipeline, PipelineConfig
from .queues import AdvancedQueue, DeadLetter, Lease, Priority, QueueAlgorithm, QueueConfig
from .scheduling import Device, ResourceScheduler, SchedulerConfig, TaskPriority
from .streaming import StreamConfig, StreamProcessor
from .training import TrainingConfig, TrainingIntegration, prefetched

__all__ = [
    "AdvancedQueue",
    "AsyncGLM",
    "AsyncMetrics",
    "AsyncMultimodalProcessor",
    "AsyncMultimodalRequest",
    "AsyncMultimodalResult",
    "AsyncPipeline",
    "BatchConfig",
    "Choice",
    "CircuitOpenError",
    "Completion",
    "ComputationNode",
    "DeadLetter",
    "DeadlineExceededError",
    "Device",
    "DeviceConfig",
    "Embeddings",
    "Engine",
    "EngineConfig",
    "EngineError",
    "EngineStoppedError",
    "Event",
    "ExecutionLanes",
    "GPUOffloader",
    "Handle",
    "ImpossibleError",
    "InferenceConfig",
    "InferenceEngine",
    "InferenceRequest",
    "InvalidRequestError",
    "LazyGraph",
    "Lease",
    "Logprob",
    "ModelLoadError",
    "ModelMissingError",
    "MultiGPUConfig",
    "MultimodalModel",
    "MultimodalPlugin",
    "OffloadConfig",
    "OffloadFailedError",
    "OffloadedTensor",
    "PipelineConfig",
    "Priority",
    "QueryResult",
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
    "TrainingConfig",
    "TrainingIntegration",
    "UnknownModelError",
    "UnknownTaskError",
    "Usage",
    "as_completed",
    "create_qwen3_vl_2b_instruct_plugin",
    "mixed_precision",
    "parallel_run",
    "prefetched",
]
