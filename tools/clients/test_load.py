"""What happens under load and when clients go away."""

import asyncio
import os
import random
import time

import openai
import pytest
from conftest import eventually

ASK = [{"role": "user", "content": "Tell me a story."}]
ROUNDS = int(os.environ.get("TIDEGATE_CLIENT_ROUNDS", "3"))
GROWTH_BYTES = 32 << 20


def long(client, model, context, **options):
    """A stream that goes on for long: several replies, each about as long as the model can make it."""
    options = {"messages": ASK, "max_tokens": context - 100, "n": 16, "stream": True, **options}
    return client.chat.completions.create(model=model, extra_body={"ignore_eos": True}, **options)


async def test_a_cancelled_stream_frees_its_slot(server, model, context):
    async with server.async_client() as client:
        stream = await long(client, model, context)
        async for _ in stream:
            break
        busy = lambda: server.metrics()["tidegate_sequences_running"] and server.metrics()["tidegate_kv_pages_used"]
        eventually(busy, "the gauges show what runs")
        await stream.close()
    eventually(server.is_idle, "the slot and the pages are free")


async def test_a_cancelled_whole_reply_frees_its_slot(server, model, context):
    async with server.async_client() as client:
        asked = asyncio.create_task(long(client, model, context, stream=False))
        while server.metrics()["tidegate_sequences_running"] == 0:
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    eventually(server.is_idle, "the slot and the pages are free")


async def test_sixty_four_streams_of_which_half_are_dropped(server, model):
    chance = random.Random(20)
    expected = None
    resident = []
    async with server.async_client() as client:

        async def stream(drop_after):
            options = {"messages": ASK, "max_tokens": 24, "temperature": 0, "extra_body": {"ignore_eos": True}}
            chunks = await client.chat.completions.create(model=model, stream=True, **options)
            text, seen = "", 0
            async for chunk in chunks:
                text += chunk.choices[0].delta.content or ""
                seen += 1
                if seen == drop_after:
                    await chunks.close()
                    return None
            assert chunk.choices[0].finish_reason == "length"
            return text

        for _ in range(ROUNDS):
            drops = [chance.randint(1, 8) for _ in range(32)] + [None] * 32
            chance.shuffle(drops)
            texts = await asyncio.gather(*(stream(drop) for drop in drops))
            finished = {text for text, drop in zip(texts, drops, strict=True) if drop is None}
            assert len(finished) == 1, "the same request gives the same text, whatever else runs"
            assert expected in (None, finished)
            expected = finished
            eventually(server.is_idle, "nothing runs, nothing waits, no page is in use")
            resident.append(server.resident_bytes())
    assert resident[-1] - resident[0] < GROWTH_BYTES, resident


def test_a_full_queue_refuses_at_once_and_disturbs_nobody(start, model, context):
    small = start("--max-sequences", "1", "--max-queue", "1")
    client = small.client()
    running = long(client, model, context, temperature=0)
    text = next(chunk for chunk in running if chunk.choices[0].delta.content)
    waiting = long(client, model, context)
    eventually(lambda: small.metrics()["tidegate_requests_queued"] == 1, "one request waits")
    for _ in range(3):
        before = time.monotonic()
        with pytest.raises(openai.RateLimitError) as caught:
            long(client, model, context)
        took = time.monotonic() - before
        assert caught.value.code == "queue_full"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 120
        assert took < 5, "a refusal does not wait for the queue"
    assert small.http.get("/readyz").status_code == 503
    assert small.http.get("/livez").status_code == 200
    eventually(lambda: small.metrics()["tidegate_sequences_running"] == 1, "the gauges show what runs")
    assert text and next(iter(running)).choices
    running.close()
    assert next(chunk for chunk in waiting if chunk.choices[0].delta.content)
    waiting.close()
    eventually(small.is_idle, "the slot and the pages are free")
    assert small.http.get("/readyz").status_code == 200


def test_the_overload_status_can_be_503(start, model, context):
    small = start("--max-sequences", "1", "--max-queue", "1", "--overload-status", "503")
    client = small.client()
    running = long(client, model, context)
    assert next(iter(running))
    waiting = long(client, model, context)
    eventually(lambda: small.metrics()["tidegate_requests_queued"] == 1, "one request waits")
    with pytest.raises(openai.InternalServerError) as caught:
        long(client, model, context)
    assert (caught.value.status_code, caught.value.code) == (503, "queue_full")
    running.close()
    waiting.close()


def test_the_metrics_page(server):
    page = server.http.get("/metrics")
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    metrics = server.metrics()
    assert metrics["tidegate_requests_accepted_total"] > 0
    assert metrics["tidegate_generated_tokens_total"] > 0
    assert metrics["tidegate_kv_pages"] > 0
    assert metrics["tidegate_time_to_first_token_seconds_count"] > 0
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    page = server.http.get("/metrics", headers=wanted)
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict

    assert any(family.name == "tidegate_requests_accepted" for family in strict(page.text))
