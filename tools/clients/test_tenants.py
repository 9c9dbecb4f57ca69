"""What tenants may take, as openai-python hears of it."""

import openai
import pytest

ASK = [{"role": "user", "content": "Tell me a story about the sea."}]


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("alice sk-alice\nbob sk-bob\n")
    return str(path)


def test_a_tenant_that_has_sent_enough_is_told_when_to_come_back(start, keys, model):
    server = start("--api-keys-file", keys, "--tenant-rate-limit", "3/h", "--tenant-rate-limit", "bob=1000/min")
    alice, bob = (server.client(api_key=f"sk-{name}") for name in ("alice", "bob"))
    for left in ("2", "1", "0"):
        raw = alice.chat.completions.with_raw_response.create(model=model, messages=ASK, max_tokens=1)
        assert raw.headers["x-ratelimit-remaining-requests"] == left
    with pytest.raises(openai.RateLimitError) as refused:
        alice.chat.completions.create(model=model, messages=ASK, max_tokens=1)
    assert refused.value.code == "rate_limit_exceeded"
    headers = refused.value.response.headers
    assert headers["x-should-retry"] == "false", "nobody waits for 20 minutes"
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert bob.chat.completions.create(model=model, messages=ASK, max_tokens=1).choices


def test_tokens_that_were_not_used_come_back(start, keys, model):
    server = start("--api-keys-file", keys, "--tenant-token-limit", "1000/h")
    alice = server.client(api_key="sk-alice")
    options = {"model": model, "messages": ASK, "extra_body": {"ignore_eos": True}}
    used = alice.chat.completions.create(max_tokens=5, **options).usage.total_tokens
    # What is left then depends on whether the first request was settled before the second was charged.
    raw = alice.chat.completions.with_raw_response.create(max_tokens=5, stream=True, **options)
    left = int(raw.headers["x-ratelimit-remaining-tokens"])
    assert 1000 - 2 * used - 40 <= left <= 1000 - used
    with pytest.raises(openai.RateLimitError) as refused:
        alice.chat.completions.create(max_tokens=999, **options)
    assert "tokens" in refused.value.message and "alice" in refused.value.message


def test_only_so_many_at_once(start, keys, model, context):
    server = start("--api-keys-file", keys, "--tenant-concurrency", "1")
    alice, bob = (server.client(api_key=f"sk-{name}") for name in ("alice", "bob"))
    options = {"model": model, "messages": ASK, "extra_body": {"ignore_eos": True}}
    # More than the sockets' buffers hold, so that it cannot end while nobody reads.
    stream = alice.chat.completions.create(max_tokens=context // 2, n=16, stream=True, **options)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError) as refused:
        alice.chat.completions.create(max_tokens=1, **options)
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 120
    assert bob.chat.completions.create(max_tokens=1, **options).choices
    stream.close()
    # The place is free as soon as the server has noticed; the client comes back as the header says.
    patient = server.client(api_key="sk-alice", max_retries=5)
    assert patient.chat.completions.create(max_tokens=1, **options).choices
