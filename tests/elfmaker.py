"""ELF files with a dynamic section, made by hand: enough to be read, not to be loaded."""

import struct

_BASE = 0x10000


def make(
    needed: tuple[str, ...] = (), runpath: str | None = None, rpath: str | None = None
) -> bytes:
    """A shared library of 64 bits that needs others and looks for them along some paths."""
    strings, rows = b"\0", []
    for tag, text in [
        *((1, name) for name in needed),
        *([(29, runpath)] if runpath is not None else []),
        *([(15, rpath)] if rpath is not None else []),
    ]:
        rows.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    start = 64 + 2 * 56
    table = start + 16 * (len(rows) + 2)
    rows += [(5, _BASE + table), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *row) for row in rows)
    size = table + len(strings)
    header = struct.pack(
        *("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 3, 62, 1, 0, 64, 0, 0, 64, 56, 2),
        *(0, 0, 0),
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    segment = struct.pack(
        "<IIQQQQQQ", 2, 6, start, _BASE + start, _BASE + start, len(dynamic), len(dynamic), 8
    )
    return header + load + segment + dynamic + strings
