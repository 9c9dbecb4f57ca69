"""What users see when something is wrong: the exceptions of openai-python, and the headers behind them."""

import openai
import pytest

ASK = [{"role": "user", "content": "Hi"}]


def chat(client, model, **options):
    return client.chat.completions.create(model=model, **{"messages": ASK, "max_tokens": 4, **options})


def test_an_unknown_model_names_those_there_are(client, model):
    near = model[:-1]
    for ask in (lambda: chat(client, near), lambda: client.models.retrieve(near)):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert model in caught.value.message
        assert caught.value.request_id


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"temperature": 9}, "invalid_value", "temperature"),
        ({"n": "two"}, "invalid_type", "n"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"top_logprobs": 21, "logprobs": True}, "invalid_value", "top_logprobs"),
        ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0].function.name"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        ({"extra_body": {"guided_regex": 3}}, "invalid_type", "guided_regex"),
        ({"extra_body": {"stop_token_ids": [1 << 31]}}, "invalid_value", "stop_token_ids"),
        ({"logit_bias": {"99999999": 1}}, "invalid_value", "logit_bias"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "invalid_value",
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_a_bad_request_names_the_parameter(client, model, options, code, param):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, model, **options)
    assert (caught.value.type, caught.value.code) == ("invalid_request_error", code)
    assert caught.value.param.startswith(param)


def test_token_ids_outside_the_vocabulary_are_refused(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt=[2_000_000_000])
    assert caught.value.param.startswith("prompt")


def test_a_prompt_beyond_the_context(client, model, context):
    long = [{"role": "user", "content": "the sea " * context}]
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, model, messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert str(context) in caught.value.message


def test_a_passed_deadline_is_not_retried(server, model):
    patient = server.client(max_retries=2)
    with pytest.raises(openai.InternalServerError) as caught:
        chat(patient, model, max_tokens=200, extra_body={"timeout": 0.001, "ignore_eos": True})
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_broken_bodies(server):
    post = lambda **options: server.http.post("/v1/completions", **options)
    json = {"content-type": "application/json"}
    for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"prompt": "\\ud800"}', b"[" * 100_000):
        answer = post(content=content, headers=json)
        assert answer.status_code == 400, content[:20]
        assert answer.json()["error"]["code"] in ("invalid_json", "missing_required_parameter")
    assert post(data={"prompt": "x"}).status_code == 415


def test_routes(server):
    assert server.http.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
    answer = server.http.get("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_request_id_is_kept(server):
    answer = server.http.get("/v1/models", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert int(answer.headers["openai-processing-ms"]) >= 0


def test_keys_and_body_limit(start, model):
    guarded = start("--api-key", "sk-right", "--metrics-key", "sk-scraper", "--body-limit", "10000B")
    for key in ("sk-wrong", "sk-scraper"):
        with pytest.raises(openai.AuthenticationError) as caught:
            guarded.client(api_key=key).models.list()
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"] == "Bearer"
    assert guarded.http.get("/v1/models").status_code == 401
    assert guarded.http.get("/metrics").status_code == 401
    assert guarded.http.get("/readyz").status_code == 200
    right = guarded.client(api_key="sk-right")
    assert chat(right, model).choices
    with pytest.raises(openai.APIStatusError) as caught:
        chat(right, model, messages=[{"role": "user", "content": "x" * 10_001}])
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")

    def chunks():
        for _ in range(100):
            yield b"x" * 1000

    headers = {"authorization": "Bearer sk-right", "content-type": "application/json"}
    answer = guarded.http.post("/v1/completions", content=chunks(), headers=headers)
    assert answer.status_code == 413
