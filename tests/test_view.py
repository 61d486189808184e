"""The view: ComfyUI's own folder, of links into the store, the same wherever the volume is."""

import errno
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import locks
import pytest
import yaml
from faults import fail_at, leftovers
from hypothesis import given
from hypothesis import strategies as st
from world import DEMO, OLD, files_of

from cvs.profiles import state, view
from cvs.profiles.generations import Profile
from cvs.store import damage, fs, manifest
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError, IntegrityError
from cvs.store.record import Record
from cvs.store.volume import Volume

NODES = {"node": {"__init__.py": b"node"}, "with space": {"a/b.py": b""}}
MODELS = {
    "checkpoints/m.safetensors": b"m",
    "vae/deep/er/n.gguf": b"n",
    "new/o.bin": b"o",
    "p.bin": b"p",
}


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def whole(store: Store) -> Record:
    """A record of a core with nodes and models, current as generation 1."""
    made = locks.stored(store, nodes=NODES, models=MODELS)
    locks.generation(store, made)
    return made


@pytest.fixture
def root(store: Store, whole: Record) -> Path:
    """Its view."""
    return Path(Profile(store.volume, whole.version).view(1))


def shape(root: Path) -> dict[str, str]:
    """What lies at every path: `folder`, `file`, or the target of a link."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            kind = "folder" if path.is_dir() else "file"
            if path.is_symlink():
                kind = os.readlink(path)
            found[str(path.relative_to(root))] = kind
    return found


def build(store: Store, record: Record) -> dict[str, str]:
    """The shape of a view that is built and dropped."""
    with view.building(store, record) as staged:
        return shape(Path(staged))


# What it consists of.


def test_the_whole_view(whole: Record, root: Path) -> None:
    """Copies of the core's scripts, links to all else, real folders where something is added."""
    targets = {place.path: place.target for place in whole.links}
    core = targets[""]

    assert shape(root) == {
        "main.py": "file",
        "folder_paths.py": "file",
        "extra_model_paths.yaml": "file",
        "comfy": f"../../../store/{core}/comfy",
        "utils": f"../../../store/{core}/utils",
        "requirements.txt": f"../../../store/{core}/requirements.txt",
        "input": "../../../state/x/input",
        "output": "../../../state/x/output",
        "temp": "../../../state/x/temp",
        "user": "../../../state/x/user",
        "web": "../../../state/x/web",
        "custom_nodes": "folder",
        "custom_nodes/example_node.py.example": (
            f"../../../../store/{core}/custom_nodes/example_node.py.example"
        ),
        "custom_nodes/node": f"../../../../store/{targets['custom_nodes/node']}",
        "custom_nodes/with space": f"../../../../store/{targets['custom_nodes/with space']}",
        "models": "folder",
        "models/checkpoints": "folder",
        "models/checkpoints/put_checkpoints_here": (
            f"../../../../../store/{core}/models/checkpoints/put_checkpoints_here"
        ),
        "models/checkpoints/m.safetensors": (
            f"../../../../../store/{targets['models/checkpoints/m.safetensors']}"
        ),
        "models/vae": "folder",
        "models/vae/deep": "folder",
        "models/vae/deep/er": "folder",
        "models/vae/deep/er/n.gguf": (
            f"../../../../../../../store/{targets['models/vae/deep/er/n.gguf']}"
        ),
        "models/new": "folder",
        "models/new/o.bin": f"../../../../../store/{targets['models/new/o.bin']}",
        "models/p.bin": f"../../../../store/{targets['models/p.bin']}",
    }


def test_everything_in_it_resolves(root: Path) -> None:
    """Every link leads to what it is called after."""
    assert (root / "main.py").read_bytes() == locks.CORE["main.py"]
    assert (root / "custom_nodes" / "node" / "__init__.py").read_bytes() == b"node"
    for path, data in MODELS.items():
        assert (root / "models" / path).read_bytes() == data
    assert [path for path in shape(root) if not (root / path).exists()] == []


def test_models_keep_the_suffix_that_loaders_look_at(root: Path) -> None:
    """Some loaders look at the name that a link really leads to."""
    for path in ("checkpoints/m.safetensors", "vae/deep/er/n.gguf"):
        real = os.path.realpath(root / "models" / path)

        assert os.path.splitext(real)[1] == os.path.splitext(path)[1]


def test_the_real_path_of_the_script_is_in_the_view(root: Path) -> None:
    """Python and ComfyUI look around the real path of main.py."""
    for name in ("main.py", "folder_paths.py"):
        assert os.path.realpath(root / name) == os.path.join(os.path.realpath(root), name)


