"""Libraries of wheels: what they look for, and whether that is in the wheel."""

import contextlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import elfmaker
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import broken

from cvs.profiles import native
from cvs.profiles.native import Dynamic, Unreadable
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.manifest import TreeManifest
from cvs.store.volume import Volume

Wheel = Callable[[dict[str, bytes]], tuple[EntryId, TreeManifest, str]]


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def wheel(store: Store) -> Wheel:
    """Publishes a tree of some files below site-packages."""

    def make(files: dict[str, bytes]) -> tuple[EntryId, TreeManifest, str]:
        with store.stage() as stage:
            writer = stage.tree("wheel")
            for path, data in files.items():
                writer.write(b"site-packages/" + path.encode(), data)
            entry = store.publish(writer.finish())[0]
        document = store.manifest(entry)
        assert isinstance(document, TreeManifest)
        return entry, document, os.path.join(store.path(entry), "wheel")

    return make


def test_what_is_read(tmp_path: Path) -> None:
    """The names and paths of the dynamic section; RUNPATH first."""
    path = tmp_path / "x.so"
    path.write_bytes(elfmaker.make(("libc.so.6", "b.so"), "$ORIGIN/../y:/usr/lib", "z"))
    assert native.read(str(path)) == Dynamic(
        ("libc.so.6", "b.so"), ("$ORIGIN/../y", "/usr/lib", "z")
    )
    path.write_bytes(elfmaker.make())
    assert native.read(str(path)) == Dynamic((), ())
    for other in (b"", b"\x7fEL", b"#!/bin/sh\n", b"\0" * 200):
        path.write_bytes(other)
        assert native.read(str(path)) is None


def test_as_readelf_says() -> None:
    """Of this interpreter's own modules, as another reader has it; that they need the C library
    in any case."""
    folder = Path(sysconfig.get_path("platstdlib")) / "lib-dynload"
    readelf = shutil.which("readelf")
    paths = sorted(folder.glob("*.so"))[:20]
    for path in paths:
        found = native.read(str(path))
        assert found is not None
        assert found.needed
        if readelf:
            text = subprocess.run(
                [readelf, "-dW", path], capture_output=True, text=True, check=True
            )
            lines = text.stdout.splitlines()
            said = [line.split("[")[1].split("]")[0] for line in lines if "(NEEDED)" in line]
            assert list(found.needed) == said


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=broken(elfmaker.make(("libc.so.6", "b.so"), "$ORIGIN/../y", "$ORIGIN")))
def test_broken_files(tmp_path: Path, data: bytes) -> None:
    """Whatever a file holds, it is read, is none, or cannot be understood."""
    path = tmp_path / "x.so"
    path.write_bytes(data)
    with contextlib.suppress(Unreadable):
        found = native.read(str(path))
        assert found is None or isinstance(found, Dynamic)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_after_the_magic(tmp_path: Path, data: bytes) -> None:
    """The same of what only begins like one."""
    path = tmp_path / "x.so"
    path.write_bytes(b"\x7fELF" + data)
    with contextlib.suppress(Unreadable):
        native.read(str(path))


SYSTEM = ("libc.so.6", "libstdc++.so.6")


@pytest.mark.parametrize(
    ("files", "alone"),
    [
        ({"a/b.py": b"1"}, True),
        ({"a/x.so": elfmaker.make(SYSTEM)}, True),
        ({"a/x.so": elfmaker.make(("libtorch.so",))}, True),
        ({"a/x.so": elfmaker.make(SYSTEM, "$ORIGIN")}, True),
        ({"a/x.so": elfmaker.make(SYSTEM, "/usr/local/cuda/lib64")}, True),
        # Its own libraries beside it, as auditwheel puts them.
        (
            {
                "a/core/x.so": elfmaker.make(("libblas-1.so", *SYSTEM), "$ORIGIN/../../a.libs"),
                "a.libs/libblas-1.so": elfmaker.make(SYSTEM),
            },
            True,
        ),
        (
            {
                "a/core/x.so": elfmaker.make(("libblas-1.so",), None, "${ORIGIN}/../../a.libs"),
                "a.libs/libblas-1.so": b"not even a library",
            },
            True,
        ),
        # A library of the folder that is not in this wheel: another one may have it there.
        (
            {
                "a/core/x.so": elfmaker.make(("libblas-2.so",), "$ORIGIN/../../a.libs"),
                "a.libs/libblas-1.so": elfmaker.make(SYSTEM),
            },
            False,
        ),
        # Another wheel's folder.
        ({"torch/lib/x.so": elfmaker.make(SYSTEM, "$ORIGIN/../../nvidia/cublas/lib")}, False),
        ({"torch/lib/x.so": elfmaker.make(SYSTEM, None, "$ORIGIN/../../nvidia/nccl/lib")}, False),
        ({"torch/lib/x.so": elfmaker.make(SYSTEM, "$ORIGIN:$ORIGIN/../../nvidia")}, False),
        # Out of all wheels, and what cannot be told.
        ({"a/x.so": elfmaker.make(SYSTEM, "$ORIGIN/../../../../../lib")}, False),
        ({"a/x.so": elfmaker.make(SYSTEM, "$ORIGIN/$LIB")}, False),
        ({"a/x.so": elfmaker.make(SYSTEM, "lib")}, False),
        ({"a/x.so": elfmaker.make(SYSTEM)[:100]}, False),
        ({"a/x.so": b"\x7fELF\1" + bytes(100)}, False),
        # Whatever they are called.
        ({"a/program": elfmaker.make(SYSTEM, "$ORIGIN/../../nvidia")}, False),
        ({"a/x.so.1.2": elfmaker.make(SYSTEM, "$ORIGIN/../../nvidia")}, False),
        ({"a/x.bin": elfmaker.make(SYSTEM, "$ORIGIN/../../nvidia")}, False),
    ],
)
def test_stands_alone(volume: Volume, wheel: Wheel, files: dict[str, bytes], alone: bool) -> None:
    """Where all that its libraries look for from where they lie is in the wheel itself."""
    entry, document, root = wheel(files)
    assert native.stands_alone(volume, entry, document, root) == alone


def test_the_answer_is_kept(volume: Volume, wheel: Wheel) -> None:
    """On the volume, for all hosts; what is no answer is asked again, and a loss too."""
    entry, document, root = wheel({"a/x.so": elfmaker.make(SYSTEM, "$ORIGIN/../../nvidia")})
    assert not native.stands_alone(volume, entry, document, root)
    assert not native.stands_alone(volume, entry, document, "/nowhere")
    (path,) = Path(volume.refs, "native").iterdir()
    path.unlink()
    path.symlink_to("something else")
    assert not native.stands_alone(volume, entry, document, root)
    assert os.readlink(path) == "together"
    path.unlink()
    shutil.rmtree(volume.tmp)
    assert not native.stands_alone(volume, entry, document, root)
    assert not os.path.lexists(path)
