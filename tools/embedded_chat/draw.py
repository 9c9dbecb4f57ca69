"""Draws a scene of ``kinds.scenes`` as an RGB picture."""

import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# corners of the shapes, in halves of their extent around the centre
_STAR = [(math.sin(math.pi * i / 5) * (1.0, 0.42)[i % 2], -math.cos(math.pi * i / 5) * (1.0, 0.42)[i % 2]) for i in range(10)]
_ARM = 0.34
CORNERS = {
    "square": ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "triangle": ((0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)),
    "star": _STAR,
    "diamond": ((0.0, -1.0), (0.82, 0.0), (0.0, 1.0), (-0.82, 0.0)),
    "cross": (
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ),
}


def picture(scene):
    """The scene as a PIL image of its own size."""
    width, height = scene["size"]
    factor = 2 if scene["smooth"] else 1
    image = _ground(scene["ground"], width * factor, height * factor)
    canvas = ImageDraw.Draw(image)
    for item in scene["things"]:
        _shape(canvas, item, width * factor, height * factor)
    if scene["word"]:
        _word(canvas, scene["word"], width * factor, height * factor)
    image = image.reduce(factor) if factor > 1 else image
    return _worn(image, scene)


def _ground(ground, width, height):
    if ground["fade"] == ground["rgb"]:
        return Image.new("RGB", (width, height), tuple(ground["rgb"]))
    ends = np.array([ground["rgb"], ground["fade"]], dtype=np.float32)
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    rows = ends[0] * (1 - share) + ends[1] * share
    return Image.fromarray(np.repeat(rows.round().astype(np.uint8)[:, None], width, axis=1))


def _shape(canvas, item, width, height):
    x, y, half = item["x"] * width, item["y"] * height, item["half"] * min(width, height)
    edge = None
    if item["edge"]:
        edge = (0, 0, 0) if sum(item["rgb"]) > 300 else (255, 255, 255)
    line = max(1, round(half / 14))
    across, down = half * item["stretch"], half / item["stretch"]
    if item["shape"] == "circle":
        canvas.ellipse((x - across, y - down, x + across, y + down), fill=tuple(item["rgb"]), outline=edge, width=line)
        return
    sine, cosine = math.sin(math.radians(item["turn"])), math.cos(math.radians(item["turn"]))
    corners = [
        (x + across * (u * cosine - v * sine), y + down * (u * sine + v * cosine)) for u, v in CORNERS[item["shape"]]
    ]
    canvas.polygon(corners, fill=tuple(item["rgb"]), outline=edge, width=line)


def letters(word, width, height):
    """The font of a word and the left and right end and the middle line of each letter, in pixels."""
    size = max(8.0, word["height"] * min(width, height) * 1.3)
    whole = ImageFont.load_default(size).getlength(word["text"])
    font = ImageFont.load_default(size * min(1.0, 0.94 * width / whole))
    whole = font.getlength(word["text"])
    left = max(2.0, (width - whole - 4.0) * word["x"] + 2.0)
    ends = [left + font.getlength(word["text"][:i]) for i in range(len(word["text"]) + 1)]
    return font, list(zip(ends, ends[1:])), word["y"] * height


def _word(canvas, word, width, height):
    font, places, middle = letters(word, width, height)
    canvas.text((places[0][0], middle), word["text"], fill=tuple(word["rgb"]), font=font, anchor="lm")


def _worn(image, scene):
    """Noise and the marks of a JPEG, as pictures have them."""
    if scene["noise"] and image.width * image.height <= 40_000:
        noise = np.random.default_rng(scene["seed"]).normal(0, scene["noise"], (image.height, image.width, 3))
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    if scene["jpeg"]:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=scene["jpeg"])
        image = Image.open(file).convert("RGB")
    return image
