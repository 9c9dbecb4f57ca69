"""The usage examples of background generation, with tiny models of transformers that are saved and loaded."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tidegate import AsyncGLM

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = "the tide turns a gate opens and the sea comes in again hello world".split()


def save_tokenizer(path: Path) -> None:
    """A tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=built).save_pretrained(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with random weights, saved as any other is."""
    path = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(7)
    save_tokenizer(path)
    config = transformers.GPT2Config(
        vocab_size=256, n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=255
    )
    transformers.GPT2LMHeadModel(config).eval().save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def qwen3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 with random weights: grouped heads, norms of queries and keys, a head of its own."""
    path = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(11)
    save_tokenizer(path)
    config = transformers.Qwen3Config(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, eos_token_id=255, bos_token_id=0,
        initializer_range=0.3, tie_word_embeddings=False, dtype=request.param,
    )
    transformers.Qwen3ForCausalLM(config).to(getattr(torch, request.param)).eval().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=["native", "own generate"])
def glm(request: pytest.FixtureRequest, model: Any, tokenizer: Any) -> Any:
    native = request.param == "native"
    with AsyncGLM(model, tokenizer, max_queue_size=100, native=native, threads=2) as opened:
        assert opened.is_native == native
        yield opened


def test_example_quick_start(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    async_glm = AsyncGLM(model, tokenizer, max_queue_size=5)
    async_glm.start()
    input_ids = tokenizer("Hello world", return_tensors="pt").input_ids
    task_id = async_glm.submit(input_ids)
    result = async_glm.get_result(task_id)
    generated_text = tokenizer.decode(result[0])
    async_glm.shutdown()
    assert isinstance(task_id, int) and generated_text.startswith("Hello world")
    assert torch.equal(result, model.generate(input_ids))


def test_an_engine_reads_the_weights_of_a_model_where_they_are(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    ids = tokenizer("Hello", return_tensors="pt").input_ids
    expected = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist()
    with tidegate.Engine(model, tokenizer=tokenizer, model_name="lent") as engine:
        assert [card["id"] for card in engine.models()] == ["lent"]
        answer = engine.generate_sync(ids[0].tolist(), max_tokens=8, temperature=0.0)
        assert answer.tokens == expected[: len(answer.tokens)] and answer.tokens
    # Weights with gaps are copied, and such as no engine reads are refused by name.
    with torch.no_grad():
        torn = transformers.GPT2LMHeadModel(model.config).eval()
        torn.load_state_dict(model.state_dict())
        block = torn.transformer.h[0].attn.c_attn
        block.weight = torch.nn.Parameter(block.weight.t().contiguous().t())
        with tidegate.Engine(torn) as engine:
            assert engine.generate_sync(ids[0].tolist(), max_tokens=8, temperature=0.0).tokens == answer.tokens
        block.weight = torch.nn.Parameter(block.weight.double())
    with pytest.raises(tidegate.ModelLoadError, match="c_attn.weight.*float32, float16 or bfloat16"):
        tidegate.Engine(torn)
    with pytest.raises(ValueError, match="a folder has its own"):
        tidegate.Engine(tmp_path, tokenizer=tokenizer)


def test_example_basic_usage(model: Any, tokenizer: Any) -> None:
    input_ids = tokenizer("Hello", return_tensors="pt").input_ids
    async_glm = AsyncGLM(
        model, tokenizer=tokenizer, max_queue_size=10, generation_kwargs={"max_length": 50, "temperature": 0.7}
    )
    async_glm.start()
    task_id = async_glm.submit(input_ids)
    result = async_glm.get_result(task_id, timeout=30.0)
    async_glm.shutdown(wait=True)
    assert result.shape[1] <= 50
    assert torch.equal(async_glm.get_result(task_id), result)
    with pytest.raises(RuntimeError, match="shut down"):
        async_glm.submit(input_ids)


def test_example_context_manager(model: Any, tokenizer: Any) -> None:
    input_ids = tokenizer("Hello", return_tensors="pt").input_ids
    with AsyncGLM(model, max_queue_size=5) as async_glm:  # Without a tokenizer: ids in, ids out.
        task_id = async_glm.submit(input_ids)
        result = async_glm.get_result(task_id)
    assert torch.equal(result, model.generate(input_ids))


def test_example_batch_processing(glm: Any, model: Any) -> None:
    batch_inputs = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    task_id = glm.submit(batch_inputs)
    batch_results = glm.get_result(task_id)
    assert torch.equal(batch_results, model.generate(batch_inputs))


def test_example_dictionary_inputs(glm: Any, model: Any) -> None:
    inputs = {"input_ids": torch.tensor([[1, 2, 3, 4]]), "attention_mask": torch.tensor([[1, 1, 1, 1]])}
    task_id = glm.submit(inputs)
    result = glm.get_result(task_id)
    assert torch.equal(result, model.generate(**inputs))
    # Padding on the left, as collators put it for generation, is part of the output and not of the prompt.
    padded = {"input_ids": torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4]])}
    padded["attention_mask"] = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    kwargs = {"max_new_tokens": 9, "pad_token_id": 0}
    assert torch.equal(glm.get_result(glm.submit(padded, kwargs)), model.generate(**padded, **kwargs))


