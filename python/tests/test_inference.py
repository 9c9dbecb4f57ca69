"""The usage examples of the inference engine: a function, a torch module, the embedded model."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import tidegate
from tidegate import EngineConfig, InferenceConfig, InferenceEngine, InferenceRequest
from waiting import until, until_here


def squares(batch: list[int]) -> list[Any]:
    time.sleep(0.001)
    return [ValueError("thirteen") if number == 13 else number * number for number in batch]


async def test_example_basic_engine_setup() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    input_data = torch.randn(8)

    config = InferenceConfig()
    config.device.device_type = "cuda"
    config.batch.batch_size = 16
    config.batch.adaptive_batching = True

    engine_config = EngineConfig()
    engine_config.cache_enabled = True
    engine_config.continuous_batching = True
    engine_config.use_mixed_precision = True

    engine = InferenceEngine(model, config, engine_config)
    await engine.start()
    result = await engine.process_request(input_data)
    print(f"Result: {result}")
    metrics = engine.get_performance_metrics()
    print(f"Throughput: {metrics['throughput']['requests_per_second']:.1f} req/s")
    with torch.no_grad():
        assert torch.allclose(result, model(input_data), atol=1e-5)
    assert "the processor does the work" in engine.get_status()["options"]["device_type"]
    await engine.stop()


async def test_example_high_performance_configuration(engine: tidegate.Engine) -> None:
    engine_config = EngineConfig()
    engine_config.model_compilation_enabled = True
    engine_config.use_channels_last = True
    engine_config.use_mixed_precision = True
    engine_config.enable_tensorrt = True
    engine_config.continuous_batching = True
    engine_config.adaptive_timeout = True
    engine_config.request_coalescing = True
    engine_config.use_memory_pool = True
    engine_config.tensor_cache_enabled = True
    engine_config.use_pinned_memory = True
    engine_config.parallel_workers = 16
    engine_config.use_lock_free_queue = True
    engine_config.thread_affinity = True
    engine_config.use_cuda_graphs = True
    engine_config.numa_aware = True

    served = InferenceEngine(engine, InferenceConfig(), engine_config)
    await served.start()
    answer = await served.process_request("Once upon a tide", max_tokens=6, temperature=0.0)
    assert len(answer.tokens) == 6
    options = served.get_status()["options"]
    assert "no GPU" in options["enable_tensorrt"] and "no effect" in options["parallel_workers"]
    # Every option that is set says what it means here.
    named = set(options) | {"cache_enabled", "max_cache_size", "request_coalescing"}
    assert set(vars(engine_config)) <= named
    await served.stop()
    assert engine.status()["phase"] == "ready"


async def test_example_multi_gpu_setup() -> None:
    config = InferenceConfig()
    config.device.multi_gpu.enabled = True
    config.device.multi_gpu.strategy = "data_parallel"
    config.device.multi_gpu.device_ids = [0, 1, 2, 3]
    config.device.multi_gpu.load_balancing = "dynamic"
    config.batch.batch_size = 2

    engine = InferenceEngine(squares, config, EngineConfig(), enable_multi_gpu=True)
    await engine.start()
    await asyncio.gather(*(engine.process_request(number) for number in range(20, 60)))
    gpu_usage = engine.get_gpu_utilization()
    for gpu_id, utilization in gpu_usage.items():
        print(f"GPU {gpu_id}: {utilization:.1%} utilization")
    engine.rebalance_gpus()
    assert list(gpu_usage) == [0, 1, 2, 3] and all(share > 0.0 for share in gpu_usage.values())
    assert engine.get_gpu_memory_usage()[3]["total_mb"] > 0.0
    await engine.stop()


async def test_a_native_model_has_a_replica_on_each_device() -> None:
    config = InferenceConfig()
    config.device.multi_gpu.enabled = True
    config.device.multi_gpu.device_ids = [3, 5]
    engine = InferenceEngine(None, config, EngineConfig(cache_enabled=False))
    await engine.start()
    prompts = [f"Story {number}:" for number in range(4)]
    answers = await asyncio.gather(*(engine.process_request(prompt, max_tokens=4) for prompt in prompts))
    engine.rebalance_gpus()
    devices = [3, 5][: len(os.sched_getaffinity(0))]
    assert len(answers) == 4 and list(engine.get_gpu_utilization()) == devices
    assert all(share > 0.0 for share in engine.get_gpu_utilization().values())
    assert all(memory["used_mb"] > 0.0 for memory in engine.get_gpu_memory_usage().values())
    await engine.stop()


async def test_example_batch_processing() -> None:
    input_data = list(range(100))
    engine = InferenceEngine(squares, engine_config=EngineConfig(parallel_workers=2))
    await engine.start()

    async def process_multiple_requests() -> list[Any]:
        tasks = []
        for i in range(100):
            task = engine.process_request(input_data[i], priority=i % 3, timeout=30.0)
            tasks.append(task)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return results

    results = await process_multiple_requests()
    print(f"Processed {len(results)} requests")
    metrics = engine.get_performance_metrics()
    batch_stats = metrics["batch_stats"]
    print(f"Average batch size: {batch_stats['average_batch_size']:.1f}")
    print(f"Batch success rate: {batch_stats['successful_batches'] / batch_stats['total_batches']:.1%}")
    assert [result for result in results if isinstance(result, int)] == [n * n for n in range(100) if n != 13]
    assert isinstance(results[13], ValueError) and "thirteen" in str(results[13])
    assert batch_stats["average_batch_size"] > 2.0 and metrics["errors"] == {"ValueError": 1}
    assert metrics["latency"]["p50_ms"] > 0.0
    await engine.stop()


async def test_example_performance_monitoring_and_scaling() -> None:
    looked = threading.Event()

    def squares_later(batch: list[int]) -> list[int]:
        looked.wait()
        return squares(batch)

    engine = InferenceEngine(squares_later, engine_config=EngineConfig(parallel_workers=4))
    await engine.start()

    async def monitor_and_scale(looks: int) -> None:
        for _ in range(looks):
            metrics = engine.get_performance_metrics()
            queue_size = engine.get_queue_size()
            if queue_size > 50:
                current_workers = engine.get_worker_count()
                engine.scale_workers(min(current_workers + 2, 32))
                print(f"Scaled up to {engine.get_worker_count()} workers")
            elif queue_size < 5 and engine.get_worker_count() > 4:
                current_workers = engine.get_worker_count()
                engine.scale_workers(max(current_workers - 1, 4))
                print(f"Scaled down to {engine.get_worker_count()} workers")
            throughput = metrics["throughput"]["requests_per_second"]
            latency = metrics["latency"]["mean_ms"]
            print(f"Throughput: {throughput:.1f} req/s, Latency: {latency:.1f}ms")
            await asyncio.sleep(0)

    work = [asyncio.ensure_future(engine.process_request(number)) for number in range(100, 700)]
    await asyncio.sleep(0)
    await asyncio.create_task(monitor_and_scale(1))
    grown = engine.get_worker_count()
    looked.set()
    assert await asyncio.gather(*work) == [number * number for number in range(100, 700)]
    await monitor_and_scale(3)
    assert grown == 6 and engine.get_worker_count() == 4
    await engine.stop()


async def test_example_error_handling_and_recovery() -> None:
    broken = threading.Event()

    def model(batch: list[int]) -> list[int]:
        if not broken.is_set():
            broken.set()
            raise OSError("the first call fails")
        return batch

    engine = InferenceEngine(model, engine_config=EngineConfig(parallel_workers=1))
    await engine.start()

    async def robust_inference(input_data: int) -> Any:
        max_retries = 3
        retry_count = 0
        while retry_count < max_retries:
            try:
                result = await engine.process_request(input_data, timeout=30.0)
                return result
            except asyncio.TimeoutError:
                retry_count += 1
                print(f"Request timeout, retry {retry_count}/{max_retries}")
            except Exception as e:
                print(f"Inference error: {e}")
                health = engine.health_check()
                if health["status"] != "healthy":
                    print("Engine unhealthy, attempting restart")
                    await engine.restart()
                retry_count += 1
        raise Exception(f"Failed to process request after {max_retries} retries")

    try:
        result = await robust_inference(5)
    except Exception as e:
        print(f"Final error: {e}")
    assert result == 5 and engine.health_check()["last_error"] == "OSError: the first call fails"
    await engine.stop()


async def test_example_health_check_integration() -> None:
    engine = InferenceEngine(squares)

    async def health_monitor() -> dict[str, Any]:
        health = engine.health_check()
        if health["status"] == "unhealthy":
            await engine.restart()
        elif health["status"] == "degraded":
            engine.get_performance_metrics()
        return health

    health_status = await health_monitor()
    assert health_status["status"] == "unhealthy" and not health_status["engine_running"]
    health_status = await health_monitor()
    assert health_status["status"] == "healthy" and engine.is_ready()
    assert health_status["workers_active"] == 8 and health_status["uptime_seconds"] > 0.0
    await engine.stop()
    assert not engine.is_ready()


async def test_results_are_cached_and_shared() -> None:
    calls: list[int] = []

    def count(batch: list[int]) -> list[int]:
        calls.extend(batch)
        return batch

    engine = InferenceEngine(count, engine_config=EngineConfig(parallel_workers=1, max_cache_size=2))
    await engine.start()
    assert await asyncio.gather(*(engine.process_request(1) for _ in range(5))) == [1] * 5
    assert calls == [1] and engine.get_status()["counts"]["coalesced"] == 4
    assert await engine.process_request(1) == 1 and calls == [1]
    assert engine.get_performance_metrics()["cache_stats"]["total_hits"] == 1
    for number in (2, 3, 1):
        await engine.process_request(number)
    assert calls == [1, 2, 3, 1]
    engine.clear_cache()
    engine.enable_caching(False)
    engine.set_batch_size(4)
    engine.set_priority_mode(False)
    await engine.process_request(1)
    assert calls == [1, 2, 3, 1, 1]
    future = asyncio.get_running_loop().create_future()
    requests = [InferenceRequest("a", 7, future), InferenceRequest("b", 8, None, priority=2)]
    assert await engine.process_batch(requests) == [7, 8] and await future == 7
    assert await asyncio.to_thread(engine.process_request_sync, 9) == 9
    await engine.stop()
    with pytest.raises(tidegate.EngineStoppedError):
        await engine.process_request(1)


def test_threads_have_the_same_cache_counts_and_errors() -> None:
    calls: list[int] = []

    def model(batch: list[int]) -> list[Any]:
        calls.extend(batch)
        return [ValueError("thirteen") if number == 13 else -number for number in batch]

    engine = InferenceEngine(model, engine_config=EngineConfig(parallel_workers=1))
    assert engine.process_request_sync(1) == engine.process_request_sync(1) == -1
    assert asyncio.run(engine.process_request(1)) == -1 and calls == [1]
    with pytest.raises(ValueError, match="thirteen"):
        engine.process_request_sync(13)
    with pytest.raises(TypeError, match="max_tokens"):
        engine.process_request_sync(1, max_tokens=3)
    counts, metrics = engine.get_status()["counts"], engine.get_performance_metrics()
    assert counts == {"requests": 5, "failed": 2, "hits": 2, "misses": 2, "coalesced": 0}
    assert metrics["errors"] == {"ValueError": 1, "TypeError": 1} and metrics["cache_stats"]["cache_size"] == 1
    assert engine.health_check()["last_error"].startswith("TypeError")
    asyncio.run(engine.stop())


def test_threads_and_loops_share_what_is_under_way() -> None:
    gate, calls = threading.Event(), []

    def waits(batch: list[int]) -> list[int]:
        calls.extend(batch)
        gate.wait(60)
        return batch

    engine = InferenceEngine(waits, engine_config=EngineConfig(parallel_workers=1))
    asyncio.run(engine.start())
    found: list[int] = []
    works: list[Callable[[], int]] = [lambda: engine.process_request_sync(7)] * 2
    works += [lambda: asyncio.run(engine.process_request(7))] * 2
    threads = [threading.Thread(target=lambda work=work: found.append(work())) for work in works]
    for thread in threads:
        thread.start()
    until_here(lambda: engine.get_status()["counts"]["coalesced"] == 3)

    async def leaves() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await engine.process_request(7, timeout=0.001)

    # A loop that comes and goes takes nobody else's result with it.
    asyncio.run(leaves())
    with pytest.raises(asyncio.TimeoutError):
        engine.process_request_sync(7, timeout=0.001)
    gate.set()
    for thread in threads:
        thread.join()
    assert found == [7] * 4 and calls == [7] and engine.get_performance_metrics()["cache_stats"]["cache_size"] == 1
    asyncio.run(engine.stop())


async def test_whoever_began_may_leave_and_the_last_one_out_cancels() -> None:
    gate, began, calls = threading.Event(), threading.Event(), []

    def waits(batch: list[int]) -> list[int]:
        calls.extend(batch)
        began.set()
        gate.wait(60)
        return batch

    engine = InferenceEngine(waits, engine_config=EngineConfig(parallel_workers=1))
    await engine.start()
    running = asyncio.create_task(engine.process_request(0))
    await asyncio.to_thread(began.wait, 60)
    first, second, alone = (asyncio.create_task(engine.process_request(number)) for number in (1, 1, 2))
    await until(lambda: engine.get_status()["counts"]["requests"] == 4)
    first.cancel()
    alone.cancel()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
    assert isinstance((await asyncio.gather(alone, return_exceptions=True))[0], asyncio.CancelledError)
    gate.set()
    assert await running == 0 and await second == 1 and calls == [0, 1]
    await engine.stop()


async def test_rebalancing_moves_what_waits() -> None:
    gates = {0: threading.Event(), 1: threading.Event()}
    calls: list[int] = []

    def model(number: int) -> int:
        # Even numbers are for the first device and odd ones for the second; what each begins with waits at its gate.
        is_first = number % 2 not in [one % 2 for one in calls]
        calls.append(number)
        if is_first:
            gates[number % 2].wait(60)
        return -number

    config = InferenceConfig()
    config.device.multi_gpu.enabled = True
    config.device.multi_gpu.device_ids = [4, 7]
    config.batch.batch_size = 1
    config.batch.calls = "item"
    engine = InferenceEngine(model, config)
    await engine.start()
    tasks = [asyncio.create_task(engine.process_request(number)) for number in range(8)]
    await until(lambda: len(calls) == 2)
    # One device goes on and has nothing left; the other one stands still, and three inputs wait behind what it does.
    gates[1].set()
    assert await asyncio.gather(*tasks[1::2]) == [-1, -3, -5, -7]
    assert engine.get_queue_size() == 3
    engine.rebalance_gpus()
    await until(lambda: sum(task.done() for task in tasks) == 6)
    gates[0].set()
    assert await asyncio.gather(*tasks) == [-number for number in range(8)] and sorted(calls) == list(range(8))
    assert set(engine.get_gpu_utilization()) == {4, 7}
    await engine.stop()


async def test_time_runs_out_and_wrong_use_is_named() -> None:
    gate = threading.Event()

    def waits(batch: list[int]) -> list[int]:
        gate.wait(30)
        return batch

    engine = InferenceEngine(waits, engine_config=EngineConfig(parallel_workers=1))
    await engine.start()
    with pytest.raises(asyncio.TimeoutError):
        await engine.process_request(1, timeout=0.02)
    gate.set()
    with pytest.raises(TypeError, match="max_tokens"):
        await engine.process_request(1, max_tokens=3)
    await engine.stop()
    with pytest.raises(TypeError, match="give a path, an Engine"):
        InferenceEngine(3)
    miscounts = InferenceEngine(lambda batch: [], engine_config=EngineConfig(parallel_workers=1))
    await miscounts.start()
    with pytest.raises(ValueError, match="answer one for each"):
        await miscounts.process_request(1)
    await miscounts.stop()


async def test_a_function_that_hangs_fails_its_batch_and_the_next_is_served() -> None:
    hanging = threading.Event()

    def model(batch: list[str]) -> list[str]:
        if "hang" in batch:
            hanging.wait()
        return [text.upper() for text in batch]

    config = InferenceConfig()
    config.batch.restart_after = 0.3
    engine = InferenceEngine(model, config, EngineConfig(parallel_workers=1))
    await engine.start()
    assert await engine.process_request("go") == "GO"
    for _ in range(2):
        with pytest.raises(tidegate.EngineError, match="did not come back from the batch of this input for 300ms"):
            await engine.process_request("hang")
        assert await engine.process_request("go on") == "GO ON"
    health = engine.health_check()
    assert health["status"] == "degraded" and "a batch did not end" in str(health["reasons"])
    assert health["queue_size"] == 0 and engine.is_ready()
    # What comes back after all is dropped, and the engine ends as ever.
    hanging.set()
    await engine.stop()


def test_configurations_can_be_pickled() -> None:
    for config in (InferenceConfig(), EngineConfig(), InferenceRequest("a", 1, timestamp=0.0)):
        assert pickle.loads(pickle.dumps(config)) == config
