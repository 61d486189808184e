"""Whether the libraries of a wheel look for others outside of it.

A library finds others along its DT_RUNPATH or DT_RPATH, mostly from where it lies itself:
`$ORIGIN/../../numpy.libs`. Seen through a link to a whole folder, `..` leads into the wheel's own
entry. That is right where what it looks for is in the same wheel, and wrong where it is another
one's: PyTorch and the wheels of `nvidia`.

Format: System V ABI, chapter 5 (dynamic linking); the tokens: ld.so(8).
"""

import contextlib
import itertools
import os
import posixpath
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cvs.store import fs, refs, scratch, tree
from cvs.store.digest import EntryId
from cvs.store.manifest import TreeManifest
from cvs.store.volume import Volume

#: The version of what is asked; answers to another question are not this one's.
_RULES = 1

#: What answers are kept under, and what they are.
_KIND = "native"
_ANSWERS = {"alone": True, "together": False}

#: What files are called that are neither libraries nor programs. Anything else may be one.
_HARMLESS = frozenset(
    {
        *(".c", ".cfg", ".cpp", ".css", ".csv", ".cu", ".cuh", ".f90", ".gz", ".h", ".hpp"),
        *(".html", ".inc", ".ini", ".ipynb", ".jinja", ".jpg", ".js", ".json", ".jsonl", ".map"),
        *(".md", ".mjs", ".npy", ".npz", ".pem", ".png", ".proto", ".pxd", ".pxi", ".py", ".pyc"),
        *(".pyi", ".pyx", ".rst", ".sql", ".svg", ".toml", ".ts", ".ttf", ".txt", ".typed"),
        *(".wav", ".webp", ".woff", ".woff2", ".xml", ".yaml", ".yml", ".zip"),
        *("AUTHORS", "COPYING", "LICENCE", "LICENSE", "NOTICE", "README"),
    }
)

#: Libraries that a wheel may expect of the system (PEP 600 and the policies of auditwheel).
_SYSTEM = frozenset(
    {
        *("ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2", "libGL.so.1", "libICE.so.6"),
        *("libSM.so.6", "libX11.so.6", "libXext.so.6", "libXrender.so.1", "libatomic.so.1"),
        *("libc.so.6", "libcrypt.so.1", "libdl.so.2", "libexpat.so.1", "libgcc_s.so.1"),
        *("libglib-2.0.so.0", "libgobject-2.0.so.0", "libgthread-2.0.so.0", "libm.so.6"),
        *("libmvec.so.1", "libnsl.so.1", "libpthread.so.0", "libresolv.so.2", "librt.so.1"),
        *("libstdc++.so.6", "libutil.so.1", "libz.so.1"),
    }
)

_MAGIC = b"\x7fELF"
#: 64 bits, little-endian: all that cvs runs on. Others are not read.
_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_LOAD, _DYNAMIC = 1, 2
_END, _NEEDED, _STRINGS, _RPATH, _RUNPATH = 0, 1, 5, 15, 29

#: Of the largest dynamic section, and the longest of its texts, in bytes.
_SECTION_LIMIT = 1 << 20
_TEXT_LIMIT = 1 << 14


class Unreadable(Exception):
    """A file that may be a library and cannot be understood."""


class Dynamic(NamedTuple):
    """What a library asks of the dynamic linker."""

    needed: tuple[str, ...]
    """Names of other libraries."""
    paths: tuple[str, ...]
    """Where they are looked for."""


def is_harmless(path: str) -> bool:
    """Whether a file is no library, judged by its name alone."""
    name = path.rpartition("/")[2]
    _, dot, suffix = name.rpartition(".")
    return (dot + suffix if dot else name) in _HARMLESS or ".dist-info/" in path


def stands_alone(volume: Volume, entry: EntryId, document: TreeManifest, root: str) -> bool:
    """Whether no library of a wheel looks for another outside of the wheel.

    The answer is kept with the volume's refs, which may be lost.

    Args:
        root: where the wheel's tree lies.
    """
    path = os.path.join(volume.refs, _KIND, refs.key(entry, str(_RULES)))
    with contextlib.suppress(OSError):
        known = _ANSWERS.get(os.readlink(path))
        if known is not None:
            return known
    found = _looks_nowhere(document, root)
    text = next(text for text, answer in _ANSWERS.items() if answer == found)
    # A volume may be full, or be mounted to be read alone.
    with contextlib.suppress(OSError):
        fs.makedirs(os.path.dirname(path))
        scratch.replace_symlink(text, path, volume.tmp)
    return found