def test_a_core_alone(store: Store) -> None:
    """Without nodes and models the core's own are shown, in folders that could take more."""
    made = locks.stored(store)
    core = made.links[0].target
    found = build(store, made)

    assert found["models"] == found["custom_nodes"] == "folder"
    assert found["models/vae"] == f"../../../../store/{core}/models/vae"
    assert [path for path in found if path.startswith("models/checkpoints/")] == []


def test_a_core_of_next_to_nothing(store: Store) -> None:
    """A core without models, nodes and input folders gets them."""
    found = build(store, locks.stored(store, {"main.py": b""}, models={"a/b": b"1"}))

    assert sorted(path for path in found if "/" not in path) == sorted(
        ["main.py", "custom_nodes", "models", view.EXTRA_PATHS, "web", *state.LINKED]
    )
    assert found["models/a"] == "folder"


def test_what_the_core_has_in_our_places(store: Store) -> None:
    """Its input and output folders and its extra_model_paths.yaml give way; web/ is a copy."""
    files = {
        **locks.CORE,
        "output/x": b"",
        "temp": b"",
        "web/index.html": b"",
        view.EXTRA_PATHS: b"#",
    }
    made = locks.stored(store, files)
    found = build(store, made)

    assert {name: found[name] for name in state.LINKED} == {
        name: f"../../../state/x/{name}" for name in state.LINKED
    }
    assert found[view.EXTRA_PATHS] == "file"
    assert found["web"] == f"../../../state/x/private/{state.private_web(made.links[0])}"


@pytest.mark.parametrize("files", [{"web": b"a file"}, {"webs/x": b""}])
def test_a_core_without_a_page(store: Store, files: dict[str, bytes]) -> None:
    """web/ is there all the same, for nodes that put scripts into it."""
    found = build(store, locks.stored(store, {**locks.CORE, **files}))

    assert found["web"] == "../../../state/x/web"


def test_top_level_names_that_look_like_scripts(store: Store) -> None:
    """A folder called `x.py` is linked, a link to a script is copied; hidden files are there."""
    with store.stage() as stage:
        writer = stage.tree("ComfyUI")
        writer.write(b"real.py", b"code")
        writer.link(b"linked.py", b"real.py")
        writer.write(b"folder.py/x", b"")
        writer.write(b".hidden", b"")
        writer.write(b"\xff.txt", b"")
        (core,) = store.publish(writer.finish())
    made = locks.stored(store)
    links = (locks.Place("", store.content(core)),)
    found = build(store, locks.record(entries=made.entries, links=links))

    assert found["linked.py"] == found["real.py"] == "file"
    assert found["folder.py"] == f"../../../store/{core}/ComfyUI/folder.py"
    assert {".hidden", "\udcff.txt"} < set(found)


def test_a_private_copy(store: Store) -> None:
    """A node that writes into its folder is shown from the version's state."""
    made = locks.stored(store, nodes=NODES, private=("node",))
    locks.generation(store, made)
    root = Path(Profile(store.volume, "x").view(1))
    (place,) = [one for one in made.links if one.private]

    assert os.readlink(root / "custom_nodes" / "node") == (
        f"../../../../state/x/private/{state.private_name(place)}"
    )
    (root / "custom_nodes" / "node" / "cache.txt").write_text("written")
    assert os.listdir(Path(store.volume.store, place.target)) == ["__init__.py"]


# What is refused.


@pytest.mark.parametrize(
    ("nodes", "models", "path"),
    [
        ({"example_node.py.example": {"a": b""}}, {}, "custom_nodes/example_node.py.example"),
        ({}, {"vae": b""}, "models/vae"),
        (
            {},
            {"checkpoints/put_checkpoints_here": b""},
            "models/checkpoints/put_checkpoints_here",
        ),
    ],
)
def test_names_of_the_core_itself(
    store: Store,
    nodes: Mapping[str, Mapping[str, bytes | None]],
    models: Mapping[str, bytes],
    path: str,
) -> None:
    """What the core brings along is never hidden: there is no view, and nothing is left."""
    made = locks.stored(store, nodes=nodes, models=models)
    with pytest.raises(InputError) as caught:
        locks.generation(store, made)

    assert caught.value.message == f"{path} is part of ComfyUI itself, nothing can be put there"
    assert Profile(store.volume, "x").numbers() == []
    assert leftovers(store.volume) == []
    assert os.listdir(store.volume.leases) == []


