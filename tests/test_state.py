"""State: what people write at run time stays, across every switch and wherever the volume is."""

import os
import threading
from pathlib import Path

import locks
import pytest
from faults import fail_at, leftovers

from cvs.profiles import state
from cvs.store import fs
from cvs.store.entries import Store
from cvs.store.errors import StoreError
from cvs.store.volume import Volume

FOLDERS = ["custom_nodes", "input", "output", "temp", "user", "web"]


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The input folder of a core."""
    folder = tmp_path / "examples"
    (folder / "3d").mkdir(parents=True)
    (folder / "example.png").write_bytes(b"png")
    (folder / "link.png").symlink_to("example.png")
    return folder


def test_the_folders(volume: Volume) -> None:
    """All folders are there, and the link to the loose models, which need not exist."""
    root = state.prepare(volume, "x", volume.models)

    assert root == state.folder(volume, "x") == f"{volume.root}/state/x"
    assert sorted(os.listdir(root)) == sorted([*FOLDERS, "models"])
    assert os.readlink(f"{root}/models") == "../../models"
    assert all(os.listdir(f"{root}/{name}") == [] for name in FOLDERS)


def test_preparing_again_changes_nothing(
    volume: Volume, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there stays, to the byte."""
    root = state.prepare(volume, "x", volume.models, examples=str(examples))
    Path(root, "output", "picture.png").write_bytes(b"picture")
    os.unlink(f"{root}/input/example.png")

    def observe(call: str, where: object) -> None:
        raise AssertionError(f"{call} {where}")

    monkeypatch.setattr(fs, "observer", observe)
    state.prepare(volume, "x", volume.models, examples=str(examples))

    assert Path(root, "output", "picture.png").read_bytes() == b"picture"
    assert os.listdir(f"{root}/input") == []


def test_folders_that_are_missing_come_back(volume: Volume) -> None:
    """Whoever deleted one of them has it again, empty."""
    root = state.prepare(volume, "x", volume.models)
    os.rmdir(f"{root}/temp")
    os.unlink(f"{root}/models")
    state.prepare(volume, "x", volume.models)

    assert os.listdir(f"{root}/temp") == []
    assert os.path.islink(f"{root}/models")


# Examples of the core.


def test_a_new_input_folder_has_the_examples(volume: Volume, examples: Path) -> None:
    """Copies, which people may change; folders and links among them are left out."""
    root = state.prepare(volume, "x", volume.models, examples=str(examples))

    assert os.listdir(f"{root}/input") == ["example.png"]
    Path(root, "input", "example.png").write_bytes(b"other")
    assert (examples / "example.png").read_bytes() == b"png"
    assert leftovers(volume) == []


def test_a_core_without_examples(volume: Volume, tmp_path: Path) -> None:
    """Then the input folder is empty."""
    root = state.prepare(volume, "x", volume.models, examples=str(tmp_path / "none"))

    assert os.listdir(f"{root}/input") == []
    assert leftovers(volume) == []


def test_seeding_may_fail(volume: Volume, examples: Path) -> None:
    """Whichever change fails, the examples are all there or come the next time."""
    number, failed = 1, True
    calls = ("mkdir", "create", "write", "close", "rename", "symlink")
    while failed:
        try:
            with fail_at(number, calls=calls):
                state.prepare(volume, "x", volume.models, examples=str(examples))
            failed = False
        except OSError:
            number += 1
        assert leftovers(volume) == []
        folder = Path(volume.state, "x", "input")
        assert not folder.exists() or os.listdir(folder) == ["example.png"]

    assert number > 7


