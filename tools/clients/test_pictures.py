"""Pictures in conversations through openai-python and langchain: what the embedded model says of pictures that its training
never saw, and all else on the tiny seeded model of the repository that sees."""

import base64
import json
import struct
import zlib
from pathlib import Path

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

CRATES = Path(__file__).parents[2] / "crates"
FOLDER = CRATES / "models/test_data/qwen3_vl/model"
BLIND = CRATES / "models/test_data/qwen3/model"
HELD_OUT = CRATES / "tidegate/test_data/pictures"


def picture(red, side=64):
    """A PNG file of one colour as a data URI."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes([red, 60, 90]) * side) * side
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


def asking(*urls):
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "auto"}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    from conftest import Server

    server = Server(tmp_path_factory.mktemp("seeing"), "--model", f"seeing={FOLDER}", "--model", f"blind={BLIND}")
    yield server
    server.stop()


def said(server, *urls, **options):
    options = {"max_tokens": 12, "temperature": 0, "logprobs": True, "extra_body": {"ignore_eos": True}, **options}
    return server.client().chat.completions.create(model="seeing", messages=asking(*urls), **options)


def test_what_is_seen_changes_what_is_said(seeing):
    [dark, light] = (said(seeing, picture(red)) for red in (0, 255))
    none = said(seeing)
    assert dark.usage.prompt_tokens == light.usage.prompt_tokens > none.usage.prompt_tokens
    assert dark.choices[0].logprobs != light.choices[0].logprobs
    assert said(seeing, picture(0)).choices[0].logprobs == dark.choices[0].logprobs
    two = said(seeing, picture(0), picture(255))
    assert two.usage.prompt_tokens - dark.usage.prompt_tokens == dark.usage.prompt_tokens - none.usage.prompt_tokens


def test_a_stream_says_what_the_whole_reply_says(seeing):
    whole = said(seeing, picture(9)).choices[0].message.content
    chunks = said(seeing, picture(9), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


@pytest.mark.parametrize("url", ["https://example.com/cat.png", "data:image/png;base64,AAAA", "data:text/plain,hello"])
def test_what_cannot_be_seen_is_refused_by_its_part(seeing, url):
    with pytest.raises(openai.BadRequestError) as refused:
        said(seeing, picture(1), url)
    assert refused.value.param.startswith("messages[0].content[2].image_url")


def test_a_model_that_cannot_see_refuses(seeing):
    with pytest.raises(openai.BadRequestError) as refused:
        seeing.client().chat.completions.create(model="blind", messages=asking(picture(1)), max_tokens=1)
    assert "cannot see" in refused.value.message


def test_the_embedded_model_is_right_about_pictures_that_it_was_never_shown(client, model):
    asked = json.loads((HELD_OUT / "questions.json").read_text())

    def answer(case):
        file = base64.b64encode((HELD_OUT / case["picture"]).read_bytes()).decode()
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}}
        messages = [{"role": "user", "content": [picture, {"type": "text", "text": case["question"]}]}]
        reply = client.chat.completions.create(model=model, messages=messages, temperature=0)
        return reply.choices[0].message.content

    right = [answer(case) == case["answer"] for case in asked]
    assert {case["kind"] for case in asked} == {"colour", "shape", "count", "position"}
    assert sum(right) >= len(right) - 2, [case for case, fine in zip(asked, right) if not fine]


def test_langchain(seeing):
    chat = ChatOpenAI(
        model="seeing", base_url=f"{seeing.url}/v1", api_key="unused", max_tokens=6, temperature=0, max_retries=0
    )
    reply = chat.invoke([HumanMessage(asking(picture(7))[0]["content"])])
    assert reply.usage_metadata["input_tokens"] == said(seeing, picture(7)).usage.prompt_tokens


def test_pictures_are_embedded_as_vllm_spells_it(seeing):
    def vector(*urls):
        reply = seeing.http.post("/v1/embeddings", json={"model": "seeing", "messages": asking(*urls)})
        return reply.raise_for_status().json()["data"][0]["embedding"]

    dark, light = (vector(picture(red)) for red in (0, 255))
    assert dark != light and len(dark) == len(vector())
    assert vector(picture(0)) == dark