def test_what_was_found_damaged(store: Store, whole: Record) -> None:
    """No view is made of a damaged entry."""
    damage.mark(store.volume, whole.entries[1])
    with pytest.raises(IntegrityError, match=f"entry {whole.entries[1][:16]} is damaged"):
        build(store, whole)
    assert leftovers(store.volume) == []


def test_a_core_that_is_gone(store: Store) -> None:
    """A view of what is not stored is not begun."""
    made = locks.stored(store)
    os.rename(store.path(made.entries[0]), os.path.join(store.volume.root, "gone"))
    os.rename(store.path(made.entries[1]), os.path.join(store.volume.root, "gone too"))
    with pytest.raises(EntryMissing), view.building(store, made):
        pass

    assert leftovers(store.volume) == []


# extra_model_paths.yaml.


def extra(store: Store, files: Mapping[str, bytes | None]) -> dict[str, dict[str, object]]:
    """What the view of a core with these files says in its extra_model_paths.yaml."""
    with view.building(store, locks.stored(store, files)) as staged:
        text = Path(staged, view.EXTRA_PATHS).read_text()
    found: dict[str, dict[str, object]] = yaml.safe_load(text)
    return found


FOLDER_PATHS = b"""
folder_names_and_paths = {}
models_dir = os.path.join(base_path, "models")
folder_names_and_paths["checkpoints"] = ([os.path.join(models_dir, "checkpoints")], exts)
folder_names_and_paths["text_encoders"] = (
    [os.path.join(models_dir, "text_encoders"), os.path.join(models_dir, "clip")], exts)
folder_names_and_paths["deep"] = ([os.path.join(models_dir, "a", "b")], exts)
folder_names_and_paths["custom_nodes"] = ([os.path.join(base_path, "custom_nodes")], set())
folder_names_and_paths[name] = ([os.path.join(models_dir, "unknown")], exts)
folder_names_and_paths["computed"] = ([os.path.join(models_dir, name)], exts)
other["x"] = ([os.path.join(models_dir, "x")], exts)
"""


def test_extra_paths(store: Store) -> None:
    """Nodes added at run time and loose models, for every folder that the core knows."""
    assert extra(store, {**locks.CORE, "folder_paths.py": FOLDER_PATHS}) == {
        "cvs_state": {
            "base_path": "../../../state/x",
            "is_default": True,
            "custom_nodes": "custom_nodes",
        },
        "cvs_models": {
            "base_path": "../../../state/x/models",
            "checkpoints": "checkpoints",
            "deep": "a/b",
            "text_encoders": "text_encoders\nclip\n",
            "vae": "vae",
        },
    }


@pytest.mark.parametrize("file", ["utils/extra_config.py", "main.py"])
def test_cores_that_know_is_default(store: Store, file: str) -> None:
    """The key is written where the core's reader knows it: an older one would take it for a
    folder of models and crash."""
    old = {**locks.CORE, "utils/extra_config.py": b""}

    assert "is_default" not in extra(store, old)["cvs_state"]
    assert extra(store, {**old, file: b'x.pop("is_default")'})["cvs_state"]["is_default"] is True


@pytest.mark.parametrize("over", [None, OLD])
def test_the_shipped_cores(store: Store, over: Path | None) -> None:
    """The small core knows the key, the one of 2024 does not; both have their folders told."""
    files = {os.fsdecode(path): data for path, data in files_of(DEMO / "core", over).items()}
    found = extra(store, {path: data for path, data in files.items() if isinstance(data, bytes)})

    assert ("is_default" in found["cvs_state"]) is (over is None)
    assert found["cvs_models"]["checkpoints"] == "checkpoints"


@pytest.mark.parametrize("text", [b"def (", b"\0", b"\xff\xfe", None])
def test_folder_paths_that_cannot_be_read(store: Store, text: bytes | None) -> None:
    """Then the folders that lie in the core's models/ count."""
    files = {**locks.CORE, "folder_paths.py": text}
    if text is None:
        del files["folder_paths.py"]

    assert extra(store, files)["cvs_models"] == {
        "base_path": "../../../state/x/models",
        "checkpoints": "checkpoints",
        "vae": "vae",
    }


