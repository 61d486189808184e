"""The doctor's checks: what each finds on real file systems, healthy and not."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import listing

from cvs.profiles import doctor
from cvs.profiles.doctor import Check, Finding, Subject
from cvs.store import fs, seal, unplugged
from cvs.store.errors import StoreError
from cvs.store.scratch import Scratch
from cvs.store.volume import Volume
from cvs.versions.interpreter import Chosen

Mount = Callable[..., None]


@pytest.fixture
def subject(volume: Volume, tmp_path: Path) -> Subject:
    """A healthy volume and a local root, both on the disk that tests run on."""
    return Subject(volume, str(tmp_path / "local"), None)


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a file system, for the time of the test."""
    mounted: list[str] = []

    def make(*options: str, at: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root may mount a file system")
        command = ["mount", *options, str(at)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a file system is not permitted here: {done.stderr}")
        mounted.append(str(at))

    yield make
    for point in reversed(mounted):
        subprocess.run(["umount", "-l", point], check=True)


def found(subject: Subject, *checks: Check) -> dict[str, Finding]:
    """The findings of checks, or of all, by their names; none is there twice."""
    findings = list(doctor.examine(subject, checks or None))
    by_name = {one.name: one for one in findings}
    assert len(by_name) == len(findings)
    assert all(one.text and not one.text.endswith(".") for one in findings)
    return by_name


def test_healthy(subject: Subject) -> None:
    """All that can be said of a good volume is said, and nothing is left or changed."""
    before = listing(Path(subject.volume.root), forgive=("tmp",))
    findings = found(subject)

    assert before == listing(Path(subject.volume.root), forgive=("tmp",))
    assert not os.path.exists(subject.local_root)
    expected = ["volume", "file system", "space", "writing", "modes", "leftovers", "damaged"]
    assert [*expected, "seal", "sandbox", "local root", "python", "uv", "git"] == list(findings)
    degraded = {one.name for one in findings.values() if one.state == "degraded"}
    assert not [one for one in findings.values() if one.state == "broken"]
    # What depends on the machine that tests run on.
    assert degraded <= {"file system", "space", "local root", "seal", "sandbox"}
    assert findings["volume"].text == f"{subject.volume.root}, layout 1: wheels are kept unpacked"
    assert findings["modes"] == Finding("modes", "fine", "kept")
    major, minor = sys.version_info[:2]
    assert f"{major}.{minor}" in findings["python"].text


# The volume


def test_volume_that_is_not_there(tmp_path: Path) -> None:
    """Before the first realize that is said; nothing is made, and no other check trips."""
    subject = Subject(Volume(str(tmp_path / "deep" / "cache")), str(tmp_path / "local"), None)
    findings = found(subject)

    assert findings["volume"].state == "degraded"
    assert findings["volume"].text == f"{tmp_path}/deep/cache is not set up yet"
    assert not {"writing", "modes", "leftovers", "damaged"} & set(findings)
    assert not [one for one in findings.values() if one.state == "broken"]
    assert os.listdir(tmp_path) == []


def test_volume_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in its place, or in the place of a parent, is broken."""
    file = tmp_path / "file"
    file.touch()
    for root, text in (
        (file, f"{file}: {file} is not a folder"),
        (file / "cache", f"{file}/cache: {file} is not a folder"),
    ):
        (one,) = found(Subject(Volume(str(root)), "/", None), doctor.volume).values()
        assert (one.state, one.text) == ("broken", text)


def test_layout_of_a_newer_cvs(subject: Subject) -> None:
    """A volume of a newer cvs is broken for this one, and nothing is written to it."""
    Path(subject.volume.root, "format").write_text("cvs-layout 3\n")
    os.utime(subject.volume.tmp, (1, 1))
    findings = found(subject)

    assert findings["volume"].state == "broken"
    assert findings["volume"].cure == "update cvs"
    assert "writing" not in findings
    assert os.stat(subject.volume.tmp).st_mtime == 1


def test_missing_folders(subject: Subject) -> None:
    """Folders that are missing are named; they are made when they are needed."""
    os.rmdir(subject.volume.pins)
    os.rmdir(subject.volume.tmp)
    findings = found(subject)

    assert findings["volume"].state == "degraded"
    assert findings["volume"].text.endswith("layout 1: tmp, pins missing")
    assert not os.path.exists(subject.volume.tmp)


def test_two_file_systems(subject: Subject, mount: Mount) -> None:
    """store/ on another file system than tmp/ cannot be published into."""
    mount("-t", "tmpfs", "none", at=Path(subject.volume.store))
    (one,) = found(subject, doctor.volume).values()

    assert one.state == "broken"
    assert "two file systems" in one.text


def test_read_only(subject: Subject, mount: Mount) -> None:
    """A volume that cannot be written is broken, with the reason."""
    root = Path(subject.volume.root)
    mount("--bind", "-o", "ro", str(root), at=root)
    findings = found(subject, doctor.volume, doctor.writing)

    assert findings["volume"].state == "fine"
    assert findings["writing"].state == "broken"
    assert findings["writing"].text.endswith("/tmp cannot be written: Read-only file system")
    fresh = Subject(Volume(str(root / "models" / "new")), "/", None)
    (one,) = found(fresh, doctor.volume).values()
    assert one.state == "broken"
    assert one.text.endswith(f"{root}/models cannot be written")


def test_file_systems_that_pass(tmp_path: Path, mount: Mount) -> None:
    """Memory, and a container's own layer, are gone one day: degraded."""
    for name in ("low", "up", "work", "overlay", "memory"):
        (tmp_path / name).mkdir()
    mount("-t", "tmpfs", "none", at=tmp_path / "memory")
    for name in ("up", "work"):
        (tmp_path / "memory" / name).mkdir()
    layers = f"lowerdir={tmp_path}/low,upperdir={tmp_path}/memory/up,workdir={tmp_path}/memory/work"
    mount("-t", "overlay", "-o", layers, "none", at=tmp_path / "overlay")
    for kind, name in (("tmpfs", "memory"), ("overlay", "overlay")):
        fresh = Subject(Volume(str(tmp_path / name / "cache")), "/", None)
        (one,) = found(fresh, doctor.file_system).values()
        assert one.state == "degraded"
        assert one.text.startswith(f"{kind}, ")
        assert "COMFY_CACHE_ROOT" in one.cure


def test_network_file_system(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that is not the kernel's own is said what differs: lateness, space, leftovers."""
    monkeypatch.setattr(fs, "filesystem_of", lambda path: "fuse.mfs")
    os.mkdir(os.path.join(subject.volume.tmp, "0" * 32))
    findings = found(subject._replace(volume=Volume(subject.volume.root)))

    assert findings["file system"].state == "fine"
    assert findings["file system"].text.startswith("fuse.mfs, taken for a network file system")
    assert "10 s late" in findings["file system"].text
    assert "not what a quota leaves" in findings["space"].text
    assert "other machines at work" in findings["leftovers"].text
    assert findings["local root"].state == "degraded"
    assert "CVS_LOCAL_ROOT" in findings["local root"].cure


@pytest.mark.parametrize(
    ("size", "files", "state"),
    [("3g", 60_000, "fine"), ("1g", 60_000, "degraded"), ("3g", 1000, "degraded")],
)
def test_space(tmp_path: Path, mount: Mount, size: str, files: int, state: str) -> None:
    """Little space, or few files that may still be made, are degraded."""
    mount("-t", "tmpfs", "-o", f"size={size},nr_inodes={files}", "none", at=tmp_path)
    fresh = Subject(Volume(str(tmp_path / "cache")), "/", None)
    (one,) = found(fresh, doctor.space).values()

    assert one.state == state
    assert bool(one.cure) == (state != "fine")
    assert " more files" in one.text


def test_space_that_is_not_told(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has 0 of 0 bytes is not full: it does not say."""
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096,) + (0,) * 9))
    (one,) = found(subject, doctor.space).values()

    assert (one.state, one.text) == ("fine", "the file system does not say how much is free")


def test_full(tmp_path: Path, mount: Mount) -> None:
    """A volume without any space is broken, and the probe leaves nothing on it."""
    mount("-t", "tmpfs", "-o", "size=64k", "none", at=tmp_path)
    subject = Subject(Volume(str(tmp_path)), "/", None)
    subject.volume.prepare()
    with open(tmp_path / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    findings = found(subject, doctor.space, doctor.writing)

    assert findings["space"].state == "broken"
    assert findings["writing"].state == "broken"
    assert "No space left on device" in findings["writing"].text
    assert os.listdir(subject.volume.tmp) == []


def test_modes_that_are_not_kept(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every file has the same mode that is said; there is nothing to do about it."""
    real = fs.write_synced
    monkeypatch.setattr(fs, "write_synced", lambda path, data, mode: real(path, data, 0o777))
    findings = found(subject, doctor.writing)

    assert findings["writing"].state == "fine"
    assert (findings["modes"].state, findings["modes"].cure) == ("degraded", "")


def test_no_hard_links(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generations are published by hard links: a file system without them is broken."""

    def refuse(call: str, where: object) -> None:
        if call == "link":
            raise PermissionError(1, "Operation not permitted", where)

    monkeypatch.setattr(fs, "observer", refuse)
    findings = found(subject, doctor.writing)

    assert findings["writing"].state == "broken"
    assert findings["writing"].text.endswith("cannot be written: Operation not permitted")


def test_leftovers(subject: Subject) -> None:
    """What killed processes left is counted and measured; what is in use is not."""
    left = Path(subject.volume.tmp, "1" * 32)
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "file").write_bytes(bytes(2000))
    (left / "file").write_bytes(bytes(500))
    with Scratch(subject.volume.tmp) as held:
        Path(held.folder, "file").write_bytes(bytes(5000))
        one = found(subject)["leftovers"]

    assert (one.state, one.text) == ("degraded", "1 in tmp/, 2.5 kB")
    assert one.cure == "the next `cvs realize` removes what a killed process left"
    assert (left / "file").exists()


def test_damaged(subject: Subject) -> None:
    """A mark of a damaged entry is broken; what lies aside is only told; the rest is nobody's."""
    folder = Path(subject.volume.root, "damaged")
    for name in ("a" * 64, "b" * 64 + ".0123", "notes"):
        (folder / name).mkdir(parents=True)
    (folder / ("b" * 64 + ".0123") / "file").write_bytes(bytes(10))
    findings = found(subject, doctor.damaged)

    assert findings["damaged"].state == "broken"
    assert findings["damaged"].text == f"1 entries were found damaged: {'a' * 16}"
    assert (findings["aside"].state, findings["aside"].text) == (
        "degraded",
        "1 damaged entries lie aside, 10 B",
    )
    (folder / ("a" * 64)).rmdir()
    assert set(found(subject, doctor.damaged)) == {"aside"}


# This machine


def test_seal(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seal's state, and what is missing of it."""
    (one,) = found(subject, doctor.sealing).values()
    assert one.state == ("fine" if seal.state() == "full" else "degraded")
    assert one.text.startswith(seal.state())

    monkeypatch.setattr(seal, "_version", lambda: -1)
    (one,) = found(subject, doctor.sealing).values()
    assert one.state == "degraded"
    assert one.text.startswith("none: this container forbids Landlock")
    monkeypatch.setattr(seal, "_version", lambda: 2)
    (one,) = found(subject, doctor.sealing).values()
    assert (one.state, one.cure) == ("degraded", "Linux 6.2 or newer covers it")


def test_sandbox(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one where the kernel seals whole and filters system calls, and none elsewhere."""
    (one,) = found(subject, doctor.sandboxing).values()
    is_there = (seal.state(), unplugged.state()) == ("full", "full")
    assert one.state == ("fine" if is_there else "degraded")

    for module in (unplugged, seal):
        monkeypatch.setattr(module, "state", lambda: "none: this container forbids it")
        (one,) = found(subject, doctor.sandboxing).values()
        assert (one.state, one.text) == ("degraded", "there is none: this container forbids it")


@pytest.mark.skipif(seal.state() != "full", reason="the kernel has no whole seal")
def test_seal_that_does_not_hold(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says is tried: a seal that refuses nothing is broken."""
    monkeypatch.setattr(seal, "make", lambda *_: seal.Seal("full", lambda: None, lambda: None))
    (one,) = found(subject, doctor.sealing).values()

    assert one.state == "broken"
    assert os.listdir(subject.volume.tmp) == []


def test_local_root(subject: Subject, tmp_path: Path, mount: Mount) -> None:
    """It belongs on a disk of this machine, outside of the volume, with space."""
    inside = subject._replace(local_root=os.path.join(subject.volume.root, "local"))
    (one,) = found(inside, doctor.local_root).values()
    assert (one.state, one.text) == ("degraded", f"{inside.local_root} lies in the volume")

    (tmp_path / "file").touch()
    (one,) = found(subject._replace(local_root=f"{tmp_path}/file/x"), doctor.local_root).values()
    assert (one.state, one.text) == (
        "broken",
        f"{tmp_path}/file/x: {tmp_path}/file is not a folder",
    )
    small = tmp_path / "small"
    small.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "none", at=small)
    (one,) = found(subject._replace(local_root=str(small)), doctor.local_root).values()
    assert one.state == "degraded"
    assert "CVS_LOCAL_ROOT" in one.cure


def test_python(subject: Subject) -> None:
    """COMFY_PYTHON that is none is broken, with the reason."""
    (one,) = found(subject._replace(chosen=Chosen("/no/python")), doctor.python).values()

    assert (one.state, one.text) == ("broken", "there is no interpreter at /no/python")


def test_tools(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv and git that are not there, or do not run, are broken."""
    import uv

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(uv, "find_uv_bin", none)
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = found(subject, doctor.uv, doctor.git)
    assert {one.state for one in findings.values()} == {"broken"}
    assert findings["uv"].text == "not found: no Python packages can be resolved"
    assert findings["git"].text == "git is not there"

    for text, why in (("#!/bin/sh\necho bad >&2\nexit 3\n", "bad"), ("\x7fELF", "Exec format")):
        program = tmp_path / "git"
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (one,) = found(subject, doctor.git).values()
        assert one.state == "broken"
        assert one.text.startswith("git does not run: ")
        assert why in one.text


# Checks


def test_check_that_fails(subject: Subject) -> None:
    """What stops a check is its finding, and the others go on."""

    def first_thing(subject: Subject) -> Iterator[Finding]:
        raise StoreError("it is so", hint="do that")
        yield

    def second(subject: Subject) -> Iterator[Finding]:
        yield Finding("second", "fine", "well")
        os.listdir("/no/folder")

    def third(subject: Subject) -> Iterator[Finding]:
        yield Finding("third", "fine", subject.probe or "")

    findings = list(doctor.examine(subject, [first_thing, second, third]))

    assert findings[:3] == [
        Finding("first thing", "broken", "it is so", "do that"),
        Finding("second", "fine", "well"),
        Finding("second", "broken", "cannot be looked at: No such file or directory: /no/folder"),
    ]
    assert os.path.dirname(findings[3].text) == subject.volume.tmp
    assert not os.path.exists(findings[3].text)
