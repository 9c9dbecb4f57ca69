"""Generation in the background for models of transformers: submit, go on with other work, fetch results."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from .engine import Completion, Engine, Event, PriorityName
from .errors import DeadlineExceededError, EngineStoppedError, QueueFullError, UnknownTaskError
from .handle import Handle

FAMILIES = ("gpt2", "qwen3")
"""Values of ``model_type`` that the engine runs itself."""

_TRANSLATED = {
    "attention_mask",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "num_return_sequences",
    "pad_token_id",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "use_cache",
}
"""Arguments of ``generate`` that mean the same to the engine."""

_MOST_ENDS = 64
"""So many tokens may end a text in the engine."""

_Task = tuple[int, Any, dict[str, Any], PriorityName, Handle[Any]]


class AsyncGLM:
    """Generates in the background what ``model.generate`` would return.

    ``model`` is a model of transformers, a path, or an :class:`Engine`. One of a family that the engine knows
    (:data:`FAMILIES`) runs natively, in continuous batches: its weights are read where they are, when it starts, and
    packed for the engine; what is done to them later means nothing to it. Any other runs through its own ``generate`` on
    a worker, and so does a call with arguments that only transformers knows, such as ``num_beams``.
    Greedy outputs are the same either way; sampled ones are drawn from another generator.

    At most ``max_queue_size`` tasks wait. Results can be fetched until they are ``result_ttl`` seconds old or all kept
    results are larger than ``result_bytes``, of which the oldest go first; asking for one that went says so.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        max_queue_size: int = 10,
        generation_kwargs: Mapping[str, Any] | None = None,
        *,
        native: bool | None = None,
        max_running: int = 64,
        result_ttl: float = 3600.0,
        result_bytes: int = 256 << 20,
        **engine_options: object,
    ) -> None:
        if max_queue_size < 1:
            raise ValueError(f"max_queue_size={max_queue_size}; at least 1 task must be able to wait")
        self.model = model
        self.tokenizer = tokenizer
        self.max_queue_size = max_queue_size
        self.generation_kwargs = dict(generation_kwargs or {})
        self.result_ttl = result_ttl
        self.result_bytes = result_bytes
        self._engine_options = {"max_sequences": max_running, **engine_options}
        self._max_running = max_running
        self._engine: Engine | None = model if isinstance(model, Engine) else None
        self._worker: concurrent.futures.ThreadPoolExecutor | None = None
        known = isinstance(model, (str, os.PathLike, Engine))
        self._native = known or (_family(model) in FAMILIES if native is None else native)
        self._ids = itertools.count()
        self._state = threading.Condition()
        self._waiting: deque[_Task] = deque()
        self._running = 0
        self._handles: dict[int, Handle[Any]] = {}
        self._kept: OrderedDict[int, tuple[float, int]] = OrderedDict()
        self._started = self._stopped = False

    @property
    def is_native(self) -> bool:
        """Whether the engine runs the model; else its own ``generate`` does, on a worker."""
        return self._native

    def start(self) -> None:
        """Begins to work on tasks. Calling it again does nothing."""
        with self._state:
            if self._stopped:
                raise EngineStoppedError("this AsyncGLM was shut down; make another one")
            if self._started:
                return
            if self._native and self._engine is None:
                self._engine = Engine(self.model, tokenizer=self.tokenizer, cache=False, **self._engine_options)
            self._started = True
        self._dispatch()

    def submit(
        self,
        inputs: Any,
        generation_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        priority: PriorityName = "normal",
    ) -> int:
        """Puts a task in: ids of shape (tokens) or (batch, tokens), or a dictionary with ``input_ids``; answers its number.

        Where ``max_queue_size`` tasks wait, this waits too, for at most ``timeout`` seconds; then it raises
        :class:`QueueFullError`, which is a ``queue.Full``.
        """
        kwargs = {**self.generation_kwargs, **(generation_kwargs or {})}
        handle: Handle[Any] = Handle(lambda value: value)
        with self._state:
            has_room = lambda: self._stopped or len(self._waiting) < self.max_queue_size or self._can_run()
            if not self._state.wait_for(has_room, timeout):
                raise QueueFullError(f"{self.max_queue_size} tasks wait already, as many as max_queue_size says")
            if self._stopped:
                raise EngineStoppedError("this AsyncGLM was shut down and takes no more tasks")
            self._drop_old()
            task = next(self._ids)
            self._handles[task] = handle
            self._waiting.append((task, inputs, kwargs, priority, handle))
        handle.add_done_callback(lambda _: self._ended(task))
        self._dispatch()
        return task

    def get_result(self, task_id: int, timeout: float | None = None) -> Any:
        """What ``generate`` returns for the task; raises what it raised, or ``TimeoutError`` after ``timeout`` seconds."""
        try:
            return self.handle(task_id).result(timeout)
        except concurrent.futures.TimeoutError:
            if timeout is None:
                raise
            raise DeadlineExceededError(f"task {task_id} has no result after {timeout} s; it goes on") from None

    def is_ready(self, task_id: int) -> bool:
        """Whether the task has ended."""
        return self.handle(task_id).done()

    def handle(self, task_id: int) -> Handle[Any]:
        """The task as a handle: awaitable, a concurrent future, and to be cancelled."""
        with self._state:
            if task_id in self._handles:
                return self._handles[task_id]
        raise UnknownTaskError(
            f"there is no task {task_id}, or its result was dropped: results are kept for {self.result_ttl:.0f} s and"
            f" {self.result_bytes} bytes in all (result_ttl, result_bytes)"
        )

    def cancel(self, task_id: int) -> bool:
        """Ends a task wherever it is; answers whether it had not ended before."""
        return self.handle(task_id).cancel()

    def as_completed(self, task_ids: Iterable[int] | None = None, timeout: float | None = None) -> Iterator[int]:
        """The numbers of tasks, of all where none are named, in the order in which they end."""
        with self._state:
            known = dict(self._handles)
        chosen = list(known) if task_ids is None else list(task_ids)
        by_handle = {self.handle(task): task for task in chosen}
        for handle in concurrent.futures.as_completed(by_handle, timeout):
            yield by_handle[handle]  # type: ignore[index]

    async def stream(
        self, inputs: Any, generation_kwargs: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Event]:
        """The events of a task with one row, as they come; only of models that run natively."""
        kwargs = {**self.generation_kwargs, **(generation_kwargs or {})}
        self.start()
        if self._engine is None or not self._can_translate(kwargs):
            raise ValueError("only a model that runs natively can be streamed, without arguments of transformers' own")
        ids, mask = _ids_and_mask(inputs)
        (prompt,) = _prompts(ids, mask, self._default(kwargs, "pad_token_id"), self._ends(kwargs))
        request = self._request(kwargs, len(prompt), ids.shape[-1])
        async for event in self._engine.stream(prompt, **request):
            yield event

    def queue_size(self) -> int:
        """Tasks that wait and have not begun."""
        with self._state:
            return len(self._waiting)

    def shutdown(self, wait: bool = True, timeout: float | None = None) -> None:
        """Takes no more tasks. With ``wait`` those that are there end first, but for at most ``timeout`` seconds; the rest
        is cancelled. Results that are there can still be fetched."""
        if wait and self._started:
            until = None if timeout is None else time.monotonic() + timeout
            with self._state:
                self._stopped = True
                self._state.notify_all()
                left = None if until is None else max(0.0, until - time.monotonic())
                self._state.wait_for(lambda: not self._waiting and not self._running, left)
        with self._state:
            self._stopped = True
            self._state.notify_all()
            handles = [handle for handle in self._handles.values() if not handle.done()]
        for handle in handles:
            handle.cancel()
        if self._worker is not None:
            self._worker.shutdown(wait=wait and timeout is None, cancel_futures=True)
        if self._engine is not None and self._engine is not self.model:
            self._engine.close()

    def __enter__(self) -> AsyncGLM:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(wait=error is None)

    async def __aenter__(self) -> AsyncGLM:
        import asyncio

        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.shutdown, error is None)

    def _can_run(self) -> bool:
        return self._started and self._running < self._max_running

    def _dispatch(self) -> None:
        """Begins with tasks that wait while there is room for them to run."""
        while True:
            with self._state:
                if not self._waiting or not self._can_run():
                    return
                _, inputs, kwargs, priority, handle = self._waiting.popleft()
                self._running += 1
                self._state.notify_all()
            handle.add_done_callback(self._gives_room)
            if handle.done():
                continue
            try:
                if self._native and self._can_translate(kwargs):
                    self._run_natively(inputs, kwargs, priority, handle)
                else:
                    self._run_on_worker(inputs, kwargs, handle)
            except BaseException as error:  # noqa: B902 - whoever waits for the task is to have it
                handle._fail(error)

    def _gives_room(self, _: object) -> None:
        with self._state:
            self._running -= 1
            self._state.notify_all()
        self._dispatch()

    def _ended(self, task: int) -> None:
        """Counts what a task leaves behind."""
        with self._state:
            handle = self._handles.get(task)
            self._waiting = deque(one for one in self._waiting if not one[4].cancelled())
            if handle is not None:
                has_result = not handle.cancelled() and handle.exception() is None
                self._kept[task] = (time.monotonic(), _size(handle.result()) if has_result else 0)
            self._drop_old()
            self._state.notify_all()

    def _drop_old(self) -> None:
        bytes_in_all = sum(size for _, size in self._kept.values())
        oldest = time.monotonic() - self.result_ttl
        while self._kept:
            task, (ended, size) = next(iter(self._kept.items()))
            # The last one stays even if it alone is larger than the bound, or nobody could ever fetch it.
            if ended >= oldest and (bytes_in_all <= self.result_bytes or len(self._kept) == 1):
                return
            bytes_in_all -= size
            del self._kept[task], self._handles[task]

    def _can_translate(self, kwargs: Mapping[str, Any]) -> bool:
        if self.model is self._engine or isinstance(self.model, (str, os.PathLike)):
            return True
        return set(kwargs) <= _TRANSLATED and len(self._ends(kwargs)) <= _MOST_ENDS

    def _run_natively(
        self, inputs: Any, kwargs: dict[str, Any], priority: PriorityName, handle: Handle[Any]
    ) -> None:
        assert self._engine is not None
        ids, mask = _ids_and_mask(inputs)
        mask = kwargs.get("attention_mask") if mask is None else mask
        pad, ends = self._default(kwargs, "pad_token_id"), self._ends(kwargs)
        prompts = _prompts(ids, mask, pad, ends)
        copies = int(kwargs.get("num_return_sequences") or 1)
        requests = [self._request(kwargs, len(prompt), ids.shape[-1]) for prompt in prompts]
        jobs = [
            self._engine.submit(prompt, priority=priority, choices=copies, **request)
            for prompt, request in zip(prompts, requests, strict=True)
        ]
        filler = pad if pad is not None else ends[0] if ends else 0
        left = threading.Lock(), [len(jobs)]

        def one_ended(job: concurrent.futures.Future[Completion]) -> None:
            if not job.cancelled() and (error := job.exception()) is not None:
                handle._fail(error)
                return
            with left[0]:
                left[1][0] -= 1
                is_last = not left[1][0]
            if is_last and not handle.done():
                try:
                    handle._succeed(_rows(ids, [one.result() for one in jobs], filler))
                except BaseException as error:  # noqa: B902
                    handle._fail(error)

        def abort() -> None:
            for job in jobs:
                job.cancel()

        handle._begin(abort)
        for job in jobs:
            job.add_done_callback(one_ended)

    def _run_on_worker(self, inputs: Any, kwargs: dict[str, Any], handle: Handle[Any]) -> None:
        if self._worker is None:
            self._worker = concurrent.futures.ThreadPoolExecutor(1, "tidegate-generate")

        def generate() -> None:
            if handle.done():
                return
            try:
                arguments = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": _batch(inputs)}
                handle._succeed(self.model.generate(**{**arguments, **kwargs}))
            except BaseException as error:  # noqa: B902
                handle._fail(error)

        self._worker.submit(generate)

    def _default(self, kwargs: Mapping[str, Any], name: str) -> Any:
        if kwargs.get(name) is not None:
            return kwargs[name]
        return getattr(getattr(self.model, "generation_config", None), name, None)

    def _ends(self, kwargs: Mapping[str, Any]) -> list[int]:
        ends = self._default(kwargs, "eos_token_id")
        return [] if ends is None else [int(end) for end in (ends if isinstance(ends, (list, tuple)) else [ends])]

    def _request(self, kwargs: Mapping[str, Any], tokens: int, width: int) -> dict[str, Any]:
        """The arguments of ``generate`` as those of a request. Lengths count padding, as transformers counts."""
        most = kwargs.get("max_new_tokens")
        if most is None and kwargs.get("max_length") is not None:
            most = int(kwargs["max_length"]) - width
        if most is None:
            most = self._default({}, "max_new_tokens")
        if most is None:
            length = self._default({}, "max_length")
            # Where nobody says anything, transformers adds 20 tokens to what it is given.
            most = 20 if length in (None, 20) else int(length) - width
        if most < 1:
            raise ValueError(f"the input has {width} tokens and max_length leaves no room; set max_new_tokens")
        least = kwargs.get("min_new_tokens") or (self._default(kwargs, "min_length") or 0) - width
        knows_ends = hasattr(self.model, "generation_config")
        request: dict[str, Any] = {"max_tokens": int(most), "min_tokens": max(0, int(least)), "ignore_eos": knows_ends}
        request["stop_token_ids"] = self._ends(kwargs)
        penalty = self._default(kwargs, "repetition_penalty")
        request["repetition_penalty"] = 1.0 if penalty is None else float(penalty)
        if not self._default(kwargs, "do_sample"):
            return {**request, "temperature": 0.0}
        defaults = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
        chosen = {name: self._default(kwargs, name) for name in defaults}
        sampling = {name: defaults[name] if value is None else value for name, value in chosen.items()}
        return {**request, **sampling}