def test_folders_of_odd_names(store: Store) -> None:
    """What YAML would read otherwise is quoted; what no text can say is left out."""
    with store.stage() as stage:
        writer = stage.tree("ComfyUI")
        for name in (b"on", b"2024", b"a: b", b"#x", b"-", b"\xff", b"a\nb", b" c"):
            writer.folder(b"models/" + name)
        (core,) = store.publish(writer.finish())
    made = locks.record(links=(locks.Place("", store.content(core)),))
    with view.building(store, made) as staged:
        found = yaml.safe_load(Path(staged, view.EXTRA_PATHS).read_text())

    assert found["cvs_models"] == {
        "base_path": "../../../state/x/models",
        **{name: name for name in ("on", "2024", "a: b", "#x", "-")},
    }


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6),
        st.lists(
            st.text(alphabet="ab:#'\"{}[]&*!|>%@,-?", min_size=1, max_size=4),
            min_size=1,
            max_size=1,
        ),
        max_size=4,
    )
)
def test_any_folders(folders: dict[str, list[str]]) -> None:
    """Whatever folders are called, the text says it."""
    folders.pop("base_path", None)
    found = yaml.safe_load(view.extra_paths("x", folders, True))["cvs_models"]
    del found["base_path"]

    assert found == {name: paths[0] for name, paths in folders.items()}


# One volume, mounted at different places.


def test_the_volume_may_lie_elsewhere(store: Store, root: Path) -> None:
    """Every link is relative and leads on when the volume is mounted at another place."""
    volume = store.volume
    moved = volume.root + "-moved"
    before = shape(Path(volume.root))
    assert not [target for target in before.values() if target.startswith("/")]
    os.rename(volume.root, moved)
    after = Path(moved, root.relative_to(volume.root))

    # The links of the reserve lead nowhere on purpose.
    shown = [path for path in before if not path.startswith("reserve/")]
    assert [path for path in shown if not Path(moved, path).exists()] == []
    assert (after / "models" / "checkpoints" / "m.safetensors").read_bytes() == b"m"
    assert os.path.samefile(Path(moved, "profiles", "x", "current"), after)
    assert volume.root not in (after / view.EXTRA_PATHS).read_text()
    again = view.ensure(Store(Volume(moved)), Profile(Volume(moved), "x"), 1)
    assert again == str(after)


# Building it.


def test_a_view_that_is_there_is_kept(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to do is nothing done."""

    def observe(call: str, where: object) -> None:
        raise AssertionError(f"{call} {where}")

    monkeypatch.setattr(fs, "observer", observe)

    assert view.ensure(store, Profile(store.volume, "x"), 1) == str(root)


def test_a_view_that_was_deleted_is_built_again(store: Store, root: Path) -> None:
    """From the record and the store alone, to the same links."""
    before = shape(root)
    fs.remove_tree(str(root))
    view.ensure(store, Profile(store.volume, "x"), 1)

    assert shape(root) == before
    assert leftovers(store.volume) == []


def test_a_view_of_no_generation(store: Store, whole: Record) -> None:
    """There is a view where there is a record."""
    with pytest.raises(InputError, match="x has no generation 2"):
        view.ensure(store, Profile(store.volume, "x"), 2)


def test_two_build_it_at_once(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that miss a view at the same moment all have it, and there is one."""
    before = shape(root)
    fs.remove_tree(str(root))
    together = threading.Barrier(3)
    sync = fs.sync_tree

    def meet(path: str, filesystem: str) -> None:
        sync(path, filesystem)
        together.wait(250)

    monkeypatch.setattr(fs, "sync_tree", meet)
    found: list[str] = []
    work: Callable[[], None] = lambda: found.append(  # noqa: E731
        view.ensure(store, Profile(store.volume, "x"), 1)
    )
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [str(root)] * 3
    assert shape(root) == before
    assert leftovers(store.volume) == []


@pytest.mark.parametrize("filesystem", ["ext4", "fuse.mfs"])
def test_building_may_fail(store: Store, root: Path, filesystem: str) -> None:
    """Whichever change fails there is no view or a whole one, and nothing is left in tmp/."""
    store.volume._filesystem = filesystem
    profile = Profile(store.volume, "x")
    before = shape(root)
    calls = ("mkdir", "symlink", "create", "write", "close", "fsync", "syncfs", "rename")
    number, failed = 1, True
    while failed:
        fs.remove_tree(str(root))
        try:
            with fail_at(number, code=errno.EDQUOT, calls=calls):
                view.ensure(store, profile, 1)
            failed = False
        except OSError:
            number += 7
            assert not root.exists()
        assert leftovers(store.volume) == []

    assert number > 20
    assert shape(root) == before


def test_a_built_view_holds_no_manifest(root: Path) -> None:
    """What belongs to the store alone is not shown."""
    assert manifest.NAME not in {Path(path).name for path in shape(root)}
