"""The engine: models behind one door, asked from event loops and from threads."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeAlias

from . import _tidegate, weights
from .handle import Handle
from .pictures import ImageLike, asked_about, has_pictures, listed, taken_out

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Turns of a conversation, each with ``role`` and ``content``: a text, or parts such as ``{"type": "text", "text": …}`` and
``{"type": "image", "image": …}``, where the model sees."""

PromptLike: TypeAlias = "str | Sequence[int] | Messages"
"""A text, the ids of its tokens, or the turns of a conversation."""

ModelLike: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None | Any"
"""Paths of models, the embedded one (``None``), or a model of transformers."""

PriorityName: TypeAlias = Literal["high", "normal", "low"]


def level_of(priority: int | PriorityName) -> PriorityName:
    """The level of a priority that is a number: above 0 is urgent, below it can wait."""
    if isinstance(priority, str):
        return priority
    return "high" if priority > 0 else "low" if priority < 0 else "normal"


@dataclass(frozen=True)
class Usage:
    """Tokens read and written. ``cached_tokens`` of the prompt were not computed because a cache held them."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True)
class Timing:
    """Seconds from admission: until the prompt was read, until the first token, until the end."""

    queued: float
    first_token: float
    total: float


@dataclass(frozen=True)
class Logprob:
    """A token, its bytes and the natural logarithm of its probability; ``top`` are the most probable ones there."""

    id: int
    bytes: builtins.bytes
    logprob: float
    top: list[tuple[int, builtins.bytes, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """One continuation."""

    text: str
    tokens: list[int]
    finish_reason: str
    logprobs: list[Logprob] = field(default_factory=list)


@dataclass(frozen=True)
class Completion:
    """The whole answer to a request."""

    id: str
    model: str
    choices: list[Choice]
    usage: Usage
    timing: Timing
    reused: str | None = None

    @property
    def text(self) -> str:
        """The text of the first continuation."""
        return self.choices[0].text if self.choices else ""

    @property
    def tokens(self) -> list[int]:
        """The ids of the first continuation's tokens, the one that ended it included."""
        return self.choices[0].tokens if self.choices else []

    @property
    def finish_reason(self) -> str:
        """Why the first continuation ended: ``stop`` or ``length``."""
        return self.choices[0].finish_reason if self.choices else ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Event:
    """One step in the life of a request.

    ``kind`` is ``queued`` (``ahead`` others are served earlier), ``started``, ``delta`` (new ``text`` and ``tokens`` of a
    ``choice``), ``finished`` (a ``choice`` has ended, with a ``finish_reason``) or ``done`` (with ``usage``, ``timing``).
    """

    kind: Literal["queued", "started", "delta", "finished", "done"]
    choice: int = 0
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    finish_reason: str | None = None
    ahead: int = 0
    usage: Usage | None = None
    timing: Timing | None = None


class Embeddings(Sequence[list[float]]):
    """The vectors of texts, in their order. ``numpy.asarray`` and ``memoryview`` read them without copying.

    ``width`` is how many numbers a vector has; ``tokens`` and ``truncated`` say of each text how many tokens of it were
    read, and whether its end was cut off.
    """

    def __init__(self, model: str, values: bytes, width: int, tokens: list[int], truncated: list[bool]) -> None:
        self.model = model
        self.width = width
        self.tokens = tokens
        self.truncated = truncated
        self._values = values

    @property
    def data(self) -> memoryview[float]:
        """All numbers, 32-bit floats, shape (texts, width)."""
        flat = memoryview(self._values)
        return flat.cast("f", (len(self), self.width)) if self.width else flat.cast("f")

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (len(self), self.width), "typestr": "=f4", "data": self._values, "version": 3}

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Any:
        rows = range(len(self))[index]
        flat = memoryview(self._values).cast("f")
        row = [flat[at * self.width : (at + 1) * self.width].tolist() for at in ([rows] if isinstance(rows, int) else rows)]
        return row[0] if isinstance(rows, int) else row

    def tolist(self) -> list[list[float]]:
        """The vectors as lists."""
        return list(self[:])


