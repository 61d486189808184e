"""Parts of the small core that stand alone: PNG files, images, YAML, forms."""

import struct
import zlib
from typing import Any

import pytest
from demo_core import load

png = load("comfy/png.py")
images = load("comfy/images.py")
small_yaml = load("utils/small_yaml.py")
multipart = load("app/multipart.py")


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_filters(color: int, channels: int) -> None:
    """Every filter is undone, for every kind of pixel."""
    width, height = 7, 10
    samples = bytes((index * 37 + index // 5) % 256 for index in range(width * height * channels))
    size = width * channels
    rows = [samples[start : start + size] for start in range(0, len(samples), size)]
    packed = b""
    for number, row in enumerate(rows):
        kind = number % 5
        above = rows[number - 1] if number else bytes(size)
        line = bytearray()
        for index, byte in enumerate(row):
            left = row[index - channels] if index >= channels else 0
            corner = above[index - channels] if index >= channels else 0
            up = above[index]
            guess = left + up - corner
            near = min(
                (abs(guess - value), place) for place, value in enumerate((left, up, corner))
            )
            line.append(
                (byte - (0, left, up, (left + up) // 2, (left, up, corner)[near[1]])[kind]) % 256
            )
        packed += bytes([kind]) + line
    data = bytearray(png.encode(width, height, channels, samples, {"kéy": "välue", "日": "本"}))
    start = data.index(b"IDAT") - 4
    body = zlib.compress(packed)
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body
    data[start:] = chunk + struct.pack(">I", zlib.crc32(b"IDAT" + body))

    picture = png.decode(bytes(data))

    assert picture.samples == samples
    assert picture.text == {"kéy": "välue", "日": "本"}
    assert len(png.to_rgba(picture)) == width * height * 4


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"not a picture"])
def test_png_refuses(data: bytes) -> None:
    """What is no PNG is told apart."""
    with pytest.raises(png.PngError):
        png.decode(data)


def test_images_round_as_tensors() -> None:
    """All 256 levels survive saving, and inverting is exact but for 32-bit rounding."""
    batch = images.Images.from_bytes(16, 16, 1, bytes(range(256)))

    assert batch[0].to_bytes() == bytes(range(256))
    inverted = (1.0 - batch)[0].to_bytes()
    exact = bytes(255 - value for value in range(256))
    assert all(0 <= right - value <= 1 for value, right in zip(inverted, exact, strict=True))


def test_images_paint_and_resize() -> None:
    """Painting takes more colours than the table holds; resizing takes the nearest sample."""
    batch = images.Images.from_bytes(2, 4, 3, bytes(range(24)))
    copy = batch.clone()
    for number in range(300):
        copy[:, 0:1, number % 4, 1] = number / 300
    assert batch[0].to_bytes() == bytes(range(24))
    painted = copy[0].to_bytes()
    assert painted[12:] == bytes(range(12, 24))
    assert painted[1:12:3] == bytes(int(number / 300 * 255) for number in range(296, 300))
    assert batch.resized(2, 1, False)[0].to_bytes() == bytes([15, 16, 17, 21, 22, 23])
    assert batch.resized(2, 2, True)[0].to_bytes() == bytes([*range(3, 9), *range(15, 21)])
    with pytest.raises(ValueError, match="samples"):
        images.Images((1, 1, 1, 3), b"", [])


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("", None),
        ("# nothing\n\n", None),
        ("a:\n  k: v\n", {"a": {"k": "v"}}),
        ("a:\nb:\n  k: 'it''s' # c\n", {"a": None, "b": {"k": "it's"}}),
        ('a:\n  "k": "x\\ty"\n  e: "" \n', {"a": {"k": "x\ty", "e": ""}}),
        ("a:\n  k: |\n    x\n    y\n\n\nb:\n", {"a": {"k": "x\ny\n"}, "b": None}),
        ("a:\n  k: |-\n    x\n      y\n", {"a": {"k": "x\n  y"}}),
        (
            "a:\n  t: true\n  n: 12\n  z: ~\n  s: a#b\n",
            {"a": {"t": True, "n": 12, "z": None, "s": "a#b"}},
        ),
        ("---\na:\n  k: C:\\x y\n", {"a": {"k": "C:\\x y"}}),
        ('{"a": {"k": "v"}}', {"a": {"k": "v"}}),
    ],
)
def test_small_yaml(text: str, document: Any) -> None:
    """It reads what such files hold, as a YAML library does."""
    assert small_yaml.load(text) == document


@pytest.mark.parametrize(
    "text",
    ["a:\n  - b\n", "a: [1]\n", "a:\n\tk: v\n", "a:\n  b:\n    c: d\n", "nothing\n", "a: 'x\n"],
)
def test_small_yaml_refuses(text: str) -> None:
    """More than it knows is an error, not a guess."""
    with pytest.raises(ValueError):
        small_yaml.load(text)


def test_multipart_refuses() -> None:
    """Another kind of body has no fields, nor has a part without an end of its headers."""
    assert multipart.parse("application/json", b"{}") == {}
    assert multipart.parse("multipart/form-data; boundary=b", b"--b\r\nbroken\r\n--b--") == {}
