"""Makes zip files byte by byte, true or lying, and wheels of them.

Python's zipfile writes only what it would read; here every field can say something else.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import wheelmaker

T = TypeVar("T")

INFO = b"a-1.dist-info"
FILE = "a-1-py3-none-any.whl"

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_LINE = struct.Struct("<4sBBHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")

STORED, DEFLATED = 0, 8
REGULAR = 0o100644


class Member(NamedTuple):
    """One member; what is None is the truth. `line_` is said in the directory, `local_` before
    the data."""

    name: bytes
    data: bytes = b""
    method: int = DEFLATED
    packed: bytes | None = None
    """What lies in the archive; by default `data`, packed."""
    flags: int = 0x800
    mode: int = REGULAR
    version: int = 20
    system: int = 3
    crc: int | None = None
    line_size: int | None = None
    line_packed: int | None = None
    line_extra: bytes = b""
    offset: int | None = None
    """Where the directory says that it lies; the member has no bytes of its own then."""
    local_name: bytes | None = None
    local_size: int | None = None
    local_packed: int | None = None
    local_extra: bytes = b""
    local_flags: int | None = None
    after: bytes = b""
    """Follows the data."""


def deflated(data: bytes) -> bytes:
    """Data as zip files have it packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def archive(
    members: Iterable[Member],
    *,
    head: bytes = b"",
    tail: bytes = b"",
    comment: bytes = b"",
    comment_size: int | None = None,
    count: int | None = None,
    size: int | None = None,
    start: int | None = None,
    zip64: bool = False,
    place: int | None = None,
    signature: bytes = b"PK\6\6",
) -> bytes:
    """The bytes of a zip file.

    Args:
        head, tail: bytes before and behind it.
        count, size, start: what its end says of the directory.
        zip64: whether it ends as archives beyond 4 GiB do.
        place, signature: where that end says that it is, and how it begins.
    """
    out, directory, number = bytearray(head), bytearray(), 0
    for one in members:
        number += 1
        packed = one.packed
        if packed is None:
            packed = deflated(one.data) if one.method == DEFLATED else one.data
        crc = zlib.crc32(one.data) if one.crc is None else one.crc
        offset = len(out) - len(head) if one.offset is None else one.offset
        if one.offset is None:
            name = _or(one.local_name, one.name)
            sizes = _or(one.local_packed, len(packed)), _or(one.local_size, len(one.data))
            out += _LOCAL.pack(
                *(b"PK\3\4", one.version, _or(one.local_flags, one.flags), one.method, 0, 0x21),
                *(crc, *sizes, len(name), len(one.local_extra)),
            )
            out += name + one.local_extra + packed + one.after
        sizes = _or(one.line_packed, len(packed)), _or(one.line_size, len(one.data))
        directory += _LINE.pack(
            *(b"PK\1\2", one.version, one.system, one.version, one.flags, one.method, 0, 0x21),
            *(crc, *sizes, len(one.name), len(one.line_extra), 0, 0, 0, one.mode << 16, offset),
        )
        directory += one.name + one.line_extra
    said = _or(count, number), _or(size, len(directory)), _or(start, len(out) - len(head))
    out += directory
    if zip64:
        where = _or(place, len(out) - len(head))
        out += _END_64.pack(signature, 44, 45, 45, 0, 0, said[0], *said)
        out += _LOCATOR.pack(b"PK\6\7", 0, where, 1)
        said = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    end = (said[0] & 0xFFFF, said[0] & 0xFFFF, said[1] & 0xFFFFFFFF, said[2] & 0xFFFFFFFF)
    out += _END.pack(b"PK\5\6", 0, 0, *end, _or(comment_size, len(comment)))
    return bytes(out + comment + tail)


def wheel(
    files: Mapping[bytes, bytes] | None = None,
    *,
    more: Sequence[Member] = (),
    extra: Mapping[bytes, bytes] | None = None,
    without: Sequence[bytes] = (),
    record: Callable[[bytes], bytes] | None = None,
    change: Callable[[Member], Member] | None = None,
    **end: Any,
) -> bytes:
    """The bytes of a wheel of `FILE`, sound but for what is changed.

    Args:
        files: path → content; by default one file, `a.txt`.
        more: members behind them; RECORD has them too.
        extra: files of .dist-info, in place of its own or beside them.
        without: files of .dist-info that are left out.
        record: changes the bytes of RECORD.
        change: changes each member.
        end: what `archive` takes.
    """
    inside = {b"METADATA": b"Metadata-Version: 2.1\nName: a\nVersion: 1\n"}
    inside |= {b"WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    inside |= extra or {}
    members = [Member(path, data) for path, data in (files or {b"a.txt": b"A\n"}).items()]
    members += more
    members += [Member(INFO + b"/" + name, data) for name, data in inside.items()]
    rows = [row(one.name, one.data) for one in members if not one.name.endswith(b"/")]
    text = b"".join(rows) + INFO + b"/RECORD,,\n"
    if b"RECORD" not in inside:
        members.append(Member(INFO + b"/RECORD", text if record is None else record(text)))
    left_out = {INFO + b"/" + name for name in without}
    members = [one for one in members if one.name not in left_out]
    return archive(map(change, members) if change else members, **end)


def row(path: bytes, data: bytes) -> bytes:
    """A line of RECORD."""
    quoted = path.replace(b'"', b'""')
    return b'"%s",sha256=%s,%d\n' % (quoted, wheelmaker.digest(data).encode(), len(data))


def _or(given: T | None, truth: T) -> T:
    return truth if given is None else given
