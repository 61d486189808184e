"""Every name that a file may have: added, listed, verified and shown as what it is."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hostile import LEGAL_NAMES, listing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import names

from cvs.main import main
from cvs.store import fs, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.ingest import add_path
from cvs.store.manifest import TreeManifest, identity
from cvs.store.tree import PATH_LIMIT, File, Folder, Link
from cvs.store.verify import verify
from cvs.store.volume import Volume

#: What a terminal obeys.
CONTROLS = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))} - {"\n"}


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@st.composite
def folders(draw: st.DrawFn) -> dict[bytes, bytes | None]:
    """Files with their content, and folders: paths of any names, up to the longest."""
    found: dict[bytes, bytes | None] = {}
    legal = names() | st.sampled_from(list(LEGAL_NAMES.values()))
    for parts in draw(st.lists(st.lists(legal, min_size=1, max_size=8), max_size=5)):
        path = b""
        for name in parts:
            inner = path + b"/" + name if path else name
            if len(inner) > PATH_LIMIT or found.get(path) is not None or _meets(found, path, name):
                break
            path = inner
            found.setdefault(path, None)
        if path and found[path] is None and not _has_children(found, path) and draw(st.booleans()):
            found[path] = draw(st.binary(max_size=4))
    return found


def _meets(found: Mapping[bytes, bytes | None], parent: bytes, name: bytes) -> bool:
    """Whether a folder has another name already that is one with this."""
    key = tree.folded(name)
    return any(
        path.rpartition(b"/")[0] == parent and other != name and tree.folded(other) == key
        for path in found
        for other in [path.rpartition(b"/")[2]]
    )


def _has_children(found: Mapping[bytes, bytes | None], path: bytes) -> bool:
    return any(other.startswith(path + b"/") for other in found)


def make(root: Path, files: Mapping[bytes, bytes | None]) -> None:
    """Makes a folder of files and folders."""
    root.mkdir()
    for path, data in sorted(files.items()):
        place = os.fsencode(root) + b"/" + path
        if data is None:
            os.mkdir(place)
        else:
            with open(place, "wb") as file:
                file.write(data)


def seen(store: Store, entry: EntryId) -> dict[bytes, bytes | None]:
    """What an entry has on disk."""
    found: dict[bytes, bytes | None] = {}
    for path, said in listing(Path(store.volume.store, store.content(entry))).items():
        mode, _, data = said.partition(b" ")
        found[path] = None if stat.S_ISDIR(int(mode, 8)) else data
    return found


@given(folders())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_come_back(store: Store, memory: Path, files: dict[bytes, bytes | None]) -> None:
    """A folder of any names is stored as it is, listed in its manifest, and found to be whole."""
    make(memory / "given", files)
    try:
        entry = add_path(store, str(memory / "given"), name="tree")
        document = store.manifest(entry)
        assert isinstance(document, TreeManifest)
        assert {tree.unquote(node.path) for node in document.nodes} == files.keys()
        assert identity(document) == entry
        assert seen(store, entry) == files
        assert list(verify(store, entry)) == []
        for node in document.nodes:
            assert not CONTROLS & set(node.path)
    finally:
        fs.remove_tree(str(memory / "given"))


class Shown:
    """What commands print about the store of a volume."""

    def __init__(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self._capsys = capsys

    def run(self, *arguments: str) -> str:
        """Runs a command; whatever it prints is fit for a terminal and can be encoded."""
        main(["store", *arguments])
        printed = self._capsys.readouterr()
        for text in printed:
            assert not CONTROLS & set(text)
            text.encode()
        return printed.out

    def everything(self, entry: EntryId) -> str:
        """What all actions that look at an entry print."""
        actions = [("ls",), ("show", entry), ("verify", entry), ("verify",), ("du",)]
        actions += [(*action, "--json") for action in actions]
        return "".join(self.run(*action) for action in actions)


@pytest.fixture
def shown(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shown]:
    """The commands, run on the store."""
    monkeypatch.setenv("COMFY_CACHE_ROOT", store.volume.root)
    yield Shown(store, capsys)


@pytest.mark.parametrize("name", LEGAL_NAMES.values(), ids=list(LEGAL_NAMES))
def test_names_are_shown(name: bytes, shown: Shown, memory: Path) -> None:
    """Whole or damaged, an entry of such names is listed, shown and verified without a character
    that a terminal would obey."""
    store = shown.store
    make(memory / "given", {name: b"1", b"d": None, b"d/" + name: b"2", b"e": None})
    os.symlink(name, os.fsencode(memory / "given/e") + b"/" + name)
    text = name.decode("utf-8", "replace")
    entry = add_path(store, str(memory / "given"), name="tree" if "\ufffd" in text else text)

    assert "all well" in shown.everything(entry)
    root = os.fsencode(os.path.join(store.volume.store, store.content(entry)))
    os.unlink(root + b"/" + name)
    os.unlink(root + b"/e/" + name)
    with open(root + b"/e/" + name, "wb"):
        pass
    with open(os.fsencode(store.path(entry)) + b"/" + b"2" + name[:254], "wb"):
        pass
    os.chmod(root + b"/d/" + name, 0o644)
    with open(root + b"/d/" + name, "wb") as file:
        file.write(b"3")
    said = shown.everything(entry)
    place = tree.quote(name)
    for what in (f"{place} is missing", f"d/{place} has other bytes", f"e/{place} is not a link"):
        assert what in said


def test_a_path_of_the_greatest_length(shown: Shown, memory: Path) -> None:
    """The longest path has 1,024 bytes, whatever its names are; one more byte is too long."""
    for number, name in enumerate((b"\xff", b"n" * 204)):
        path = b"/".join([name] * PATH_LIMIT)[:PATH_LIMIT].rstrip(b"/")
        path += b"b" * (PATH_LIMIT - len(path))
        parts = path.split(b"/")
        above = [b"/".join(parts[: depth + 1]) for depth in range(len(parts) - 1)]
        make(memory / str(number), {**dict.fromkeys(above), path: b"x"})
        entry = add_path(shown.store, str(memory / str(number)))

        assert len(path) == PATH_LIMIT
        assert seen(shown.store, entry)[path] == b"x"
        assert "all well" in shown.everything(entry)


def test_nodes_of_every_kind(store: Store) -> None:
    """A file, a link and a folder of each name lie beside those of all other names."""
    with store.stage() as stage:
        writer = stage.tree("tree")
        for name in LEGAL_NAMES.values():
            writer.write(b"files/" + name, name)
            writer.link(b"links/" + name, b"../files/" + name)
            writer.folder(b"folders/" + name)
        (entry,) = store.publish(writer.finish())
    document = store.manifest(entry)
    assert isinstance(document, TreeManifest)

    found = {node.path: node for node in document.nodes}
    for name in LEGAL_NAMES.values():
        quoted = tree.quote(name)
        assert isinstance(found[f"files/{quoted}"], File)
        assert isinstance(found[f"folders/{quoted}"], Folder)
        assert found[f"links/{quoted}"] == Link(f"links/{quoted}", f"../files/{quoted}")
        root = os.fsencode(os.path.join(store.volume.store, store.content(entry)))
        with open(root + b"/links/" + name, "rb") as file:
            assert file.read() == name
    assert list(verify(store, entry)) == []
