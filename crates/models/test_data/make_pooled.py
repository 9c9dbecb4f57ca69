"""Makes `pooled.json`: what transformers makes of hidden states of the tiny models of this folder that generate.

    python crates/models/test_data/make_pooled.py

needs torch, transformers and pillow; versions are recorded. Of each text, and of a conversation with a picture, it records the
ids and the last layer's hidden states behind the last norm: that of the last token, and the mean of all. The picture is of a
size that needs no resizing. Two runs with the same versions give the same numbers.
"""

import base64
import io
import json

import numpy as np
import PIL
import torch
import transformers
from make import HERE, TEXTS
from PIL import Image
from transformers import AutoModel, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

WIDTH, HEIGHT = 24, 16
QUESTION = "What is it?"


def numbers(row):
    return [float(f"{value:.9g}") for value in row.tolist()]


def pooled(states):
    return {"last": numbers(states[-1]), "mean": numbers(states.double().mean(0).float())}


def load(name):
    folder = HERE / name / "model"
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, AutoTokenizer.from_pretrained(folder)


def texts(model, tokenizer):
    out = []
    for text in TEXTS:
        ids = tokenizer.encode(text)
        if ids:
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            out.append({"text": text, "ids": ids} | pooled(states))
    return out


def seen(model, tokenizer):
    shades = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "png")
    settings = json.loads((HERE / "qwen3_vl/model/preprocessor_config.json").read_text())
    processor = Qwen2VLImageProcessor(**settings)
    given = processor(images=[Image.fromarray(shades)], return_tensors="pt")
    (t, h, w), merge = given["image_grid_thw"][0].tolist(), settings["merge_size"]
    assert (t, h * settings["patch_size"], w * settings["patch_size"]) == (1, HEIGHT, WIDTH), "it is not resized"
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    pad = "<|image_pad|>"
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    ids = tokenizer.encode(rendered.replace(pad, pad * (h * w // merge**2)))
    kinds = [int(i == tokenizer.convert_tokens_to_ids(pad)) for i in ids]
    states = model(
        input_ids=torch.tensor([ids]), mm_token_type_ids=torch.tensor([kinds]),
        pixel_values=given["pixel_values"], image_grid_thw=given["image_grid_thw"]).last_hidden_state[0]
    png = base64.b64encode(file.getvalue()).decode()
    return {"messages": messages, "png": png, "ids": ids} | pooled(states)


def main():
    models = {}
    for name in ("gpt2", "qwen3", "qwen3_vl"):
        model, tokenizer = load(name)
        models[name] = {"texts": texts(model, tokenizer)}
        if name == "qwen3_vl":
            models[name]["seen"] = seen(model, tokenizer)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "pillow": PIL.__version__}
    told = {"versions": versions, "models": models}
    (HERE / "pooled.json").write_text(json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
