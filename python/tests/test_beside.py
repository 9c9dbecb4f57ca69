"""Training, offloading and many queries at once: what the documents name beside engines and queues."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import pickle
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tidegate import (
    ExecutionLanes,
    GPUOffloader,
    InvalidRequestError,
    OffloadConfig,
    OffloadFailedError,
    TrainingConfig,
    TrainingIntegration,
    mixed_precision,
    parallel_run,
    prefetched,
)
from waiting import until


async def test_example_integration_with_training(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    inputs = torch.randn(64, 4)
    targets = (inputs[:, 0] > 0).long()

    async def async_data_loader() -> AsyncIterator[Any]:
        for start in range(0, 64, 8):
            yield inputs[start : start + 8], targets[start : start + 8]

    async_eval_loader = [(inputs, targets)]
    config = TrainingConfig(accumulate=2, checkpoint_every=4, checkpoint_path=tmp_path / "state.pt", max_grad_norm=10.0)
    integration = TrainingIntegration(config, loss_fn=torch.nn.functional.cross_entropy)
    before = await integration.async_evaluation(model=model, eval_loader=async_eval_loader)
    for _ in range(5):
        trained = await integration.async_training_step(
            model=model, data_loader=async_data_loader(), optimizer=optimizer
        )
    metrics = await integration.async_evaluation(model=model, eval_loader=async_eval_loader)
    assert trained["steps"] == 20 and trained["batches"] == 8
    assert metrics["loss"] < before["loss"] and metrics["accuracy"] > 0.8 and model.training
    resumed = torch.nn.Linear(4, 2)
    again = TrainingIntegration(config)
    other = torch.optim.SGD(resumed.parameters(), lr=0.5)
    assert await again.load_checkpoint(tmp_path / "state.pt", resumed, other) == 20
    assert torch.equal(resumed.weight, model.weight)
    assert integration.metrics.get_processing_times()["training_batch"]["count"] == 40


async def test_gradients_add_up_and_tasks_are_learned_from() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(2)
    data = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(2)]
    whole, parts = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    parts.load_state_dict(whole.state_dict())
    loss_fn = torch.nn.functional.mse_loss
    ways = ((whole, TrainingConfig(), [tuple(map(torch.cat, zip(*data)))]), (parts, TrainingConfig(accumulate=2), data))
    for model, config, batches in ways:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        await TrainingIntegration(config, loss_fn=loss_fn).async_training_step(model, batches, optimizer)
    assert torch.allclose(whole.weight, parts.weight, atol=1e-6)

    def inner(model: Any, task: Any) -> Any:
        (gradient,) = torch.autograd.grad(loss_fn(model(task[0]), task[1]), model.weight, create_graph=True)
        return model.weight - 0.1 * gradient

    def outer(model: Any, adapted: Any, task: Any) -> Any:
        return loss_fn(torch.nn.functional.linear(task[0], adapted, model.bias), task[1])

    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    learn = TrainingIntegration().async_meta_training_step
    losses = [(await learn(whole, data, optimizer, inner=inner, outer=outer))["loss"] for _ in range(5)]
    assert losses[-1] < losses[0]
    drawn: list[int] = []

    def sample() -> Any:
        drawn.append(len(drawn))
        return data[len(drawn) % 2]

    assert (await learn(whole, sample, optimizer, inner=inner, outer=outer, sampled=3))["tasks"] == 3 == len(drawn)
    with pytest.raises(ValueError, match="loss_fn"):
        await TrainingIntegration().async_training_step(whole, data, optimizer)


async def test_steps_run_beside_the_loop_and_a_cancelled_one_ends_between_steps() -> None:
    torch = pytest.importorskip("torch")
    gate, inside, threads = threading.Event(), threading.Event(), set()
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(model: Any, batch: Any) -> Any:
        threads.add(threading.current_thread())
        inside.set()
        gate.wait(60)
        return model(batch).square().mean()

    integration = TrainingIntegration(loss=loss)
    batches = [torch.ones(1, 2)] * 3
    training = asyncio.create_task(integration.async_training_step(model, batches, optimizer))
    await until(inside.is_set)  # The loop goes on while a step computes.
    assert threading.current_thread() not in threads
    before = model.weight.detach().clone()
    training.cancel()
    await asyncio.sleep(0)
    assert not training.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert integration.step == 0 and torch.equal(model.weight, before)


async def test_loaders_are_read_ahead_but_not_too_far() -> None:
    read = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(20):
            read.append(number)
            yield number

    async for number in prefetched(numbers(), 2):
        await asyncio.sleep(0)
        assert len(read) <= number + 5
    assert len(read) == 20

    def failing() -> Any:
        yield 1
        raise OSError("torn")

    seen = []
    with pytest.raises(OSError, match="torn"):
        async for number in prefetched(failing()):
            seen.append(number)
    assert seen == [1]


async def test_example_cpu_gpu_offloading(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    gpu_tensor = numpy.arange(10_000, dtype="float32").reshape(100, 100)
    config = OffloadConfig(memory_threshold=0.8, cache_size=1000, prefetch_enabled=True)
    offloader = GPUOffloader(config)
    cpu_tensor = await offloader.offload_to_cpu(gpu_tensor)
    before = gpu_tensor
    gpu_tensor = await offloader.load_to_gpu(cpu_tensor)
    assert gpu_tensor.dtype == before.dtype and (gpu_tensor == before).all() and gpu_tensor.flags.writeable

    small = GPUOffloader(OffloadConfig(memory_bytes=4 << 20, disk_path=tmp_path / "spilled"))
    many = [await small.offload_to_cpu(numpy.full(1 << 18, number, dtype="float32")) for number in range(16)]
    assert small.get_stats()["disk_items"] >= 10
    for number, tensor in enumerate(many):
        assert (await small.load_to_gpu(tensor) == number).all()
    assert small.get_stats()["memory_used"] <= 4 << 20
    del many, tensor
    gc.collect()
    stats = small.get_stats()
    assert stats["memory_items"] + stats["disk_items"] == 0
    with pytest.raises(TypeError, match="DLPack|dlpack"):
        await small.offload_to_cpu("text")
    with pytest.raises(tidegate.TidegateError):
        await small.offload_to_cpu(numpy.zeros(8 << 20, dtype="uint8"))


async def test_tensors_go_to_a_device_before_they_go_to_the_disk() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(OffloadFailedError, match="none such|no OpenCL|no device"):
        GPUOffloader(OffloadConfig(device="none such"))
    try:
        offloader = GPUOffloader(OffloadConfig(memory_bytes=4 << 20, device=0, device_bytes=8 << 20))
    except OffloadFailedError:
        if "REQUIRE_OPENCL" in os.environ:
            raise
        pytest.skip("there is no OpenCL device")
    many = [await offloader.offload_to_cpu(numpy.full(1 << 18, number, dtype="float32")) for number in range(20)]
    for number, tensor in enumerate(many):
        assert (await offloader.load_to_gpu(tensor) == number).all()
    stats = offloader.get_stats()
    assert stats["device"] and stats["device_bytes_read"] > 0
    assert 6 << 20 <= stats["device_used"] <= 8 << 20 and stats["disk_items"] >= 4


async def test_tensors_give_way_where_memory_is_short(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    # More than this share is used on any machine.
    config = OffloadConfig(memory_bytes=8 << 20, disk_path=tmp_path / "given_way", system_threshold=0.0001)
    offloader = GPUOffloader(config)
    many = [await offloader.offload_to_cpu(numpy.full(1 << 17, number, dtype="float32")) for number in range(6)]
    await until(lambda: offloader.get_stats()["memory_used"] == 0)
    assert offloader.get_stats()["disk_items"] == 6
    for number, tensor in enumerate(many):
        assert (await offloader.load_to_gpu(tensor) == number).all()


@pytest.mark.parametrize("wrong", [{"system_threshold": 1.7}, {"memory_threshold": -0.1}])
def test_a_threshold_is_a_share(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=f"{next(iter(wrong))} is a share"):
        GPUOffloader(OffloadConfig(**wrong))


async def test_large_arrays_lie_in_the_memory_of_the_offloader() -> None:
    numpy = pytest.importorskip("numpy")
    budget, size = 8 << 20, 1 << 20
    offloader = GPUOffloader(OffloadConfig(memory_bytes=budget, prefetch_enabled=False))
    handle = await offloader.offload_to_cpu(numpy.arange(size // 8))

    def used() -> int:
        gc.collect()
        return int(offloader.get_stats()["memory_used"])

    assert used() == size
    own = await offloader.load_to_gpu(handle)
    own += 1
    assert used() == 2 * size
    seen = await offloader.load_to_gpu(handle, writable=False)
    assert used() == 2 * size and (seen == numpy.arange(size // 8)).all() and (own == seen + 1).all()
    with pytest.raises(ValueError, match="read-only"):
        seen += 1
    # What there is no room for is in memory of its own; nobody is refused because others keep what they have loaded.
    many = [await offloader.load_to_gpu(handle) for _ in range(12)]
    assert used() == budget and all((array == seen).all() for array in many)
    part = many[0][5:7]
    del own, many
    assert used() == 2 * size
    # A part of an array keeps its memory, and so does an array whose tensor and offloader are gone.
    del handle, offloader
    gc.collect()
    assert list(part) == [5, 6] and seen.sum() == numpy.arange(size // 8).sum()


async def test_torch_tensors_come_back_as_they_were() -> None:
    torch = pytest.importorskip("torch")
    offloader = GPUOffloader(OffloadConfig(memory_bytes=8 << 20))
    for tensor in (torch.randn(3, 5).bfloat16(), torch.tensor(7), torch.randn(4, 6).t(), torch.ones(2, dtype=torch.bool)):
        again = await offloader.load_to_gpu(await offloader.offload_to_cpu(tensor))
        assert torch.equal(again, tensor) and again.dtype == tensor.dtype and again.device == tensor.device
    large = torch.randn(1 << 17)
    handle = await offloader.offload_to_cpu(large)
    for writable in (True, False):
        again = await offloader.load_to_gpu(handle, writable=writable)
        again.mul_(2)
        assert torch.equal(again, large * 2) and torch.equal(await offloader.load_to_gpu(handle), large)


async def test_arrays_of_every_kind_are_put_away_where_they_are() -> None:
    numpy = pytest.importorskip("numpy")
    offloader = GPUOffloader(OffloadConfig(memory_bytes=8 << 20))
    sealed = numpy.arange(6, dtype="int16")
    sealed.flags.writeable = False
    large = numpy.arange(1 << 17, dtype=">f8")
    for array in (sealed, large[::2], numpy.array(2.5), numpy.zeros((0, 3)), numpy.array([b"ab", b"c"]), large > 3):
        again = await offloader.load_to_gpu(await offloader.offload_to_cpu(array))
        assert again.dtype == array.dtype and again.shape == array.shape and again.tobytes() == array.tobytes()
    # Cancelled while it is copied, nothing is left of it.
    task = asyncio.ensure_future(offloader.offload_to_cpu(large))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del again
    gc.collect()
    assert offloader.get_stats()["memory_items"] == 0
    with pytest.raises(TypeError, match="Python objects"):
        await offloader.offload_to_cpu(numpy.array([{}]))


async def test_example_parallel_query_processing(engine: tidegate.Engine) -> None:
    queries = [f"Test query {i}" for i in range(20)]
    results = await parallel_run(engine, queries, max_concurrent=10, max_tokens=4, temperature=0.0)
    assert [one.query for one in results] == queries and all(one.is_ok for one in results)
    assert results[3].result.text == (await engine.generate(queries[3], max_tokens=4, temperature=0.0)).text


async def test_a_query_that_fails_is_not_left_out() -> None:
    inside, most = 0, 0

    async def ask(query: int) -> int:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        await asyncio.sleep(0)
        inside -= 1
        if query == 2:
            raise KeyError(query)
        return query

    results = await parallel_run(ask, range(9), max_concurrent=3)
    assert [one.result for one in results] == [0, 1, None, 3, 4, 5, 6, 7, 8] and most == 3
    assert isinstance(results[2].error, KeyError) and results[2].timestamp > 1.7e9


async def test_example_gpu_stream_coordination() -> None:
    torch = pytest.importorskip("torch")
    stream_manager = ExecutionLanes(4)
    operations = [lambda: torch.randn(100, 100) for _ in range(4)]
    results = await stream_manager.run_all(operations)
    assert len(results) == len(operations) and all(isinstance(result, torch.Tensor) for result in results)
    barrier = threading.Barrier(4)  # It opens only if four operations run side by side.
    await stream_manager.run_all([lambda: barrier.wait(30)] * 4)
    outcomes = await stream_manager.run_all([lambda: 1 // 0, lambda: 1], return_exceptions=True)
    assert isinstance(outcomes[0], ZeroDivisionError) and outcomes[1] == 1 and stream_manager.count == 4
    async with mixed_precision():
        assert (torch.randn(2, 2) @ torch.randn(2, 2)).dtype == torch.bfloat16


async def test_lanes_are_taken_in_turns() -> None:
    lanes = ExecutionLanes(3, streams=())
    names = [await lanes.run(lambda: threading.current_thread().ident) for _ in range(6)]
    assert names[:3] == names[3:] and len(set(names)) == 3
    told: contextvars.ContextVar[str] = contextvars.ContextVar("told")
    told.set("by whoever asks")
    assert await lanes.run(told.get) == "by whoever asks"
    with pytest.raises(ZeroDivisionError):
        await lanes.run(lambda: 1 // 0)
    # What nobody waits for any more is run to its end, and its lane is free then.
    go, seen = threading.Event(), []
    left = asyncio.ensure_future(lanes.run(lambda: seen.append(go.wait(30))))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    go.set()
    await until(lambda: seen)
    assert await lanes.run_all([lambda: 1] * 9) == [1] * 9
    with pytest.raises(ValueError, match="at least one"):
        ExecutionLanes(0)


def test_configurations_can_be_pickled() -> None:
    for config in (OffloadConfig(), TrainingConfig()):
        assert pickle.loads(pickle.dumps(config)) == config