def _looks_nowhere(document: TreeManifest, root: str) -> bool:
    places: dict[str, set[str]] = {}
    libraries: list[str] = []
    for node in document.nodes:
        if isinstance(node, tree.Folder):
            places.setdefault(node.path, set())
            continue
        folder, _, name = node.path.rpartition("/")
        places.setdefault(folder, set()).add(name)
        if not is_harmless(node.path):
            libraries.append(node.path)
    for path in libraries:
        try:
            found = read(os.path.join(os.fsencode(root), tree.unquote(path)))
        except (Unreadable, OSError):
            return False
        if found is not None and not _is_served(path, found, places):
            return False
    return True


def _is_served(path: str, found: Dynamic, places: Mapping[str, set[str]]) -> bool:
    """Whether a library finds in its own wheel what it looks for from where it lies."""
    folder = posixpath.dirname(path)
    try:
        searched = [place for text in found.paths if (place := _place(text, folder)) is not None]
    except Unreadable:
        return False
    if any(place not in places for place in searched):
        return False
    if all(place == folder or place.startswith(folder + "/") for place in searched):
        # It climbs nowhere: a folder that is linked as a whole is whole.
        return True
    there = set[str]().union(*(places[place] for place in searched))
    return there.union(_SYSTEM).issuperset(found.needed)


def _place(text: str, folder: str) -> str | None:
    """The folder of the wheel that one of the paths leads to; None for one of the system."""
    for token in ("$ORIGIN", "${ORIGIN}"):
        if text == token or text.startswith(token + "/"):
            place = posixpath.normpath(folder + text[len(token) :])
            if "$" in place or place.startswith(".."):
                raise Unreadable(text)
            return place
    if "$" in text or not text.startswith("/"):
        # Other tokens; or relative to wherever the process stands.
        raise Unreadable(text)
    return None


def read(path: str | bytes) -> Dynamic | None:
    """What a file asks of the dynamic linker; None for one that is no ELF file.

    Raises:
        Unreadable: it is one and cannot be understood.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.read(descriptor, _HEADER.size)
        if head[: len(_MAGIC)] != _MAGIC:
            return None
        return _dynamic(descriptor, head)
    except (struct.error, OverflowError):
        raise Unreadable(f"{os.fsdecode(path)} is cut short") from None
    finally:
        os.close(descriptor)


def _dynamic(descriptor: int, head: bytes) -> Dynamic:
    _, width, order, *_, table, _, _, _, size, count, _, _, _ = _HEADER.unpack(head)
    if (width, order, size) != (2, 1, _SEGMENT.size):
        raise Unreadable("it is for another kind of machine")
    segments = list(_SEGMENT.iter_unpack(os.pread(descriptor, size * count, table)))
    if len(segments) != count:
        raise Unreadable("it is cut short")
    loaded = [(row[3], row[2], row[5]) for row in segments if row[0] == _LOAD]
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length, _, _ in segments:
        if kind == _DYNAMIC:
            data = _exactly(descriptor, offset, length)
            rows = _ENTRY.iter_unpack(data)
            entries += itertools.takewhile(lambda row: row[0] != _END, rows)
    strings = [value for tag, value in entries if tag == _STRINGS]
    texts = {_NEEDED: list[str](), _RPATH: list[str](), _RUNPATH: list[str]()}
    for tag, value in entries:
        if tag in texts:
            if len(strings) != 1:
                raise Unreadable("it has no table of strings")
            texts[tag].append(_text(descriptor, _offset(loaded, strings[0] + value)))
    # Where there is a RUNPATH the other one does not count; more than are used do no harm.
    paths = [path for text in texts[_RUNPATH] + texts[_RPATH] for path in text.split(":") if path]
    return Dynamic(tuple(texts[_NEEDED]), tuple(paths))


def _exactly(descriptor: int, offset: int, length: int) -> bytes:
    if length > _SECTION_LIMIT:
        raise Unreadable(f"it has a dynamic section of {length} bytes")
    data = os.pread(descriptor, length - length % _ENTRY.size, offset)
    if len(data) != length - length % _ENTRY.size:
        raise Unreadable("it is cut short")
    return data


def _offset(loaded: Iterable[tuple[int, int, int]], address: int) -> int:
    """Where in the file an address of memory comes from."""
    for start, offset, size in loaded:
        if start <= address < start + size:
            return address - start + offset
    raise Unreadable("it has a text that is nowhere")


def _text(descriptor: int, offset: int) -> str:
    data, end, _ = os.pread(descriptor, _TEXT_LIMIT, offset).partition(b"\0")
    if not end:
        raise Unreadable("it has a text without an end")
    return os.fsdecode(data)
