"""Archives: a zip file is held to its limits before anything of it is unpacked.

Python's zipfile makes an object of every line of an archive's directory, however many there are,
and believes where the members lie. So the directory is counted before it is read, and members
that share their bytes are refused: without them nothing unpacks to more than 1032 times its size.
"""

import contextlib
import itertools
import struct
import zipfile
from collections.abc import Iterator
from typing import IO

#: The most members of an archive: the largest wheels have 30,000 files.
MEMBER_LIMIT = 100_000

#: Bytes of the largest directory, which is held in memory.
DIRECTORY_LIMIT = 16 << 20

#: Bytes of a local header without its names, and of a line of the directory.
_HEADER, _LINE = 30, 46

#: The end of an archive: count, size and place of its directory, length of a comment.
_END = struct.Struct("<4s6xHLLH")
#: The same for archives beyond 4 GiB, and what leads to it.
_END_64 = struct.Struct("<4s28xQQQ")
_LOCATOR = struct.Struct("<4s4xQ4x")


class Bad(Exception):
    """What is wrong with an archive, as the end of a sentence that begins with its name."""


@contextlib.contextmanager
def opened(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file whose directory is sound and of a sane size.

    Raises:
        Bad: it is not.
    """
    with open(path, "rb") as file:
        _check_directory(file)
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise Bad(f"is damaged: {str(error).rstrip('.')}") from None
        except UnicodeDecodeError:
            raise Bad("has a file whose name is not UTF-8") from None
        with archive:
            _check_places(archive)
            yield archive


def _check_directory(file: IO[bytes]) -> None:
    """Counts the members before anything is made of them."""
    count, size, start = _end(file)
    if count > MEMBER_LIMIT:
        raise Bad(f"has {count} files, too many")
    if size > DIRECTORY_LIMIT:
        raise Bad(f"has a directory of {size} bytes, too many")
    file.seek(start)
    directory = file.read(size)
    found = at = 0
    while at + _LINE <= size:
        at += _LINE + sum(struct.unpack_from("<HHH", directory, at + 28))
        found += 1
    if found != count or at != size:
        raise Bad("is damaged: its directory does not have the files that it counts")


def _end(file: IO[bytes]) -> tuple[int, int, int]:
    """How many members there are, and size and place of the directory, which lies before the end.

    What zipfile would take for the end is the last place that looks like one, so nothing else is
    accepted here, nor anything behind it.
    """
    whole = file.seek(0, 2)
    begin = max(0, whole - _END.size - 0xFFFF)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise Bad("is damaged: it is not an archive, or its end is missing")
    _, count, size, start, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise Bad("is damaged: something follows its end")
    end = begin + at
    if end >= _LOCATOR.size + _END_64.size:
        file.seek(end - _LOCATOR.size - _END_64.size)
        record, locator = file.read(_END_64.size), file.read(_LOCATOR.size)
        signature, place = _LOCATOR.unpack(locator)
        if signature == b"PK\6\7":
            end -= _LOCATOR.size + _END_64.size
            signature, count, size, start = _END_64.unpack(record)
            if signature != b"PK\6\6" or place != end:
                raise Bad("is damaged: its end is not where it says")
    if start + size != end:
        raise Bad("is damaged: its directory is not where it says")
    return count, size, start


def _check_places(archive: zipfile.ZipFile) -> None:
    """Refuses members that share bytes with each other or with the directory."""
    spans = sorted(
        (member.header_offset, member.header_offset + _HEADER + member.compress_size)
        for member in archive.infolist()
    )
    spans.append((archive.start_dir, archive.start_dir))
    if any(end > start for (_, end), (start, _) in itertools.pairwise(spans)):
        raise Bad("has files that lie over each other")
