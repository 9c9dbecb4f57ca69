"""The engine from asyncio and from threads, with the embedded model."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import subprocess
import sys
import threading

import pytest

import tidegate
from waiting import until

GREEDY = {"temperature": 0.0, "max_tokens": 12}


async def test_one_answer_however_it_is_asked_for(engine: tidegate.Engine) -> None:
    whole = await engine.generate("Once upon a tide", **GREEDY)
    streamed = [event async for event in engine.stream("Once upon a tide", **GREEDY)]
    handle = engine.submit("Once upon a tide", **GREEDY)
    assert whole.text and len(whole.tokens) == whole.usage.completion_tokens == 12
    assert "".join(event.text for event in streamed if event.kind == "delta") == whole.text
    assert [event.kind for event in streamed][-2:] == ["finished", "done"]
    assert (await handle).tokens == whole.tokens
    assert (await asyncio.to_thread(engine.generate_sync, "Once upon a tide", **GREEDY)).text == whole.text
    chat = await engine.generate([{"role": "user", "content": "Hello!"}], **GREEDY)
    assert chat.usage.prompt_tokens > 2


async def test_many_at_once_are_what_each_is_alone(engine: tidegate.Engine) -> None:
    prompts = [f"Number {number} is" for number in range(24)]
    together = await asyncio.gather(*(engine.generate(prompt, **GREEDY) for prompt in prompts))
    for prompt, answer in zip(prompts[::8], together[::8], strict=True):
        assert (await engine.generate(prompt, share=False, **GREEDY)).tokens == answer.tokens


async def test_leaving_cancels(engine: tidegate.Engine) -> None:
    before, accepted = cancelled(engine), engine.status()["counters"]["accepted"]
    async for event in engine.stream("Tell me a story.", max_tokens=900, ignore_eos=True, share=False):
        if event.kind == "delta":
            break
    await until(lambda: cancelled(engine) == before + 1)
    task = asyncio.create_task(engine.generate("Tell me a story.", max_tokens=900, ignore_eos=True, share=False))
    await until(lambda: engine.status()["counters"]["accepted"] == accepted + 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: cancelled(engine) == before + 2)
    handle = engine.submit("Tell me a story.", max_tokens=900, ignore_eos=True, share=False)
    await until(lambda: engine.status()["counters"]["accepted"] == accepted + 3)
    assert handle.cancel() and handle.cancelled() and not handle.cancel()
    await until(lambda: cancelled(engine) == before + 3)
    await until(lambda: engine.status()["load"]["running"] == 0)


def test_handles_are_concurrent_futures(engine: tidegate.Engine) -> None:
    handles = [engine.submit(f"{number} and", **GREEDY) for number in range(6)]
    done, left = concurrent.futures.wait(handles, timeout=60)
    assert done == set(handles) and not left
    assert all(handle in handles for handle in concurrent.futures.as_completed(handles))


async def test_handles_come_as_they_end(engine: tidegate.Engine) -> None:
    long = engine.submit("Tell me a story.", max_tokens=200, ignore_eos=True, share=False)
    short = engine.submit("Tell me a story.", max_tokens=1, share=False)
    assert [handle async for handle in tidegate.as_completed([long, short])] == [short, long]


async def test_forms_and_logprobs(engine: tidegate.Engine) -> None:
    answer = await engine.generate("Is the sea wet?", form={"choice": ["yes", "no"]}, logprobs=2, temperature=0.0)
    assert answer.text in ("yes", "no")
    first = answer.choices[0].logprobs[0]
    assert first.logprob <= 0.0 and len(first.top) == 2 and isinstance(first.bytes, bytes)


async def test_errors_are_pythons_own_kinds(engine: tidegate.Engine) -> None:
    with pytest.raises(LookupError, match="does not exist") as unknown:
        await engine.generate("x", model="nothing")
    assert isinstance(unknown.value, tidegate.UnknownModelError)
    with pytest.raises(ValueError, match="context"):
        await engine.generate("x", max_tokens=10_000_000)
    with pytest.raises(ValueError, match="high, normal or low"):
        await engine.generate("x", priority="urgent")  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await engine.generate("Tell me a story.", max_tokens=400, ignore_eos=True, timeout=0.001, share=False)
    with pytest.raises(FileNotFoundError, match="give a model folder"):
        tidegate.Engine("no/such/model")
    with pytest.raises(ValueError, match="--dtype"):
        tidegate.Engine(dtype="float99")
    with pytest.raises(ValueError, match="--treads"):
        tidegate.Engine(treads=2)
    with pytest.raises(tidegate.InvalidRequestError, match="for `tidegate serve`"):
        tidegate.Engine(tenant_rate_limit="60/min")
    with pytest.raises(ValueError, match="dimensions must be from 1"):
        await engine.embed(["x"], dimensions=1 << 20)
    with pytest.raises(ValueError, match="at least one text"):
        await engine.embed([])


async def test_the_embedded_model_makes_vectors_of_texts_tokens_and_turns(engine: tidegate.Engine) -> None:
    turn = [{"role": "user", "content": "High water?"}]
    vectors = await engine.embed(["High water?", [1, 2, 3], turn])
    assert len(vectors) == 3 and sum(vectors.tokens) > 6
    for vector in vectors.tolist():
        assert abs(sum(value * value for value in vector) - 1) < 1e-4
    assert (await engine.embed(turn))[0] == vectors[2]
    assert (await engine.embed("High water?"))[0] == vectors[0]


async def test_a_full_queue_says_when_to_come_again() -> None:
    async with tidegate.Engine(cache=False, threads=1, max_sequences=1, max_queue=1) as small:
        story = {"max_tokens": 300, "ignore_eos": True, "share": False}
        running = small.submit("Tell me a story.", **story)
        await until(lambda: small.status()["load"]["running"] == 1)
        waiting = small.submit("Tell me a story.", **story)
        await until(lambda: small.status()["load"]["queued"] == 1)
        with pytest.raises(queue.Full) as full:
            await small.generate("x")
        assert full.value.retry_after > 0
        assert isinstance(full.value, asyncio.QueueFull)
        running.cancel()
        waiting.cancel()
    with pytest.raises(tidegate.EngineStoppedError, match="closed"):
        await small.generate("x")


def test_threads_and_loops_share_an_engine(engine: tidegate.Engine) -> None:
    answers: list[str] = []

    def work() -> None:
        answers.append(engine.generate_sync("Once upon a tide", **GREEDY).text)
        answers.append(asyncio.run(engine.generate("Once upon a tide", **GREEDY)).text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len(set(answers)) == 1


def test_the_command_is_in_the_wheel() -> None:
    command = [sys.executable, "-m", "tidegate"]
    ran = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("tidegate ")
    wrong = subprocess.run([*command, "run", "--dtype", "x"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "--dtype" in wrong.stderr


def test_nothing_heavy_is_imported() -> None:
    look = "import sys, tidegate; print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "[]\n"


def cancelled(engine: tidegate.Engine) -> int:
    return sum(count for _, count in engine.status()["counters"]["cancelled"])
