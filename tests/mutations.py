"""Strategies that break what was sound: bytes, and values of documents.

Most of what hypothesis could make up is refused at its first byte; what was sound and has a few
parts changed reaches further.
"""

import copy
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

#: What stands in the place of other bytes, texts and numbers.
_BYTES = [
    *(b"", b"\0", b"\xff", b"\n", b"\x1b[31m", b'"', b"\\", b"[", b"{", b"/", b"../", b"PK\1\2"),
    *(b"PK\5\6", b"%", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff" * 8, b"\0" * 8, b"\x7f" * 4),
]
_TEXTS = [
    *("", " ", ".", "..", "/", "../x", "/etc/passwd", "a/../b", "a//b", "a\\b", "C:\\x", "~/x"),
    *("-x", "--x", "$HOME", "%2e%2e", "%FF", "%", "a\nb", "\0", "\x1b[31m", "\x9b", "\u2028"),
    *("\u202e", "\ud800", "é", "e\u0301", "ß", "😀", "n" * 256, "x/" * 600, "x" * 9000, "NaN"),
    *("0" * 64, "A" * 64, "0" * 63 + "\n", "c" * 40, "null", "1e999", "https://[", "file:///etc"),
]
_NUMBERS = [
    *(0, -1, 1, 2, 3, 4, 255, 65535, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64),
    *(-(1 << 63), 10**30, 10**4000),
]

_DIGITS = re.compile(rb"[0-9]+")


def texts() -> st.SearchStrategy[str]:
    """Texts that no field is meant for."""
    return st.sampled_from(_TEXTS) | st.text(max_size=6)


def values() -> st.SearchStrategy[Any]:
    """Values that no field is meant for."""
    plain = st.none() | st.booleans() | st.sampled_from(_NUMBERS) | st.sampled_from([0.5, 1e300])
    return plain | texts() | st.sampled_from([[], {}, [[]], {"": ""}, [None]])


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with one to four places changed: flipped, cut, inserted, moved, doubled, renumbered."""
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 64)))
        kind = draw(st.sampled_from(["flip", "cut", "end", "insert", "move", "double", "number"]))
        if kind == "flip" and start < len(data):
            changed = data[start] ^ 1 << draw(st.integers(0, 7))
            data = data[:start] + bytes([changed]) + data[start + 1 :]
        elif kind == "cut":
            data = data[:start] + data[end:]
        elif kind == "end":
            data = data[:start]
        elif kind == "insert":
            data = data[:start] + draw(st.sampled_from(_BYTES)) + data[end:]
        elif kind == "move":
            other = draw(st.integers(0, len(data)))
            data = data[:other] + data[start:end] + data[other:]
        elif kind == "double":
            data = data[:end] + data[start:end] * draw(st.integers(1, 3)) + data[end:]
        elif kind == "number" and (found := _DIGITS.search(data, start)):
            number = str(draw(st.sampled_from(_NUMBERS))).encode()
            data = data[: found.start()] + number + data[found.end() :]
    return data


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """A parsed document with one to three values replaced, removed, doubled or called otherwise."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(value)
        if not places:
            break
        owner, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "replace", "remove", "double", "rename", "swap"]))
        if kind == "replace":
            owner[key] = draw(values())
        elif kind == "remove":
            del owner[key]
        elif kind == "double" and isinstance(owner, list):
            owner.append(copy.deepcopy(owner[key]))
        elif kind == "rename" and isinstance(owner, dict):
            owner[draw(texts())] = owner.pop(key)
        elif kind == "swap":
            other, place = draw(st.sampled_from(places))
            owner[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(owner[key])
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every list and object of a value with each of its keys."""
    keys: Sequence[Any] = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    found = [(value, key) for key in keys]
    for key in keys:
        found += _places(value[key])
    return found
