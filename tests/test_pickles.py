"""Models that are pickles."""

from pathlib import Path

import locks as made
import modelmaker
import pytest

from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.versions import pickles
from cvs.versions.lock import Model
from cvs.versions.pickles import Pickle


def stored(store: Store, tmp_path: Path, name: str, data: bytes) -> Model:
    """A model that is in the store."""
    (tmp_path / name).write_bytes(data)
    return made.model(f"x/{name}", entry=store.add(str(tmp_path / name)))


def test_files(store: Store, tmp_path: Path) -> None:
    """By the bytes where they are stored, else by the name; what is unknown counts as loaded."""
    models = [
        stored(store, tmp_path, "a.ckpt", modelmaker.torch_zip()),
        stored(store, tmp_path, "b.ckpt", modelmaker.safetensors()),
        stored(store, tmp_path, "c.bin", b"cos\nsystem"),
        stored(store, tmp_path, "d.dat", modelmaker.LEGACY_TORCH),
        stored(store, tmp_path, "e.pt", b"<html>"),
        made.model("x/f.pth", entry=None, sha256=None),
        made.model("x/g.safetensors", entry=None, sha256=None),
    ]
    assert pickles.find(store, models) == [
        Pickle("x/a.ckpt", seen=True),
        Pickle("x/c.bin", seen=True),
        Pickle("x/d.dat", seen=True),
        Pickle("x/e.pt", seen=True),
        Pickle("x/f.pth", seen=False),
    ]


def test_folders(store: Store, tmp_path: Path) -> None:
    """A folder with a pickle in it is one."""
    entries: list[EntryId] = []
    for name, data in {"a": modelmaker.safetensors(), "b": modelmaker.torch_zip()}.items():
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "weights.bin").write_bytes(data)
        entries.append(store.add(str(tmp_path / name)))
    models = [made.model(f"x/{number}", entry=entry) for number, entry in enumerate(entries)]
    assert pickles.find(store, models) == [Pickle("x/1", seen=True)]


def test_refused(store: Store, tmp_path: Path) -> None:
    """Only what is stored, for names alone may be wrong."""
    models = [made.model("x/f.pth", entry=None, sha256=None)]
    pickles.refuse(store, models, "spec.json")
    models.append(stored(store, tmp_path, "a.ckpt", modelmaker.torch_zip()))
    with pytest.raises(InputError, match=r"spec\.json: models/x/a\.ckpt is a pickle, which") as one:
        pickles.refuse(store, models, "spec.json")
    assert one.value.hint is not None and ".safetensors" in one.value.hint


def test_damaged(store: Store, tmp_path: Path) -> None:
    """An entry without a manifest is nobody's to load."""
    model = stored(store, tmp_path, "a.ckpt", modelmaker.torch_zip())
    assert model.entry is not None
    manifest = Path(store.path(model.entry)) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")
    assert pickles.find(store, [model]) == []
