"""As much of PNG as the scenarios need, so that no image library has a part in the comparison."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def encode(width: int, height: int, color: str) -> bytes:
    """An RGB picture of one colour, `#rrggbb`."""
    row = b"\0" + bytes.fromhex(color.removeprefix("#")) * width
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(row * height)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def describe(data: bytes) -> dict[str, Any]:
    """Size, depth, the text that is embedded, and the colours of a PNG's pixels."""
    if not data.startswith(SIGNATURE):
        raise ValueError("not a PNG")
    position, header, packed = len(SIGNATURE), b"", b""
    text: dict[str, Any] = {}
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if zlib.crc32(kind + body) != struct.unpack_from(">I", data, position + 8 + length)[0]:
            raise ValueError(f"the check sum of a {kind!r} chunk is wrong")
        position += 12 + length
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            packed += body
        elif kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            text[key.decode("latin-1")] = json.loads(value)  # ComfyUI embeds nothing else
    width, height, depth, color_type = struct.unpack(">IIBB", header[:10])
    if depth != 8 or color_type not in CHANNELS or header[12]:
        raise ValueError(f"depth {depth}, colour type {color_type}: more of PNG than is known here")
    pixels = _pixels(zlib.decompress(packed), width, height, CHANNELS[color_type])
    size = CHANNELS[color_type]
    colors = {pixels[start : start + size].hex() for start in range(0, len(pixels), size)}
    return {
        "width": width,
        "height": height,
        "bit_depth": depth,
        "color_type": color_type,
        "colors": sorted(f"#{color}" for color in colors),
        "text": text,
    }


def _pixels(rows: bytes, width: int, height: int, channels: int) -> bytes:
    """Undo the filter of every row."""
    stride = width * channels
    if len(rows) != height * (stride + 1):
        raise ValueError("the picture has too few or too many rows")
    above, result = bytearray(stride), bytearray()
    for start in range(0, len(rows), stride + 1):
        method, row = rows[start], bytearray(rows[start + 1 : start + 1 + stride])
        for index in range(stride):
            left = row[index - channels] if index >= channels else 0
            corner = above[index - channels] if index >= channels else 0
            guess = (0, left, above[index], (left + above[index]) // 2, 0)[method]
            if method == 4:
                guess = _paeth(left, above[index], corner)
            row[index] = (row[index] + guess) % 256
        result += row
        above = row
    return bytes(result)


def _paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    return min((left, above, corner), key=lambda near: abs(estimate - near))
