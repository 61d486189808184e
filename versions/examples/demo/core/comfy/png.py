"""PNG files of 8-bit samples, written and read with zlib alone."""

import struct
import zlib
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
COLOR_TYPES = {channels: color for color, channels in CHANNELS.items()}


class PngError(ValueError):
    """The bytes are not a PNG, or not of a kind that is read here."""


@dataclass
class Png:
    """A decoded file."""

    width: int
    height: int
    channels: int
    samples: bytes
    text: dict[str, str] = field(default_factory=dict)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _text_chunk(key: str, value: str) -> bytes:
    """tEXt where Latin-1 can say it, iTXt elsewhere."""
    try:
        return _chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        name = key.encode("utf-8")
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + value.encode("utf-8"))


def encode(
    width: int,
    height: int,
    channels: int,
    samples: bytes,
    text: dict[str, str] | None = None,
    level: int = 4,
) -> bytes:
    """A PNG of these samples; `text` goes before the pixels, where every reader finds it."""
    size = width * channels
    rows = b"".join(b"\0" + samples[row * size : (row + 1) * size] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, COLOR_TYPES[channels], 0, 0, 0)
    notes = b"".join(_text_chunk(key, value) for key, value in (text or {}).items())
    pixels = _chunk(b"IDAT", zlib.compress(rows, level))
    return SIGNATURE + _chunk(b"IHDR", header) + notes + pixels + _chunk(b"IEND", b"")


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    distances = abs(guess - left), abs(guess - up), abs(guess - corner)
    return (left, up, corner)[distances.index(min(distances))]


def _unfilter(raw: bytes, height: int, size: int, step: int) -> bytes:
    """Undo the prediction of every row; `step` is the distance to the sample on the left."""
    if len(raw) < height * (size + 1):
        raise PngError("image file is truncated")
    out = bytearray()
    above = bytearray(size)
    for row in range(height):
        start = row * (size + 1)
        kind = raw[start]
        line = bytearray(raw[start + 1 : start + 1 + size])
        if kind > 4:
            raise PngError(f"unknown filter {kind}")
        for index in range(size if kind else 0):
            left = line[index - step] if index >= step else 0
            up = above[index]
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) // 2
            else:
                guess = _paeth(left, up, above[index - step] if index >= step else 0)
            line[index] = (line[index] + guess) & 0xFF
        out += line
        above = line
    return bytes(out)


def _read_text(kind: bytes, data: bytes) -> tuple[str, str]:
    key, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        return key.decode("latin-1"), rest.decode("latin-1")
    packed = rest[:1] == b"\1"
    value = rest[2:].split(b"\0", 2)[2]
    return key.decode("utf-8"), (zlib.decompress(value) if packed else value).decode("utf-8")


def decode(data: bytes) -> Png:
    """Read a file: grey or colour, with or without alpha, 8 bits a sample, not interlaced."""
    if not data.startswith(SIGNATURE):
        raise PngError("cannot identify image file: not a PNG")
    place, pixels = len(SIGNATURE), b""
    header: tuple[int, ...] | None = None
    text: dict[str, str] = {}
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        if len(body) < length:
            raise PngError("image file is truncated")
        place += length + 12
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            pixels += body
        elif kind in (b"tEXt", b"iTXt"):
            text.update([_read_text(kind, body)])
        elif kind == b"IEND":
            break
    if header is None:
        raise PngError("no header")
    width, height, depth, color, _, _, interlace = header
    if depth != 8 or interlace or color not in CHANNELS:
        raise PngError("only 8-bit grey and colour PNGs that are not interlaced are read here")
    channels = CHANNELS[color]
    try:
        raw = zlib.decompressobj().decompress(pixels)
    except zlib.error as error:
        raise PngError(f"broken pixels: {error}") from error
    samples = _unfilter(raw, height, width * channels, channels)
    return Png(width, height, channels, samples, text)


def to_rgba(image: Png) -> bytes:
    """Its samples as red, green, blue and alpha."""
    out = bytearray(b"\xff" * (image.width * image.height * 4))
    for channel in range(3):
        source = channel if image.channels >= 3 else 0
        out[channel::4] = image.samples[source :: image.channels]
    if image.channels in (2, 4):
        out[3::4] = image.samples[image.channels - 1 :: image.channels]
    return bytes(out)
