"""Texts and pictures: the usage example of the documents, and what requests, results and pictures can be.

The model is the tiny one that the crate ``models`` is tested with; its pictures are those of the crate ``images``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tidegate import AsyncMultimodalProcessor, AsyncMultimodalRequest, AsyncMultimodalResult
from waiting import until

CRATES = Path(__file__).parent.parent.parent / "crates"
MODEL = CRATES / "models/test_data/qwen3_vl/model"
BLIND = CRATES / "models/test_data/qwen3/model"
HELD_OUT = CRATES / "tidegate/test_data/pictures"
PICTURES = CRATES / "images/test_data/qwen3-vl-tiny"
SQUARE, WIDE = PICTURES / "exact_64x64.png", PICTURES / "exact_96x64.png"
GREEDY = {"max_tokens": 6, "temperature": 0.0, "ignore_eos": True}


@pytest.fixture(scope="module")
def seeing() -> Iterator[tidegate.Engine]:
    with tidegate.Engine(MODEL, cache=False, threads=2) as opened:
        yield opened


async def test_example_multimodal(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate import create_qwen3_vl_2b_instruct_plugin

    # What the example's comments elide: which folder is the model, and where the pictures are.
    monkeypatch.setenv("TIDEGATE_MODEL", str(MODEL))
    monkeypatch.setenv("TIDEGATE_NO_CACHE", "true")
    monkeypatch.chdir(PICTURES)

    # Create and initialize the plugin
    plugin = create_qwen3_vl_2b_instruct_plugin()
    plugin.initialize(enable_async_multimodal_processing=True)

    # Process multimodal input asynchronously
    result = await plugin._model.async_process_multimodal_request(
        text="Describe this image",
        image="exact_64x64.png"
    )

    # Process batch of multimodal inputs
    batch_results = await plugin._model.async_process_batch_multimodal_requests([
        {"text": "Describe image 1", "image": "exact_64x64.png"},
        {"text": "Describe image 2", "image": "exact_96x64.png"}
    ])

    assert result.is_ok and result.completion.usage.completion_tokens > 0
    assert len(batch_results) == 2 and all(one.is_ok for one in batch_results)
    assert plugin.model.processor.get_stats()["vision"]["encoded"] == 2
    plugin.cleanup()
    with pytest.raises(tidegate.EngineStoppedError, match="initialize"):
        plugin.model.process_multimodal_request("x")


async def test_the_embedded_model_describes_pictures() -> None:
    asked = json.loads((HELD_OUT / "questions.json").read_text())
    async with AsyncMultimodalProcessor(generation={"temperature": 0.0}, cache=False) as processor:
        requests = [{"text": case["question"], "image": HELD_OUT / case["picture"]} for case in asked]
        results = await processor.process_batch(requests)
    right = [result.text == case["answer"] for result, case in zip(results, asked)]
    assert sum(right) >= len(right) - 2, [result.text for result in results]


def test_a_plugin_says_what_it_lacks(seeing: tidegate.Engine) -> None:
    with pytest.raises(ValueError, match="takes no pictures"):
        tidegate.create_qwen3_vl_2b_instruct_plugin(BLIND).initialize()
    with tidegate.create_qwen3_vl_2b_instruct_plugin(seeing) as plugin:
        plugin.initialize(generation=GREEDY)
        assert len(plugin.model.process_multimodal_request("What is it?", SQUARE).completion.tokens) == 6
        with pytest.raises(ValueError, match="enable_async_multimodal_processing=True"):
            asyncio.run(plugin.model.async_process_multimodal_request("What is it?", SQUARE))
    assert seeing.status()["phase"] == "ready"


async def test_a_picture_is_the_same_however_it_is_given(seeing: tidegate.Engine) -> None:
    numpy, images = pytest.importorskip("numpy"), pytest.importorskip("PIL.Image")
    opened = images.open(WIDE)
    data = "data:image/png;base64," + base64.b64encode(WIDE.read_bytes()).decode()
    ways: list[Any] = [WIDE, str(WIDE), WIDE.read_bytes(), memoryview(WIDE.read_bytes()), data, opened]
    ways += [numpy.asarray(opened.convert("RGB")), opened.convert("RGBA"), numpy.asarray(opened.convert("RGBA"))]
    # The keys and values of the first are not to answer for the others.
    ask = {**GREEDY, "share": False, "logprobs": 1}
    asked = [seeing.generate("What is it?", images=way, cache_salt=str(number), **ask) for number, way in enumerate(ways)]
    answers = [answer.choices for answer in await asyncio.gather(*asked)]
    assert answers == [answers[0]] * len(ways)
    other = await seeing.generate("What is it?", images=SQUARE, **ask)
    assert other.choices != answers[0]
    command = [sys.executable, "-m", "tidegate", "run", "--quiet", "--no-cache", "--model", MODEL, "--image", WIDE]
    command += ["--temperature", "0", "--max-tokens", "6", "What is it?"]
    plain = await seeing.generate("What is it?", images=WIDE, max_tokens=6, temperature=0.0)
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert ran.stdout.decode().strip() == plain.text.strip()


async def test_pictures_stand_where_the_messages_have_them(seeing: tidegate.Engine) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    data = "data:image/png;base64," + base64.b64encode(WIDE.read_bytes()).decode()
    own = [{"type": "image", "image": SQUARE}, {"type": "image_url", "image_url": {"url": data}}]
    places = [{"type": "image"}, {"type": "image"}]
    text = {"type": "text", "text": "Which is wider?"}
    answers = [
        await seeing.generate([{"role": "user", "content": [*own, text]}], share=False, **GREEDY),
        await seeing.generate([{"role": "user", "content": [*places, text]}], images=[SQUARE, Image.open(WIDE)], **GREEDY),
        await seeing.generate("Which is wider?", images=(SQUARE, WIDE), share=False, **GREEDY),
    ]
    assert answers[0].tokens == answers[1].tokens == answers[2].tokens
    assert answers[0].usage.prompt_tokens == answers[2].usage.prompt_tokens
    streamed = [event async for event in seeing.stream("Which is wider?", images=[SQUARE, WIDE], **GREEDY)]
    assert [token for event in streamed for token in event.tokens] == answers[0].tokens


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
async def test_pictures_of_any_mode_are_read(seeing: tidegate.Engine, mode: str) -> None:
    images = pytest.importorskip("PIL.Image")
    picture = images.new(mode, (40, 30))
    answer = await seeing.generate("What is it?", images=picture, max_tokens=1)
    assert answer.usage.completion_tokens == 1


async def test_orientation_is_applied_to_pictures_in_memory(seeing: tidegate.Engine) -> None:
    images = pytest.importorskip("PIL.Image")
    upright = images.open(WIDE).convert("RGB")
    stored = upright.transpose(images.Transpose.ROTATE_90)
    stored.getexif()[0x0112] = 6  # "turn it a quarter to the right"
    ask = {**GREEDY, "share": False, "logprobs": 1}
    seen = [
        (await seeing.generate("What is it?", images=picture, cache_salt=str(number), **ask)).choices
        for number, picture in enumerate((upright, stored, upright.transpose(images.Transpose.ROTATE_90)))
    ]
    assert seen[0] == seen[1] != seen[2]


async def test_results_say_what_became_of_requests(seeing: tidegate.Engine) -> None:
    told: list[AsyncMultimodalResult] = []
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def later(result: AsyncMultimodalResult) -> None:
        await asyncio.sleep(0)
        heard.put_nowait(result.request_id)

    def breaks(result: AsyncMultimodalResult) -> None:
        told.append(result)
        raise OSError("a callback that fails harms nobody")

    async with AsyncMultimodalProcessor(seeing, generation=GREEDY) as processor:
        request = AsyncMultimodalRequest("What is it?", SQUARE, metadata={"page": 3}, priority=5, callback=told.append)
        result = await processor.process(request)
        assert told == [result] and result.metadata == {"page": 3} and result.priority == 5
        assert len(result.completion.tokens) == 6 and str(result) == result.text
        assert request.timestamp <= result.completed_at and result.processing_time > 0.0
        assert (await processor.process(AsyncMultimodalRequest("High water?", callback=later, id="text"))).is_ok
        assert await heard.get() == "text"

        many = [
            AsyncMultimodalRequest("What is it?", SQUARE, callback=breaks),
            {"text": "What is it?", "image": b"no picture", "callback": told.append, "metadata": {"page": 9}},
            {"text": "What is it?", "image": PICTURES / "none.png", "callback": told.append},
            {"text": "And this", "image": [SQUARE, WIDE], "priority": "low", "max_tokens": 2},
        ]
        results = await processor.process_batch(many)
        assert [one.is_ok for one in results] == [True, False, False, True]
        assert results[0].completion.tokens == result.completion.tokens and len(results[3].completion.tokens) == 2
        assert isinstance(results[1].error, ValueError) and isinstance(results[2].error, FileNotFoundError)
        assert results[1].metadata == {"page": 9} and results[1].error in [one.error for one in told] and len(told) == 4
        streamed = [event async for event in processor.stream({"text": "What is it?", "image": SQUARE})]
        assert [token for event in streamed for token in event.tokens] == result.completion.tokens
        handles = [processor.submit(AsyncMultimodalRequest("What is it?", WIDE)) for _ in range(3)]
        ended = [handle async for handle in tidegate.as_completed(handles)]
        assert {handle.result().text for handle in ended} == {handles[0].result().text}
    assert seeing.status()["phase"] == "ready"


async def test_leaving_cancels_and_the_callback_hears_of_it(seeing: tidegate.Engine) -> None:
    told: asyncio.Queue[AsyncMultimodalResult] = asyncio.Queue()
    long = {"max_tokens": 90, "ignore_eos": True, "share": False}
    async with AsyncMultimodalProcessor(seeing) as processor:
        request = AsyncMultimodalRequest("What is it?", SQUARE, callback=told.put_nowait, generation=long)
        task = asyncio.create_task(processor.process(request))
        await until(lambda: processor._unfinished)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance((await told.get()).error, asyncio.CancelledError)
        with pytest.raises(TimeoutError):
            await processor.process(AsyncMultimodalRequest("What is it?", WIDE, timeout=1e-6, callback=told.put_nowait))
        assert isinstance((await told.get()).error, TimeoutError)
    await until(lambda: not any(seeing.status()["load"][name] for name in ("running", "queued")))


def test_without_a_loop_callbacks_run_on_a_thread_of_the_package(seeing: tidegate.Engine) -> None:
    called = threading.Event()
    processor = AsyncMultimodalProcessor(seeing, generation=GREEDY)
    handle = processor.submit(AsyncMultimodalRequest("What is it?", SQUARE, callback=lambda _: called.set()))
    assert processor.process_sync({"text": "What is it?", "image": SQUARE}).text == handle.result(60).text
    assert called.wait(60)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("https://example.org/a.png", "nothing is fetched"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,&&&&", "broken"),
        (b"", "image"),
        (3, "is no picture"),
    ],
)
async def test_what_is_no_picture_is_named(seeing: tidegate.Engine, image: Any, told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        await seeing.generate("What is it?", images=[image])


async def test_wrong_use_is_named(seeing: tidegate.Engine) -> None:
    numpy = pytest.importorskip("numpy")
    for array in (numpy.zeros((4, 4)), numpy.zeros((2, 4, 5), "uint8"), numpy.zeros((0, 4, 3), "uint8")):
        with pytest.raises(ValueError, match="uint8"):
            await seeing.generate("What is it?", images=array)
    with pytest.raises(ValueError, match="no place for 1"):
        await seeing.generate([{"role": "user", "content": "What is it?"}], images=SQUARE)
    with pytest.raises(ValueError, match="give one for each"):
        await seeing.generate([{"role": "user", "content": [{"type": "image"}]}])
    with pytest.raises(ValueError, match="data URI"):
        await seeing.generate([{"role": "user", "content": [{"type": "image_url", "image_url": str(SQUARE)}]}])
    with pytest.raises(ValueError, match="tokens have no places"):
        await seeing.generate([1, 2], images=SQUARE)
    with tidegate.Engine(BLIND, cache=False, threads=2) as blind:
        with pytest.raises(ValueError, match="cannot see"):
            await blind.generate("What is it?", images=SQUARE)
    with pytest.raises(ValueError, match="has a 'text'"):
        await AsyncMultimodalProcessor(seeing).process({"image": SQUARE})
    with pytest.raises(tidegate.EngineStoppedError, match="start"):
        await AsyncMultimodalProcessor(MODEL).process({"text": "x"})


def test_the_example_of_the_package_runs() -> None:
    example = Path(__file__).parent.parent / "examples/multimodal.py"
    command = [sys.executable, example, MODEL, SQUARE, WIDE, PICTURES / "none.png"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0 and "2 of 3 answered" in ran.stdout and "No such file" in ran.stdout, ran.stderr


def test_requests_can_be_pickled_and_written_down() -> None:
    request = AsyncMultimodalRequest("What is it?", SQUARE, timestamp=1.0, id="a")
    assert pickle.loads(pickle.dumps(request)) == request
    assert json.dumps(request.metadata) == "{}"
