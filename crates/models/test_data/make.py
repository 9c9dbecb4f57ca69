"""Makes the golden cases of this folder: tiny seeded models and what transformers computes for them.

    python crates/models/test_data/make.py

needs torch, transformers, tokenizers and safetensors; versions are recorded in each expected.json. The format is the
one that `cargo xtask fixtures` reads. Two runs with the same versions give the same bytes.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
import transformers.generation.logits_process as lg
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).parent
STEPS = 12
MARGIN = 0.002
TEXTS = [
    "The tide comes in twice a day, and twice it goes out.",
    "naïve café — 東京の潮 🌊🌊 e\u0301 \u00e9",
    "  two  spaces\tand\ttabs\r\n\r\n  lines \n",
    "it's 12345 o'clock; they'll say 'no' <|end|> <think>why?</think>",
    "",
]
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r"|\s+(?!\S)|\s+")
TEMPLATE = """{%- if tools %}
    {{- '<|start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=2) + '\\n' }}
    {%- endfor %}
    {{- '<|end|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if loop.first and m.role == 'note' %}{% continue %}{% endif %}
    {%- if m.role not in ['user', 'assistant', 'note'] %}
        {{- raise_exception('unknown role ' ~ m.role) }}
    {%- endif %}
    {{- '<|start|>' + m['role'].strip().title() + '\\n' }}
    {%- if m.content is string %}
        {{- m.content.split('</think>')[-1].lstrip('\\n') }}
    {%- else %}
        {%- for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}
    {%- endif %}
    {%- for call in m.tool_calls or [] %}
        {{- '\\n' + call | tojson }}
    {%- endfor %}
    {{- eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>Assistant\\n' + ('<think>\\n' if think is defined and think else '') }}
{%- endif %}
"""
CHATS = [
    ("plain", [{"role": "user", "content": "High water?"}], {"add_generation_prompt": True}),
    ("turns", [{"role": "note", "content": "skipped"}, {"role": "user", "content": "Hi <b>&'\""},
               {"role": "assistant", "content": "<think>hm</think>\n\nHo"}, {"role": "user", "content": "é?"}],
     {"add_generation_prompt": True, "think": True}),
    ("parts", [{"role": " user ", "content": "x"}][:0] + [{"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}],
     {"add_generation_prompt": False}),
    ("tools", [{"role": "user", "content": "When?"},
               {"role": "assistant", "content": "", "tool_calls": [{"n": 1.0, "é": [None, True, 1e-7, {}]}]}],
     {"add_generation_prompt": True, "tools": [{"type": "function", "function": {"name": "tide", "x": []}}]}),
]


def number(x):
    return float(str(np.float32(x)))


def make_tokenizer(size, split, normalizer):
    t = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    t.pre_tokenizer = level if split is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), "isolated"), level])
    t.normalizer = normalizer
    t.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    t.train_from_iterator(TEXTS * 3, trainer)
    t.add_special_tokens(["<|start|>", "<|end|>"])
    t.add_tokens(["<think>", "</think>"])
    return t


def seed_weights(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            if p.dim() == 1:
                p.copy_(noise * 0.1 + (0.0 if name.endswith("bias") else 1.0))
            elif "wte" in name or "embed" in name:
                p.copy_(noise * 0.5)
            else:
                p.copy_(noise * (0.1 if "wpe" in name else 1.5 / math.sqrt(p.shape[-1])))
            p.copy_(p.to(torch.bfloat16).to(torch.float32))


class Case:
    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.arrays = model, tokenizer, {}

    def rows(self, ids):
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0].float()

    def logprobs(self, ids):
        return torch.log_softmax(self.rows(ids), -1)

    def top5(self, scores):
        value, index = torch.topk(torch.log_softmax(scores, -1), 5)
        return [[int(i), number(v)] for i, v in zip(index, value)]

    def greedy(self, prompt, penalty=1.0, steps=STEPS):
        ids, out = list(prompt), {"ids": [], "logprobs": [], "top5": [], "margins": []}
        for _ in range(steps):
            scores = self.rows(ids)[-1]
            seen = torch.tensor(sorted(set(ids)))
            old = scores[seen]
            scores[seen] = torch.where(old < 0, old * penalty, old / penalty)
            top = self.top5(scores)
            out["ids"].append(top[0][0])
            out["logprobs"].append(top[0][1])
            out["top5"].append(top)
            out["margins"].append(number(top[0][1] - top[1][1]))
            ids.append(top[0][0])
        if min(out["margins"]) < MARGIN:
            raise ValueError("a step is nearly a tie")
        return out | {"min_margin": min(out["margins"]), "text": self.tokenizer.decode(out["ids"])}

    def prompt(self, name, text, ids):
        rows, logprobs = self.rows(ids), self.logprobs(ids)
        self.arrays[f"prompt.{name}.logits"] = rows.numpy()
        return {
            "name": name, "text": text, "ids": ids, "logit_positions": list(range(len(ids))),
            "logits": f"prompt.{name}.logits",
            "prompt_logprobs": [number(logprobs[i, n]) for i, n in enumerate(ids[1:])],
            "top5_last": self.top5(rows[-1]), "greedy": self.greedy(ids),
        }

    def batch(self, texts):
        rows = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        width = max(map(len, rows))
        pad = [width - len(r) for r in rows]
        padded = [[0] * p + r for p, r in zip(pad, rows)]
        mask = [[0] * p + [1] * len(r) for p, r in zip(pad, rows)]
        positions = [[0] * p + list(range(len(r))) for p, r in zip(pad, rows)]
        with torch.no_grad():
            logits = self.model(torch.tensor(padded), attention_mask=torch.tensor(mask),
                                position_ids=torch.tensor(positions)).logits[:, -1].float()
        self.arrays["batch.last_logits"] = logits.numpy()
        return {"name": "batch", "padding_side": "left", "padded_ids": padded, "attention_mask": mask,
                "position_ids": positions, "last_logits": "batch.last_logits",
                "rows": [{"text": t, "ids": r, "greedy": self.greedy(r)} for t, r in zip(texts, rows)]}

    def expected(self, name, limit):
        encode = lambda text: self.tokenizer.encode(text, add_special_tokens=False)
        decode = self.tokenizer.decode
        prompts = [self.prompt(f"text_{i}", text, encode(text)) for i, text in enumerate(TEXTS) if text]
        long = (encode(" ".join(TEXTS)) * 4)[: limit - STEPS]
        prompts.append(self.prompt("long_to_the_limit", None, long))
        first = prompts[0]
        stop = first["greedy"]["ids"][3]
        taken = first["greedy"]["ids"][: first["greedy"]["ids"].index(stop) + 1]
        streams = [p["greedy"]["ids"] for p in prompts] + [encode(TEXTS[1])]
        chat = [{"name": n, "messages": m, "options": o,
                 "rendered": self.tokenizer.apply_chat_template(m, tokenize=False, **o)} for n, m, o in CHATS]
        return {
            "format": "tidegate-fixture/1", "case": name, "kind": "causal_lm", "tensors": "expected.safetensors",
            "reference": {"library": "transformers", "dtype": "float32", "versions": {
                "torch": torch.__version__, "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__}},
            "model_dir": "model",
            "special_ids": {t: self.tokenizer.convert_tokens_to_ids(t) for t in ("<|start|>", "<|end|>", "<think>")},
            "tokenizer_size": len(self.tokenizer),
            "tokenizer": [{"text": t, "ids": encode(t), "decoded": decode(encode(t)),
                           "decoded_skip_special": decode(encode(t), skip_special_tokens=True)} for t in TEXTS],
            "chat": [c | {"ids": encode(c["rendered"])} for c in chat],
            "prompts": prompts,
            "greedy_with_repetition_penalty": [
                {"prompt": first["name"], "repetition_penalty": 1.4} | self.greedy(first["ids"], 1.4)],
            "greedy_with_stop_token": {"prompt": first["name"], "eos_token_id": stop, "ids_including_eos": taken,
                                       "text_without_eos": decode(taken[:-1])},
            "batches": [self.batch([t for t in TEXTS if t])],
            "streaming_decode": [{"ids": s, "prefixes": [decode(s[: i + 1]) for i in range(len(s))]} for s in streams],
        }


def bf16(case, model_dir, expected):
    rounded = type(case.model).from_pretrained(model_dir, dtype=torch.bfloat16, attn_implementation="eager")
    out = {}
    for p in expected["prompts"]:
        with torch.no_grad():
            row = rounded(torch.tensor([p["ids"]])).logits[0, -1].float()
        out[p["name"]] = number((row - torch.tensor(case.arrays[p["logits"]][-1])).abs().max())
    return out


def make(name, build, tokenizer, limit, dtype, shard):
    raw = make_tokenizer(*tokenizer)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", clean_up_tokenization_spaces=False)
    fast.chat_template = TEMPLATE
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    for seed in range(100):
        model = build(fast.convert_tokens_to_ids("<|end|>"))
        model.config._attn_implementation = "eager"
        model.eval()
        seed_weights(model, seed)
        case = Case(model, fast)
        try:
            expected = case.expected(name, limit)
            break
        except ValueError:
            continue
    model.to(dtype).save_pretrained(out / "model", max_shard_size=shard)
    model.float()
    raw.save(str(out / "model" / "tokenizer.json"), pretty=False)
    (out / "model" / "tokenizer_config.json").write_text(json.dumps(
        {"eos_token": "<|end|>", "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE}))
    if dtype == torch.bfloat16:
        expected["bf16_arithmetic_vs_reference"] = bf16(case, out / "model", expected)
    save_file({k: np.ascontiguousarray(v) for k, v in case.arrays.items()}, out / "expected.safetensors")
    (out / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, separators=(",", ":")))


def gpt2(end):
    return GPT2LMHeadModel(GPT2Config(vocab_size=331, n_positions=80, n_embd=24, n_layer=2, n_head=3, n_inner=50,
                                      bos_token_id=end, eos_token_id=end))


def qwen3(end):
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=347, hidden_size=20, intermediate_size=44, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=10, max_position_embeddings=90, attention_bias=True, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, eos_token_id=end, bos_token_id=None))


def sampling():
    """One vector of logits and what transformers' logit processors make of it."""
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(40, generator=g) * 3
    history = [1, 7, 7, 30]
    arrays, cases = {"logits": logits.numpy()}, []
    kinds = [("repetition_penalty", lg.RepetitionPenaltyLogitsProcessor), ("temperature", lg.TemperatureLogitsWarper),
             ("top_k", lg.TopKLogitsWarper), ("top_p", lg.TopPLogitsWarper), ("min_p", lg.MinPLogitsWarper)]
    for i, settings in enumerate([{"repetition_penalty": 1.5}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8},
                                  {"min_p": 0.1}, {"repetition_penalty": 0.8, "temperature": 1.3, "top_k": 20,
                                                   "top_p": 0.95, "min_p": 0.02}]):
        scores = logits[None].clone()
        for name, kind in kinds:
            if name in settings:
                scores = kind(settings[name])(torch.tensor([history]), scores)
        arrays[f"{i}.scores"], arrays[f"{i}.probs"] = scores[0].numpy(), torch.softmax(scores[0], -1).numpy()
        cases.append({"settings": settings, "scores": f"{i}.scores", "probs": f"{i}.probs",
                      "kept": int(torch.isfinite(scores).sum())})
    count = torch.bincount(torch.tensor(history), minlength=40)
    arrays["openai"] = (logits - 0.5 * count - 0.25 * (count > 0)).numpy()
    bias = {"3": 2.5, "9": -100.0}
    arrays["bias"] = logits.clone().index_add(0, torch.tensor([3, 9]), torch.tensor([2.5, -100.0])).numpy()
    cumulative = np.cumsum(arrays["5.probs"].astype(np.float64))
    draws = [[u, int(np.argmax(cumulative > u))] for u in (0.0, 0.1, 0.33, 0.5, 0.77, 0.99)]
    top = torch.topk(torch.log_softmax(logits, -1), 5)
    out = HERE / "sampling"
    out.mkdir(exist_ok=True)
    save_file(arrays, out / "expected.safetensors")
    (out / "expected.json").write_text(json.dumps({
        "format": "tidegate-fixture/1", "case": "sampling", "kind": "logit_processors",
        "tensors": "expected.safetensors",
        "vectors": [{"name": "normal", "vocab": 40, "logits": "logits", "history": history, "cases": cases,
                     "top5_logprobs": [[int(i), number(v)] for v, i in zip(*top)]}],
        "openai_penalties": {"vector": "normal", "history": history, "cases": [
            {"frequency_penalty": 0.5, "presence_penalty": 0.25, "logits": "openai"}]},
        "logit_bias": {"vector": "normal", "bias": bias, "logits": "bias"},
        "inverse_cdf": {"probs": "5.probs", "u_and_token": draws}}, separators=(",", ":")))


if __name__ == "__main__":
    sampling()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    make("gpt2", gpt2, (320, None, None), 80, torch.float32, "50GB")
    make("qwen3", qwen3, (330, QWEN_SPLIT, normalizers.NFC()), 90, torch.bfloat16, "30KB")
