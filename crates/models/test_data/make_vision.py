"""Makes the golden case `qwen3_vl` of this folder: a tiny seeded model that sees and what transformers computes for it.

    python crates/models/test_data/make_vision.py

needs torch, transformers, tokenizers and safetensors; versions are recorded in expected.json. The format is the one that
`cargo xtask fixtures` reads. Pictures are given as values of patches, so nothing here depends on how files are decoded.
Two runs with the same versions give the same bytes.
"""

import json
import shutil

import numpy as np
import tokenizers
import torch
import transformers
from make import HERE, QWEN_SPLIT, Case, make_tokenizer, number, seed_weights
from safetensors.numpy import save_file
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

START, END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
TEMPLATE = (
    "{%- for m in messages %}{{- '<|start|>' + m.role + '\\n' }}{%- if m.content is string %}{{- m.content }}"
    "{%- else %}{%- for part in m.content %}{%- if part.type == 'image' or 'image_url' in part %}"
    "{{- '" + START + IMAGE + END + "' }}{%- elif part.type == 'video' %}{{- '" + START + VIDEO + END + "' }}"
    "{%- elif 'text' in part %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant\\n' }}{%- endif %}"
)
GRIDS = {"square": (1, 4, 4), "wide": (1, 2, 6), "tall": (1, 8, 4)}
CLIP = (2, 2, 4)
WORDS = ["What is it?", "And this", " tide", "Both."]


def picture(name):
    return {"type": "image", "image": name}


PROMPTS = [
    ("text_only", [{"role": "user", "content": "High water?"}]),
    ("one_image", [{"role": "user", "content": [picture("square"), {"type": "text", "text": WORDS[0]}]}]),
    ("two_images", [{"role": "user", "content": [
        {"type": "text", "text": WORDS[1]}, picture("wide"), picture("tall"), {"type": "text", "text": WORDS[3]}]}]),
    ("turns", [{"role": "user", "content": [picture("tall")]}, {"role": "assistant", "content": WORDS[2]},
               {"role": "user", "content": [{"type": "text", "text": WORDS[1]}, picture("square")]}]),
    ("clip", [{"role": "user", "content": [{"type": "video", "video": "clip"}, {"type": "text", "text": WORDS[0]}]}]),
]


