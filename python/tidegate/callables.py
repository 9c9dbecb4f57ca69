"""What kind of function something is, and where it runs."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import Callable, Coroutine
from typing import Any, Literal

RunIn = Literal["auto", "loop", "thread"]


def place_of(function: Callable[..., Any], run_in: RunIn) -> str:
    """Where ``function`` runs: coroutine functions on the loop; plain ones on a thread, as they may block it."""
    if run_in != "auto":
        return run_in
    bare = function
    while isinstance(bare, functools.partial):
        bare = bare.func
    called = getattr(bare, "__call__", None)
    is_asynchronous = any(
        test(one) for one in (bare, called) for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    )
    return "loop" if is_asynchronous else "thread"


def is_native(function: Callable[..., Any]) -> bool:
    """Whether ``function`` is not written in Python, so that it can be called where no coroutine may be returned."""
    builtin = (types.BuiltinFunctionType, types.MethodDescriptorType, types.ClassMethodDescriptorType)
    return isinstance(function, builtin) or function in (int, float, str, bytes, bool, list, tuple, set, dict)


def collected(function: Callable[..., Any]) -> Callable[..., Any]:
    """As ``function``; where it is a generator, asynchronous or not, a function of the list of all it gives."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def all_of(*arguments: Any) -> list[Any]:
            return [one async for one in function(*arguments)]

        return all_of
    if inspect.isgeneratorfunction(function):
        return functools.wraps(function)(lambda *arguments: list(function(*arguments)))
    return function


def begin_task(coroutine: Any) -> asyncio.Task[Any]:
    """A task of the running loop for anything that can be awaited. Called by the native half."""
    if not asyncio.iscoroutine(coroutine):
        coroutine = _awaiting(coroutine)
    return asyncio.get_running_loop().create_task(coroutine)


async def _awaiting(awaitable: Any) -> Any:
    return await awaitable


def as_function(task: Any) -> Callable[[], Any]:
    """A function without arguments of work that is one already, or that is a coroutine that has not begun."""
    if callable(task):
        return task  # type: ignore[no-any-return]
    if not hasattr(task, "__await__"):
        raise TypeError(f"{task!r} is not work; give a function without arguments or a coroutine")

    def begun() -> Coroutine[Any, Any, Any]:
        return task  # type: ignore[no-any-return]

    return begun


def on_batches(model: Callable[..., Any], calls: str) -> Callable[[list[Any]], list[Any]]:
    """``model``, a module or a function of a list or of one input (``calls="item"``), as a function of a list."""
    if hasattr(model, "forward") and hasattr(model, "state_dict"):
        return lambda inputs: _forward(model, inputs)
    if calls == "item":
        return lambda inputs: [_outcome(model, one) for one in inputs]
    return lambda inputs: list(model(inputs))


def _forward(module: Any, inputs: list[Any]) -> list[Any]:
    import torch

    shapes = {tuple(one.shape) for one in inputs}
    with torch.inference_mode():
        if len(shapes) == 1:
            return list(module(torch.stack(inputs)).unbind())
        return [module(one.unsqueeze(0)).squeeze(0) for one in inputs]


def _outcome(function: Callable[[Any], Any], one: Any) -> Any:
    try:
        return function(one)
    except Exception as error:
        return error