class Engine:
    """Models that run in this process: the embedded one, folders of Hugging Face's form, GGUF files, and a model that
    transformers has loaded, beside which ``tokenizer`` is its tokenizer: its weights are read where they are, and must not
    change until the engine is closed, which reads them again if it has to be started anew.

    Several models may be given, those that generate beside those that embed; requests name one, or get the first that
    can do what is asked. The options are those of ``tidegate serve``, with underscores: ``dtype="int8"``,
    ``threads=2``, ``kv_memory="2GiB"``, ``max_queue=512``, ``max_sequences=64``, ``target_itl="50ms"``,
    ``queue_policy="fair_share"``, ``result_cache="64MiB"`` … Loading takes its time, on the thread that asks for it;
    :meth:`open` waits for it without blocking an event loop.

    An engine is a context manager, synchronous and asynchronous; leaving it lets accepted requests end.
    """

    def __init__(
        self,
        model: ModelLike = None,
        *,
        tokenizer: Any = None,
        cache: bool = True,
        **options: object,
    ) -> None:
        if weights.is_model(model):
            held = weights.in_memory(model, tokenizer)
            self._native = _tidegate.Engine(_options(None, cache, options), held)
            return
        if tokenizer is not None:
            raise ValueError("a tokenizer goes with a model of transformers; a folder has its own")
        self._native = _tidegate.Engine(_options(model, cache, options))

    @classmethod
    async def open(
        cls,
        model: ModelLike = None,
        *,
        tokenizer: Any = None,
        cache: bool = True,
        **options: object,
    ) -> Engine:
        """As the constructor, on a thread of its own."""
        return await asyncio.to_thread(cls, model, tokenizer=tokenizer, cache=cache, **options)

    async def generate(self, prompt: PromptLike, **request: Any) -> Completion:
        """The whole answer to a prompt. Cancelling the task cancels the request; docs/python.md lists the options.

        Where the model sees, ``images`` are what the prompt is about: paths, bytes of files, pictures of PIL, arrays.
        """
        return _completion(await self._native.generate(await _asked_beside(prompt, request)))

    async def stream(self, prompt: PromptLike, **request: Any) -> AsyncIterator[Event]:
        """The events of a request, as they come. Leaving the loop, or ``aclose()``, cancels the request."""
        events = self._native.stream(await _asked_beside(prompt, request))
        try:
            while batch := await events.next():
                for event in batch:
                    yield _event(event)
        finally:
            events.close()

    def submit(self, prompt: PromptLike, **request: Any) -> Handle[Completion]:
        """Begins with a request and answers at once: await the handle, or wait for it on a thread."""
        handle: Handle[Completion] = Handle(_completion)
        job = self._native.submit(_asked(prompt, **request), handle)
        handle._begin(job.abort)
        return handle

    def generate_sync(self, prompt: PromptLike, **request: Any) -> Completion:
        """As :meth:`generate` for callers without an event loop; it works beside a running one too."""
        return self.submit(prompt, **request).result()

    async def embed(
        self,
        texts: str | Messages | Sequence[PromptLike],
        *,
        purpose: str | None = None,
        dimensions: int | None = None,
        overlong: Literal["cut", "refuse"] = "cut",
        model: str | None = None,
        tenant: str | None = None,
        priority: PriorityName = "normal",
        timeout: float | None = None,
        id: str | None = None,
    ) -> Embeddings:
        """Vectors of texts; ``purpose`` is ``query``, ``document`` or one that the model's own files name.

        Models that generate make them of conversations too, and of the pictures in these where they see: a list of turns,
        as for :meth:`generate`, gives one vector.
        """
        alone = isinstance(texts, str) or _is_conversation(texts)
        inputs = await asyncio.to_thread(_embedded, [texts] if alone else texts)  # type: ignore[list-item,arg-type]
        terms = _terms(model, tenant, priority, timeout, id)
        asked = {"inputs": inputs, "purpose": purpose, "dimensions": dimensions, "overlong": overlong, "terms": terms}
        return Embeddings(**await self._native.embed(asked))

    async def score(
        self,
        query: str | Sequence[str],
        documents: Sequence[str],
        *,
        overlong: Literal["cut", "refuse"] = "cut",
        model: str | None = None,
        tenant: str | None = None,
        priority: PriorityName = "normal",
        timeout: float | None = None,
        id: str | None = None,
    ) -> list[float]:
        """How well each document answers the query, or the query at its place; higher is better."""
        queries = [query] if isinstance(query, str) else list(query)
        terms = _terms(model, tenant, priority, timeout, id)
        asked = {"queries": queries, "documents": list(documents), "overlong": overlong, "terms": terms}
        answer: list[float] = (await self._native.score(asked))["values"]
        return answer

    def status(self) -> dict[str, Any]:
        """Where it is in its life, its health with reasons, its load, counters and distributions since the start."""
        status: dict[str, Any] = json.loads(self._native.status())
        return status

    def models(self) -> list[dict[str, Any]]:
        """The models, with what each can do."""
        models: list[dict[str, Any]] = json.loads(self._native.models())
        return models

    @property
    def summary(self) -> dict[str, Any]:
        """What was opened: the first model, instruction set, threads, bounds, seconds of loading."""
        summary: dict[str, Any] = json.loads(self._native.summary())
        return summary

    async def rebalance(self) -> None:
        """Lets requests that wait for a device with more to do wait for one with less; see ``devices``."""
        await self._native.rebalance()

    async def clear_prefix_cache(self) -> None:
        """Forgets the keys and values of all prompts."""
        await self._native.forget("prefixes")

    async def clear_results(self) -> None:
        """Forgets the answers that are kept."""
        await self._native.forget("results")

    async def keep_results(self, bytes: int) -> None:
        """Keeps answers to requests whose answer is determined within so many bytes; 0 keeps none."""
        await self._native.keep_results(bytes)

    async def set_policy(self, policy: str) -> None:
        """Serves what waits by ``fifo``, ``priority``, ``round_robin``, ``fair_share`` or ``deadline``."""
        await self._native.set_policy(policy)

    async def drain(self) -> None:
        """Accepts nothing more and waits until everything accepted has ended."""
        await self._native.drain()

    def close(self) -> None:
        """Ends. What still runs fails; :meth:`drain` before lets it end."""
        self._native.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.drain()
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        try:
            return f"<tidegate.Engine {', '.join(model['id'] for model in self.models())}>"
        except RuntimeError:
            return "<tidegate.Engine, closed>"


