"""Temporary folders on this host's own disk."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from cvs.store import temporary
from cvs.store.volume import Volume


def test_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary folders lie in one of this user alone, where what is left over is swept."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary.folder() as held:
        parent = Path(held.folder).parent
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    (parent / ("0" * 32)).mkdir()
    with temporary.folder() as held:
        assert os.listdir(parent) == [os.path.basename(held.folder)]


def test_swept_by_who_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets a volume up removes what was left, and never what is held or another's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    volume = Volume(str(tmp_path / "cache"))
    volume.prepare()
    (tmp_path / "tmp").mkdir()
    with temporary.folder() as held:
        parent = Path(held.folder).parent
        (parent / ("0" * 32)).mkdir()
        (parent / "mine").mkdir()
        volume.prepare()
        assert sorted(os.listdir(parent)) == sorted([os.path.basename(held.folder), "mine"])
    parent.chmod(0o777)
    (parent / ("0" * 32)).mkdir()
    volume.prepare()
    assert sorted(os.listdir(parent)) == ["0" * 32, "mine"]


def test_where_the_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name which others may write is not used."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken = tmp_path / f"cvs-{os.geteuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    with temporary.folder() as held:
        assert Path(held.folder).parent == tmp_path
    assert os.listdir(taken) == []
