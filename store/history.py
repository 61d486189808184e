"""The log of a file that is being fetched: what of it is there, and what its beginning digests to.

    era 6e1f… 29                    a process opened it: boot of the kernel, and mount
    version 1073741824 "\\"5f-1a\\""   the file's size, and what its server calls this version
    have 0 8388608                  these bytes were written
    good 16777216 3c0d…             so many from the beginning have this BLAKE3
    lost 16777216                   what was said of all that follow is not so

A line is believed if it is whole. What a power cut may have undone, the log or the bytes that it
speaks of, is believed only as far as a digest shows it: lines of another era count up to the last
`good`, whose digest is compared when the bytes are read again.
"""

import json
import re
from typing import NamedTuple

from cvs.store.spans import Spans

#: Bytes between two digests.
MARK = 16 << 20

#: More bytes than any file has.
_END = 1 << 64

_HAVE = re.compile(rb"have ([0-9]{1,19}) ([0-9]{1,19})")
_GOOD = re.compile(rb"good ([0-9]{1,19}) ([0-9a-f]{64})")
_LOST = re.compile(rb"lost ([0-9]{1,19})")
_VERSION = re.compile(rb"version ([0-9]{1,19}|\?) (\".*\")")


class History(NamedTuple):
    """What a log says."""

    size: int | None
    """Of the whole file; None if nobody knows yet."""
    validator: str
    there: Spans
    digests: dict[int, bytes]
    """Of so many bytes from the beginning: BLAKE3, 32 bytes."""


def parse(data: bytes, era: str) -> History:
    """Reads a log; what is no line of one is passed over.

    Args:
        era: the present one; what was written in it is there.
    """
    size: int | None = None
    validator = ""
    there = Spans()
    digests: dict[int, bytes] = {}
    is_now = False
    for line in data.split(b"\n")[:-1]:
        if have := _HAVE.fullmatch(line):
            if is_now:
                there.add(int(have[1]), int(have[2]))
        elif good := _GOOD.fullmatch(line):
            if int(good[1]) % MARK == 0:
                digests[int(good[1])] = bytes.fromhex(good[2].decode())
        elif lost := _LOST.fullmatch(line):
            there.remove(int(lost[1]), _END)
            digests = {count: one for count, one in digests.items() if count <= int(lost[1])}
        elif line.startswith(b"era "):
            is_now = line == era_line(era)[:-1]
        elif version := _VERSION.fullmatch(line):
            said = _text(version[2])
            if said is not None:
                size = None if version[1] == b"?" else int(version[1])
                validator = said
    if size is not None:
        digests = {count: digest for count, digest in digests.items() if count <= size}
    there.add(0, max(digests, default=0))
    there.remove(_END if size is None else size, _END)
    return History(size, validator, there, digests)


def _text(quoted: bytes) -> str | None:
    try:
        found = json.loads(quoted)
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def era_line(era: str) -> bytes:
    """The line that begins an era."""
    return b"era %s\n" % era.encode()


def version_line(size: int | None, validator: str) -> bytes:
    """The line for a version of the file."""
    known = "?" if size is None else str(size)
    return f"version {known} {json.dumps(validator)}\n".encode()


def have_line(start: int, end: int) -> bytes:
    """The line for bytes that were written."""
    return b"have %d %d\n" % (start, end)


def good_line(count: int, digest: bytes) -> bytes:
    """The line for the digest of so many bytes from the beginning."""
    return b"good %d %s\n" % (count, digest.hex().encode())


def lost_line(start: int) -> bytes:
    """The line for what is not there after all, from `start` on."""
    return b"lost %d\n" % start
