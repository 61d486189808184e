"""Scratch folders: there while they are held, swept when their process is gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cvs.profiles import scratch


def test_it_goes_with_the_block(tmp_path: Path) -> None:
    """The folder and what is in it are gone after the block, also after an error."""
    with pytest.raises(KeyError), scratch.hold(str(tmp_path / "run")) as folder:
        Path(folder, "file").write_text("x")
        raise KeyError

    assert os.listdir(tmp_path / "run") == []


def test_those_in_use_stay(tmp_path: Path) -> None:
    """Sweeping leaves what another process, or this one, holds."""
    with scratch.hold(str(tmp_path)) as one, scratch.hold(str(tmp_path)) as other:
        scratch.sweep(str(tmp_path))

        assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, (one, other)))


def test_those_of_killed_processes_go(tmp_path: Path) -> None:
    """What a process that was killed left is removed by the next one."""
    code = (
        "import os, signal, sys\n"
        "from cvs.profiles import scratch\n"
        "with scratch.hold(sys.argv[1]):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1

    with scratch.hold(str(tmp_path)) as folder:
        assert os.listdir(tmp_path) == [os.path.basename(folder)]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """A folder without a lock is left alone."""
    (tmp_path / "other").mkdir()
    scratch.sweep(str(tmp_path))

    assert os.listdir(tmp_path) == ["other"]
