"""Hostile wheels: archives that lie, bombs, RECORDs and entry points that nobody means."""

import struct
from collections.abc import Callable

from hostile import BAD_PATHS, COLLIDING, LEGAL_NAMES, LONG, Case, refused, taken
from zipmaker import FILE, INFO, Member, deflated, row, wheel


def having(*more: Member) -> Callable[[], bytes]:
    """A wheel with more members."""
    return lambda: wheel(more=more)


def saying(old: bytes, new: bytes) -> Callable[[], bytes]:
    """A wheel whose RECORD has one part replaced."""
    return lambda: wheel(record=lambda text: text.replace(old, new, 1))


def first_row(line: bytes) -> Callable[[], bytes]:
    """A wheel whose RECORD begins with another line."""
    return lambda: wheel(record=lambda text: line + b"\n" + text.split(b"\n", 1)[1])


def called(text: str | bytes) -> Callable[[], bytes]:
    """A wheel with an entry_points.txt."""
    data = text if isinstance(text, bytes) else f"[console_scripts]\n{text}\n".encode()
    return lambda: wheel(extra={b"entry_points.txt": data})


def written(text: bytes) -> Callable[[], bytes]:
    """A wheel with a WHEEL."""
    return lambda: wheel(extra={b"WHEEL": text})


def lying(**fields: object) -> Callable[[], bytes]:
    """A wheel whose first member says something else of itself."""

    def change(one: Member) -> Member:
        return one._replace(**fields) if one.name == b"a.txt" else one  # type: ignore[arg-type]

    return lambda: wheel({b"a.txt": b"A" * 100}, change=change)


def zip64(*numbers: int) -> bytes:
    """The extra field of a member beyond 4 GiB."""
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


_MIB = 1 << 20
_ZEROS = bytes(_MIB)
_PACKED = deflated(_ZEROS)

_EMPTY = Member(b"x", b"")


def _kernel(count: int) -> list[Member]:
    """Members that all are the same bytes."""
    first = Member(b"0", bytes(10_000), packed=deflated(bytes(10_000)))
    return [first, *(first._replace(name=b"%d" % n, offset=0) for n in range(1, count))]


def _quoted(count: int) -> bytes:
    """Members that lie in each other: the data of each begins with the head of the next."""
    return wheel(
        more=[
            Member(b"%d" % n, bytes(100), method=0, line_packed=100 + 50 * (count - n))
            for n in range(count)
        ]
    )


