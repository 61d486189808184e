"""Copying a file with its digests in one pass."""

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from world import PATIENCE

from cvs.store import copying, follower, fs
from cvs.store.copying import CHUNK, LARGE, Copied

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, LARGE, LARGE + 1, LARGE + (3 << 20) + 7]


def expected(data: bytes, sha256: bool) -> Copied:
    return Copied(
        len(data), blake3(data).digest(), hashlib.sha256(data).digest() if sha256 else b""
    )


def copied(
    source: Path,
    target: Path,
    *,
    size: int | None = None,
    sha256: bool = True,
    mapped: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Copies a file that is said to have `size` bytes."""
    one = os.open(source, os.O_RDONLY)
    other = fs.create(str(target), readable=True)
    try:
        size = source.stat().st_size if size is None else size
        return copying.copy(one, other, size=size, sha256=sha256, advance=advance, mapped=mapped)
    finally:
        os.close(one)
        os.close(other)


@pytest.fixture(params=[False, True])
def mapped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether large copies are digested by processes that map them."""
    monkeypatch.setattr(follower, "LARGE", 0)
    return bool(request.param)


@pytest.mark.parametrize("sha256", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_every_size(tmp_path: Path, size: int, sha256: bool, mapped: bool) -> None:
    """Copied whole, digested as a whole, every byte counted once."""
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    counted: list[int] = []
    found = copied(
        tmp_path / "source",
        tmp_path / "target",
        sha256=sha256,
        mapped=mapped,
        advance=counted.append,
    )

    assert found == expected(data, sha256)
    assert (tmp_path / "target").read_bytes() == data
    assert sum(counted) == size


@pytest.mark.parametrize("said", [0, 5, LARGE + 1, 3 * LARGE])
@pytest.mark.parametrize("size", [0, 100, LARGE + 100])
def test_a_size_that_is_not_true(tmp_path: Path, size: int, said: int, mapped: bool) -> None:
    """A file that grew or shrank since it was found is copied as it is now."""
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)

    found = copied(tmp_path / "source", tmp_path / "target", size=said, mapped=mapped)
    assert found == expected(data, True)
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_kernel_has_no_way_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Two file systems that know nothing of each other are served all the same."""

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    data = os.urandom(LARGE + 1)
    (tmp_path / "source").write_bytes(data)

    assert copied(tmp_path / "source", tmp_path / "target") == expected(data, True)


@pytest.mark.parametrize("call", ["copy", "write"])
def test_an_error_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, mapped: bool
) -> None:
    """It is raised here, in whatever thread it came up, and all threads have ended then."""
    (tmp_path / "source").write_bytes(bytes(LARGE + 1 if call == "copy" else 100))
    count = 0

    def observe(name: str, _: object) -> None:
        nonlocal count
        count += name == call
        if name == call and count == (3 if call == "copy" else 1):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(fs, "observer", observe)
    with pytest.raises(OSError, match="quota"):
        copied(tmp_path / "source", tmp_path / "target", mapped=mapped)


def test_stopped_from_outside(tmp_path: Path, mapped: bool) -> None:
    """What counting raises ends the copying."""
    (tmp_path / "source").write_bytes(bytes(4 * LARGE))

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copied(tmp_path / "source", tmp_path / "target", advance=stop, mapped=mapped)


def test_a_copy_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written and cannot be read again is an error, never another digest."""
    (tmp_path / "source").write_bytes(bytes(LARGE + 1))
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with pytest.raises(OSError, match="ended"):
        copied(tmp_path / "source", tmp_path / "target")


@given(st.lists(st.binary(max_size=300) | st.just(bytes(range(256)) * 256)))
def test_however_a_stream_is_cut(chunks: list[bytes]) -> None:
    """However the bytes are cut: written whole, with both digests and their number."""
    with tempfile.TemporaryFile() as file:
        found = copying.write(chunks, file.fileno())
        file.seek(0)
        data = file.read()

    assert data == b"".join(chunks)
    assert found == expected(data, True)


INTERRUPTED = """
import os, signal, sys
from cvs.store import copying, follower, fs

def observe(*_):
    global calls
    calls += 1
    if calls == 1 + number % 4:
        os.kill(os.getpid(), signal.SIGINT)

copying.LARGE = 0
fs.observer = observe
sys.setswitchinterval(1e-6)
for number in range(int(sys.argv[2])):
    calls = 0
    source = os.open(sys.argv[1], os.O_RDONLY)
    target = os.open(sys.argv[1] + ".copy", os.O_RDWR | os.O_CREAT)
    try:
        copying.copy(source, target, size=1, sha256=True, advance=int)
    except KeyboardInterrupt:
        print("interrupted")
    os.close(source)
    os.close(target)
"""


def test_ctrl_c_at_any_moment(memory: Path) -> None:
    """It always ends the copying, however it falls between the steps of threads."""
    (memory / "source").write_bytes(bytes(3 << 20))
    count = 200
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(memory / "source"), str(count)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    assert done.stdout == "interrupted\n" * count
    assert done.stderr == ""
