"""No input takes more than 256 MB of memory, whatever it is, and each reader ends by itself.

A reader meets the inputs that cost it most in a process of its own: those that are just within its
limits, and those that are made to be large before they can be judged.
"""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hostile_memory
import locks
import modelmaker
import pytest
import zstandard
from gitserver import Source, modules, submodule
from hostile_documents import ONE, SPEC, changed
from msgspec.structs import replace
from zipmaker import FILE, Member, wheel

from cvs.store.record import Place
from cvs.store.record import encode as encode_record
from cvs.versions.lock import encode as encode_lock

#: Bytes; an interpreter that has imported cvs has 25 million before it reads anything.
LIMIT = 256_000_000

_MIB = 1 << 20


class Bomb(NamedTuple):
    """An input that costs much, by its file's name."""

    name: str
    made: Callable[[], bytes] | Callable[[Source], str]
    """Its bytes; of a repository the branch `main` is read, which this commits to."""
    said: str | None
    """A part of what is said of it; None where it is taken."""
    nightly: bool = False
    """It takes many seconds."""


def _tree(count: int, node: bytes) -> Callable[[], bytes]:
    """A manifest of nodes; in each, N is a number of its own."""

    def make() -> bytes:
        nodes = b",".join(node.replace(b"N", b"%x" % number) for number in range(count))
        return b'{"kind":"tree","format":1,"name":"t","size":0,"nodes":[' + nodes + b"]}"

    return make


def _set(count: int) -> bytes:
    members = b",".join(b'"%064x"' % number for number in range(count))
    return b'{"kind":"set","format":1,"members":[' + members + b"]}"


_FILE = b'["f","' + b"n" * 60 + b'N",0,"' + b"0" * 64 + b'"]'
_SMILE = "😀".encode()

_MANIFESTS = [
    Bomb("many files", _tree(150_000, _FILE), None),
    Bomb("as many folders as may be", _tree(200_000, b'["d","N"]'), None, nightly=True),
    Bomb("names beyond ASCII", _tree(150_000, b'["d","' + _SMILE * 30 + b'N"]'), None, True),
    Bomb("quoted names", _tree(90_000, b'["l","' + b"%FF" * 60 + b'N","%FF"]'), None, True),
    Bomb("a node too many", _tree(200_001, b'["d","N"]'), "than 200,000 nodes", nightly=True),
    Bomb("nodes", lambda: b'{"kind":"tree","nodes":[' + b'["d","a"],' * 2_400_000, "nodes"),
    Bomb("brackets", lambda: b'{"kind":"' + b"[" * (20 * _MIB) + b'"}', "is not a manifest"),
    Bomb("members", lambda: b'{"kind":"set","members":[' + b'"a",' * 5_000_000, "length >= 64"),
    Bomb("as many members as may be", lambda: _set(360_000), None, nightly=True),
    Bomb("100 MB", lambda: b" " * 100_000_000, "is larger than 24 MiB"),
]

