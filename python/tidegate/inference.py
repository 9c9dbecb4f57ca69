"""An engine around one model: a folder of ours, or any function or torch module, which is then batched dynamically."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .callables import on_batches
from .engine import Engine, level_of
from .errors import EngineStoppedError
from .lanes import Flight, Lane
from .metrics import AsyncMetrics


@dataclass
class MultiGPUConfig:
    """Devices that share the work. On a machine without GPUs each is a lane of its own on the processor, and of a native model
    a replica on a group of processors, as far as there are processors."""

    enabled: bool = False
    strategy: str = "data_parallel"
    device_ids: list[int] = field(default_factory=lambda: [0])
    load_balancing: str = "dynamic"


@dataclass
class DeviceConfig:
    """Where the model runs. Where there is no GPU, ``cuda`` means the processor, and ``get_status`` says so."""

    device_type: str = "cpu"
    multi_gpu: MultiGPUConfig = field(default_factory=MultiGPUConfig)


@dataclass
class BatchConfig:
    """At most ``batch_size`` inputs go together. With ``adaptive_batching`` none waits while the model is idle; without,
    an input waits for others for up to ``max_delay_ms``. ``calls`` says whether a function is given a list or one input.
    A batch that takes longer than ``restart_after`` seconds fails, and the next is computed on another thread; ``None``: none."""

    batch_size: int = 16
    adaptive_batching: bool = True
    max_delay_ms: float = 5.0
    max_queue: int = 1024
    calls: Literal["batch", "item"] = "batch"
    restart_after: float | None = 600.0


@dataclass
class InferenceConfig:
    """Device and batches of an :class:`InferenceEngine`."""

    device: DeviceConfig = field(default_factory=DeviceConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)


@dataclass
class EngineConfig:
    """What else an :class:`InferenceEngine` does. ``get_status()["options"]`` says of each option what it means here."""

    cache_enabled: bool = True
    max_cache_size: int = 1000
    tensor_cache_enabled: bool = True
    model_compilation_enabled: bool = True
    use_channels_last: bool = True
    use_mixed_precision: bool = True
    use_memory_pool: bool = True
    continuous_batching: bool = True
    adaptive_timeout: bool = True
    request_coalescing: bool = True
    use_cuda_graphs: bool = False
    enable_tensorrt: bool = False
    use_pinned_memory: bool = True
    parallel_workers: int = 8
    use_lock_free_queue: bool = True
    thread_affinity: bool = True
    numa_aware: bool = False


@dataclass
class InferenceRequest:
    """A request of a batch. ``priority`` is more urgent the larger it is; ``timeout`` is in seconds."""

    id: str
    inputs: Any
    future: Any = None
    timestamp: float = field(default_factory=time.time)
    priority: int = 0
    timeout: float | None = None
    similarity_hash: str | None = None
    input_shape: tuple[int, ...] | None = None


_NATIVE = "done by the engine on every request"
_MEANING = {
    "tensor_cache_enabled": ("keys and values of equal beginnings are shared", "no effect: a function has no tensors of ours"),
    "model_compilation_enabled": ("weights are packed for this processor", "no effect: compile the module before handing it over"),
    "use_channels_last": ("no effect: text models have no channels", "no effect: lay the module out before handing it over"),
    "use_mixed_precision": ("give Engine(dtype=...) for another precision", "torch modules run under autocast to bfloat16 where they are given floats on a GPU; no effect on a processor"),
    "use_memory_pool": (_NATIVE, "no effect: torch has a pool of its own"),
    "continuous_batching": (_NATIVE, "inputs that come while a batch runs make up the next one"),
    "adaptive_timeout": (_NATIVE, "the wait for others follows the rate at which inputs come"),
    "use_cuda_graphs": ("no effect: there is no GPU", "no effect: there is no GPU"),
    "enable_tensorrt": ("no effect: there is no GPU", "no effect: there is no GPU"),
    "use_pinned_memory": ("no effect: there is no GPU to transfer to", "no effect: there is no GPU to transfer to"),
    "use_lock_free_queue": ("requests reach the engine through a channel of commands", "requests reach the batcher without the interpreter's lock"),
    "thread_affinity": ("compute threads are not bound; the system places them", "no effect: functions choose their threads"),
    "numa_aware": ("each compute thread touches its weights first, so they are near it", "no effect: functions allocate for themselves"),
}


class InferenceEngine:
    """Serves a model: validates, queues by priority, batches, caches, measures; starts, stops and restarts.

    ``model`` is a path or an :class:`Engine` (run natively; inputs are prompts and results completions), a torch module
    (inputs are tensors of one shape, stacked) or a function from a list of inputs to a list of results.
    """

    def __init__(
        self,
        model: Any,
        config: InferenceConfig | None = None,
        engine_config: EngineConfig | None = None,
        enable_multi_gpu: bool = False,
    ) -> None:
        self.model = model
        self.config = config or InferenceConfig()
        self.engine_config = engine_config or EngineConfig()
        self._is_native = model is None or isinstance(model, (str, os.PathLike, Engine))
        if not self._is_native and not callable(model):
            raise TypeError(f"{type(model).__name__} is no model; give a path, an Engine, a module or a function")
        self._multi = enable_multi_gpu or self.config.device.multi_gpu.enabled
        self._engine: Engine | None = None
        self._lanes: list[Lane] = []
        self._metrics = AsyncMetrics()
        self._cache: OrderedDict[bytes, Any] = OrderedDict()
        self._in_flight: dict[bytes, Flight] = {}
        # Requests come from event loops and from threads alike; nothing is awaited under these.
        self._state, self._life = threading.Lock(), threading.Lock()
        self._caching = self.engine_config.cache_enabled
        self._by_priority = True
        self._counts = {"requests": 0, "failed": 0, "hits": 0, "misses": 0, "coalesced": 0}
        self._errors: dict[str, int] = {}
        self._last_error: str | None = None
        self._began: float | None = None
        self._processor_time = 0.0

    async def start(self) -> None:
        """Loads the model and begins to serve."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        with self._life:
            if self._began is not None:
                return
            self._metrics = AsyncMetrics()
            if not self._is_native:
                self._lanes = [self._lane() for _ in range(self._wanted_lanes())]
            elif isinstance(self.model, Engine):
                self._engine = self.model
            else:
                self._engine = Engine(self.model, max_queue=self.config.batch.max_queue, devices=self._native_devices())
            if self._engine is not None and self._caching:
                asyncio.run(self._engine.keep_results(self._kept_bytes()))
            self._processor_time = time.process_time()
            self._began = time.monotonic()

    async def stop(self) -> dict[str, Any]:
        """Lets what was accepted end, gives everything back, and answers the last performance metrics."""
        report = self.get_performance_metrics() if self._began is not None else {}
        lanes, self._lanes, self._began = self._lanes, [], None
        await asyncio.gather(*(lane.stop() for lane in lanes))
        engine, self._engine = self._engine, None
        if engine is not None and engine is not self.model:
            await engine.__aexit__(None, None, None)
        self._cache.clear()
        return report

    async def restart(self) -> None:
        """Stops and starts again."""
        await self.stop()
        await self.start()

    async def process_request(self, inputs: Any, priority: int = 0, timeout: float | None = None, **kwargs: Any) -> Any:
        """The result for one input. Raises ``asyncio.TimeoutError`` after ``timeout`` seconds, wherever the request is."""
        if self._began is None:
            raise EngineStoppedError("the engine does not run; await start() first")
        with self._counted():
            flight = self._join(inputs, priority, timeout, kwargs)
            try:
                return self._told(await flight.outcome(timeout))
            finally:
                self._leave(flight)

    async def process_batch(self, requests: list[InferenceRequest]) -> list[Any]:
        """The results of several requests, in their order. One that fails has its exception there, and its ``future``
        too, if it has one; the others are not concerned."""

        async def one(request: InferenceRequest) -> Any:
            outcome: Any
            try:
                outcome = await self.process_request(request.inputs, request.priority, request.timeout)
            except Exception as error:
                outcome = error
            if request.future is not None and not request.future.done():
                _settle(request.future, outcome)
            return outcome

        return list(await asyncio.gather(*(one(request) for request in requests)))

    def process_request_sync(self, inputs: Any, priority: int = 0, timeout: float | None = None, **kwargs: Any) -> Any:
        """As :meth:`process_request` for threads; starts the engine if it does not run."""
        if self._began is None:
            # A thread that runs an event loop may ask too, and cannot run another one.
            with concurrent.futures.ThreadPoolExecutor(1) as beside:
                beside.submit(self._open).result()
        with self._counted():
            flight = self._join(inputs, priority, timeout, kwargs)
            try:
                return self._told(flight.outcome_here(timeout))
            finally:
                self._leave(flight)

    def get_performance_metrics(self) -> dict[str, Any]:
        """Throughput since the start, latency in milliseconds, resources, batches and cache."""
        times = self._metrics.get_processing_times().get("request", {})
        batches = self._metrics.get_processing_times().get("batch", {})
        seconds = max(self._uptime(), 1e-9)
        count, failed = float(times.get("count", 0)), float(batches.get("failed", 0))
        total, mean = float(batches.get("count", 0)), float(batches.get("mean_ms", 0.0))
        if self._engine is not None:
            status = self._engine.status()
            steps = status["latency"]["step"]
            total = float(status["counters"]["steps"])
            mean = 1e3 * steps["sum"] / max(1, sum(steps["counts"]))
        looked = self._counts["hits"] + self._counts["misses"]
        sizes = sum(lane.items for lane in self._lanes) if self._lanes else count
        return {
            "throughput": {
                "requests_per_second": count / seconds,
                "batches_per_second": total / seconds,
                "average_batch_size": sizes / total if total else 0.0,
            },
            "latency": {f"{name}_ms": float(times.get(f"{name}_ms", 0.0)) for name in ("mean", "p50", "p95", "p99")},
            "resource_usage": self.get_resource_usage(),
            "batch_stats": {
                "total_batches": int(total),
                "successful_batches": int(total - failed),
                "failed_batches": int(failed),
                "average_processing_time_ms": mean,
                "average_batch_size": sizes / total if total else 0.0,
            },
            "cache_stats": {
                "hit_rate": self._counts["hits"] / looked if looked else 0.0,
                "total_hits": self._counts["hits"],
                "total_misses": self._counts["misses"],
                "cache_size": len(self._cache),
            },
            "errors": dict(self._errors),
        }

    def get_queue_size(self) -> int:
        """Requests that wait."""
        if self._engine is not None:
            return int(self._engine.status()["load"]["queued"])
        return sum(lane.waiting for lane in self._lanes)

    def get_worker_count(self) -> int:
        """Lanes on which a function is called; of a native model its compute threads."""
        return len(self._lanes) if self._engine is None else int(self._engine.summary["threads"])

    def get_resource_usage(self) -> dict[str, float]:
        """Memory of the process in MB, the processor's share of the time since the start, and what a GPU would have."""
        memory = self._metrics.get_memory_stats()
        worked = time.process_time() - self._processor_time
        process = worked / max(self._uptime(), 1e-9) / (os.cpu_count() or 1)
        used = {"cpu_utilization": min(1.0, process), "memory_mb": float(memory["process_bytes"] or 0) / 1e6}
        return {"gpu_utilization": 0.0, "gpu_memory_mb": 0.0, **used}

    def scale_workers(self, count: int) -> None:
        """Has that many lanes call the function from now on; lanes too many end when they have nothing left to do.

        The compute threads of a native model are chosen when it is opened; there this changes nothing, and
        ``get_status()["options"]["parallel_workers"]`` says so.
        """
        if count < 1:
            raise ValueError(f"scale_workers({count}); at least one worker is needed")
        if self._engine is not None or self._began is None:
            self.engine_config.parallel_workers = count
            return
        with self._state:
            lanes, added = self._lanes[:count], count - len(self._lanes)
            surplus, self._lanes = self._lanes[count:], lanes + [self._lane() for _ in range(added)]
        for lane in surplus:
            _in_background(lane.stop())

    def set_batch_size(self, size: int) -> None:
        """At most so many inputs go together from now on, those that wait already included."""
        if size < 1:
            raise ValueError(f"set_batch_size({size}); a batch has at least one input")
        self.config.batch.batch_size = size
        with self._state:
            old, self._lanes = self._lanes, [self._lane() for _ in self._lanes]
            for lane, new in zip(old, self._lanes, strict=True):
                new.busy = lane.busy
                while lane.give(new):
                    pass
        for lane in old:
            _in_background(lane.stop())

    def enable_caching(self, enabled: bool) -> None:
        """Keeps results of equal inputs from now on, or not."""
        self._caching = enabled
        if self._engine is not None:
            _at_once(self._engine.keep_results(self._kept_bytes() if enabled else 0))
        if not enabled:
            self.clear_cache()

    def clear_cache(self) -> None:
        """Forgets all results that are kept."""
        with self._state:
            self._cache.clear()
        if self._engine is not None:
            _at_once(self._engine.clear_results())

    def set_priority_mode(self, enabled: bool) -> None:
        """Serves by priority, or all alike in the order in which they come."""
        self._by_priority = enabled

    def health_check(self) -> dict[str, Any]:
        """``status`` is ``healthy``, ``degraded`` (it works, with ``reasons``) or ``unhealthy``."""
        state, reasons = self._health()
        memory = self._metrics.get_memory_stats()
        return {
            "status": state,
            "engine_running": self._began is not None,
            "model_loaded": self._engine is not None or bool(self._lanes),
            "workers_active": self.get_worker_count() if self._began is not None else 0,
            "queue_size": self.get_queue_size(),
            "memory_usage": memory["used_share"],
            "gpu_available": False,
            "last_error": self._last_error,
            "uptime_seconds": self._uptime(),
            "reasons": reasons,
        }

    def is_ready(self) -> bool:
        """Whether requests are served."""
        return self._began is not None and self._health()[0] != "unhealthy"

    def get_status(self) -> dict[str, Any]:
        """Health, configuration, and of every option what it means on this machine."""
        which = 0 if self._is_native else 1
        options = {name: meaning[which] for name, meaning in _MEANING.items()}
        if self._is_native:
            options["parallel_workers"] = "no effect: give Engine(threads=...); batching needs no workers"
        if self.config.device.device_type != "cpu":
            options["device_type"] = f"'{self.config.device.device_type}' is not there; the processor does the work"
        settings = {"config": asdict(self.config), "engine_config": asdict(self.engine_config)}
        return {**self.health_check(), **settings, "options": options, "counts": dict(self._counts)}

    def get_gpu_utilization(self) -> dict[int, float]:
        """The share of the time since the start in which each device worked, 0 to 1; see :class:`MultiGPUConfig`."""
        uptime = max(self._uptime(), 1e-9)
        if self._engine is not None:
            return {number: min(1.0, device["busy_seconds"] / uptime) for number, device in self._placed().items()}
        return {device: lane.busy / uptime for device, lane in self._devices().items()}

    def get_gpu_memory_usage(self) -> dict[int, dict[str, float]]:
        """Memory of each device in MB: what a native model plans with there; lanes of a function share that of the process."""
        memory = self._metrics.get_memory_stats()
        used, total = (float(memory[name] or 0) / 1e6 for name in ("process_bytes", "total_bytes"))
        if self._engine is not None:
            planned = {number: device["memory_bytes"] / 1e6 for number, device in self._placed().items()}
            return {number: {"used_mb": used, "total_mb": total} for number, used in planned.items()}
        return {device: {"used_mb": used, "total_mb": total} for device in self._devices()}

    def rebalance_gpus(self) -> None:
        """Moves inputs that wait from the devices that have most to do to those that have least, until they are even.

        What comes goes to the device with least to do anyway; this helps where batches of some took longer than those of
        others. Each input is computed once, wherever it is.
        """
        if self._engine is not None:
            _at_once(self._engine.rebalance())
            return
        with self._state:
            lanes = sorted(self._lanes, key=lambda lane: lane.load)
            for fullest in reversed(lanes):
                while True:
                    emptiest = min(lanes, key=lambda lane: lane.load)
                    if fullest.load - emptiest.load < 2 or not fullest.give(emptiest):
                        break
            for lane in lanes:
                lane.served = 0

    def _native_devices(self) -> int:
        """On how many groups of processors a native model has a replica: no more than there are processors."""
        wanted = len(self.config.device.multi_gpu.device_ids) if self._multi else 1
        return max(1, min(wanted, len(os.sched_getaffinity(0))))

    def _placed(self) -> dict[int, dict[str, Any]]:
        """What a native model says of its devices."""
        assert self._engine is not None
        devices = self._engine.status()["devices"]
        ids = self.config.device.multi_gpu.device_ids if self._multi else range(len(devices))
        return dict(zip(ids, devices, strict=False))

    def _devices(self) -> dict[int, Lane]:
        ids = self.config.device.multi_gpu.device_ids if self._multi else range(len(self._lanes))
        return dict(zip(ids, self._lanes, strict=False))

    def _wanted_lanes(self) -> int:
        return len(self.config.device.multi_gpu.device_ids) if self._multi else self.engine_config.parallel_workers

    def _kept_bytes(self) -> int:
        """Memory for the answers of a native model, at 4 KiB each."""
        return self.engine_config.max_cache_size << 12

    def _lane(self) -> Lane:
        batch = self.config.batch
        settings = {
            "batch_size": batch.batch_size,
            "delay": 0.0 if batch.adaptive_batching else batch.max_delay_ms / 1e3,
            "max_queue": batch.max_queue,
            "restart_after": batch.restart_after,
        }
        return Lane(on_batches(self.model, batch.calls), settings, self._metrics)

    def _best_lane(self) -> Lane:
        # Filling one lane's batches is worth more than spreading inputs thinly over many.
        size = self.config.batch.batch_size
        return min(self._lanes, key=lambda lane: (lane.load // size, lane.served if self._multi else 0))

    def _level(self, priority: int) -> Any:
        return level_of(priority) if self._by_priority else "normal"

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Times and counts a request, however it is waited for."""
        with self._state:
            self._counts["requests"] += 1
        try:
            with self._metrics.track_processing_time("request"):
                yield
        except Exception as error:
            name = type(error).__name__
            with self._state:
                self._counts["failed"] += 1
                self._errors[name] = self._errors.get(name, 0) + 1
                self._last_error = f"{name}: {error}"
            raise

    def _join(self, inputs: Any, priority: int, timeout: float | None, kwargs: dict[str, Any]) -> Flight:
        """What computes an input: a new flight, one that is under way already, or one that has landed in the cache."""
        level, engine = self._level(priority), self._engine
        if engine is not None:
            return Flight(engine.submit(inputs, priority=level, timeout=timeout, **kwargs))
        if kwargs:
            raise TypeError(f"a function takes no {', '.join(kwargs)}; only models that run natively have options")
        key = _key(inputs) if self._caching or self.engine_config.request_coalescing else None
        with self._state:
            if key is not None and (known := self._known(key)) is not None:
                return known
            if not self._lanes:
                raise EngineStoppedError("the engine was stopped")
            flight = Flight(self._best_lane().begin(inputs, level), key)
            if key is not None:
                self._in_flight[key] = flight
        flight.handle.add_done_callback(lambda _: self._land(flight))
        return flight

    def _known(self, key: bytes) -> Flight | None:
        flight = self._in_flight.get(key)
        # Whoever waits on a thread may go on, and ask again, before the handle has called anybody back.
        if flight is not None and flight.handle.done():
            self._keep(flight)
            flight = None
        if self._caching and key in self._cache:
            self._counts["hits"] += 1
            self._cache.move_to_end(key)
            return Flight.landed(self._cache[key])
        self._counts["misses"] += 1
        if flight is None or not self.engine_config.request_coalescing:
            return None
        self._counts["coalesced"] += 1
        flight.waiting += 1
        return flight

    def _land(self, flight: Flight) -> None:
        with self._state:
            self._keep(flight)

    def _keep(self, flight: Flight) -> None:
        """Takes a flight that has ended out of those under way, and keeps its result; once, and within the lock."""
        handle, key, flight.key = flight.handle, flight.key, None
        if key is None:
            return
        if self._in_flight.get(key) is flight:
            del self._in_flight[key]
        if self._caching and self._began is not None and not handle.cancelled() and handle.exception() is None:
            self._cache[key] = handle.result()
            while len(self._cache) > self.engine_config.max_cache_size:
                self._cache.popitem(last=False)

    def _leave(self, flight: Flight) -> None:
        with self._state:
            flight.waiting -= 1
            if flight.waiting or flight.handle.done():
                return
            if flight.key is not None and self._in_flight.get(flight.key) is flight:
                del self._in_flight[flight.key]
        flight.handle.cancel()

    def _told(self, answer: Any) -> Any:
        if self._engine is not None:
            with self._state:
                self._counts["hits" if answer.reused else "misses"] += 1
        return answer

    def _health(self) -> tuple[str, list[str]]:
        if self._began is None:
            return "unhealthy", ["the engine does not run"]
        states = [self._engine.status()] if self._engine else [lane.status() for lane in self._lanes]
        reasons = [reason for state in states for reason in state["health"].get("reasons", [])]
        kinds = {state["health"]["state"] for state in states}
        if self._counts["failed"] * 2 > self._counts["requests"] > 10:
            reasons.append(f"{self._counts['failed']} of {self._counts['requests']} requests failed")
            kinds.add("degraded")
        worst = next((kind for kind in ("unhealthy", "degraded") if kind in kinds), "healthy")
        return worst, reasons

    def _uptime(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began


def _key(inputs: Any) -> bytes | None:
    """What stands for an input; nothing for one that cannot be told from others."""
    try:
        return pickle.dumps(inputs, 5)
    except Exception:
        return None


def _settle(future: Any, outcome: Any) -> None:
    """Completes a future of another loop, or of a thread, from here."""
    settle = future.set_exception if isinstance(outcome, BaseException) else future.set_result
    loop = future.get_loop() if isinstance(future, asyncio.Future) else None
    if isinstance(future, concurrent.futures.Future) or loop is asyncio.get_running_loop():
        settle(outcome)
    elif loop is not None:
        loop.call_soon_threadsafe(settle, outcome)


_background: set[asyncio.Future[Any]] = set()


def _in_background(work: Coroutine[Any, Any, Any]) -> None:
    """Lets work end by itself: on the running loop, or on a thread where none runs."""
    try:
        task = asyncio.get_running_loop().create_task(work)
    except RuntimeError:
        threading.Thread(target=asyncio.run, args=(work,), name="tidegate-lane").start()
        return
    _background.add(task)
    task.add_done_callback(_background.discard)


def _at_once(work: Coroutine[Any, Any, Any]) -> None:
    """Lets quick work end: soon on the running loop, or before this returns where none runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    _in_background(work)
