"""Which files of a folder are models to be taken in, and what is done with many."""

import functools
import os
import threading
from pathlib import Path

import modelmaker
import pytest

from cvs.profiles.state import link_target
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.versions import adoption
from cvs.versions.access import Access
from cvs.versions.parallel import Stopped


@pytest.mark.parametrize(
    ("name", "size", "model", "everything"),
    [
        ("a.safetensors", 5000, True, True),
        ("A.SAFETENSORS", 5000, True, True),
        ("a.bin", 1024, True, True),
        ("a.bin", 1023, False, True),
        ("a.safetensors", 0, False, False),
        ("a.png", 5000, False, True),
        ("model.json", 5000, False, False),
        ("vocabulary.json", 2 << 20, False, True),
        ("v1.yaml", 5000, False, False),
        ("put_checkpoints_here", 0, False, False),
        ("put_loras_here", 20, False, False),
        ("put_on.safetensors", 5000, True, True),
    ],
)
def test_which_files(name: str, size: int, model: bool, everything: bool) -> None:
    """By suffix and size; placeholders, empty files and notes are never taken."""
    assert adoption.is_wanted(name, size) == model
    assert adoption.is_wanted(name, size, everything=True) == everything


def test_what_is_found(store: Store, tmp_path: Path) -> None:
    """Each file once, whatever its names; links, hidden ones and cvs's own folders are passed."""
    root = Path(store.volume.root)
    data = modelmaker.safetensors(b"1234" * 300)
    (root / "models" / "a.safetensors").write_bytes(data)
    os.link(root / "models" / "a.safetensors", root / "models" / "b.safetensors")
    (root / "models" / ".hidden").mkdir()
    (root / "models" / ".hidden" / "c.safetensors").write_bytes(data)
    (root / "models" / "d.safetensors").symlink_to("a.safetensors")
    (root / "models" / "folder").symlink_to(".hidden")
    store.add(str(root / "models" / "a.safetensors"))
    found = adoption.find(store, str(root))
    assert [[os.path.basename(path) for path in one.paths] for one in found.groups] == [
        ["a.safetensors", "b.safetensors"]
    ]
    assert found.links == 2


@pytest.mark.parametrize("name", ["store", "tmp", "pins", "refs/x", "nowhere", "format"])
def test_no_folder_for_it(store: Store, name: str) -> None:
    """What is no folder, and what is cvs's own."""
    (Path(store.volume.refs) / "x").mkdir()
    with pytest.raises(InputError, match=r"is not a folder|is a folder of cvs itself"):
        adoption.find(store, os.path.join(store.volume.root, name))


def test_two_runs_at_once(store: Store) -> None:
    """What another run took in meanwhile, or cannot be read, stays; the others go on."""
    folder = Path(store.volume.models)
    for number in range(4):
        path = folder / f"{number}.safetensors"
        path.write_bytes(modelmaker.safetensors(b"%04d" % number * 300))
    target = functools.partial(link_target, volume=store.volume)
    found = adoption.find(store, str(folder)).groups
    adoption.adopt(store, found[:1], Access(), copy=False, link_target=target)
    (folder / "1.safetensors").unlink()
    outcomes = adoption.adopt(store, found, Access(), copy=False, link_target=target)
    assert [(one.state, one.why) for one in outcomes] == [
        ("left", "it is a link by now"),
        ("left", "it cannot be read: No such file or directory"),
        ("adopted", ""),
        ("adopted", ""),
    ]
    compared = adoption.compare(store, found, Access())
    assert [(one.state, one.why) for one in compared][1:3] == [
        ("left", "it cannot be read: No such file or directory"),
        ("left", "it is a link by now"),
    ]


def test_an_end(store: Store) -> None:
    """What is told to stop stops, and what was taken in stays so."""
    folder = Path(store.volume.models)
    for number in range(6):
        path = folder / f"{number}.safetensors"
        path.write_bytes(modelmaker.safetensors(b"%04d" % number * 300))
    stop = threading.Event()
    access = Access(stop=stop)
    target = functools.partial(link_target, volume=store.volume)
    found = adoption.find(store, str(folder)).groups
    adoption.adopt(store, found[:2], access, copy=False, link_target=target)
    stop.set()
    with pytest.raises(Stopped):
        adoption.adopt(store, found[2:], access, copy=False, link_target=target)
    assert [path.is_symlink() for path in sorted(folder.iterdir())] == [True] * 2 + [False] * 4
