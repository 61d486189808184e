"""Temporary folders on this host's own disk."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from cvs.store import temporary


def test_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary folders lie in one of this user alone, where what is left over is swept."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary.folder() as held:
        parent = Path(held.folder).parent
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    (parent / ("0" * 32)).mkdir()
    with temporary.folder() as held:
        assert os.listdir(parent) == [os.path.basename(held.folder)]


def test_where_the_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name which others may write is not used."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken = tmp_path / f"cvs-{os.geteuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    with temporary.folder() as held:
        assert Path(held.folder).parent == tmp_path
    assert os.listdir(taken) == []