_DOCUMENTS = [
    Bomb("numbers.json", lambda: b"[0" + b",0" * 249_999 + b"]", None, nightly=True),
    Bomb("objects.json", lambda: b"[0" + b',{"":0}' * 124_999 + b"]", None),
    Bomb("long.json", lambda: b'["' + _SMILE + b"x" * (15 * _MIB) + b'\\ud83d\\ude00"]', None),
    Bomb("escapes.json", lambda: b'"' + b"\\u00e9" * (2 * _MIB) + b'"', None, nightly=True),
    Bomb("brackets.json", lambda: b"[" * (16 * _MIB), "is nested deeper"),
    Bomb("commas.json", lambda: b"," * (16 * _MIB), "has more than 250,000 values", True),
    Bomb("texts.json", lambda: b'"a"' * (5 * _MIB), "has more than 250,000 values", True),
    Bomb("100 MB.json", lambda: b"[" + b" " * 100_000_000, "is larger than 16 MiB"),
    Bomb("lines.yaml", lambda: b"- a\n" * 250_000, "has more than 10,000 values", True),
    Bomb("words.yaml", lambda: b"a " * (_MIB // 2), None, nightly=True),
    Bomb("characters.yaml", lambda: _SMILE + b"x" * (_MIB - 4), None, nightly=True),
    Bomb("100 MB.yaml", lambda: b"#" * 100_000_000, "is larger than 16 MiB"),
]


def _pack(frames: list[tuple[bytes, int]]) -> bytes:
    """A pack of frames, with what the table says that they unpack to."""
    table = b"".join(struct.pack("<II", len(data), size) for data, size in frames)
    head = struct.pack("<II", 0x184D2A5E, len(table) + 9)
    foot = struct.pack("<IBI", len(frames), 0, 0x8F92EAB1)
    return b"".join(data for data, _ in frames) + head + table + foot


def _zeros(size: int, *, is_told: bool = True) -> bytes:
    """A frame of zeros, with or without its size in its header."""
    parameters = zstandard.ZstdCompressor(level=1, write_content_size=is_told)
    return parameters.compress(bytes(size))


def _told(size: int) -> bytes:
    """A frame whose header says any size."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\0\0"


_FRAME = 16 * _MIB

_PACKS = [
    Bomb("the largest frames", lambda: _pack([(_zeros(_FRAME), _FRAME)] * 6), None),
    Bomb("a frame too large", lambda: _pack([(_zeros(6 * _FRAME), 6 * _FRAME)]), "has a frame of"),
    Bomb("a frame of a terabyte", lambda: _pack([(_told(1 << 40), _FRAME)] * 6), "instead of"),
    Bomb(
        "frames that do not say that they are larger",
        lambda: _pack([(_zeros(20 * _FRAME, is_told=False), _FRAME)] * 6),
        "cannot be unpacked",
    ),
    Bomb("as many frames as may be", lambda: _pack([(b"", 192)] * (1 << 19)), "cannot be unpacked"),
    Bomb("a frame too many", lambda: _pack([(b"", 192)] * ((1 << 19) + 1)), "cannot be"),
    Bomb("no table", lambda: bytes(100_000_000), "has no table"),
]


def _record(links: int) -> bytes:
    places = [Place(f"models/{number:x}", f"{ONE}/c") for number in range(links)]
    return encode_record(locks.record(links=(*locks.record().links[:1], *places)))


_RECORDS = [
    Bomb("as many links as may be", lambda: _record(40_000), None),
    Bomb(
        "links",
        lambda: _record(0).replace(b'"links":[', b'"links":[' + b'["",""],' * 400_000),
        "one of its links must be that of the core",
    ),
    Bomb(
        "entries",
        lambda: _record(0).replace(b'"entries":[', b'"entries":[' + b'"a",' * 900_000),
        "an entry is not a hash",
    ),
    Bomb("100 MB", lambda: b" " * 100_000_000, "is larger than 4 MiB"),
]


def _locked(wheels: int) -> bytes:
    many = tuple(locks.wheel(f"n{number}") for number in range(wheels))
    return encode_lock(locks.lock(python=replace(locks.lock().python, wheels=many)))


_LOCK = encode_lock(locks.lock())

_LOCKS = [
    Bomb(
        "texts", lambda: _LOCK.replace(b'"lfs": []', b'"lfs": [' + b'"",' * 120_000 + b'""]'), None
    ),
    Bomb("a text", lambda: _LOCK.replace(b"2024-05-06", _SMILE * (_MIB + _MIB // 2)), None),
    Bomb("wheels", lambda: _locked(22_000), None, nightly=True),
]

_SPECS = [
    Bomb(
        "models",
        lambda: changed(
            SPEC,
            models=[
                {"source": f"https://example.org/{number}", "target_path": "a/" * 400 + str(number)}
                for number in range(4_000)
            ],
        ),
        None,
    ),
    Bomb("variables", lambda: changed(SPEC, env={f"A{n}": n for n in range(200_000)}), None, True),
]


def _empty(count: int, **fields: int) -> list[Member]:
    return [Member(b"%x" % number, packed=b"", **fields) for number in range(count)]  # type: ignore[arg-type]


_WHEELS = [
    Bomb("members", lambda: wheel(more=_empty(99_990, offset=0), zip64=True), "over", True),
    Bomb("as many members as may be", lambda: wheel(more=_stored(99_990), zip64=True), None, True),
    Bomb("a million", lambda: wheel(more=_empty(1_000_000, offset=0), zip64=True), "many", True),
    Bomb("one line", lambda: wheel(record=lambda text: text + b"x" * (15 * _MIB)), "too long"),
    Bomb("commas", lambda: wheel(record=lambda text: text + b"," * (15 * _MIB)), "too long", True),
    Bomb(
        "lines", lambda: wheel(record=lambda text: text + b"\n" * (15 * _MIB)), "many lines", True
    ),
    Bomb("files", lambda: wheel(record=lambda text: text + b"x,,\n" * (3 * _MIB)), "lacks"),
    Bomb("30 MB of zeros", lambda: wheel({b"zeros": bytes(30_000_000)}), None),
    Bomb("600 MB of zeros", lambda: wheel({b"zeros": bytes(600_000_000)}), "would unpack", True),
    Bomb("a source of 4 MB", lambda: wheel({b"a.py": b"a\n" * (2 * _MIB)}), None, nightly=True),
]


def _stored(count: int) -> list[Member]:
    return [Member(b"%x" % number, method=0) for number in range(count)]


def _growing(source: Source) -> str:
    """A tree that has itself ten times, eight times over."""
    tree = source.files({b"a": b"1"})
    for _ in range(8):
        tree = source.tree([("40000", b"%d" % number, tree) for number in range(10)])
    return source.commit(tree)


def _named(source: Source) -> str:
    """A tree with a name of 20 MB."""
    blob = source.put("blob", b"x")
    return source.commit(source.tree([("100644", b"n" * 20_000_000, blob)]))


_SECTION = b'[submodule "' + b"x" * 100_000 + b'"]\n' + b"a\n" * 10_000

_COMMITS: list[Bomb] = [
    Bomb("a tree that grows", _growing, "has more than 200,000 files"),
    Bomb("a name", _named, "is too long"),
    Bomb("a message", lambda source: source.commit({}, message="x" * 20_000_000), "too many"),
    Bomb(
        "a section of .gitmodules",
        lambda source: source.commit({b"s": submodule("c" * 40), b".gitmodules": _SECTION}),
        "has sections that are too long",
    ),
    Bomb("a file", lambda source: source.commit({b"a": bytes(200_000_000)}), None, nightly=True),
    Bomb(
        "submodules",
        lambda source: source.commit(
            {b"%d" % n: submodule("c" * 40) for n in range(2_000)}
            | {b".gitmodules": modules({str(n): "https://e.org/x" for n in range(2000)})}
        ),
        "has more than 256 submodules",
    ),
]


def _tensors(count: int) -> bytes:
    """A header of tensors without numbers."""
    tensor = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    items = b",".join(b'"%x":%s' % (number, tensor) for number in range(count))
    return modelmaker.with_header(b"{" + items + b"}")


def _noted(text: bytes) -> bytes:
    """A header with a text about the model."""
    return modelmaker.with_header(b'{"__metadata__":{"a":"' + text + b'"}}')


_MODELS = [
    Bomb("many.safetensors", lambda: _tensors(180_000), None),
    Bomb("more.safetensors", lambda: _tensors(400_000), "too complex", nightly=True),
    Bomb("empty.safetensors", lambda: modelmaker.with_header(b"{}" + b" " * 99_999_990), None),
    Bomb("text.safetensors", lambda: _noted(b"x" * 95_000_000), None, nightly=True),
    Bomb("wide.safetensors", lambda: _noted(_SMILE * 9_000_000), None),
    Bomb("wider.safetensors", lambda: _noted(_SMILE * 20_000_000), "too complex", nightly=True),
    Bomb("escapes.safetensors", lambda: _noted(b"\\ud83d\\ude00" * 3_000_000), None),
    Bomb(
        "shape.safetensors",
        lambda: modelmaker.with_header(b'{"a":{"shape":[' + b"1," * 900_000),
        "not one of",
    ),
    Bomb("brackets.safetensors", lambda: modelmaker.with_header(b"[" * 20_000_000), "not one of"),
    Bomb("large.safetensors", lambda: (1 << 40).to_bytes(8, "little") + b"{", "are the most"),
]

BOMBS: dict[str, list[Bomb]] = {
    "manifest": _MANIFESTS,
    "pack": _PACKS,
    "record": _RECORDS,
    "document": _DOCUMENTS,
    "lock": _LOCKS,
    "spec": _SPECS,
    "wheel": _WHEELS,
    "commit": _COMMITS,
    "model": _MODELS,
}


@pytest.mark.nightly
@pytest.mark.parametrize("reader", BOMBS)
def test_memory(reader: str, memory: Path, nightly: bool) -> None:
    """The worst inputs of a reader, one after the other in one process."""
    bombs = [bomb for bomb in BOMBS[reader] if nightly or not bomb.nightly]
    places = []
    for bomb in bombs:
        if reader == "commit":
            source = Source(memory / f"{bomb.name}.git")
            bomb.made(source)  # type: ignore[call-arg, arg-type]
            places.append(source.folder)
            continue
        # A wheel has the name that it is taken under, in a folder of its own.
        place = memory / bomb.name / FILE if reader == "wheel" else memory / bomb.name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(bomb.made())  # type: ignore[call-arg, arg-type]
        places.append(place)
    done = subprocess.run(
        [sys.executable, hostile_memory.__file__, reader, *map(str, places)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(memory)},
        check=True,
    )
    said, peak = json.loads(done.stdout)
    for bomb, message in zip(bombs, said, strict=True):
        assert (message is None) == (bomb.said is None), message
        assert bomb.said is None or bomb.said in message
    assert peak < LIMIT
