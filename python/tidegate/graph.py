"""Functions of functions: only what is asked for runs, and only what has changed runs again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import _tidegate
from .callables import RunIn, collected, place_of
from .errors import InvalidRequestError


@dataclass(frozen=True)
class ComputationNode:
    """A node of a graph: a name and a function of the results of the nodes before it, or of the input."""

    name: str
    function: Callable[..., Any]
    retries: int = 0
    timeout: float | None = None
    cached: bool = True
    run_in: RunIn = "auto"


class LazyGraph:
    """A graph of functions, built by :meth:`add_node` and :meth:`add_edge` and checked when it is first executed.

    Results are remembered by what they were computed from, so executing again for the same input runs nothing, and for
    another one only what depends on the difference. Functions must therefore make the same of the same; a node with
    ``cached=False`` is not remembered. Values are told apart by what ``pickle`` makes of them.
    """

    def __init__(self, *, max_concurrent: int = 32) -> None:
        self._max_concurrent = max_concurrent
        self._nodes: dict[str, ComputationNode] = {}
        self._edges: dict[str, list[str]] = {}
        self._native: _tidegate.Graph | None = None

    def add_node(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        retries: int = 0,
        timeout: float | None = None,
        cached: bool = True,
        run_in: RunIn = "auto",
    ) -> ComputationNode:
        """Adds a node. One without incoming edges is given the input of :meth:`execute`."""
        if name in self._nodes:
            raise InvalidRequestError(f"there is a node '{name}' already; give this one another name")
        node = ComputationNode(name, function, retries, timeout, cached, run_in)
        self._nodes[name], self._edges[name], self._native = node, [], None
        return node

    def add_edge(self, before: ComputationNode | str, after: ComputationNode | str) -> None:
        """Hands the result of ``before`` to ``after``; several are handed in the order of their edges."""
        first, last = (node if isinstance(node, str) else node.name for node in (before, after))
        for name in (first, last):
            if name not in self._nodes:
                raise InvalidRequestError(f"there is no node '{name}'; add_node('{name}', function) adds it")
        if first not in self._edges[last]:
            self._edges[last].append(first)
            self._native = None

    async def execute(self, input: Any = None, nodes: Iterable[ComputationNode | str] | None = None) -> Any:
        """The result of the last node; a dictionary by name where ``nodes`` asks for several, or several are last."""
        if not self._nodes:
            raise InvalidRequestError("the graph has no node; add_node(name, function) adds one")
        if nodes is None:
            used = {name for names in self._edges.values() for name in names}
            wanted = [name for name in self._nodes if name not in used] or list(self._nodes)[-1:]
        else:
            wanted = [node if isinstance(node, str) else node.name for node in nodes]
        results = await self._build().execute(input, wanted)
        return results[0] if len(wanted) == 1 and nodes is None else dict(zip(wanted, results, strict=True))

    def invalidate(self, node: ComputationNode | str) -> None:
        """Forgets what is remembered of a node, because something has changed that it does not depend on by an edge."""
        self._build().invalidate(node if isinstance(node, str) else node.name)

    def stats(self) -> dict[str, Any]:
        """Runs begun, joined, failed and cancelled, and the bytes that are remembered."""
        stats: dict[str, Any] = json.loads(self._build().stats())
        return stats

    def _build(self) -> _tidegate.Graph:
        if self._native is None:
            described = [
                {
                    "name": node.name,
                    "function": collected(node.function),
                    "place": place_of(node.function, node.run_in),
                    "after": self._edges[node.name],
                    "retries": node.retries,
                    "timeout": node.timeout,
                    "cached": node.cached,
                }
                for node in self._nodes.values()
            ]
            self._native = _tidegate.Graph(described, self._max_concurrent)
        return self._native
