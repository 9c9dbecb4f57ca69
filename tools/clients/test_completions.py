"""Text completions through openai-python."""

import pytest

ON_AND_ON = {"ignore_eos": True}


def complete(client, model, prompt, **options):
    options = {"max_tokens": 8, "temperature": 0, "extra_body": ON_AND_ON, **options}
    return client.completions.create(model=model, prompt=prompt, **options)


def texts(reply):
    return [choice.text for choice in reply.choices]


@pytest.mark.parametrize("prompt", ["Once upon a time", [5, 6, 7], ["Once", "The sea"], [[5, 6], [7]]])
def test_every_form_of_prompt(client, model, prompt):
    reply = complete(client, model, prompt)
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    count = len(prompt) if several else 1
    assert reply.object == "text_completion"
    assert [choice.index for choice in reply.choices] == list(range(count))
    assert reply.usage.completion_tokens == 8 * count
    assert all(choice.finish_reason == "length" for choice in reply.choices)
    if several:
        alone = [texts(complete(client, model, one))[0] for one in prompt]
        assert texts(reply) == alone


def test_choices_are_numbered_through(client, model):
    reply = complete(client, model, ["Once", "The sea"], n=2, temperature=1.0, seed=3)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    streamed = [""] * 4
    for chunk in complete(client, model, ["Once", "The sea"], n=2, temperature=1.0, seed=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts(reply)


def test_the_prompt_is_echoed_if_asked_for(client, model):
    bare = texts(complete(client, model, "Once upon a time"))[0]
    assert texts(complete(client, model, "Once upon a time", echo=True)) == ["Once upon a time" + bare]
    chunks = list(complete(client, model, "Once upon a time", echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "Once upon a time" + bare


def test_sixteen_tokens_unless_told_otherwise(client, model):
    assert complete(client, model, "Once", max_tokens=None).usage.completion_tokens == 16


def test_logprobs_have_places_in_the_text(client, model):
    reply = complete(client, model, "Once upon a time", logprobs=3)
    logprobs = reply.choices[0].logprobs
    count = reply.usage.completion_tokens
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == count
    text = reply.choices[0].text
    for token, offset, top in zip(logprobs.tokens, logprobs.text_offset, logprobs.top_logprobs, strict=True):
        assert len(top) == 3
        assert top[token] == max(top.values())
        if not token.startswith(("bytes:", "<|")):
            assert text[offset : offset + len(token)] == token


def test_a_stream_with_usage(client, model):
    options = {"include_usage": True}
    *chunks, last = complete(client, model, "Once", stream=True, stream_options=options)
    assert last.choices == [] and last.usage.completion_tokens == 8
    assert chunks[-1].choices[0].finish_reason == "length"


def test_stop_token(client, model):
    favoured = {"logit_bias": {"42": 100}, "max_tokens": 5}
    assert complete(client, model, "Once", **favoured).usage.completion_tokens == 5
    stopped = complete(client, model, "Once", extra_body={"stop_token_ids": [42]}, **favoured)
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.usage.completion_tokens == 1
