"""Work that runs once the memory, processors and devices are free that it needs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from . import _tidegate
from .callables import RunIn, as_function, collected, place_of


class TaskPriority(IntEnum):
    """How urgent work is; 0 goes first. Waiting makes work more urgent, so none starves."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


@dataclass(frozen=True)
class Device:
    """Something besides processors that work may need, such as a GPU with ``memory`` bytes."""

    kind: str
    name: str
    memory: int = 0


@dataclass
class SchedulerConfig:
    """What a scheduler shares out.

    ``max_workers`` pieces of work run at once. ``memory`` (bytes) and ``cpu`` (processors) are those that the system
    grants where nothing is said. Work that asks for a device of a kind that the machine does not have runs without it
    if ``device_fallback`` is set, and is counted in ``stats()["degraded"]``; else it is refused. Without
    ``priority_enabled`` all work is equally urgent; without ``load_balancing`` work of all owners counts as one's.
    """

    max_workers: int = 8
    priority_enabled: bool = True
    load_balancing: bool = True
    memory: int | None = None
    cpu: float | None = None
    devices: Sequence[Device] = field(default_factory=tuple)
    device_fallback: bool = True
    age_seconds: float = 5.0


class ResourceScheduler:
    """Runs work when all of what it needs is free; nothing is promised twice, and nothing starves."""

    def __init__(self, config: SchedulerConfig | None = None) -> None:
        self.config = config or SchedulerConfig()
        self._degraded = 0
        self._native = _tidegate.Scheduler(
            {
                "workers": self.config.max_workers,
                "memory": self.config.memory,
                "cpu": None if self.config.cpu is None else round(self.config.cpu * 1000),
                "devices": [(device.kind, device.name, device.memory) for device in self.config.devices],
                "age_step": self.config.age_seconds,
            }
        )

    async def schedule(
        self,
        task: Callable[[], Any] | Awaitable[Any],
        priority: TaskPriority | int = TaskPriority.NORMAL,
        resource_requirements: Mapping[str, Any] | None = None,
        *,
        owner: str = "",
        timeout: float | None = None,
        run_in: RunIn = "auto",
    ) -> Any:
        """The result of ``task``, which begins once ``resource_requirements`` are free.

        Requirements are ``memory`` (bytes, or text such as ``"2GB"``), ``cpu`` (processors) and devices by their kind
        (``True``, or how many). Cancelling ends the waiting or the work and gives back what it holds.
        """
        function = as_function(task)
        place = place_of(function, run_in) if callable(task) else "loop"
        terms = {
            "needs": self._needs(resource_requirements or {}),
            "owner": owner if self.config.load_balancing else "",
            "level": int(priority) if self.config.priority_enabled else 0,
            "timeout": timeout,
        }
        return await self._native.schedule(collected(function), place, terms)

    def _needs(self, requirements: Mapping[str, Any]) -> str:
        status = self.stats()
        known = {*status["resources"], *(device["kind"] for device in status["devices"])}
        known |= {name for device in status["devices"] for name in device["resources"]}
        needs: dict[str, Any] = {"workers": 1}
        for name, amount in requirements.items():
            if amount is False or amount is None or amount == 0:
                continue
            if name not in known and self.config.device_fallback and isinstance(amount, (bool, int)):
                self._degraded += 1
                continue
            needs[name] = 1 if amount is True else amount
        return ", ".join(f"{name}: {amount}" for name, amount in needs.items())

    def scale_workers(self, workers: int) -> None:
        """Changes how many pieces of work run at once."""
        self._native.set_capacity("workers", workers)

    def set_weight(self, owner: str, weight: float) -> None:
        """The more weight an owner has, the more it gets before others go first."""
        self._native.set_weight(owner, weight)

    def stats(self) -> dict[str, Any]:
        """Resources with what is reserved, devices, what waits and runs, waits in milliseconds."""
        return {**json.loads(self._native.status()), "degraded": self._degraded}

    async def drain(self, timeout: float = 3600.0) -> int:
        """Accepts nothing more and waits until nothing runs; answers how much still does."""
        return await self._native.drain(timeout)