_ARCHIVES = [
    *refused(
        "is damaged",
        {
            "nothing": b"",
            "text": b"<html>",
            "a byte": b"P",
            "an end alone": b"PK\5\6",
            "NULs": bytes(_MIB),
            "a head alone": b"PK\3\4" + bytes(100),
            **{
                f"cut at {part} of 8": lambda part=part: wheel()[: len(wheel()) * part // 8]
                for part in range(1, 8)
            },
            "cut by a byte": lambda: wheel()[:-1],
            "garbage behind": lambda: wheel(tail=b"garbage"),
            "a NUL behind": lambda: wheel(tail=b"\0"),
            "another archive behind": lambda: wheel() + wheel(),
            "a program before": lambda: wheel(head=b"#!/bin/sh\n"),
            "a comment that is too short": lambda: wheel(comment=b"x", comment_size=2),
            "a comment that is too long": lambda: wheel(comment=b"xx", comment_size=1),
            "an end inside the comment": lambda: wheel(comment=b"PK\5\6" + bytes(18)),
            "an end and more inside the comment": lambda: wheel(comment=b"PK\5\6" + bytes(50)),
            "no files": lambda: wheel(count=0),
            "a file too few": lambda: wheel(count=3),
            "a file too many": lambda: wheel(count=5),
            "65,535 files": lambda: wheel(count=0xFFFF),
            "a directory without size": lambda: wheel(size=0),
            "a directory that is too short": lambda: wheel(size=46),
            "a directory of 4 GiB": lambda: wheel(size=0xFFFFFFFF),
            "a directory at the start": lambda: wheel(start=0),
            "a directory behind the end": lambda: wheel(start=0xFFFFFFF0),
            "an end of zip64 elsewhere": lambda: wheel(zip64=True, place=0),
            "an end of zip64 far away": lambda: wheel(zip64=True, place=1 << 63),
            "an end of zip64 that is none": lambda: wheel(zip64=True, signature=b"XXXX"),
            "no files in zip64": lambda: wheel(zip64=True, count=0),
            "a directory of 16 EiB": lambda: wheel(zip64=True, size=(1 << 64) - 1),
            "a directory 16 EiB away": lambda: wheel(zip64=True, start=(1 << 64) - 1),
            "a directory that wraps": lambda: wheel(zip64=True, size=1 << 63, start=1 << 63),
            "a checksum that is wrong": lying(crc=1),
            "a size that is too small": lying(line_size=99),
            "a size that is too large": lying(line_size=101, local_size=101),
            "packed data that is none": lying(packed=b"\xff" * 100),
            "packed data that ends early": lying(packed=_PACKED[:-1], line_size=_MIB),
            "stored data that is too short": lying(method=0, packed=b"A" * 99),
            "no data": lying(packed=b""),
            "another name before the data": lying(local_name=b"b.txt"),
            "a longer name before the data": lying(local_name=b"a.txt/../../x"),
            "an extra field that is too long": lying(line_extra=b"\1\0\xff\xff"),
            "an extra field of zip64 that is short": lying(
                line_size=0xFFFFFFFF, line_extra=b"\1\0\4\0\0\0\0\0"
            ),
            "a version of the future": lying(version=99),
            "patched data": lying(flags=0x820),
        },
    ),
    *refused(
        "whose name is not UTF-8",
        {
            **{
                f"name of {id}": having(Member(name))
                for id, name in LEGAL_NAMES.items()
                if b"?" in name.decode("utf-8", "replace").replace("\ufffd", "?").encode()
                and b"?" not in name
            },
            "name before the data": lying(local_name=b"\xff.txt"),
        },
    ),
    *refused(
        "lie over each other",
        {
            "one byte range for two": having(*_kernel(2)),
            "one byte range for 1,000": having(*_kernel(1000)),
            "a file at the start": having(Member(b"x", b"", offset=0)),
            "a file one byte in": having(Member(b"x", b"A", offset=1)),
            "a file in the directory": having(Member(b"x", b"A" * 40, method=0, offset=900)),
            "a file behind the end": having(Member(b"x", b"A", offset=1 << 30)),
            "a file 16 EiB away": having(
                Member(b"x", b"A", offset=0xFFFFFFFF, line_extra=zip64((1 << 64) - 1))
            ),
            "data that is one longer": lying(method=0, line_packed=4000),
            "data of 4 GiB": lying(line_packed=0xFFFFFFFF),
            "data of 16 EiB": lying(line_packed=0xFFFFFFFF, line_extra=zip64((1 << 64) - 1)),
            "files in each other": lambda: _quoted(50),
        },
    ),
    *refused(
        "would unpack to",
        {
            "90 MB of zeros": lambda: wheel({b"zeros": bytes(90_000_000)}),
            "100 files of a megabyte": lambda: wheel(
                more=[Member(b"%d" % n, _ZEROS, packed=_PACKED) for n in range(100)]
            ),
            "a size of 4 GiB": lying(line_size=0xFFFFFFFF),
            "a size of 16 EiB": lying(line_size=0xFFFFFFFF, line_extra=zip64((1 << 64) - 1)),
            "a size of 8 EiB": lying(line_size=0xFFFFFFFF, line_extra=zip64(1 << 63)),
            "RECORD of 1 GB": lambda: wheel(
                change=lambda one: (
                    one._replace(line_size=1 << 30) if one.name.endswith(b"RECORD") else one
                )
            ),
        },
    ),
    *refused(
        "too many",
        {
            "100,001 files": lambda: wheel(zip64=True, count=100_001),
            "2^64 files": lambda: wheel(zip64=True, count=(1 << 64) - 1),
            "RECORD of 17 MB": lambda: wheel(record=lambda text: text + b"\n" * 17_000_000),
            "WHEEL of 2 MB": written(b"Wheel-Version: 1.0\n" + b"A: b\n" * 400_000),
            "entry points of 2 MB": called(b"# x\n" * 500_000),
        },
    ),
    *refused(
        "has an encrypted file",
        {
            "encrypted": having(_EMPTY._replace(flags=0x801)),
            "strongly encrypted": having(_EMPTY._replace(flags=0x841)),
            "strongly encrypted alone": having(_EMPTY._replace(flags=0x840)),
        },
    ),
    *refused(
        "in a compression that wheels do not use",
        {
            f"compression {method}": having(Member(b"x", b"A", method=method))
            for method in (1, 2, 6, 9, 10, 12, 14, 16, 18, 19, 20, 93, 94, 95, 96, 97, 98, 99)
        },
    ),
    *refused(
        "has a link",
        {
            "link out": having(Member(b"x", b"../../../../ground/canary", mode=0o120777)),
            "link and a file through it": having(
                Member(b"x", b"/etc", mode=0o120777), Member(b"x/passwd", b"")
            ),
            "link to nothing": having(Member(b"x", b"", mode=0o120000)),
            "link of another system": having(Member(b"x", b"y", mode=0o120777, system=0)),
            "link that ends in a slash": having(Member(b"x/", b"/etc", mode=0o120777)),
        },
    ),
    *refused(
        "neither file nor folder",
        {
            f"{id}": having(Member(b"x", b"", mode=mode))
            for id, mode in {
                "character device": 0o020666,
                "block device": 0o060666,
                "pipe": 0o010666,
                "socket": 0o140666,
                "door": 0o150666,
                "whiteout": 0o160000,
                "unknown kind": 0o170777,
            }.items()
        },
    ),
    *refused(
        "that would lie outside",
        {
            **{
                f"path {id}": having(Member(path))
                for id, path in BAD_PATHS.items()
                if id not in ("NUL", "name of 256 bytes", "path of 1025 bytes", "of a megabyte")
                and not id.startswith("ending")
            },
            "path of slashes": having(Member(b"//")),
            "path of scripts that climbs": having(Member(b"a-1.data/scripts/../../x")),
            "path of data that climbs": having(Member(b"a-1.data/data/../x")),
        },
    ),
    *refused(
        "has a file with the name",
        {
            "path with NUL": having(Member(b"a\0b")),
            "path with NUL and more": having(Member(b"a.txt\0.exe")),
            "path with a backslash": having(Member(b"a\\b")),
            "path climbing with backslashes": having(Member(b"..\\..\\x")),
            "path of a drive and backslashes": having(Member(b"C:\\x")),
            "path of a server": having(Member(b"\\\\host\\x")),
        },
    ),
    *refused(
        "longer than",
        {
            "name of 256 bytes": having(Member(b"n" * 256)),
            "path of 1,100 bytes": having(Member(b"a/" * 550 + b"b")),
            "path of 60,000 bytes": having(Member(b"x" * 60_000)),
        },
    ),
    *refused(
        "twice",
        {
            "file twice": having(Member(b"a.txt", b"A\n")),
            "file twice with other bytes": having(Member(b"a.txt", b"B\n")),
            "RECORD twice": having(Member(INFO + b"/RECORD", b"")),
            "one place by two ways": having(Member(b"b.txt"), Member(b"a-1.data/purelib/b.txt")),
        },
    ),
    *refused(
        "in the tree",
        {
            "file and folder": having(Member(b"b"), Member(b"b/c")),
            "folder and file": having(Member(b"b/c"), Member(b"b")),
        },
    ),
    *refused("as a file and as a folder", {"file and empty folder": having(Member(b"a.txt/"))}),
    *refused(
        "differ in case or normal form",
        {
            f"names that differ in {id}": having(*map(Member, pair))
            for id, pair in COLLIDING.items()
            if b"\xff" not in pair[0]
        },
    ),
    *taken(
        {
            "nothing special": wheel,
            "end of zip64": lambda: wheel(zip64=True),
            "comment": lambda: wheel(comment=b"\x1b[31m\n"),
            "sizes before the data that lie": lying(local_size=1, local_packed=1),
            "sizes behind the data": lying(
                flags=0x808, local_size=0, after=b"PK\7\x08" + bytes(12)
            ),
            "bytes between": lying(after=bytes(1000)),
            "mode of another system": having(Member(b"x", b"", mode=0, system=0)),
            "executable by all": having(Member(b"x", b"", mode=0o107777)),
            "folder twice": having(Member(b"b/"), Member(b"b/"), Member(b"b/c")),
            "folder with data": having(Member(b"b/", b"data")),
            "archive in an archive": lambda: wheel({b"x.zip": wheel()}),
            "100 kB of zeros": lambda: wheel({b"zeros": bytes(100_000)}),
            **{
                f"name of {id}": having(Member(name))
                for id, name in LEGAL_NAMES.items()
                if b"\\" not in name and "\ufffd" not in name.decode("utf-8", "replace")
            },
        }
    ),
]

_CONTENTS = [
    *refused(
        "is not one",
        {
            "no .dist-info": lambda: wheel(
                change=lambda one: one._replace(name=one.name.replace(b".dist-info", b".egg"))
            ),
            "two .dist-info": having(Member(b"b-1.dist-info/METADATA")),
            ".dist-info of another": lambda: wheel(
                change=lambda one: one._replace(name=one.name.replace(b"a-1.d", b"b-1.d"))
            ),
            ".dist-info one deeper": lambda: wheel(
                change=lambda one: one._replace(name=one.name.replace(INFO, b"x/" + INFO))
            ),
        },
    ),
    *refused(
        "has no",
        {
            "no WHEEL": lambda: wheel(without=[b"WHEEL"]),
            "no RECORD": lambda: wheel(without=[b"RECORD"]),
        },
    ),
    *refused(
        "only 1.x is known",
        {
            "WHEEL empty": written(b""),
            "WHEEL of version 2": written(b"Wheel-Version: 2.0\n"),
            "WHEEL of version 10": written(b"Wheel-Version: 10.0\n"),
            "WHEEL without a version": written(b"Tag: py3-none-any\n"),
            "WHEEL with a version below": written(b"A: b\n\nWheel-Version: 1.0\n"),
            "WHEEL with a long version": written(b"Wheel-Version: " + LONG.encode()),
            "WHEEL with an escape": written(b"Wheel-Version: \x1b[31m\n"),
            "WHEEL of NULs": written(bytes(1000)),
        },
    ),
    *refused(
        "is not UTF-8 text",
        {
            "WHEEL in Latin-1": written(b"Wheel-Version: 1.\xe9"),
            "entry points in Latin-1": called(b"[console_scripts]\n\xe9 = a:b\n"),
            "RECORD in Latin-1": saying(b"a.txt", b"\xe9"),
            "RECORD in UTF-16": lambda: wheel(record=lambda text: text.decode().encode("utf-16")),
        },
    ),
    *refused(
        "that its RECORD does not name",
        {
            "RECORD empty": lambda: wheel(record=lambda _: b""),
            "RECORD without a file": lambda: wheel(record=lambda text: text.split(b"\n", 1)[1]),
        },
    ),
    *refused(
        "that its RECORD names",
        {
            "RECORD with a file more": lambda: wheel(record=lambda text: text + row(b"b", b"")),
            "RECORD with a million files more": lambda: wheel(
                record=lambda text: text + b"b,,\n" * 1_000_000
            ),
            "RECORD with a climbing file": lambda: wheel(
                record=lambda text: text + row(b"../../x", b"")
            ),
            "RECORD with an absolute file": lambda: wheel(
                record=lambda text: text + row(b"/etc/passwd", b"")
            ),
            "RECORD with a byte order mark": lambda: wheel(
                record=lambda text: b"\xef\xbb\xbf" + text.replace(b'"', b"")
            ),
            "RECORD with NUL": saying(b"a.txt", b"a.txt\0"),
            "RECORD in capitals": saying(b"a.txt", b"A.TXT"),
            "RECORD with an escape": saying(b"a.txt", b"\x1b[31m"),
            "RECORD with a long name": saying(b"a.txt", b"x" * 60_000),
            "RECORD with a backslash": saying(b"a.txt", b".\\a.txt"),
        },
    ),
    *refused(
        "than its RECORD says",
        {
            "digest of other bytes": lambda: wheel(
                record=lambda text: text.replace(row(b"a.txt", b"A\n"), row(b"a.txt", b"B\n"))
            ),
            "digest that is short": first_row(b"a.txt,sha256=x,2"),
            "digest of RECORD itself": saying(b"RECORD,,", b"RECORD,sha256=x,7"),
            "digest empty": first_row(b"a.txt,sha256=,2"),
            "digest of other letters": saying(b"sha256=", "sha256=é".encode()),
            "digest of 60 kB": saying(b"sha256=", b"sha256=" + b"A" * 60_000),
            "digest of another kind": saying(b"sha256=", b"sha512="),
            "size too small": saying(b",2\n", b",1\n"),
            "size too large": saying(b",2\n", b",3\n"),
            "size beyond all": saying(b",2\n", b",9999999999999999999\n"),
        },
    ),
    *refused(
        "in its RECORD",
        {
            "no digest": first_row(b"a.txt,,2"),
            "digest MD5": saying(b"sha256=", b"md5="),
            "digest SHA-1": saying(b"sha256=", b"sha1="),
            "digest in capitals": saying(b"sha256=", b"SHA256="),
            "digest of no kind": saying(b"sha256=", b"="),
            "digest of a long kind": saying(b"sha256=", b"x" * 10_000 + b"="),
            "digest of shake": saying(b"sha256=", b"shake_128="),
            "two lines that differ": lambda: wheel(
                record=lambda text: text + row(b"a.txt", b"B\n")
            ),
        },
    ),
    *refused(
        "has a RECORD that cannot be read",
        {
            "a line of one field": lambda: wheel(record=lambda text: text + b"x\n"),
            "a line of four fields": lambda: wheel(record=lambda text: text + b"a,b,c,d\n"),
            "a line of 30,000 fields": lambda: wheel(record=lambda text: text + b"," * 30_000),
            "a quote that does not end": lambda: wheel(record=lambda text: text + b'"x'),
            "size below zero": saying(b",2\n", b",-2\n"),
            "size with a plus": saying(b",2\n", b",+2\n"),
            "size with a space": saying(b",2\n", b", 2\n"),
            "size a fraction": saying(b",2\n", b",2.0\n"),
            "size of other digits": saying(b",2\n", ",٢\n".encode()),
            "size with an underscore": saying(b",2\n", b",0_2\n"),
            "size of 10,000 digits": saying(b",2\n", b"," + b"9" * 10_000 + b"\n"),
        },
    ),
    *refused(
        "a line that is too long",
        {
            "a field of a megabyte": lambda: wheel(record=lambda text: text + b"x" * _MIB),
            "a million fields": lambda: wheel(record=lambda text: text + b"," * _MIB),
        },
    ),
    *refused(
        "belongs nowhere",
        {
            "data of no scheme": having(Member(b"a-1.data/x")),
            "data of an unknown scheme": having(Member(b"a-1.data/etc/x")),
            "data of a scheme in capitals": having(Member(b"a-1.data/DATA/x")),
            "data into site-packages": having(Member(b"a-1.data/data/site-packages/x")),
            "scheme without a path": having(Member(b"a-1.data/scripts")),
        },
    ),
    *refused(
        "has a script called",
        {
            "script that climbs": called("../x = a:b"),
            "script in a folder": called("a/b = a:b"),
            "script absolute": called("/etc/x = a:b"),
            "script dot": called(". = a:b"),
            "script dot dot": called(".. = a:b"),
            "script with an escape": called("\x1b[31m = a:b"),
            "script with NUL": called("a\0b = a:b"),
            "script with a tab": called("a\tb = a:b"),
            "script right to left": called("a\u202eb = a:b"),
        },
    ),
    *refused(
        "has entry points that cannot be read",
        {
            "call without a function": called("x = a"),
            "call without a module": called("x = :b"),
            "call of nothing": called("x ="),
            "no name": called("= a:b"),
            "no equals sign": called("x"),
            "call with a space": called("x = a b:c"),
            "call with code": called("x = os:system('id')"),
            "call with a semicolon": called("x = a:b;import os"),
            "call with quotes": called("x = a:b'"),
            "call with a dash": called("x = a-b:c"),
            "call in two steps": called("x = a:b:c"),
            "extras that do not end": called("x = a:b [c"),
            "interpolation": called("x = %(y)s\ny = a:b"),
            "billion laughs": called(
                "".join(f"x{n} = {f'%(x{n + 1})s' * 10}\n" for n in range(9)) + "x9 = a:b"
            ),
            "spaces without end": called("x = a:b" + " " * 100_000 + "c"),
            "section that does not end": called(b"[console_scripts\nx = a:b\n"),
            "a continuation": called("x = a:b\n  c:d"),
            "a long line": called("x = " + LONG + "-"),
        },
    ),
    *refused(
        "has more than 1,000 scripts",
        {"10,000 scripts": called("".join(f"x{n} = a:b\n" for n in range(10_000)))},
    ),
    *refused(
        "has a RECORD with too many lines",
        {"RECORD of 300,000 lines": lambda: wheel(record=lambda text: text + b"\n" * 300_000)},
    ),
    *refused("has two scripts called", {"script twice": called("x = a:b\nx = a:c")}),
    *refused("longer than 255 bytes", {"script of 256 bytes": called("x" * 256 + " = a:b")}),
    *refused(
        "differ in case",
        {"scripts that differ in case": called("x = a:b\nX = a:b")},
    ),
    *taken(
        {
            "WHEEL of Windows": written(b"Generator: x\r\nWheel-Version: 1.9\r\n\r\n"),
            "WHEEL of nested messages": written(
                b"Wheel-Version: 1.0\n" + b"Content-Type: message/rfc822\n\n" * 10_000
            ),
            "WHEEL of nested parts": written(
                b"Wheel-Version: 1.0\n"
                + b"".join(
                    b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n)
                    for n in range(2000)
                )
            ),
            "RECORD with empty lines": lambda: wheel(record=lambda text: b"\n" + text + b"\n\n"),
            "RECORD of Windows": lambda: wheel(record=lambda text: text.replace(b"\n", b"\r\n")),
            "RECORD with a line twice": lambda: wheel(record=lambda text: text * 2),
            "RECORD with folders": lambda: wheel(record=lambda text: text + b"x/,,\n"),
            "RECORD without sizes": saying(b",2\n", b",\n"),
            "METADATA that is none": lambda: wheel(extra={b"METADATA": b"\0" * 1000}),
            "scripts of every name": called("-x = a:b\n$(y) = a:b\n\" = a:b\n' = a:b"),
            "script of another alphabet": called("é = é:é"),
            "entry points of others": called(b"[x]\n../y = %(z)s\n[console_scripts]\nx = a:b\n"),
            "entry points of nothing": called(b"\n\n# x\n; y\n"),
            "folder of data called as the wheel": having(Member(b"a-2.data/x")),
        }
    ),
]

WHEELS: list[Case] = [*_ARCHIVES, *_CONTENTS]

#: Names of files under which no wheel is taken, and those that look bad.
FILES = [
    *refused(
        "is not the name of a wheel",
        {
            "empty": ".whl",
            "of nothing": "a.whl",
            "without a tag": "a-1.whl",
            "of another ending": "a-1-py3-none-any.zip",
            "hidden": ".a-1-py3-none-any.whl.part",
            "with an escape": "\x1b[31m-1-py3-none-any.whl",
            "with a newline": "a\nb-1-py3-none-any.whl",
            "without a name": "-1-py3-none-any.whl",
            "without a version": "a--py3-none-any.whl",
            "with a version that is none": "a-x-py3-none-any.whl",
            "with two dashes": "a-1--py3-none-any.whl",
            "with a build that is none": "a-1-x-py3-none-any.whl",
            "with parts too many": "a-1-1-py3-none-any-x.whl",
        },
    ),
    *taken({"of a wheel": FILE, "with a build": "a-1-1-py3-none-any.whl"}),
]
