"""Chat completions through openai-python."""

import pytest

ASK = [{"role": "user", "content": "Tell me a story about the sea."}]
ON_AND_ON = {"ignore_eos": True}


def chat(client, model, **options):
    options = {"messages": ASK, "max_tokens": 16, "temperature": 0, **options}
    return client.chat.completions.create(model=model, **options)


def streamed_text(chunks, index=0):
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_models_are_listed_and_retrieved(client, model):
    listed = client.models.list()
    assert listed.object == "list"
    card = client.models.retrieve(model)
    assert (card.id, card.object) == (model, "model")
    assert card.created > 1_600_000_000
    assert card.max_model_len > 0
    assert card.owned_by


def test_a_reply(client, model):
    reply = chat(client, model)
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    assert reply.model == model
    assert reply.system_fingerprint
    assert reply._request_id
    (choice,) = reply.choices
    assert choice.message.role == "assistant"
    assert choice.message.content.strip()
    assert choice.finish_reason in ("stop", "length")
    usage = reply.usage
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_the_model_may_be_left_to_the_server(server, model):
    reply = server.http.post("/v1/chat/completions", json={"messages": ASK, "max_tokens": 1}).json()
    assert reply["model"] == model


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_token_limit_is_kept(client, model, name):
    options = {"max_tokens": None, name: 7}
    reply = chat(client, model, extra_body=ON_AND_ON, **options)
    assert reply.usage.completion_tokens == 7
    assert reply.choices[0].finish_reason == "length"


def test_a_stream_says_what_the_whole_reply_says(client, model):
    whole = chat(client, model, max_tokens=24)
    chunks = list(chat(client, model, max_tokens=24, stream=True))
    assert streamed_text(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)
    assert all(len(chunk.choices) == 1 for chunk in chunks)


def test_usage_comes_with_the_last_chunk_if_asked_for(client, model):
    whole = chat(client, model)
    *chunks, last = chat(client, model, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)


def test_a_stop_text_ends_the_reply_and_is_no_part_of_it(client, model):
    whole = chat(client, model, max_tokens=24, extra_body=ON_AND_ON).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    expected = whole[: whole.index(stop)]
    for asked in (stop, [stop], ["never said, ever", stop]):
        reply = chat(client, model, max_tokens=24, stop=asked, extra_body=ON_AND_ON)
        assert reply.choices[0].message.content == expected
        assert reply.choices[0].finish_reason == "stop"
    chunks = list(chat(client, model, max_tokens=24, stop=stop, stream=True, extra_body=ON_AND_ON))
    assert streamed_text(chunks) == expected


def test_several_choices(client, model):
    options = {"n": 3, "temperature": 1.5, "seed": 5, "max_tokens": 12, "extra_body": ON_AND_ON}
    reply = chat(client, model, **options)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in reply.choices]
    assert len(set(texts)) > 1
    assert reply.usage.completion_tokens == 3 * 12
    chunks = list(chat(client, model, stream=True, **options))
    assert [streamed_text(chunks, index) for index in range(3)] == texts


def test_the_same_seed_gives_the_same_text(client, model):
    def text(seed):
        options = {"temperature": 1.2, "seed": seed, "max_tokens": 24, "extra_body": ON_AND_ON}
        return chat(client, model, **options).choices[0].message.content

    assert text(7) == text(7)
    assert text(-7) == text(-7)
    assert len({text(seed) for seed in (1, 2, 3, 4)}) > 1


def test_logprobs(client, model):
    reply = chat(client, model, logprobs=True, top_logprobs=4, extra_body=ON_AND_ON)
    positions = reply.choices[0].logprobs.content
    assert len(positions) == reply.usage.completion_tokens
    for position in positions:
        assert position.logprob <= 0
        assert len(position.top_logprobs) == 4
        ranked = [entry.logprob for entry in position.top_logprobs]
        assert ranked == sorted(ranked, reverse=True)
        assert position.logprob == pytest.approx(ranked[0])
        assert position.token.startswith("bytes:") or position.token == bytes(position.bytes).decode()
    chunks = list(chat(client, model, logprobs=True, top_logprobs=4, stream=True, extra_body=ON_AND_ON))
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [position for logprobs in told for position in logprobs.content] == positions


def test_a_biased_token_is_always_chosen_and_a_banned_one_never(client, model):
    options = {"max_tokens": 4, "logprobs": True, "extra_body": ON_AND_ON}
    favoured = chat(client, model, logit_bias={"42": 100}, **options).choices[0].logprobs.content
    assert len({position.token for position in favoured}) == 1
    free = chat(client, model, **options).choices[0].logprobs.content
    assert favoured[0].token != free[0].token


@pytest.mark.parametrize(
    "content",
    ["日本語で話してください。", "naïve café — “quoted” …", "🌊🏴‍☠️👩‍👩‍👧", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "\u0000\u200f\ufeff", "a\n\n\tb"],
)
def test_any_text_can_be_asked(client, model, content):
    messages = [{"role": "user", "content": content}]
    whole = chat(client, model, messages=messages, extra_body=ON_AND_ON).choices[0].message.content
    assert streamed_text(chat(client, model, messages=messages, stream=True, extra_body=ON_AND_ON)) == whole


def test_turns_of_every_role_and_text_parts(client, model):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Three.", "name": "ann"},
    ]
    reply = chat(client, model, messages=messages)
    alone = chat(client, model, messages=messages[-1:])
    assert reply.usage.prompt_tokens > alone.usage.prompt_tokens


@pytest.mark.parametrize(("asked", "told"), [("auto", "default"), ("flex", "flex"), ("priority", "priority")])
def test_the_service_tier_is_told(client, model, asked, told):
    assert chat(client, model, service_tier=asked).service_tier == told


def test_harmless_parameters_are_accepted(client, model):
    options = {
        "user": "someone",
        "metadata": {"a": "b"},
        "store": False,
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "extra_body": {"priority": 3, "top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1, "something_new": [1]},
    }
    assert chat(client, model, top_p=0.9, frequency_penalty=0.1, presence_penalty=0.1, **options).choices


def test_raw_frames(server):
    body = {"messages": ASK, "max_tokens": 3, "stream": True, "ignore_eos": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-request-id"]
        text = answer.read().decode()
    frames = text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    assert all(frame.startswith(("data: {", ": ")) for frame in frames[:-2])
    assert "\r" not in text
