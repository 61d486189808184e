"""What hostile inputs have in common: cases, bad names, and the law of refusing them.

Each case has a name that says what it is, and what is said of it: a part of the one sentence that
it is refused with, or None where it is taken although it looks bad.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cvs.store.entries import Store
from cvs.store.errors import CvsError
from cvs.store.tree import NAME_LIMIT
from cvs.store.verify import verify


class Case(NamedTuple):
    """One input; what is large is made when it is needed."""

    id: str
    made: Any
    said: str | None
    """What the message has in it; None where the input is taken."""

    @property
    def data(self) -> Any:
        """The input."""
        return self.made() if callable(self.made) else self.made


def refused(said: str, cases: Mapping[str, Any]) -> list[Case]:
    """Cases that one thing is said of."""
    return [Case(id, made, said) for id, made in cases.items()]


def taken(cases: Mapping[str, Any]) -> list[Case]:
    """Cases that are taken."""
    return [Case(id, made, None) for id, made in cases.items()]


def each(cases: Iterable[Case]) -> Callable[[Any], Any]:
    """Gives a test each of the cases; two of one name would be one."""
    found = list(cases)
    assert len({case.id for case in found}) == len(found)
    return pytest.mark.parametrize("case", found, ids=[case.id for case in found])


def judge(case: Case, call: Callable[[], Any]) -> Any:
    """Holds a reader to the law: it takes the input, or says in one sentence why not."""
    if case.said is None:
        return call()
    with pytest.raises(CvsError) as caught:
        call()
    assert case.said in caught.value.message, caught.value.message
    assert_sentence(caught.value)
    return None


def assert_sentence(error: CvsError) -> None:
    """A message is one short line that a terminal can show, whatever it is about."""
    for text in (error.message, error.hint or ""):
        assert text.isprintable(), text
        assert len(text) < 1000, text
        assert not text.endswith("."), text


@contextmanager
def nothing_else_touched(store: Store) -> Iterator[Path]:
    """Gives a folder beside the store in which a canary lies, and holds that nothing but an entry
    that was published has changed, inside the volume or around it.

    The canary is what links, climbing names and careless followers would reach.
    """
    ground = Path(store.volume.root).parent / "ground"
    (ground / "canary").mkdir(parents=True)
    (ground / "canary/file").write_bytes(b"untouched")
    (ground / "way").symlink_to("canary")
    before = listing(ground.parent)
    yield ground
    after = listing(ground.parent)
    for path in before.keys() | after.keys():
        if before.get(path) != after.get(path):
            assert path.startswith((b"cache/store/", b"cache/refs/")), path
    assert os.listdir(store.volume.tmp) == []
    for entry in os.listdir(store.volume.store):
        assert list(verify(store, entry)) == []  # type: ignore[arg-type]


def listing(folder: Path) -> dict[bytes, bytes]:
    """All that lies below a folder: kind and content or target, by path."""
    found: dict[bytes, bytes] = {}
    waiting = [b""]
    root = os.fsencode(folder) + b"/"
    while waiting:
        with os.scandir(root + waiting.pop()) as items:
            for item in items:
                path = item.path.removeprefix(root)
                mode = item.stat(follow_symlinks=False).st_mode
                found[path] = b"%o " % mode
                if stat.S_ISLNK(mode):
                    found[path] += os.readlink(item.path)
                elif stat.S_ISDIR(mode):
                    waiting.append(path + b"/")
                elif stat.S_ISREG(mode):
                    found[path] += Path(os.fsdecode(item.path)).read_bytes()[: 1 << 16]
    return found


# Names.

#: A text for messages to be made of; they are short all the same.
LONG = "x" * 100_000

#: Names that a file may have, and that break what is written carelessly.
LEGAL_NAMES: dict[str, bytes] = {
    "newline": b"two\nlines",
    "carriage return": b"a\rb",
    "tab": b"a\tb",
    "escape sequence": b"\x1b[31mred",
    "bell and backspace": b"\a\b",
    "delete": b"a\x7fb",
    "C1 control": "a\x9b31mb".encode(),
    "not UTF-8": b"\xff\xfe",
    "half of a character": b"a\xc3",
    "overlong slash": b"a\xc0\xafb",
    "surrogate": b"\xed\xa0\x80",
    "255 bytes": b"n" * NAME_LIMIT,
    "255 bytes of characters": "é".encode() * 127 + b"x",
    "255 bytes that are quoted": b"\xff" * NAME_LIMIT,
    "percent": b"50%",
    "what looks quoted": b"%2e%2e%2f",
    "leading dash": b"-rf",
    "option": b"--help",
    "leading tilde": b"~root",
    "variable": b"$HOME",
    "command": b"$(touch x)`touch y`;|&",
    "quotes": b"'\"",
    "backslash": b"a\\b",
    "drive": b"C:",
    "device of Windows": b"CON",
    "space": b" ",
    "ending in space and dot": b"a .",
    "three dots": b"...",
    "dots and space": b".. ",
    "pattern": b"*?[a]",
    "comma": b"a,b",
    "braces": b"{0}{x!r}%s",
    "emoji": "😀".encode(),
    "family of emoji": "👨\u200d👧".encode(),
    "right to left": "a\u202egnp.exe".encode(),
    "line separator": "a\u2028b".encode(),
    "zero width": "a\u200bb".encode(),
    "byte order mark": "\ufeffa".encode(),
    "private use": "\ue000".encode(),
    "last character": "\U0010ffff".encode(),
}

#: Pairs of names that are one on some file system.
COLLIDING: dict[str, tuple[bytes, bytes]] = {
    "case": (b"readme", b"README"),
    "case beyond ASCII": ("é".encode(), "É".encode()),
    "normal form": ("é".encode(), "e\u0301".encode()),
    "sharp s": ("ß".encode(), b"ss"),
    "ligature": ("\ufb01".encode(), b"fi"),
    "Kelvin": ("\u212a".encode(), b"k"),
    "long s": ("\u017f".encode(), b"s"),
    "final sigma": ("ς".encode(), "σ".encode()),
    "order of accents": ("a\u0301\u0323".encode(), "a\u0323\u0301".encode()),
    "capital dotted i": ("\u0130".encode(), "i\u0307".encode()),
    "case beside other bytes": (b"\xffa", b"\xffA"),
}

#: Paths that no file of a tree can have.
BAD_PATHS: dict[str, bytes] = {
    "empty": b"",
    "dot": b".",
    "dot dot": b"..",
    "NUL": b"a\0b",
    "empty part": b"a//b",
    "absolute": b"/a",
    "two slashes": b"//a",
    "ending in a slash": b"a/",
    "climbing": b"../a",
    "climbing later": b"a/../../b",
    "climbing to itself": b"a/../b",
    "with a dot": b"a/./b",
    "name of 256 bytes": b"n" * 256,
    "path of 1025 bytes": b"a/" * 512 + b"b",
    "of a megabyte": b"x" * 1_000_000,
}

#: Targets that no link of a root may have, and what is said of them.
BAD_TARGETS: dict[str, tuple[bytes, str]] = {
    "absolute": (b"/etc/passwd", "that leaves it"),
    "root": (b"/", "that leaves it"),
    "two slashes": (b"//etc/passwd", "that leaves it"),
    "one up": (b"..", "that leaves it"),
    "up through dots": (b"./.././canary", "that leaves it"),
    "many up": (b"../" * 100 + b"etc/passwd", "that leaves it"),
    "up with empty parts": (b".//..//x", "that leaves it"),
    "down and up": (b"x/../../canary", "has '..' after a name"),
    "down and up to itself": (b"x/..", "has '..' after a name"),
    "NUL": (b"a\0b", "that no link can have"),
    "empty": (b"", "that no link can have"),
    "too long": (b"x/" * 2048, "longer than 4095 bytes"),
}
