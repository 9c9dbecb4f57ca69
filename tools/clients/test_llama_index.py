"""Chat through llama-index: whole, streamed, asynchronous, structured, with tools; and retrieval over vectors."""

import pydantic
import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

ASK = [ChatMessage(role="user", content="Tell me a story about the sea.")]


class Animal(pydantic.BaseModel):
    """An animal."""

    name: str = pydantic.Field(max_length=12)
    legs: int = pydantic.Field(ge=0, le=8)


class Numbers(pydantic.BaseModel):
    """Two numbers; bounded, because a weak model writes digits for as long as it may."""

    a: int = pydantic.Field(ge=0, le=99)
    b: int = pydantic.Field(ge=0, le=99)


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.fixture(scope="module")
def llm(server, model, context):
    return OpenAILike(
        model=model,
        api_base=f"{server.url}/v1",
        api_key="unused",
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        context_window=context,
        max_tokens=24,
        temperature=0.0,
        max_retries=0,
    )


def test_a_stream_says_what_the_whole_reply_says(llm):
    whole = llm.chat(ASK).message.content
    assert whole.strip()
    pieces = list(llm.stream_chat(ASK))
    assert "".join(piece.delta or "" for piece in pieces) == pieces[-1].message.content == whole


async def test_asynchronous_calls_say_the_same(llm):
    whole = llm.chat(ASK).message.content
    assert (await llm.achat(ASK)).message.content == whole
    pieces = [piece async for piece in await llm.astream_chat(ASK)]
    assert pieces[-1].message.content == whole


def test_a_text_is_completed(llm):
    whole = llm.complete("Tell me a story about the sea.").text
    assert whole.strip()
    assert list(llm.stream_complete("Tell me a story about the sea."))[-1].text == whole


def test_an_object_of_a_class(llm):
    animal = llm.model_copy(update={"max_tokens": 120}).as_structured_llm(Animal).chat(ASK).raw
    assert isinstance(animal, Animal)


def test_a_tool_is_called(llm):
    tool, llm = FunctionTool.from_defaults(add, fn_schema=Numbers), llm.model_copy(update={"max_tokens": 120})
    reply = llm.chat_with_tools([tool], "What is 1 plus 2?", tool_required=True, allow_parallel_tool_calls=False)
    calls = llm.get_tool_calls_from_response(reply)
    assert calls and all(call.tool_name == "add" and set(call.tool_kwargs) == {"a", "b"} for call in calls)


def test_documents_are_found_and_an_answer_is_made_of_them(both):
    embedding = OpenAILikeEmbedding(model_name="embed", api_base=f"{both.url}/v1", api_key="unused", max_retries=0)
    llm = OpenAILike(
        model="tidegate-tiny", api_base=f"{both.url}/v1", api_key="unused", is_chat_model=True, max_tokens=8, max_retries=0
    )
    texts = ["High water is at noon and at midnight.", "My cat likes tuna.", "The ferry leaves on Monday."]
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embedding)
    answer = index.as_query_engine(llm=llm, similarity_top_k=1).query("When is high water?")
    assert [node.text for node in answer.source_nodes] == texts[:1]
    assert str(answer).strip()
