"""Vectors and scores through openai-python, llama-index and langchain, on the weights of all-MiniLM-L6-v2."""

import base64
import json
import math
import random
import struct
import threading
import time

import openai
import pytest

TEXTS = ["The tide comes in twice a day.", "High water is at noon and at midnight.", "My cat likes tuna."]


@pytest.fixture(scope="module")
def embed(both):
    return both.client()


def cosine(a, b):
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def vectors(client, texts, **options):
    reply = client.embeddings.create(model="embed", input=texts, **options)
    assert [item.index for item in reply.data] == list(range(len(reply.data)))
    return [item.embedding for item in reply.data]


def test_both_models_are_listed_and_say_what_they_do(embed):
    models = {model.id: model for model in embed.models.list().data}
    assert models["tidegate-tiny"].architecture["tasks"] == ["generate", "embed", "score"]
    assert models["embed"].architecture["tasks"] == ["embed", "score"]
    assert models["embed"].architecture["dimensions"] == 384
    assert models["embed"].max_model_len == 256


def test_floats_and_base64_are_the_same_numbers(both, embed):
    floats = vectors(embed, TEXTS, encoding_format="float")
    # Left to itself, openai-python asks for base64 and decodes it.
    for decoded, written in zip(vectors(embed, TEXTS), floats, strict=True):
        assert decoded == pytest.approx(written, abs=1e-7)
    body = {"model": "embed", "input": TEXTS[0], "encoding_format": "base64"}
    reply = both.http.post("/v1/embeddings", json=body).raise_for_status().json()
    raw = base64.b64decode(reply["data"][0]["embedding"])
    assert list(struct.unpack("<384f", raw)) == pytest.approx(floats[0], abs=1e-7)
    assert reply["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    assert cosine(floats[0], floats[1]) > 0.3 > cosine(floats[0], floats[2])


def test_every_form_of_input(embed):
    [text] = vectors(embed, TEXTS[0])
    # The ids of "the tide comes in twice a day ." in the vocabulary of the model.
    ids = [1996, 10401, 3310, 1999, 3807, 1037, 2154, 1012]
    assert cosine(vectors(embed, ids)[0], text) > 0.9999
    assert cosine(vectors(embed, [ids, [101, *ids, 102]])[1], text) > 0.9999
    [short] = vectors(embed, TEXTS[0], dimensions=64)
    assert len(short) == 64 and math.isclose(sum(x * x for x in short), 1.0, rel_tol=1e-5)
    assert cosine(short, text[:64]) > 0.99999


def test_a_batch_is_as_good_as_one(embed):
    texts = [f"{text} {number}" * (1 + number % 7) for number in range(20) for text in TEXTS]
    together = vectors(embed, texts, encoding_format="float")
    for index in (0, 17, 59):
        assert vectors(embed, texts[index], encoding_format="float")[0] == together[index]


@pytest.mark.parametrize("dtype, least", [("bf16", 0.9999), ("int8", 0.995)])
def test_smaller_weights_keep_vectors_where_they_are(start, embed, minilm, dtype, least):
    rng = random.Random(1)
    texts = [[rng.randrange(2000, 20000) for _ in range(254)] for _ in range(8)]
    small = start("--model", f"embed={minilm}", "--dtype", dtype).client()
    assert min(map(cosine, vectors(small, texts), vectors(embed, texts))) > least


def test_a_chat_model_embeds_when_it_is_asked_by_name(both, embed):
    reply = embed.embeddings.create(model="tidegate-tiny", input=["tide", "high water"])
    assert reply.model == "tidegate-tiny" and len(reply.data) == 2
    for item in reply.data:
        assert abs(cosine(item.embedding, item.embedding) - 1) < 1e-3
    reply = both.http.post("/v1/embeddings", json={"input": "tide"}).raise_for_status().json()
    assert reply["model"] == "embed"


def test_a_model_without_the_ability_is_named(embed):
    with pytest.raises(openai.BadRequestError) as refused:
        embed.chat.completions.create(model="embed", messages=[{"role": "user", "content": "tide"}])
    assert refused.value.param == "model" and "tidegate-tiny" in refused.value.message
    with pytest.raises(openai.NotFoundError):
        embed.embeddings.create(model="text-embedding-3-small", input="tide")


def test_rerank_and_score_by_cosine(both):
    body = {"model": "embed", "query": "When is high water?", "documents": TEXTS, "top_n": 2, "return_documents": True}
    ranking = both.http.post("/v1/rerank", json=body).raise_for_status().json()
    assert ranking["measure"] == "cosine"
    assert [result["index"] for result in ranking["results"]] == [1, 0]
    assert ranking["results"][0]["document"] == {"text": TEXTS[1]}
    body = {"model": "embed", "text_1": "When is high water?", "text_2": TEXTS}
    scores = [item["score"] for item in both.http.post("/v1/score", json=body).raise_for_status().json()["data"]]
    assert scores[1] == pytest.approx(ranking["results"][0]["relevance_score"]) and scores[2] == min(scores)


def test_llama_index(both):
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    embedding = OpenAILikeEmbedding(
        model_name="embed", api_base=f"{both.url}/v1", api_key="unused", embed_batch_size=2, max_retries=0
    )
    documents = embedding.get_text_embedding_batch(TEXTS)
    query = embedding.get_query_embedding("When is high water?")
    assert max(range(3), key=lambda index: cosine(query, documents[index])) == 1


def test_langchain(both):
    from langchain_openai import OpenAIEmbeddings

    embedding = OpenAIEmbeddings(
        model="embed", base_url=f"{both.url}/v1", api_key="unused", check_embedding_ctx_length=False, max_retries=0
    )
    documents = embedding.embed_documents(TEXTS)
    query = embedding.embed_query("When is high water?")
    assert max(range(3), key=lambda index: cosine(query, documents[index])) == 1


def test_chat_and_embeddings_keep_each_other_going(both, embed):
    """Under a flood of texts a chat stream goes on, and while streams run texts are embedded."""
    over = threading.Event()
    embedded = []

    def flood():
        while not over.is_set():
            embedded.append(len(vectors(both.client(), [TEXTS[0] * 4] * 8)))

    floods = [threading.Thread(target=flood) for _ in range(3)]
    for thread in floods:
        thread.start()
    try:
        while not embedded:
            time.sleep(0.001)
        before = len(embedded)
        chunks = embed.completions.create(
            model="tidegate-tiny", prompt="Once", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
        )
        tokens = sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].text)
        during = len(embedded) - before
    finally:
        over.set()
        for thread in floods:
            thread.join()
    assert tokens > 20
    assert during > 0
    assert json.loads(both.http.get("/health").text)["status"] == "healthy"