def _options(model: ModelLike, cache: bool, options: Mapping[str, object]) -> list[tuple[str, str]]:
    models = [] if model is None else [model] if isinstance(model, (str, os.PathLike)) else list(model)
    words = [("model", os.fspath(one)) for one in models]
    words += [] if cache else [("no_cache", "")]
    for name, value in options.items():
        if value is None:
            continue
        many = value if isinstance(value, (list, tuple)) else [value]
        words += [(name, {True: "on", False: "off"}[one] if isinstance(one, bool) else str(one)) for one in many]
    return words


def _terms(
    model: str | None, tenant: str | None, priority: str, timeout: float | None, id: str | None
) -> dict[str, Any]:
    return {"id": id, "model": model, "tenant": tenant, "priority": priority, "timeout": timeout}


def _is_conversation(text: Any) -> bool:
    return not isinstance(text, str) and len(text) > 0 and isinstance(text[0], Mapping)


def _embedded(texts: Sequence[PromptLike]) -> list[str | list[int] | dict[str, Any]]:
    """What vectors are wanted of: texts, tokens, and conversations with the files of their pictures."""
    return [_one_embedded(text) for text in texts]


def _one_embedded(text: PromptLike) -> str | list[int] | dict[str, Any]:
    if isinstance(text, str):
        return text
    if _is_conversation(text):
        turns, files = taken_out(text, [])  # type: ignore[arg-type]
        return {"messages": json.dumps(turns), "images": files}
    return [int(token) for token in text]  # type: ignore[arg-type]


