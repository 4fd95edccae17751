"""Picture files written by hand: kinds that Pillow can't write, and hostile ones."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import PIL
from PIL import Image

PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13
"""True if Pillow reads uncompressed TIFFs of YCbCr, and of grey that is premultiplied."""

Array = np.ndarray[Any, np.dtype[Any]]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, chunks: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG file. `rows` are its rows before compression, each after the byte of its filter."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    others = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + others + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(pixels: Array, transparent: Iterable[int] = ()) -> bytes:
    """A PNG of 16 bits, grey or RGB, with a colour that stands for transparent."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    colour = b"".join(struct.pack(">H", value) for value in transparent)
    return png(*pixels.shape[1::-1], 16, 2 if pixels.ndim == 3 else 0, rows, [(b"tRNS", colour)] if colour else [])


def tiff(
    width: int, height: int, content: bytes, tags: Mapping[int, int | None] | None = None, order: str = "<"
) -> bytes:
    """An uncompressed grey TIFF of 8 bits, but for `tags`; None leaves a tag out."""
    own = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(content), 339: 1}
    kept = {tag: value for tag, value in {**own, **(tags or {})}.items() if value is not None}
    content += b"\0" * (len(content) % 2)
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(kept.items()))
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(content))
    return start + content + struct.pack(f"{order}H", len(kept)) + entries + struct.pack(f"{order}I", 0)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def riff(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(content)) + content for kind, content in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def colourful(width: int = 8, height: int = 8) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@functools.cache
def hostile() -> dict[str, tuple[bytes, bool]]:
    """{name: (content, whether it is a picture)}."""
    good, grey, frames = colourful(), colourful().convert("L"), [colourful(), Image.new("RGB", (8, 8))]
    whole, jpeg = saved(good, "PNG"), saved(good, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 99
    palette = good.convert("P")
    bomb = zlib.compress(bytes(80_000_000), 9)
    huge = struct.pack("<I", 2**24 - 2)[:3] * 2
    row = b"\0" + bytes(24)
    return {
        "nothing.png": (b"", False),
        "zeros.png": (bytes(4096), False),
        "noise.jpg": (np.random.default_rng(1).bytes(4096), False),
        "cut.png": (whole[: len(whole) * 2 // 3], False),
        "cut.jpg": (jpeg[: len(jpeg) * 2 // 3], False),
        "cut.gif": (saved(palette, "GIF")[:60], False),
        "cut.tif": (saved(good, "TIFF")[:150], False),
        "cut.webp": (saved(good, "WEBP", lossless=True)[:40], False),
        "cut.avif": (saved(good, "AVIF")[:200], False),
        "a jpeg.png": (jpeg, True),
        "a png.txt": (whole, True),
        "no suffix": (whole, True),
        "script.png": (b"#!/bin/sh\ntouch executed\n", False),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", False),
        "vector.png": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', False),
        "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n", False),
        "eps.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n", False),
        "pdf.png": (b"%PDF-1.4\n1 0 obj\n<< /OpenAction << /S /Launch /F (sh) >> >>\nendobj\n%%EOF\n", False),
        "metafile.png": (b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4hH", 0, 0, 99, 99, 72) + bytes(40), False),
        "phone.heic": (struct.pack(">I", 24) + b"ftypheic\0\0\0\0heicmif1" + bytes(64), False),
        "stub.hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), False),
        "targa.tga": (saved(good, "TGA"), False),
        "billions.png": (png(60_000, 60_000, 8, 2, row), False),
        "billions.ppm": (b"P6 70000 70000 255\n" + bytes(99), False),
        "billions.pgm": (b"P5 2000000000 2000000000 255\n", False),
        "billions.bmp": (saved(good, "BMP")[:18] + struct.pack("<ii", 2**30, 2**30) + saved(good, "BMP")[26:], False),
        "billions.gif": (b"GIF89a" + struct.pack("<HH", 65535, 65535) + saved(palette, "GIF")[10:], False),
        "billions.jpg": (jpeg.replace(b"\0\x08\0\x08\x03", b"\xff\xff\xff\xff\x03", 1), False),
        "billions.tif": (tiff(100_000, 100_000, bytes(64)), False),
        "billions.webp": (riff([(b"VP8X", b"\x02\0\0\0" + huge), (b"ANIM", bytes(6))]), False),
        "billions.jp2": (
            saved(good, "JPEG2000").replace(struct.pack(">II", 8, 8), struct.pack(">II", 2**31, 2**31)),
            False,
        ),
        "no pixels.png": (png(0, 0, 8, 2, b""), False),
        "no pixels.ppm": (b"P6 0 0 255\n", False),
        "text bomb.png": (png(8, 8, 8, 2, row * 8, [(b"zTXt", b"a\0\0" + bomb)] * 3), False),
        "profile bomb.png": (png(8, 8, 8, 2, row * 8, [(b"iCCP", b"a\0\0" + bomb)]), False),
        "broken profile.png": (saved(good, "PNG", icc_profile=b"not a profile"), True),
        "broken profile.jpg": (saved(good, "JPEG", icc_profile=bytes(200)), True),
        "broken exif.jpg": (jpeg[:2] + b"\xff\xe1\0\x14Exif\0\0II*\0\xff\xff\xff\xff\0\0\0\0" + jpeg[2:], True),
        "orientation 99.jpg": (saved(good, "JPEG", exif=exif), True),
        "palette.png": (saved(palette, "PNG", transparency=bytes(range(128))), True),
        "print.jpg": (saved(good.convert("CMYK"), "JPEG"), True),
        "lab.tif": (saved(Image.merge("LAB", [grey] * 3), "TIFF"), True),
        "ycbcr.tif": (saved(good.convert("YCbCr"), "TIFF"), PILLOW_13),
        "one bit.png": (saved(good.convert("1"), "PNG"), True),
        "fax.tif": (saved(good.convert("1"), "TIFF", compression="group4"), True),
        "moving.gif": (saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), True),
        "moving.webp": (saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]), True),
        "moving.png": (saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), True),
        "pages.tif": (saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]), True),
        "endless pages.tif": (tiff(8, 8, bytes(range(64)))[:-4] + struct.pack("<I", 72), True),
        "second page broken.tif": (tiff(8, 8, bytes(range(64)))[:-4] + struct.pack("<I", 9999), True),
        "samples.tif": (tiff(8, 8, bytes(64), {277: 2**31}), False),
        "tile.tif": (
            tiff(8, 8, bytes(64), {273: None, 278: None, 279: None, 322: 2**31, 323: 2**31, 324: 8, 325: 64}),
            False,
        ),
        "point.png": (saved(good.crop((0, 0, 1, 1)), "PNG"), True),
        "line.png": (saved(colourful(1, 5000), "PNG"), True),
        "line.bmp": (saved(colourful(5000, 1), "BMP"), True),
    }
