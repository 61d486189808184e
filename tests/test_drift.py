"""Drift: what lies where a version looks and is not in its lock."""

import os
from pathlib import Path

import locks
import pytest

from cvs.profiles import drift, state
from cvs.store.volume import Volume


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def root(volume: Volume) -> Path:
    """The state of a version."""
    return Path(state.prepare(volume, "x", volume.models))


def test_no_drift(volume: Volume, root: Path) -> None:
    """Nothing was added; a version without any state has none either."""
    for version in ("x", "y"):
        assert drift.nodes(volume, version) == []
        assert drift.models(volume, locks.record(version=version)) == []


def test_nodes_added_at_run_time(volume: Volume, root: Path) -> None:
    """Folders and scripts that ComfyUI would load, in order."""
    for name in ("b-node", "A-node", "off.disabled", ".git", "__pycache__"):
        (root / "custom_nodes" / name).mkdir()
    (root / "custom_nodes" / "script.py").write_text("")
    (root / "custom_nodes" / "linked").symlink_to("elsewhere")

    assert drift.nodes(volume, "x") == ["A-node", "b-node", "linked", "script.py"]


def test_loose_models(volume: Volume, root: Path) -> None:
    """Files at any depth that the lock does not have, below MODELS_DIR, in order."""
    for path in (
        "checkpoints/m.safetensors",
        "checkpoints/n.safetensors",
        "vae/deep/er/o.pt",
        "p.bin",
        "checkpoints/put_checkpoints_here",
        ".cache/x",
        "vae/__pycache__/x",
        "vae/.hidden",
    ):
        file = Path(volume.models, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    Path(volume.models, "empty").mkdir()
    Path(volume.models, "linked.pt").symlink_to("p.bin")

    assert drift.models(volume, locks.record()) == [
        "checkpoints/n.safetensors",
        "linked.pt",
        "p.bin",
        "vae/deep/er/o.pt",
    ]


def test_links_are_not_followed(volume: Volume, root: Path) -> None:
    """A link to a folder is shown as one thing: it may lead in a circle."""
    Path(volume.models, "loop").symlink_to(".")

    assert drift.models(volume, locks.record()) == ["loop"]


def test_very_many_models(volume: Volume, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit keeps the list short."""
    monkeypatch.setattr(drift, "LIMIT", 3)
    for number in range(5):
        Path(volume.models, f"{number}.pt").write_text("")

    assert drift.models(volume, locks.record()) == ["0.pt", "1.pt", "2.pt"]


def test_a_models_folder_that_is_gone(volume: Volume, root: Path) -> None:
    """MODELS_DIR need not exist."""
    os.rmdir(volume.models)

    assert drift.models(volume, locks.record()) == []


def test_names_that_no_terminal_should_see(volume: Volume, root: Path) -> None:
    """Whatever a node called its files, their names are text that can be shown."""
    for folder in (root / "custom_nodes", Path(volume.models)):
        for name in (b"a\nb", b"\x1b[31m", b"\xff"):
            Path(folder, os.fsdecode(name)).write_text("")

    expected = ["%1B[31m", "%FF", "a%0Ab"]
    assert drift.nodes(volume, "x") == expected
    assert drift.models(volume, locks.record()) == expected