def _prompt(
    prompt: PromptLike, images: Sequence[ImageLike], template_options: Mapping[str, Any] | None
) -> tuple[str | list[int] | dict[str, str], list[bytes]]:
    """What is to be continued, and the files of the pictures that it is about."""
    if isinstance(prompt, str):
        if not images:
            return prompt, []
        prompt = asked_about(prompt, len(images))
    if prompt and isinstance(prompt[0], Mapping):
        turns, files = taken_out(prompt, images)  # type: ignore[arg-type]
        return {"messages": json.dumps(turns), "template_options": json.dumps(dict(template_options or {}))}, files
    if images:
        raise ValueError("tokens have no places for images; give a text or messages")
    return [int(token) for token in prompt], []  # type: ignore[arg-type]


async def _asked_beside(prompt: PromptLike, request: Mapping[str, Any]) -> dict[str, Any]:
    """As :func:`_asked`, on a thread where pictures have to be read or encoded."""
    if has_pictures(prompt, request.get("images")):
        return await asyncio.to_thread(_asked, prompt, **request)
    return _asked(prompt, **request)


def _asked(
    prompt: PromptLike,
    *,
    images: ImageLike | Sequence[ImageLike] | None = None,
    max_tokens: int | None = None,
    min_tokens: int = 0,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    logit_bias: Mapping[int, float] | None = None,
    seed: int | None = None,
    stop: str | Iterable[str] = (),
    stop_token_ids: Iterable[int] = (),
    ignore_eos: bool = False,
    choices: int = 1,
    logprobs: int | None = None,
    form: Mapping[str, Any] | str | None = None,
    template_options: Mapping[str, Any] | None = None,
    model: str | None = None,
    tenant: str | None = None,
    priority: PriorityName = "normal",
    timeout: float | None = None,
    id: str | None = None,
    cache_salt: str | None = None,
    share: bool = True,
) -> dict[str, Any]:
    words, files = _prompt(prompt, listed(images), template_options)
    return {
        "prompt": words,
        "images": files,
        "sampling": {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "logit_bias": list((logit_bias or {}).items()),
            "seed": seed,
        },
        "limits": {
            "max_tokens": max_tokens,
            "min_tokens": min_tokens,
            "stop": [stop] if isinstance(stop, str) else list(stop),
            "stop_token_ids": list(stop_token_ids),
            "ignore_eos": ignore_eos,
        },
        "terms": _terms(model, tenant, priority, timeout, id),
        "form": None if form is None else json.dumps(form),
        "choices": choices,
        "logprobs": logprobs,
        "cache_salt": cache_salt,
        "sharing": "identical" if share else "none",
    }


def _logprobs(many: list[dict[str, Any]]) -> list[Logprob]:
    return [Logprob(**one) for one in many]


def _completion(answer: dict[str, Any]) -> Completion:
    choices = [
        Choice(one["text"], one["tokens"], one["finish_reason"], _logprobs(one["logprobs"])) for one in answer["choices"]
    ]
    usage, timing = Usage(**answer["usage"]), Timing(**answer["timing"])
    return Completion(answer["id"], answer["model"], choices, usage, timing, answer["reused"])


def _event(event: dict[str, Any]) -> Event:
    event["logprobs"] = _logprobs(event["logprobs"])
    event["usage"] = event["usage"] and Usage(**event["usage"])
    event["timing"] = event["timing"] and Timing(**event["timing"])
    return Event(**event)