def test_two_hosts_prepare_at_once(
    volume: Volume, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find all folders, and the examples are there once."""
    together = threading.Barrier(2)
    rename = fs.rename

    def meet(source: str, target: str) -> None:
        if target.endswith("/input"):
            together.wait(250)
        rename(source, target)

    monkeypatch.setattr(fs, "rename", meet)
    failures: list[BaseException] = []

    def prepare() -> None:
        try:
            state.prepare(volume, "x", volume.models, examples=str(examples))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert os.listdir(f"{volume.state}/x/input") == ["example.png"]
    assert leftovers(volume) == []


# The loose models.


def test_models_elsewhere(volume: Volume, tmp_path: Path) -> None:
    """MODELS_DIR on another disk is linked by its absolute path, and re-pointed when it moves."""
    for folder in (tmp_path / "models", tmp_path / "others"):
        root = state.prepare(volume, "x", str(folder))

        assert os.readlink(f"{root}/models") == str(folder)


def test_models_beside_the_cache_root(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the volume the link is relative: it leads on wherever the volume is mounted."""
    mount = os.path.dirname(volume.root)
    monkeypatch.setattr(state, "mount_point", lambda _: mount)
    root = state.prepare(volume, "x", f"{mount}/ComfyUI/models")

    assert os.readlink(f"{root}/models") == "../../../ComfyUI/models"


def test_a_folder_in_the_place_of_the_link(volume: Volume) -> None:
    """What someone put there is not removed, and what to do is said."""
    root = Path(state.prepare(volume, "x", volume.models))
    (root / "models").unlink()
    (root / "models").mkdir()
    (root / "models" / "m").write_text("")
    with pytest.raises(StoreError) as caught:
        state.prepare(volume, "x", volume.models)

    assert caught.value.message.startswith(f"{root}/models is not a link to the loose models")
    assert (root / "models" / "m").exists()


def test_mount_points(tmp_path: Path) -> None:
    """The nearest folder above that something is mounted at, also of what does not exist."""
    assert os.path.ismount(state.mount_point(str(tmp_path / "no" / "such")))
    assert state.mount_point("/") == "/"
    assert state.mount_point("/proc/self") == "/proc"


@pytest.mark.parametrize(
    ("path", "folder", "target"),
    [
        ("{root}/models", "{root}/state/x", "../../models"),
        ("{root}/a/b", "{root}/a", "b"),
        ("{mount}/b", "{root}/a", "../../b"),
        ("{mount}/no/such/path", "{mount}/other", "../no/such/path"),
        ("/elsewhere/models", "{root}/a", "/elsewhere/models"),
        ("{root}/a", "/elsewhere", "{root}/a"),
    ],
)
def test_link_targets(
    volume: Volume, path: str, folder: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative where both ends are on the volume, absolute otherwise."""
    mount = os.path.dirname(volume.root)
    names = {"root": volume.root, "mount": mount}

    def mount_point(path: str) -> str:
        return mount if (path + "/").startswith(mount + "/") else "/"

    monkeypatch.setattr(state, "mount_point", mount_point)

    assert state.link_target(path.format(**names), folder.format(**names), volume) == target.format(
        **names
    )


# Private copies.


def test_a_private_copy(store: Store) -> None:
    """A node that writes gets a copy of its own, with modes as they were stored."""
    files = {"__init__.py": b"code", "a/b.txt": b"", "empty": None}
    made = locks.stored(store, nodes={"node": files, "other": files}, private=("node",))
    (place,) = [one for one in made.links if one.private]
    state.ensure_private(store, made)
    folder = Path(store.volume.state, "x", "private")

    assert os.listdir(folder) == [state.private_name(place)]
    copy = folder / state.private_name(place)
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == [
        *("__init__.py", "a", "a/b.txt", "empty"),
    ]
    assert os.stat(copy / "__init__.py").st_mode & 0o777 == 0o644
    (copy / "__init__.py").write_text("changed")
    (copy / "cache").write_text("written")
    state.ensure_private(store, made)
    assert (copy / "__init__.py").read_text() == "changed"
    assert (copy / "cache").read_text() == "written"
    assert Path(store.volume.store, place.target, "__init__.py").read_bytes() == b"code"
    assert leftovers(store.volume) == []


def test_another_commit_has_another_copy(store: Store) -> None:
    """Switching to another commit and back finds each copy as it was left."""
    for data in (b"1", b"2", b"1"):
        made = locks.stored(store, nodes={"node": {"a.py": data}}, private=("node",))
        state.ensure_private(store, made)

    assert len(os.listdir(f"{store.volume.state}/x/private")) == 2


def test_a_private_copy_of_the_page(store: Store) -> None:
    """Nodes put scripts into an older core's web/; it is a whole folder without links out."""
    page = {"web/index.html": b"page", "web/extensions/core/a.js": b"a", "web/none": None}
    made = locks.stored(store, {**locks.CORE, **page, "webs": b"another"})
    state.ensure_private(store, made)
    copy = Path(store.volume.state, "x", "private", state.private_web(made.links[0]))

    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == [
        *("extensions", "extensions/core", "extensions/core/a.js", "index.html", "none"),
    ]
    (copy / "extensions" / "mine").mkdir()
    state.ensure_private(store, made)
    assert (copy / "extensions" / "mine").is_dir()


def test_no_page_no_copy(store: Store) -> None:
    """A core without web/, and one in which it is a file, need none."""
    for files in ({}, {"web": b"a file"}):
        state.ensure_private(store, locks.stored(store, {**locks.CORE, **files}))

    assert not os.path.exists(f"{store.volume.state}/x/private")


def test_copying_may_fail(store: Store) -> None:
    """Whichever change fails, there is no copy or a whole one, and nothing is left."""
    made = locks.stored(store, nodes={"node": {"a.py": b"1", "b/c.py": b"2"}}, private=("node",))
    (place,) = [one for one in made.links if one.private]
    copy = Path(store.volume.state, "x", "private", state.private_name(place))
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number, calls=("mkdir", "create", "write", "close", "rename")):
                state.ensure_private(store, made)
            failed = False
        except OSError:
            number += 1
            assert not copy.exists()
        assert leftovers(store.volume) == []

    assert number > 6
    assert (copy / "b" / "c.py").read_bytes() == b"2"
