"""Texts and pictures together: requests that say what became of them, one or many at once, and a plugin around it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeAlias

from .engine import Completion, Engine, Event, PriorityName, level_of
from .errors import EngineStoppedError, InvalidRequestError
from .handle import Handle
from .pictures import ImageLike, encoded, listed

logger = logging.getLogger("tidegate.multimodal")

_numbers = itertools.count()


@dataclass
class AsyncMultimodalRequest:
    """A text and the pictures that it is about, if there are any: one or a list of them, in the order of the text.

    ``priority`` is ``high``, ``normal`` or ``low``, or a number, above 0 more urgent and below less; ``timeout`` is in
    seconds from now. ``callback`` is called once with the :class:`AsyncMultimodalResult`, whatever it is: on the event
    loop on which the request was submitted, where it may be a coroutine function, or on a thread of the package where
    there is none. ``generation`` are options of :meth:`Engine.generate`, ``metadata`` is handed on untouched, and
    ``timestamp`` (Unix time) is when the request was made.
    """

    text: str
    image: ImageLike | Sequence[ImageLike] | None = None
    id: str = field(default_factory=lambda: f"multimodal-{next(_numbers)}")
    priority: int | PriorityName = "normal"
    timeout: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    callback: Callable[[AsyncMultimodalResult], Any] | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    timestamp: float = field(default_factory=time.time)


@dataclass(frozen=True)
class AsyncMultimodalResult:
    """What became of a request: a completion or an error; when it was made and when it ended, in Unix time."""

    request_id: str
    completion: Completion | None
    error: BaseException | None
    priority: int | PriorityName
    metadata: dict[str, Any]
    requested_at: float
    completed_at: float

    @property
    def text(self) -> str:
        """The answer; empty where there is none."""
        return self.completion.text if self.completion else ""

    @property
    def is_ok(self) -> bool:
        """Whether there is an answer."""
        return self.error is None

    @property
    def processing_time(self) -> float:
        """Seconds from the making of the request to its end."""
        return self.completed_at - self.requested_at

    def __str__(self) -> str:
        return self.text


RequestLike: TypeAlias = "AsyncMultimodalRequest | Mapping[str, Any]"
"""A request, or a dictionary with its fields, ``text`` and ``image`` for example; others are generation options."""


class AsyncMultimodalProcessor:
    """Answers requests with texts and pictures, many at once.

    ``model`` is the folder of a model that sees, such as Qwen3-VL, or an :class:`Engine`; without one it is what
    ``TIDEGATE_MODEL`` names, or the embedded model. The engine decodes pictures on threads of their own, bounds their memory apart from that of
    texts (``image_threads``, ``image_memory``, ``vision_cache``, ``vision_share``) and counts the work of both in tokens
    when it makes up a batch, so how many go together follows from how complex they are. ``generation`` are options for
    all requests, such as ``max_tokens``.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Engine | None = None,
        *,
        generation: Mapping[str, Any] | None = None,
        **engine_options: object,
    ) -> None:
        self.generation = dict(generation or {})
        self._model = model
        self._options = engine_options
        self._engine = model if isinstance(model, Engine) else None
        self._unfinished: set[Handle[AsyncMultimodalResult]] = set()

    @property
    def engine(self) -> Engine:
        """The engine that does the work."""
        if self._engine is None:
            raise EngineStoppedError("no model is open; await start() first")
        return self._engine

    async def start(self) -> None:
        """Opens the model, if it is not open."""
        await asyncio.to_thread(self.open)

    def open(self) -> None:
        """As :meth:`start`, on the calling thread."""
        if self._engine is None:
            assert not isinstance(self._model, Engine)
            self._engine = Engine(self._model, **self._options)  # type: ignore[arg-type]

    async def stop(self) -> None:
        """Lets what was accepted end, and gives the model back if it is its own."""
        await asyncio.gather(*(asyncio.wrap_future(one) for one in list(self._unfinished)), return_exceptions=True)
        engine, self._engine = self._engine, None
        if engine is not None and engine is not self._model:
            await engine.__aexit__(None, None, None)

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures."""
        return self.engine.status()["vision"] is not None

    def submit(self, request: RequestLike) -> Handle[AsyncMultimodalResult]:
        """Begins with a request and answers at once with its handle: awaitable, a concurrent future, cancellable.

        The pictures are read on the calling thread; the coroutines read them elsewhere.
        """
        asked = _request(request)
        with _telling(asked):
            files = _files(asked)
        return self._begin(asked, files)

    async def process(self, request: RequestLike) -> AsyncMultimodalResult:
        """The result of one request. What fails is raised; cancelling the task cancels the request."""
        asked = _request(request)
        # Nothing is submitted before the pictures are there, so whoever is cancelled meanwhile leaves nothing behind.
        with _telling(asked):
            files = await asyncio.to_thread(_files, asked) if listed(asked.image) else []
        handle = self._begin(asked, files)
        try:
            return await handle
        except asyncio.CancelledError:
            handle.cancel()
            raise

    async def process_batch(self, requests: Iterable[RequestLike]) -> list[AsyncMultimodalResult]:
        """The results of many requests at once, in their order. One that fails has its error in its own result."""

        async def one(request: AsyncMultimodalRequest) -> AsyncMultimodalResult:
            try:
                return await self.process(request)
            except Exception as error:
                return _result(request, None, error)

        return list(await asyncio.gather(*(one(_request(request)) for request in requests)))

    def process_sync(self, request: RequestLike) -> AsyncMultimodalResult:
        """As :meth:`process`, for callers without an event loop."""
        return self.submit(request).result()

    async def stream(self, request: RequestLike) -> AsyncIterator[Event]:
        """The events of one request, as they come; leaving the loop cancels it. Its callback is not called."""
        asked = _request(request)
        async for event in self.engine.stream(asked.text, **self._terms(asked, listed(asked.image))):
            yield event

    def get_stats(self) -> dict[str, Any]:
        """What the engine does and has done; ``vision`` tells of pictures."""
        return self.engine.status()

    async def __aenter__(self) -> AsyncMultimodalProcessor:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            for handle in list(self._unfinished):
                handle.cancel()
        await self.stop()

    def _terms(self, request: AsyncMultimodalRequest, images: list[ImageLike]) -> dict[str, Any]:
        given = {"priority": level_of(request.priority), "timeout": request.timeout, "id": request.id}
        return {**self.generation, **request.generation, **given, "images": images}

    def _begin(self, request: AsyncMultimodalRequest, files: list[bytes]) -> Handle[AsyncMultimodalResult]:
        handle: Handle[AsyncMultimodalResult] = Handle(lambda result: result)
        tell = _teller(request)
        with _telling(request):
            job = self.engine.submit(request.text, **self._terms(request, list(files)))
        self._unfinished.add(handle)

        def ended(outcome: concurrent.futures.Future[Completion]) -> None:
            self._unfinished.discard(handle)
            error: BaseException | None
            if outcome.cancelled():
                completion, error = None, asyncio.CancelledError()
            elif (error := outcome.exception()) is None:
                completion = outcome.result()
            else:
                completion = None
            result = _result(request, completion, error)
            tell(result)
            if error is None:
                handle._succeed(result)
            else:
                handle._fail(error)

        def abort() -> None:
            job.cancel()

        handle._begin(abort)
        job.add_done_callback(ended)
        return handle


class MultimodalModel:
    """What a plugin has once it is initialized: the model, with the names that the documents give its methods."""

    def __init__(self, processor: AsyncMultimodalProcessor, asynchronous: bool) -> None:
        self.processor = processor
        self._asynchronous = asynchronous

    async def async_process_multimodal_request(
        self, text: str, image: ImageLike | Sequence[ImageLike] | None = None, **fields: Any
    ) -> AsyncMultimodalResult:
        """The result of one request; ``fields`` are those of :class:`AsyncMultimodalRequest` and generation options."""
        self._check()
        return await self.processor.process({"text": text, "image": image, **fields})

    async def async_process_batch_multimodal_requests(
        self, requests: Iterable[RequestLike]
    ) -> list[AsyncMultimodalResult]:
        """The results of many requests at once, in their order, each with its own error if it failed."""
        self._check()
        return await self.processor.process_batch(requests)

    def process_multimodal_request(
        self, text: str, image: ImageLike | Sequence[ImageLike] | None = None, **fields: Any
    ) -> AsyncMultimodalResult:
        """As :meth:`async_process_multimodal_request`, for callers without an event loop; always there."""
        return self.processor.process_sync({"text": text, "image": image, **fields})

    def _check(self) -> None:
        if not self._asynchronous:
            raise InvalidRequestError(
                "the plugin was initialized without asynchronous processing; call"
                " initialize(enable_async_multimodal_processing=True), or use process_multimodal_request"
            )


class MultimodalPlugin:
    """A model that sees, made first and opened later."""

    def __init__(self, model: str | os.PathLike[str] | Engine | None = None, **engine_options: object) -> None:
        self._source = model
        self._options = engine_options
        self._model: MultimodalModel | None = None

    def initialize(
        self,
        *,
        enable_async_multimodal_processing: bool = False,
        generation: Mapping[str, Any] | None = None,
        **engine_options: object,
    ) -> MultimodalPlugin:
        """Opens the model, which takes its time; what it had before is closed. A model that takes no pictures is refused."""
        self.cleanup()
        options = {**self._options, **engine_options}
        processor = AsyncMultimodalProcessor(self._source, generation=generation, **options)
        processor.open()
        if not processor.sees:
            name = processor.engine.models()[0]["id"]
            if processor.engine is not self._source:
                processor.engine.close()
            raise InvalidRequestError(
                f"the model '{name}' takes no pictures; give the folder of one that sees, such as Qwen3-VL-2B-Instruct, to"
                " the plugin or as TIDEGATE_MODEL"
            )
        self._model = MultimodalModel(processor, enable_async_multimodal_processing)
        return self

    @property
    def model(self) -> MultimodalModel:
        """The model; :meth:`initialize` comes first."""
        if self._model is None:
            raise EngineStoppedError("the plugin has no model yet; call initialize() first")
        return self._model

    def cleanup(self) -> None:
        """Closes the model. What still runs fails."""
        model, self._model = self._model, None
        if model is not None and model.processor.engine is not self._source:
            model.processor.engine.close()

    def __enter__(self) -> MultimodalPlugin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cleanup()


def create_qwen3_vl_2b_instruct_plugin(
    model: str | os.PathLike[str] | Engine | None = None, **engine_options: object
) -> MultimodalPlugin:
    """A plugin for Qwen3-VL-2B-Instruct, or another model that sees: a folder, an engine, what ``TIDEGATE_MODEL`` names,
    or the embedded model."""
    return MultimodalPlugin(model, **engine_options)


def _request(request: RequestLike) -> AsyncMultimodalRequest:
    if isinstance(request, AsyncMultimodalRequest):
        return request
    known = set(AsyncMultimodalRequest.__dataclass_fields__)
    if "text" not in request:
        raise InvalidRequestError(f"a request has a 'text'; found {', '.join(map(repr, request)) or 'nothing'}")
    fields = {name: value for name, value in request.items() if name in known}
    others = {name: value for name, value in request.items() if name not in known}
    return AsyncMultimodalRequest(**{**fields, "generation": {**fields.get("generation", {}), **others}})


def _result(
    request: AsyncMultimodalRequest, completion: Completion | None, error: BaseException | None
) -> AsyncMultimodalResult:
    return AsyncMultimodalResult(
        request.id, completion, error, request.priority, request.metadata, request.timestamp, time.time()
    )


def _files(request: AsyncMultimodalRequest) -> list[bytes]:
    return [encoded(image) for image in listed(request.image)]


@contextmanager
def _telling(request: AsyncMultimodalRequest) -> Iterator[None]:
    """Has a request that does not get as far as the engine told of that too."""
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        _teller(request)(_result(request, None, error))
        raise


_callbacks: set[asyncio.Future[Any]] = set()


def _teller(request: AsyncMultimodalRequest) -> Callable[[AsyncMultimodalResult], None]:
    """What calls the request's callback where it is to be called; what that raises is logged and harms nobody."""
    callback = request.callback
    event_loop: asyncio.AbstractEventLoop | None
    try:
        event_loop = asyncio.get_running_loop()
    except RuntimeError:
        event_loop = None

    async def finished(outcome: Awaitable[Any]) -> None:
        try:
            await outcome
        except Exception:
            logger.exception("the callback of %s failed", request.id)

    def call(result: AsyncMultimodalResult) -> None:
        assert callback is not None
        try:
            outcome = callback(result)
        except Exception:
            logger.exception("the callback of %s failed", request.id)
            return
        if inspect.isawaitable(outcome):
            if event_loop is None:
                asyncio.run(finished(outcome))
                return
            task = event_loop.create_task(finished(outcome))
            _callbacks.add(task)
            task.add_done_callback(_callbacks.discard)

    def tell(result: AsyncMultimodalResult) -> None:
        if callback is None:
            return
        if event_loop is None:
            call(result)
            return
        try:
            event_loop.call_soon_threadsafe(call, result)
        except RuntimeError:
            logger.warning("the event loop of %s ended before its callback could be called", request.id)

    return tell
