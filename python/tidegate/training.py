"""Training and evaluation of a torch model beside other work: steps off the event loop, batches fetched ahead."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .errors import QueueClosedError
from .metrics import AsyncMetrics
from .queues import AdvancedQueue, QueueAlgorithm, QueueConfig


@dataclass
class TrainingConfig:
    """``prefetch`` batches are fetched while a step runs; ``accumulate`` batches make up one step of the optimizer, and
    gradients longer than ``max_grad_norm`` are shortened to it. A checkpoint is written every ``checkpoint_every`` steps."""

    prefetch: int = 2
    accumulate: int = 1
    max_grad_norm: float | None = None
    checkpoint_every: int | None = None
    checkpoint_path: str | os.PathLike[str] | None = None


class TrainingIntegration:
    """Runs training and evaluation of torch models within asyncio.

    ``loss`` makes the loss of a model and a batch; where none is given the model is called with the batch (a dictionary
    as keyword arguments, a tuple as arguments, its last part as the target of ``loss_fn``) and its ``loss`` is taken.
    """

    def __init__(
        self,
        config: TrainingConfig | None = None,
        *,
        loss: Callable[[Any, Any], Any] | None = None,
        loss_fn: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.config = config or TrainingConfig()
        self.metrics = AsyncMetrics()
        self.step = 0
        self._loss = loss or (lambda model, batch: _loss(model, batch, loss_fn)[0])
        self._loss_fn = loss_fn

    async def async_training_step(
        self, model: Any, data_loader: Iterable[Any] | AsyncIterable[Any], optimizer: Any, scheduler: Any = None
    ) -> dict[str, float]:
        """Trains on all batches of a loader, each step on a thread; answers mean loss, steps and batches.

        Cancelling ends after the batch that is being computed, with the optimizer between two steps.
        """
        losses: list[float] = []
        pending = 0
        model.train()
        async for batch in prefetched(data_loader, self.config.prefetch):
            with self.metrics.track_processing_time("training_batch"):
                losses.append(await _to_end(self._backward, model, batch))
            pending += 1
            if pending == self.config.accumulate:
                await self._optimize(model, optimizer, scheduler)
                pending = 0
        if pending:
            await self._optimize(model, optimizer, scheduler)
        mean = sum(losses) / len(losses) if losses else float("nan")
        return {"loss": mean, "steps": float(self.step), "batches": float(len(losses))}

    async def async_evaluation(
        self,
        model: Any,
        eval_loader: Iterable[Any] | AsyncIterable[Any],
        metric: Callable[[Any, Any], dict[str, float]] | None = None,
    ) -> dict[str, float]:
        """Mean loss over all batches, accuracy where outputs are classes, and the means of what ``metric`` makes of
        outputs and batch. No gradients are kept, and the model is left in the mode in which it was."""
        sums: dict[str, float] = {}
        count = 0
        was_training = model.training
        model.eval()
        try:
            async for batch in prefetched(eval_loader, self.config.prefetch):
                with self.metrics.track_processing_time("evaluation_batch"):
                    found = await _to_end(self._measure, model, batch, metric)
                count += 1
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
        finally:
            model.train(was_training)
        return {name: value / count for name, value in sums.items()}

    async def async_meta_training_step(
        self,
        model: Any,
        tasks: Iterable[Any] | AsyncIterable[Any] | Callable[[], Any],
        optimizer: Any,
        *,
        inner: Callable[[Any, Any], Any],
        outer: Callable[[Any, Any, Any], Any],
        sampled: int = 4,
    ) -> dict[str, float]:
        """One step of meta-learning over tasks: ``inner(model, task)`` adapts and answers what it adapted to,
        ``outer(model, adapted, task)`` answers the loss by which the model itself is to learn from that. ``tasks`` may
        also be a function that samples one, which is called ``sampled`` times, on a thread and ahead of its use."""
        losses: list[float] = []
        if callable(tasks) and not isinstance(tasks, (Iterable, AsyncIterable)):
            sample = tasks
            tasks = (sample() for _ in range(sampled))
        async for task in prefetched(tasks, self.config.prefetch):

            def learn(task: Any = task) -> float:
                loss = outer(model, inner(model, task), task)
                loss.backward()
                return float(loss.detach())

            with self.metrics.track_processing_time("meta_task"):
                losses.append(await _to_end(learn))
        await self._optimize(model, optimizer, None)
        return {"loss": sum(losses) / len(losses) if losses else float("nan"), "tasks": float(len(losses))}

    async def save_checkpoint(self, path: str | os.PathLike[str], model: Any, optimizer: Any) -> None:
        """Writes model, optimizer and step; what was there is replaced only by a whole file."""
        import torch

        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": self.step}
        temporary = f"{os.fspath(path)}.part"
        await _to_end(torch.save, state, temporary)
        await asyncio.to_thread(os.replace, temporary, path)

    async def load_checkpoint(self, path: str | os.PathLike[str], model: Any, optimizer: Any) -> int:
        """Goes on where a checkpoint was written; answers the step."""
        import torch

        state = await asyncio.to_thread(torch.load, path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        return self.step

    def _backward(self, model: Any, batch: Any) -> float:
        loss = self._loss(model, batch)
        (loss / self.config.accumulate).backward()
        return float(loss.detach())

    async def _optimize(self, model: Any, optimizer: Any, scheduler: Any) -> None:
        def update() -> None:
            if self.config.max_grad_norm is not None:
                import torch

                torch.nn.utils.clip_grad_norm_(model.parameters(), self.config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if scheduler is not None:
                scheduler.step()

        with self.metrics.track_processing_time("optimizer_step"):
            await _to_end(update)
        self.step += 1
        every, path = self.config.checkpoint_every, self.config.checkpoint_path
        if every is not None and path is not None and self.step % every == 0:
            await self.save_checkpoint(path, model, optimizer)

    def _measure(self, model: Any, batch: Any, metric: Any) -> dict[str, float]:
        import torch

        with torch.no_grad():
            loss, outputs, target = _loss(model, batch, self._loss_fn)
            found = {"loss": float(loss)}
            if target is not None and not target.is_floating_point() and outputs.dim() == target.dim() + 1:
                found["accuracy"] = float((outputs.argmax(-1) == target).float().mean())
            return {**found, **(metric(outputs, batch) if metric is not None else {})}


async def prefetched(loader: Iterable[Any] | AsyncIterable[Any], ahead: int = 2) -> AsyncIterator[Any]:
    """The batches of a loader, asynchronous or not, of which up to ``ahead`` are fetched before they are asked for.

    A plain loader is read on a thread. Leaving the loop ends the fetching.
    """
    queue = AdvancedQueue(QueueConfig(algorithm=QueueAlgorithm.FIFO, max_size=max(1, ahead)))
    failure: list[BaseException] = []

    async def fetch() -> None:
        try:
            if isinstance(loader, AsyncIterable):
                async for batch in loader:
                    await queue.put(batch)
            else:
                batches, end = iter(loader), object()
                while (batch := await asyncio.to_thread(next, batches, end)) is not end:
                    await queue.put(batch)
        except Exception as error:
            failure.append(error)
        finally:
            queue.close()

    fetching = asyncio.create_task(fetch())
    try:
        while True:
            try:
                yield await queue.get()
            except QueueClosedError:
                break
        if failure:
            raise failure[0]
    finally:
        fetching.cancel()


async def _to_end(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs on a thread, and does not leave it alone when cancelled: a model must not change behind a caller's back."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _loss(model: Any, batch: Any, loss_fn: Callable[[Any, Any], Any] | None) -> tuple[Any, Any, Any]:
    """Loss, outputs, and the target if there is one."""
    if isinstance(batch, dict):
        outputs = model(**batch)
        return outputs.loss, getattr(outputs, "logits", None), None
    if loss_fn is None:
        raise ValueError("there is no loss; give TrainingIntegration(loss_fn=...) or loss=..., or batches as dictionaries")
    *inputs, target = batch
    outputs = model(*inputs)
    return loss_fn(outputs, target), outputs, target
