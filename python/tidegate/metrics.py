"""How long things take, how often they fail, and how much memory there is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import _tidegate

logger = logging.getLogger("tidegate.metrics")


class AsyncMetrics:
    """Distributions by name, recorded in tens of nanoseconds. Timing works within tasks and threads alike."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._native = _tidegate.Metrics() if enabled else _tidegate.Metrics.off()
        self._alerts: list[tuple[str, str, float, Callable[[str, float], None]]] = []

    @contextmanager
    def track_processing_time(self, name: str) -> Iterator[None]:
        """Times a block; one that raises counts as failed too."""
        timing = self._native.begin(name)
        try:
            yield
        except BaseException:
            timing.fail()
            raise
        timing.end()

    def increment(self, name: str, by: int = 1) -> None:
        """Counts something."""
        self._native.count(name, by)

    def set_level(self, name: str, value: int) -> None:
        """Sets a level, such as a number of open connections."""
        self._native.level(name, value)

    def get_processing_times(self) -> dict[str, dict[str, float]]:
        """Of everything that was timed: count, failures, what is under way, and milliseconds by quantile."""
        timings: dict[str, dict[str, float]] = json.loads(self._native.timings())
        return timings

    def get_memory_stats(self) -> dict[str, float | None]:
        """Bytes of the process and of the system (its control groups heeded), and the share that is used, 0 to 1."""
        stats: dict[str, float | None] = json.loads(self._native.memory())
        return stats

    def add_alert(
        self, name: str, above: float, call: Callable[[str, float], None] | None = None, *, of: str = "p99_ms"
    ) -> None:
        """Has :meth:`check_alerts` call, or log a warning, where ``of`` the times of ``name`` is above that."""
        self._alerts.append((name, of, above, call or _warn))

    def check_alerts(self) -> list[str]:
        """Looks at all alerts; answers the names of those that are above their bound."""
        times = self.get_processing_times()
        raised = []
        for name, of, above, call in self._alerts:
            value = times.get(name, {}).get(of, 0.0)
            if value > above:
                raised.append(name)
                call(name, value)
        return raised

    def to_prometheus(self) -> str:
        """All of it in the text format of Prometheus."""
        return self._native.exposition()

    def snapshot(self) -> dict[str, Any]:
        """Times and memory together."""
        return {"processing_times": self.get_processing_times(), "memory": self.get_memory_stats()}


def _warn(name: str, value: float) -> None:
    logger.warning("%s is at %.1f", name, value)