def _family(model: Any) -> str | None:
    return getattr(getattr(model, "config", None), "model_type", None)


def _ids_and_mask(inputs: Any) -> tuple[Any, Any]:
    if isinstance(inputs, Mapping):
        return _batch(inputs["input_ids"]), inputs.get("attention_mask")
    return _batch(inputs), None


def _batch(ids: Any) -> Any:
    """Ids of shape (batch, tokens). Lists become tensors; a single row becomes a batch of one."""
    if isinstance(ids, (list, tuple)):
        import torch

        ids = torch.tensor(ids)
    return ids.unsqueeze(0) if ids.dim() == 1 else ids


def _prompts(ids: Any, mask: Any, pad: int | None, ends: list[int]) -> list[list[int]]:
    """The rows without their padding: what the mask leaves out, or, without one, what transformers takes for padding."""
    rows: list[list[int]] = ids.tolist()
    if mask is not None:
        masks = _batch(mask).tolist()
        return [[token for token, keep in zip(row, marks) if keep] for row, marks in zip(rows, masks, strict=True)]
    if pad is None or pad in ends or not any(pad in row for row in rows):
        return rows
    return [[token for token in row if token != pad] for row in rows]


def _rows(ids: Any, answers: list[Completion], filler: int) -> Any:
    """Inputs and continuations, shape (batch × copies, tokens), filled up on the right."""
    import torch

    rows = [(row, choice.tokens) for row, answer in zip(ids.tolist(), answers, strict=True) for choice in answer.choices]
    width = max(len(row) + len(tokens) for row, tokens in rows)
    filled = [row + tokens + [filler] * (width - len(row) - len(tokens)) for row, tokens in rows]
    return torch.tensor(filled, dtype=ids.dtype, device=ids.device)


def _size(result: Any) -> int:
    count: Callable[[], int] | None = getattr(result, "nelement", None)
    return count() * int(result.element_size()) if count else 1024
