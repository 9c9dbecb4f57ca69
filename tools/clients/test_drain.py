"""The end of a server: what runs is finished, what comes is sent away."""

import signal

import httpx
import openai
import pytest
from conftest import eventually

ASK = [{"role": "user", "content": "Tell me a story."}]


def test_sigterm_finishes_what_runs_and_refuses_what_comes(start, model, context):
    server = start()
    client = server.client()
    tokens, choices = context - 100, 8
    stream = client.chat.completions.create(
        model=model,
        messages=ASK,
        max_tokens=tokens,
        n=choices,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    first = next(iter(stream))
    assert server.http.get("/readyz").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: server.http.get("/readyz").status_code == 503, "the server says that it drains")
    assert server.http.get("/livez").status_code == 200
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (503, "not_ready")
    headers = caught.value.response.headers
    assert headers["connection"] == "close"
    assert 1 <= int(headers["retry-after"]) <= 120
    chunks = [first, *stream]
    assert chunks[-1].usage.completion_tokens == choices * tokens
    ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert ends == ["length"] * choices
    server.process.wait(60)
    assert server.process.returncode == 0, server.log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez")


def test_an_idle_server_ends_at_once(start):
    server = start()
    server.process.send_signal(signal.SIGINT)
    server.process.wait(60)
    assert server.process.returncode == 0, server.log.read_text()
