"""The rig, on repositories and wheels made for the purpose: neither git nor a network is far."""

import base64
import csv
import hashlib
import io
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from . import rig


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository of two commits, of which one file's content is lost."""
    folder = tmp_path / "origin"
    (folder / "data").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=master")
    (folder / "main.py").write_text("print('main')\n")
    git(folder, "add", "main.py")
    git(folder, "commit", "--quiet", "--message", "First")
    (folder / "data" / "großes Modell.json").write_text("large\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Second", "--date", "2024-05-06T07:08:09+02:00")
    lost = git(folder, "rev-parse", "HEAD:data/großes Modell.json")
    (folder / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    return folder


def test_source_is_whole(origin: Path, tmp_path: Path) -> None:
    """What is missing is left out and named; the rest can be fetched by the commit's id."""
    source = rig.prepare_source(str(origin), tmp_path / "made" / "origin.git")

    assert source.left_out == ("data/großes Modell.json",)
    assert source.origin_commit == git(origin, "rev-parse", "HEAD")
    clone = tmp_path / "clone"
    clone.mkdir()
    git(clone, "init", "--quiet")
    git(clone, "fetch", "--quiet", "--depth", "1", source.url, source.commit)
    git(clone, "checkout", "--quiet", "FETCH_HEAD")
    assert sorted(path.name for path in clone.iterdir()) == [".git", "main.py", "run.sh"]
    assert os.access(clone / "run.sh", os.X_OK)


def test_source_needs_nothing_else(origin: Path, tmp_path: Path) -> None:
    """The repository stays whole when the origin is gone."""
    source = rig.prepare_source(str(origin), tmp_path / "origin.git")
    origin.rename(tmp_path / "elsewhere")

    git(source.repo, "fsck", "--full")
    assert git(source.repo, "rev-list", "--count", "--all") == "1"


def test_source_keeps_the_date(origin: Path, tmp_path: Path) -> None:
    """The author's date, which resolution goes by, and one id for one input."""
    source = rig.prepare_source(str(origin), tmp_path / "a.git")
    again = rig.prepare_source(str(origin), tmp_path / "b.git")

    dates = git(source.repo, "show", "--no-patch", "--format=%aI %cI", source.commit)
    assert dates == "2024-05-06T07:08:09+02:00 2024-05-06T07:08:09+02:00"
    assert again.commit == source.commit


def test_source_of_an_older_commit_by_url(origin: Path, tmp_path: Path) -> None:
    """An address works like a path, and nothing is left out where nothing is missing."""
    first = git(origin, "rev-parse", "HEAD~")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")

    by_url = rig.prepare_source(origin.as_uri(), tmp_path / "url.git", first)
    by_path = rig.prepare_source(str(origin), tmp_path / "path.git", first)

    assert by_url.left_out == ()
    assert by_url.commit == by_path.commit
    assert git(by_url.repo, "rev-parse", "HEAD^{tree}") == git(
        origin, "rev-parse", f"{first}^{{tree}}"
    )


def test_no_source(tmp_path: Path) -> None:
    """A repository that is not there is an error with git's reason."""
    with pytest.raises(rig.RigError, match="fatal"):
        rig.prepare_source((tmp_path / "nowhere").as_uri(), tmp_path / "made.git")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with a library."""
    path = tmp_path / "torchaudio-2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("torchaudio/__init__.py", "from .version import __version__\n")
        archive.writestr("torchaudio/version.py", "__version__ = '2.0+cu130'\n")
        archive.writestr("torchaudio/lib/_torchaudio.so", b"\x7fELF")
        archive.writestr("torchaudio-2.0.dist-info/METADATA", "Name: torchaudio\nVersion: 2.0\n")
        archive.writestr("torchaudio-2.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("torchaudio-2.0.dist-info/RECORD", "")
    return path


def test_repacked_wheel(wheel: Path, tmp_path: Path) -> None:
    """Name, folder, metadata and version agree, and RECORD is of what is there."""
    made = rig.repack(wheel, tmp_path / "wheels", rig.patch_torchaudio)

    assert made.name == "torchaudio-2.0+cvs.cpu-py3-none-any.whl"
    info = "torchaudio-2.0+cvs.cpu.dist-info"
    with zipfile.ZipFile(made) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert "torchaudio/lib/_torchaudio.so" not in files
    assert b"Version: 2.0+cvs.cpu\n" in files[f"{info}/METADATA"]
    assert files["torchaudio/version.py"] == b"__version__ = '2.0+cvs.cpu'\n"
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(files[f"{info}/RECORD"].decode()))}
    assert rows.keys() == files.keys()
    assert rows.pop(f"{info}/RECORD") == ["", ""]
    for name, (digest, size) in rows.items():
        sha256 = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=")
        assert (digest, size) == (f"sha256={sha256.decode()}", str(len(files[name]))), name


def test_repacking_is_reproducible(wheel: Path, tmp_path: Path) -> None:
    """Twice the same bytes: a lock holds the wheel's digest."""
    made = [rig.repack(wheel, tmp_path / name, rig.patch_torchaudio) for name in ("a", "b")]

    assert made[0].read_bytes() == made[1].read_bytes()


def test_other_torchvision_is_refused() -> None:
    """A patch that finds no place for itself says so."""
    unlike = {"torchvision/_meta_registrations.py": (b"import torch\n", 0o644)}

    with pytest.raises(rig.RigError, match="not the one"):
        rig.patch_torchvision(unlike)


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("https://github.com/cubiq/ComfyUI_essentials.git", "ComfyUI_essentials"),
        ("git@github.com:cubiq/ComfyUI_essentials", "ComfyUI_essentials"),
        ("mirror/cubiq+ComfyUI_essentials/repo", "ComfyUI_essentials"),
        ("checkout/ComfyUI/.git", "ComfyUI"),
    ],
)
def test_repository_name(origin: str, name: str) -> None:
    """A name a person would give."""
    assert rig.repository_name(origin) == name


def test_nodes_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are separated as in PATH; an address has a line of its own; none is fine."""
    assert rig.nodes_from_environment() == ()
    monkeypatch.setenv("CVS_REAL_NODES", f"a{os.pathsep}b\nhttps://host/c")
    assert rig.nodes_from_environment() == ("a", "b", "https://host/c")


def test_writable_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names separated by commas; unset means the known ones, empty means none."""
    assert rig.writable_from_environment() == rig.WRITABLE
    monkeypatch.setenv("CVS_REAL_WRITABLE", "a, b,")
    assert rig.writable_from_environment() == ("a", "b")
    monkeypatch.setenv("CVS_REAL_WRITABLE", "")
    assert rig.writable_from_environment() == ()


def test_spec_of_a_writable_node(tmp_path: Path) -> None:
    """Only the node that is named is writable."""
    made = [rig.Source(tmp_path / f"{name}.git", "0" * 40, "0" * 40, ()) for name in ("a", "b")]

    nodes = rig.spec_document(made[0], made, tmp_path, writable=["b"])["custom_nodes"]

    assert [node.get("writable") for node in nodes] == [None, True]