class Seeing(Case):
    """A case whose every forward pass sees the pictures of the prompt at hand."""

    def look(self, pixels):
        self.pixels = pixels

    def given(self, ids, names):
        kinds = [1 if i == self.image else 2 if i == self.video else 0 for i in ids]
        given = {"mm_token_type_ids": torch.tensor([kinds])}
        images = [n for n in names if n != "clip"]
        if images:
            given["pixel_values"] = torch.cat([self.pixels[n] for n in images])
            given["image_grid_thw"] = torch.tensor([GRIDS[n] for n in images])
        if "clip" in names:
            given["pixel_values_videos"] = self.pixels["clip"]
            given["video_grid_thw"] = torch.tensor([CLIP])
        return given

    def rows(self, ids):
        # What was generated is text, whichever id it has.
        given = self.given(self.prompt_ids, self.names)
        extra = len(ids) - len(self.prompt_ids)
        kinds = given["mm_token_type_ids"]
        given["mm_token_type_ids"] = torch.cat([kinds, torch.zeros((1, extra), dtype=kinds.dtype)], 1)
        with torch.no_grad():
            return self.model(input_ids=torch.tensor([ids]), **given).logits[0].float()

    def form(self, name, text, names):
        pads = iter(GRIDS[n] for n in names if n != "clip")
        pieces = text.split(IMAGE)
        text = pieces[0] + "".join(IMAGE * (h * w // 4) + piece for (_, h, w), piece in zip(pads, pieces[1:]))
        text = text.replace(VIDEO, VIDEO * (CLIP[1] * CLIP[2] // 4))
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        self.prompt_ids, self.names = ids, names
        given = self.given(ids, names)
        positions, delta = self.model.model.get_rope_index(
            torch.tensor([ids]), given["mm_token_type_ids"], given.get("image_grid_thw"), given.get("video_grid_thw"))
        prompt = self.prompt(name, None, ids)
        rows = self.arrays.pop(prompt["logits"])
        prompt["logit_positions"] = [0, len(ids) - 1]
        self.arrays[prompt["logits"]] = rows[prompt["logit_positions"]]
        return prompt | {"token_types": given["mm_token_type_ids"][0].tolist(), "rope_delta": int(delta[0]),
                         "positions_thw": positions[:, 0].tolist()}

    def towers(self):
        out = {}
        for name, grid in [*GRIDS.items(), ("clip", CLIP)]:
            self.arrays[f"{name}.pixel_values"] = self.pixels[name].numpy()
            with torch.no_grad():
                seen = self.model.model.visual(self.pixels[name], grid_thw=torch.tensor([grid]), return_dict=True)
            self.arrays[f"{name}.merged"] = seen.pooler_output.numpy()
            for level, features in enumerate(seen.deepstack_features):
                self.arrays[f"{name}.deepstack.{level}"] = features.numpy()
            levels = [f"{name}.deepstack.{level}" for level in range(len(seen.deepstack_features))]
            out[name] = {"grid_thw": grid, "pixel_values": f"{name}.pixel_values",
                         "vision": {"merged": f"{name}.merged", "deepstack": levels}}
        clip = out.pop("clip") | {"timestamps": [0.125, 0.625]}
        return {"images": out, "videos": {"clip": clip}}

    def prompts(self):
        prompts = []
        for name, messages in PROMPTS:
            parts = [part for m in messages if isinstance(m["content"], list) for part in m["content"]]
            names = [part.get("image") or part.get("video") for part in parts if part["type"] != "text"]
            options = {"add_generation_prompt": True}
            rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
            told = {"name": name, "messages": messages, "options": options, "rendered": rendered,
                    "images": [n for n in names if n != "clip"], "videos": [n for n in names if n == "clip"]}
            frames = "".join(f"<{time:.1f} seconds>{START}{VIDEO}{END}" for time in (0.125, 0.625))
            if "clip" in names:
                triple = rendered.replace(START + VIDEO + END, frames)
                nested = rendered.replace(VIDEO, frames)
                told["forms"] = {"whole_triple_replaced": self.form(f"{name}.triple", triple, names),
                                 "bare_pad_replaced": self.form(f"{name}.nested", nested, names)}
            else:
                told |= self.form(name, rendered, names)
            prompts.append(told)
        return prompts


def model(tokenizer):
    ids = tokenizer.convert_tokens_to_ids
    text = {"vocab_size": 340, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 160,
            "eos_token_id": ids("<|end|>"), "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True,
                                "mrope_section": [2, 2, 2]}}
    vision = {"depth": 3, "hidden_size": 16, "intermediate_size": 28, "num_heads": 2, "patch_size": 4,
              "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3, "num_position_embeddings": 25,
              "deepstack_visual_indexes": [0, 2], "out_hidden_size": 24, "hidden_act": "gelu_pytorch_tanh"}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids(IMAGE), video_token_id=ids(VIDEO),
        vision_start_token_id=ids(START), vision_end_token_id=ids(END), tie_word_embeddings=True))


def main():
    raw = make_tokenizer(320, QWEN_SPLIT, normalizers.NFC())
    raw.add_special_tokens([START, END, IMAGE, VIDEO])
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", clean_up_tokenization_spaces=False)
    fast.chat_template = TEMPLATE
    g = torch.Generator().manual_seed(3)
    values = 3 * 2 * 4 * 4
    pixels = {name: torch.rand((t * h * w, values), generator=g) * 2 - 1
              for name, (t, h, w) in [*GRIDS.items(), ("clip", CLIP)]}
    out = HERE / "qwen3_vl"
    shutil.rmtree(out, ignore_errors=True)
    for seed in range(100):
        tiny = model(fast)
        tiny.config._attn_implementation = "eager"
        tiny.eval()
        seed_weights(tiny, seed)
        case = Seeing(tiny, fast)
        case.image, case.video = (fast.convert_tokens_to_ids(mark) for mark in (IMAGE, VIDEO))
        case.look(pixels)
        try:
            towers, prompts = case.towers(), case.prompts()
            break
        except ValueError:
            continue
    (out / "model").mkdir(parents=True)
    tiny.to(torch.bfloat16).save_pretrained(out / "model")
    raw.save(str(out / "model" / "tokenizer.json"), pretty=False)
    (out / "model" / "tokenizer_config.json").write_text(json.dumps(
        {"eos_token": "<|end|>", "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE}))
    (out / "model" / "preprocessor_config.json").write_text(json.dumps(
        {"size": {"shortest_edge": 256, "longest_edge": 2048}, "patch_size": 4, "temporal_patch_size": 2,
         "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    save_file({k: np.ascontiguousarray(v) for k, v in case.arrays.items()}, out / "expected.safetensors")
    (out / "expected.json").write_text(json.dumps({
        "format": "tidegate-fixture/1", "case": "qwen3_vl", "kind": "qwen3_vl", "tensors": "expected.safetensors",
        "reference": {"library": "transformers", "dtype": "float32", "versions": {
            "torch": torch.__version__, "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__}},
        "model_dir": "model", **towers, "prompts": prompts}, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