def test_example_multiple_tasks_with_postprocessing(model: Any, tokenizer: Any) -> None:
    texts = WORDS
    processed = []
    with AsyncGLM(model, max_queue_size=10) as async_glm:
        task_ids = []
        for text in texts:
            input_ids = tokenizer(text, return_tensors="pt").input_ids
            task_id = async_glm.submit(input_ids)
            task_ids.append(task_id)
        left = list(task_ids)
        while left:
            for task_id in list(left):
                if async_glm.is_ready(task_id):
                    result = async_glm.get_result(task_id)
                    processed.append(tokenizer.decode(result[0]))
                    left.remove(task_id)
    expected = [tokenizer.decode(model.generate(tokenizer(text, return_tensors="pt").input_ids)[0]) for text in texts]
    assert sorted(processed) == sorted(expected)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"max_new_tokens": 1},
        {"max_length": 30},
        {"max_new_tokens": 24, "repetition_penalty": 1.3},
        {"max_new_tokens": 40, "eos_token_id": list(range(0, 256, 5)), "pad_token_id": 1},
        {"max_new_tokens": 12, "min_new_tokens": 8, "eos_token_id": list(range(0, 256, 5)), "pad_token_id": 1},
        {"max_new_tokens": 8, "num_beams": 2},
    ],
    ids=lambda kwargs: "-".join(kwargs),
)
def test_outputs_are_those_of_generate(glm: Any, model: Any, kwargs: dict[str, Any]) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5], [200, 7, 9, 11, 13]])
    assert torch.equal(glm.get_result(glm.submit(ids, kwargs)), model.generate(ids, **kwargs))


def test_sampling_is_as_asked(glm: Any) -> None:
    ids = torch.tensor([[1, 2, 3]])
    kwargs = {"do_sample": True, "max_new_tokens": 5, "num_return_sequences": 3, "temperature": 2.0}
    assert glm.get_result(glm.submit(ids, kwargs)).shape == (3, 8)


def test_a_full_queue_waits_and_refuses(model: Any) -> None:
    glm = AsyncGLM(model, max_queue_size=2)
    ids = torch.tensor([[1, 2, 3]])
    first, second = glm.submit(ids), glm.submit(ids)
    assert glm.queue_size() == 2 and not glm.is_ready(first)
    with pytest.raises(queue.Full):
        glm.submit(ids, timeout=0.01)
    with pytest.raises(TimeoutError):
        glm.get_result(first, timeout=0.01)
    assert glm.cancel(second) and glm.queue_size() == 1
    threads = [threading.Thread(target=lambda: glm.submit(ids)) for _ in range(4)]
    for thread in threads:
        thread.start()
    glm.start()
    for thread in threads:
        thread.join()
    glm.shutdown(wait=True)
    assert glm.queue_size() == 0 and glm.is_ready(first)


def test_results_are_bounded(model: Any) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with AsyncGLM(model, result_bytes=400) as glm:
        tasks = [glm.submit(ids)]
        assert list(glm.as_completed(tasks)) == tasks
        for _ in range(4):
            tasks.append(glm.submit(ids))
            assert glm.get_result(tasks[-1]).shape == (1, 23)
        with pytest.raises(LookupError, match="result_bytes"):
            glm.get_result(tasks[0])
    with pytest.raises(LookupError, match="no task 99"):
        glm.get_result(99)


async def test_beyond_the_original(model: Any) -> None:
    ids = torch.tensor([[1, 2, 3]])
    async with AsyncGLM(model) as glm:
        task = glm.submit(ids, priority="high")
        assert torch.equal(await glm.handle(task), model.generate(ids))
        events = [event async for event in glm.stream(ids, {"max_new_tokens": 4})]
        assert sum(len(event.tokens) for event in events) == 4
        wrong = glm.submit(torch.tensor([[1] * 200]))
        with pytest.raises(ValueError, match="context"):
            await asyncio.to_thread(glm.get_result, wrong)


def test_a_qwen3_runs_natively(qwen3: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(qwen3).eval()
    rows = [torch.tensor([list(text.encode())]) for text in ("the tide", "a gate opens and", "sea")]
    padded = transformers.AutoTokenizer.from_pretrained(qwen3, pad_token="!", padding_side="left")
    batch = padded(["the tide", "a gate opens and"], return_tensors="pt", padding=True)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    kwargs = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    # In bfloat16 two logits are easily equal, and who rounds where decides; there the first tokens are compared.
    exact = model.dtype == torch.float32
    with AsyncGLM(model, max_queue_size=10, generation_kwargs=kwargs, threads=2) as glm:
        assert glm.is_native
        tasks = [glm.submit(row) for row in rows] + [glm.submit(inputs)]
        found = [glm.get_result(task, timeout=60) for task in tasks]
    expected = [model.generate(row, attention_mask=torch.ones_like(row), **kwargs) for row in rows]
    expected.append(model.generate(**inputs, **kwargs))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        width = theirs.shape[1] if exact else theirs.shape[1] - 11
        assert torch.equal(ours[:, :width], theirs[:, :width])


def test_the_example_of_the_package_runs(folder: Path) -> None:
    example = Path(__file__).parent.parent / "examples/async_glm.py"
    ran = subprocess.run([sys.executable, example, folder], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.startswith("native") and "The sea" in ran.stdout, ran.stderr


def test_any_other_model_runs_through_its_own_generate(model: Any) -> None:
    class Echo:
        def generate(self, input_ids: Any, **kwargs: Any) -> Any:
            if kwargs:
                raise KeyError("unknown")
            return input_ids + 1

    with AsyncGLM(Echo()) as glm:
        assert not glm.is_native
        assert glm.get_result(glm.submit(torch.tensor([[1, 2]]))).tolist() == [[2, 3]]
        with pytest.raises(KeyError):
            glm.get_result(glm.submit(torch.tensor([[1, 2]]), {"max_length": 3}))


def test_a_path_is_a_model_too(folder: Path, model: Any) -> None:
    with AsyncGLM(folder, generation_kwargs={"max_new_tokens": 6}, dtype="f32") as glm:
        result = glm.get_result(glm.submit([[1, 2, 3]]))
    assert torch.equal(result, model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=6))
    assert isinstance(tidegate.QueueFullError("x"), queue.Full)
