"""Chat through langchain-openai: whole, streamed, in batches, structured by each of its methods, with tools."""

import json

import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

ASK = "Tell me a story about the sea."


class Animal(pydantic.BaseModel):
    """An animal."""

    name: str = pydantic.Field(max_length=12)
    legs: int = pydantic.Field(ge=0, le=8)


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.fixture(scope="module")
def chat(server, model):
    return ChatOpenAI(
        model=model, base_url=f"{server.url}/v1", api_key="unused", max_tokens=24, temperature=0, max_retries=0
    )


def test_a_stream_says_what_the_whole_reply_says(chat):
    whole = chat.invoke(ASK)
    assert whole.content.strip()
    assert whole.usage_metadata["total_tokens"] > whole.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in chat.stream(ASK)) == whole.content


def test_a_stream_tells_its_usage_if_asked(chat):
    whole = chat.invoke(ASK)
    chunks = list(chat.stream(ASK, stream_usage=True))
    told = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert [usage["total_tokens"] for usage in told] == [whole.usage_metadata["total_tokens"]]


async def test_batches_say_the_same(chat):
    whole = chat.invoke(ASK).content
    assert [reply.content for reply in chat.batch([ASK] * 4)] == [whole] * 4
    assert [reply.content for reply in await chat.abatch([ASK] * 4)] == [whole] * 4
    assert "".join([chunk.content async for chunk in chat.astream(ASK)]) == whole


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_object_of_a_class(chat, method):
    longer = chat.model_copy(update={"max_tokens": 120})
    animal = longer.with_structured_output(Animal, method=method).invoke(ASK)
    assert isinstance(animal, Animal)


def test_an_object_of_no_class(chat):
    asked = "Reply in JSON with the name and age of Henrik, who is 41 years old."
    reply = chat.bind(response_format={"type": "json_object"}, max_tokens=120).invoke(asked)
    assert json.loads(reply.content)["age"] == 41


def test_tools_are_called_and_the_conversation_goes_on(chat):
    tools = chat.bind_tools([add], tool_choice="add", parallel_tool_calls=False).bind(max_tokens=120)
    reply = tools.invoke("What is 1 plus 2?")
    [call] = reply.tool_calls
    assert call["name"] == "add" and set(call["args"]) == {"a", "b"}
    streamed = None
    for chunk in tools.stream("What is 1 plus 2?"):
        streamed = chunk if streamed is None else streamed + chunk
    assert [call["args"] for call in streamed.tool_calls] == [reply.tool_calls[0]["args"]]
    result = ToolMessage(json.dumps(3), tool_call_id=call["id"])
    assert chat.invoke([HumanMessage("What is 1 plus 2?"), reply, result]).content is not None
