"""Writes `formats/`: the same small drawing in the formats and colour models that are read, and what Pillow with the reference
processor's rules makes of each (`.expected.png`). Needs Pillow; run it in this folder."""
import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageOps

WIDTH, HEIGHT = 64, 32


def drawing():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 4 % 256, y * 8 % 256, (x + y) * 3 % 256], axis=-1).astype(np.uint8)
    image = Image.fromarray(pixels, "RGB")
    pen = ImageDraw.Draw(image)
    pen.rectangle([4, 4, 20, 14], fill=(250, 20, 30))
    pen.ellipse([30, 8, 54, 28], fill=(10, 60, 240))
    return image


def transparency():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(((x * 5 + y * 3) % 256).astype(np.uint8), "L")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth, colour, samples, extra=b""):
    """A PNG of samples [height, width, channels] in 16 or 8 bits."""
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_reference(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def files():
    rgb, alpha = drawing(), transparency()
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    grey = rgb.convert("L")
    wide = np.asarray(rgb).astype(np.uint32) * 257
    wide = (wide + np.arange(WIDTH)[None, :, None] * 3) % 65536
    wide_alpha = np.concatenate([wide, np.asarray(alpha)[..., None].astype(np.uint32) * 257], axis=-1)
    yield "rgb.png", saved(rgb, "PNG")
    yield "rgba.png", saved(rgba, "PNG")
    yield "grey.png", saved(grey, "PNG")
    yield "grey_alpha.png", saved(Image.merge("LA", [grey, alpha]), "PNG")
    yield "one_bit.png", saved(rgb.convert("1"), "PNG")
    yield "palette.png", saved(rgb.quantize(16), "PNG", bits=4)
    yield "palette_transparent.png", saved(rgb.quantize(16), "PNG", transparency=bytes(range(0, 256, 16)))
    yield "rgb_transparent.png", png(8, 2, np.asarray(rgb), chunk(b"tRNS", struct.pack(">HHH", 250, 20, 30)))
    yield "rgb16.png", png(16, 2, wide)
    yield "rgba16.png", png(16, 6, wide_alpha)
    yield "turned.png", saved(rgb.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif(6))
    yield "baseline.jpg", saved(rgb, "JPEG", quality=92)
    yield "progressive.jpg", saved(rgb, "JPEG", quality=90, progressive=True)
    yield "grey.jpg", saved(grey, "JPEG", quality=90)
    yield "full_colour.jpg", saved(rgb, "JPEG", quality=90, subsampling=0)
    yield "cmyk.jpg", saved(rgb.convert("CMYK"), "JPEG", quality=92)
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    for orientation, turn in undo.items():
        turned = rgb.transpose(Image.Transpose[turn])
        yield f"orientation{orientation}.jpg", saved(turned, "JPEG", quality=90, subsampling=0, exif=exif(orientation))
    yield "lossless.webp", saved(rgb, "WEBP", lossless=True)
    yield "lossless_alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True)
    yield "lossy.webp", saved(rgb, "WEBP", quality=80)
    yield "lossy_alpha.webp", saved(rgba, "WEBP", quality=80)
    yield "turned.webp", saved(rgb.transpose(Image.Transpose.ROTATE_180), "WEBP", lossless=True, exif=exif(3))
    other = Image.new("RGB", rgb.size, (1, 200, 3))
    yield "animated.webp", saved(rgb, "WEBP", save_all=True, append_images=[other], lossless=True, duration=100)
    yield "animated.gif", saved(rgb, "GIF", save_all=True, append_images=[other], duration=100)
    yield "transparent.gif", saved(rgb.quantize(32), "GIF", transparency=3)
    yield "interlaced.gif", saved(grey, "GIF", interlace=1)


for name, data in files():
    with open(f"formats/{name}", "wb") as file:
        file.write(data)
    as_reference(data).save(f"formats/{name}.expected.png", optimize=True)
wide_grey = np.asarray(drawing().convert("L")).astype(np.uint32)[..., None] * 256 + 77
with open("formats/grey16.png", "wb") as file:
    file.write(png(16, 0, wide_grey))
drawing().convert("L").convert("RGB").save("formats/grey16.png.expected.png", optimize=True)
