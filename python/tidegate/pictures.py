"""Pictures as people have them, as the encoded files that the engine reads."""

from __future__ import annotations

import base64
import binascii
import io
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

ImageLike: TypeAlias = Any
"""A path, the bytes of a file, a ``data:`` URI, a picture of PIL, or an array of bytes of shape (height, width),
(height, width, 3) or (height, width, 4)."""

_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
"""Modes of PIL that a PNG keeps as they are."""


def encoded(image: ImageLike) -> bytes:
    """The bytes of a file that holds the picture: its own, or a PNG, which loses nothing."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, str) and image[:5].lower() == "data:":
        return _of_data_uri(image)
    if isinstance(image, str) and image.split("://")[0].lower() in ("http", "https"):
        raise ValueError(f"{image[:60]!r} is an address, and nothing is fetched from other places; give a path or the bytes")
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            return file.read()
    if hasattr(image, "mode") and hasattr(image, "save"):
        return _of_pil(image)
    if hasattr(image, "__array_interface__") or hasattr(image, "__array__"):
        return _of_array(image)
    raise TypeError(f"{type(image).__name__} is no picture; give a path, bytes, a data URI, a picture of PIL or an array")


def listed(images: ImageLike | Sequence[ImageLike] | None) -> list[ImageLike]:
    """Pictures as a list, whether there are many, one or none."""
    if images is None:
        return []
    return list(images) if isinstance(images, (list, tuple)) else [images]


def has_pictures(prompt: Any, images: Any) -> bool:
    """Whether reading a prompt means reading pictures, which takes its time."""
    return bool(listed(images)) or (
        not isinstance(prompt, str)
        and any(_is_picture(part) for turn in prompt if isinstance(turn, Mapping) for part in _parts(turn))
    )


def asked_about(text: str, many: int) -> list[dict[str, Any]]:
    """A conversation of one turn that asks ``text`` about so many pictures."""
    return [{"role": "user", "content": [*({"type": "image"} for _ in range(many)), {"type": "text", "text": text}]}]


def taken_out(messages: Iterable[Mapping[str, Any]], images: Sequence[ImageLike]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The turns with places where their pictures stood, and the pictures as files, in that order.

    A part ``{"type": "image"}`` has its picture under ``image``, or is the place of the next one in ``images``; a part
    ``{"type": "image_url"}`` has a data URI, as in the OpenAI dialect.
    """
    given = iter(images)
    files: list[bytes] = []
    turns = []
    for turn in messages:
        parts = []
        for part in _parts(turn):
            if not _is_picture(part):
                parts.append(part)
                continue
            files.append(encoded(_picture_of(part, given, len(images))))
            parts.append({"type": "image"})
        turns.append({**turn, "content": parts} if parts else dict(turn))
    left = len(list(given))
    if left:
        raise ValueError(f"{len(images)} images were given, and the messages have no place for {left} of them; add parts of type 'image'")
    return turns, files


def _parts(turn: Mapping[str, Any]) -> list[Any]:
    content = turn.get("content")
    return list(content) if isinstance(content, (list, tuple)) else []


def _is_picture(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url")


def _picture_of(part: Mapping[str, Any], given: Any, many: int) -> ImageLike:
    if part["type"] == "image_url":
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, Mapping) else url
        # Messages may come from elsewhere, and their senders are not to read files of this machine.
        if not isinstance(url, str) or url[:5].lower() != "data:":
            raise ValueError("a part of type 'image_url' holds a data URI; for a path or a picture use type 'image'")
        return url
    picture = part.get("image")
    if picture is None:
        picture = next(given, None)
    if picture is None:
        raise ValueError(f"the messages have places for more pictures than the {many} in images; give one for each")
    return picture


def _of_data_uri(uri: str) -> bytes:
    head, comma, data = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError("a data URI of a picture looks like 'data:image/png;base64,...'")
    try:
        return base64.b64decode(data.strip() + "=" * (-len(data.strip()) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the base64 of the data URI is broken: {error}") from None


def _of_pil(image: Any) -> bytes:
    from PIL import ImageOps

    # A file has its orientation applied when it is read; a picture in memory may still carry it beside its pixels.
    image = ImageOps.exif_transpose(image)
    if image.mode not in _MODES:
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _of_array(array: Any) -> bytes:
    import numpy

    pixels = numpy.asarray(array)
    depth = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != numpy.uint8 or pixels.ndim not in (2, 3) or depth not in (1, 3, 4) or not pixels.size:
        raise ValueError(
            f"the array has shape {pixels.shape} and numbers of type {pixels.dtype}; a picture has shape (height, width),"
            " (height, width, 3) or (height, width, 4) and numbers of type uint8"
        )
    height, width = pixels.shape[:2]
    rows = numpy.zeros((height, 1 + width * depth), numpy.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[depth], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
