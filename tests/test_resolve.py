"""Resolving: what is fresh stays, what changed is resolved alone, pins move only when asked to.

Git, the interpreter and the resolver of packages are stand-ins that count what they are asked;
store, specs, requirement files and models are the real ones.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import locks
import msgspec
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, OfflineError
from cvs.store.manifest import content_size
from cvs.store.volume import Volume
from cvs.versions import git, interpreter, locate, models, python, resolve
from cvs.versions import lock as documents
from cvs.versions import spec as specs
from cvs.versions.access import Access
from cvs.versions.git_refs import Resolved
from cvs.versions.lock import Lock, Python
from cvs.versions.repository import Repository
from cvs.versions.requirements import Requirement
from cvs.versions.spec import Spec

Small = Callable[..., Any]

CORE, NODE, OTHER = (f"https://example.org/o/{name}" for name in ("core", "node", "other"))
PARTS = ["core", "nodes", "python", "models", "interpreter"]
ALLOWED = Access(allow_local=True)


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


class World:
    """Repositories and packages, and what was asked of them."""

    def __init__(self) -> None:
        self.tips: dict[tuple[str, str | None], str] = {}
        """The commit that a ref of a repository names now; another one every time by default."""
        self.requirements: dict[str, bytes] = {}
        """The requirements.txt of every commit of a repository, by its name."""
        self.dates: dict[str, str] = {}
        self.asked: list[str] = []
        self.fetched: list[tuple[str, str]] = []
        self.chosen: list[dict[str, Any]] = []
        """Of every choice of packages: what was wanted, and the arguments."""

    def resolve(self, repository: Repository, ref: str | None, **_: Any) -> Resolved:
        """Stands in for `git.resolve`."""
        self.asked.append(repository.name)
        known = self.tips.get((repository.name, ref))
        moving = blake3(f"{repository.name} {ref} {len(self.asked)}".encode()).hexdigest()[:40]
        return Resolved(known or moving, "branch")

    def fetch_commit(
        self, store: Store, repository: Repository, commit: str, name: str, **_: Any
    ) -> git.FetchedCommit:
        """Stands in for `git.fetch_commit`."""
        self.fetched.append((name, commit))
        files = {"main.py": commit.encode()}
        if text := self.requirements.get(repository.name):
            files["requirements.txt"] = text
        with store.stage() as stage:
            writer = stage.tree(name)
            for path, data in files.items():
                writer.write(path.encode(), data)
            (entry,) = store.publish(writer.finish())
        return git.FetchedCommit(
            repo=repository.public,
            commit=commit,
            date=self.dates.get(repository.name, "2024-01-01T00:00:00Z"),
            entry=entry,
            size=content_size(store.manifest(entry)),
            submodules=(),
            lfs=(),
        )

    def choose(self, wanted: Sequence[Requirement], **arguments: Any) -> Python:
        """Stands in for `python.resolve`."""
        self.chosen.append({"wanted": [one.text for one in wanted], **arguments})
        return Python(
            interpreter=arguments["probe"].interpreter,
            exclude_newer=arguments["exclude_newer"],
            wheels=tuple(locks.wheel(f"package{index}") for index in range(len(wanted))),
            ignored=tuple(arguments["ignored"]),
        )

    def forget(self) -> None:
        """Counts from here on."""
        self.asked, self.fetched, self.chosen = [], [], []

    def calls(self) -> tuple[int, int, int]:
        """How often a ref was asked for, a commit fetched, packages chosen."""
        return len(self.asked), len(self.fetched), len(self.chosen)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Stand-ins in the place of git, the interpreter and the resolver of packages."""
    made = World()
    monkeypatch.setattr(git, "resolve", made.resolve)
    monkeypatch.setattr(git, "fetch_commit", made.fetch_commit)
    monkeypatch.setattr(python, "resolve", made.choose)
    monkeypatch.setattr(interpreter, "find", lambda version, _: f"/usr/bin/python{version}")

    def probe(path: str) -> interpreter.Probe:
        version = path.removeprefix("/usr/bin/python")
        version = "3.11" if version == "None" else version
        return msgspec.structs.replace(locks.PROBE, version=f"{version}.4")

    monkeypatch.setattr(interpreter, "probe", probe)
    return made


def document(**fields: Any) -> dict[str, Any]:
    """A spec with one of everything, and fields in place of its own."""
    return {
        "schema_version": 2,
        "version_id": "x",
        "comfy": {"repo": CORE, "ref": "master"},
        "custom_nodes": [{"repo": NODE}, {"repo": OTHER, "ref": "v1"}],
        "models": [{"source": "https://example.org/m.st", "target_subdir": "loras"}],
        "python_packages": ["onnx"],
        **fields,
    }


def spec(file: str = "versions/x.json", **fields: Any) -> Spec:
    """The spec of a document with these fields."""
    return specs.parse(document(**fields), file)


@pytest.fixture
def known(store: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """The lock of the spec, resolved before; nothing is counted of that."""
    described = []

    def describe(_store: Store, wanted: specs.Model, _: Access) -> documents.Model:
        described.append(wanted.path)
        return locks.model(
            wanted.path, request=wanted.request, source=wanted.source, sha256=None, entry=None
        )

    monkeypatch.setattr(locate, "describe", describe)
    found = resolve.resolve(store, spec(), None, ALLOWED)
    assert world.calls() == (3, 3, 1)
    assert described == ["loras/m.st"]
    world.forget()
    return found


# All of it.


def test_everything_is_locked(store: Store, world: World) -> None:
    """Every input of the spec stands in the lock, with what was learned of it."""
    world.requirements = {"core": b"torch\nnumpy<2\n", "other": b"-e .\nnumpy\n"}
    world.dates = {"core": "2024-01-01T00:00:00Z", "node": "2024-03-01T00:00:00Z"}
    world.tips = {("core", "master"): "a" * 40, ("node", None): "b" * 40}
    wanted = spec(
        custom_nodes=[{"repo": NODE}, {"repo": OTHER, "ref": "v1", "commit": "d" * 40}],
        models=[{"source": "https://me:pass@example.org/m.st?token=1", "checksum": "4" * 64}],
        options={"skip_models": True},
    )
    found = resolve.resolve(store, wanted, None, ALLOWED)

    assert (found.schema_version, found.version_id) == (documents.SCHEMA, "x")
    assert found.parts == resolve.parts(wanted)
    assert [
        (one.name, one.repo, one.ref, one.commit, one.date) for one in (found.core, *found.nodes)
    ] == [
        ("ComfyUI", CORE, "master", "a" * 40, "2024-01-01T00:00:00Z"),
        ("node", NODE, None, "b" * 40, "2024-03-01T00:00:00Z"),
        ("other", OTHER, "v1", "d" * 40, "2024-01-01T00:00:00Z"),
    ]
    assert sorted(world.asked) == ["core", "node"], "a commit that is given is not asked for"
    assert all(store.has(one.entry) for one in (found.core, *found.nodes))
    (model,) = found.models
    assert (model.source, model.sha256, model.entry) == ("https://example.org/m.st", "4" * 64, None)
    (choice,) = world.chosen
    assert sorted(choice["wanted"]) == ["numpy", "numpy<2", "onnx", "torch"]
    assert choice["exclude_newer"] == "2024-03-01T00:00:00Z"
    assert choice["previous"] is None
    assert found.python.ignored == ("other: -e .",)
    assert documents.decode(documents.encode(found), "x") == found


def test_a_node_may_be_called_like_the_core(store: Store, world: World) -> None:
    """Core and node of one name keep to their own pins."""
    wanted = spec(custom_nodes=[{"repo": NODE, "name": "ComfyUI"}], models=[])
    first = resolve.resolve(store, wanted, None, ALLOWED)
    world.forget()
    again = resolve.resolve(
        store,
        spec(custom_nodes=[{"repo": NODE, "name": "ComfyUI"}], models=[], python_packages=[]),
        first,
        ALLOWED,
    )

    assert (again.core, again.nodes) == (first.core, first.nodes)
    assert world.calls() == (0, 0, 1)


# What makes stale, and what does not.


def test_without_a_lock_all_is_stale() -> None:
    """Where there is no lock, every part has to be resolved."""
    assert resolve.stale(spec(), None) == PARTS


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"env": {"A": "1"}},
        {"options": {"offline": True, "skip_models": True}},
        {"comfy": {"ref": "master", "repo": CORE}},
        {"comfy": {"repo": f"{CORE}@master"}},
        {"custom_nodes": [{"name": "node", "repo": NODE}, {"repo": f"{OTHER}@v1"}]},
        {"custom_nodes": [{"repo": NODE, "writable": True}, {"repo": OTHER, "ref": "v1"}]},
        {"models": [{"source": "https://example.org/m.st", "path": "$MODELS_DIR/loras/m.st"}]},
        {"python_packages": [" onnx "]},
        {"python": {}},
        {"python": {"find_links": []}},
        {"python": {"no_build": True}},
        {"python": {"overlaps": ["bin/*"]}},
    ],
)
def test_what_never_makes_stale(
    store: Store, world: World, known: Lock, fields: dict[str, Any]
) -> None:
    """Variables, options, and the same thing written otherwise leave the lock as it is."""
    wanted = spec(**fields)

    assert resolve.stale(wanted, known) == []
    assert resolve.resolve(store, wanted, known, ALLOWED) is known
    assert world.calls() == (0, 0, 0)


def test_settings_that_came_later_leave_older_locks_fresh() -> None:
    """The digest of a spec without them is what it was before there were any."""
    older = "f4273cc8b40d4cbd92082fa0202497daf4856a68928b54db3e2d5edeb087d8b8"
    settings = {"overrides": ["numpy<2"], "exclude_newer": "core"}
    with_settings = "3c092ede76a80b7a5c4ea415b8b0f0e76d377676726bc1651a2a8e288d6b9b08"

    assert resolve.parts(spec(python_packages=["a"])).python == older
    assert resolve.parts(spec(python_packages=["a"], python=settings)).python == with_settings


def test_an_install_that_is_to_run_makes_nodes_stale(
    store: Store, world: World, known: Lock
) -> None:
    """The commit stays, also of a branch that moved; without it what was installed is forgotten.

    The digest of nodes without it is what it was before there was the field.
    """
    nodes = "8198bf55c7a1f8de3e995d0a0b076ec80bd53c925aef814d583fde6bdedac92b"
    assert resolve.parts(spec()).nodes == nodes
    wanted = spec(custom_nodes=[{"repo": NODE, "run_install": True}, {"repo": OTHER, "ref": "v1"}])
    assert resolve.stale(wanted, known) == ["nodes"]
    lock = resolve.resolve(store, wanted, known, ALLOWED)
    assert resolve.stale(wanted, lock) == []
    assert lock.nodes == known.nodes
    assert world.calls() == (0, 0, 0)

    ran = documents.Installed(
        entry=locks.entry(7), size=1, python="a" * 64, wrote=("a",), removed=()
    )
    first = msgspec.structs.replace(lock.nodes[0], installed=ran)
    lock = msgspec.structs.replace(lock, nodes=(first, lock.nodes[1]))
    again = resolve.resolve(store, msgspec.structs.replace(wanted, packages=()), lock, ALLOWED)
    assert again.nodes == lock.nodes
    assert resolve.resolve(store, spec(), lock, ALLOWED).nodes == known.nodes


@pytest.mark.parametrize("settings", [{"torch_backend": "cpu"}, {"provided": ["torch"]}])
def test_settings_that_choose_wheels_make_stale(known: Lock, settings: dict[str, Any]) -> None:
    """They are part of what the wheels were chosen for."""
    assert resolve.stale(spec(python=settings), known) == ["python"]


@given(st.randoms(use_true_random=False), st.sampled_from([None, 0, 2, "\t"]))
def test_white_space_and_order_never_make_stale(random: Any, indent: Any) -> None:
    """However the same JSON is laid out, it asks for the same."""

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            random.shuffle(items)
            return {key: shuffled(inner) for key, inner in items}
        return [shuffled(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(shuffled(document(python={"version": "3.12", "overrides": ["a"]})))
    laid_out = json.dumps(json.loads(text), indent=indent)

    wanted = specs.parse(json.loads(laid_out), "x.json")
    assert resolve.parts(wanted) == resolve.parts(
        spec(python={"version": "3.12", "overrides": ["a"]})
    )


def test_another_place_of_the_volume_never_makes_stale() -> None:
    """A spec that lies on the volume says the same wherever that is mounted."""
    fields: dict[str, Any] = {
        "comfy": {"repo": "../core"},
        "python": {"find_links": ["../wheels"]},
        "models": [{"source": "../m.st"}],
    }

    assert resolve.parts(spec("/workspace/versions/x.json", **fields)) == resolve.parts(
        spec("/runpod-volume/versions/x.json", **fields)
    )


@pytest.mark.parametrize(
    ("fields", "stale", "calls"),
    [
        ({"comfy": {"repo": CORE, "ref": "v2"}}, ["core"], (1, 1, 0)),
        ({"comfy": {"repo": CORE}}, ["core"], (1, 1, 0)),
        ({"comfy": {"repo": CORE, "ref": "master", "commit": "e" * 40}}, ["core"], (0, 1, 0)),
        ({"comfy": {"repo": "https://example.org/o/fork", "ref": "master"}}, ["core"], (1, 1, 0)),
        ({"custom_nodes": []}, ["nodes"], (0, 0, 0)),
        ({"custom_nodes": [{"repo": NODE}]}, ["nodes"], (0, 0, 0)),
        ({"custom_nodes": [{"repo": OTHER, "ref": "v1"}, {"repo": NODE}]}, ["nodes"], (0, 0, 0)),
        (
            {"custom_nodes": [{"repo": NODE, "ref": "v2"}, {"repo": OTHER, "ref": "v1"}]},
            ["nodes"],
            (1, 1, 0),
        ),
        ({"python_packages": []}, ["python"], (0, 0, 1)),
        ({"python_packages": ["onnx", "x"]}, ["python"], (0, 0, 1)),
        ({"python": {"index_url": "https://h/simple"}}, ["python"], (0, 0, 1)),
        ({"python": {"exclude_newer": "none"}}, ["python"], (0, 0, 1)),
        ({"python": {"find_links": ["w"]}}, ["python"], (0, 0, 1)),
        ({"python": {"overrides": ["onnx<1"]}}, ["python"], (0, 0, 1)),
        ({"python": {"version": "3.12"}}, ["interpreter"], (0, 0, 1)),
        ({"models": []}, ["models"], (0, 0, 0)),
        ({"models": [{"source": "https://example.org/n.st"}]}, ["models"], (0, 0, 0)),
        (
            {
                "models": [
                    {
                        "source": "https://example.org/m.st",
                        "path": "loras/m.st",
                        "checksum": "1" * 64,
                    }
                ]
            },
            ["models"],
            (0, 0, 0),
        ),
    ],
)
def test_a_changed_part_alone_is_resolved(
    store: Store,
    world: World,
    known: Lock,
    fields: dict[str, Any],
    stale: list[str],
    calls: tuple[int, int, int],
) -> None:
    """Each part alone makes stale, and nothing else is asked for, fetched or chosen again."""
    wanted = spec(**fields)
    assert resolve.stale(wanted, known) == stale
    found = resolve.resolve(store, wanted, known, ALLOWED)

    assert world.calls() == calls
    assert resolve.stale(wanted, found) == []
    if stale != ["core"]:
        assert found.core == known.core
    if stale != ["nodes"]:
        assert found.nodes == known.nodes
    if stale not in (["python"], ["interpreter"]):
        assert found.python == known.python
    if stale != ["models"]:
        assert found.models == known.models
    world.forget()
    assert resolve.resolve(store, wanted, found, ALLOWED) is found


def test_pins_never_move_by_themselves(store: Store, world: World, known: Lock) -> None:
    """A branch that moved moves no pin: only the node that was added is asked for."""
    nodes = [*document()["custom_nodes"], {"repo": "https://example.org/o/new"}]
    found = resolve.resolve(store, spec(custom_nodes=nodes), known, ALLOWED)

    assert world.asked == ["new"]
    assert (found.core, found.nodes[:2]) == (known.core, known.nodes)
    assert [one.name for one in found.nodes] == ["node", "other", "new"]


def test_a_node_called_otherwise_keeps_its_pin(store: Store, world: World, known: Lock) -> None:
    """A new name is a new entry and no new commit, although the branch has moved."""
    nodes = [{"repo": NODE, "name": "renamed"}, {"repo": OTHER, "ref": "v1"}]
    found = resolve.resolve(store, spec(custom_nodes=nodes), known, ALLOWED)

    assert found.nodes[0].commit == known.nodes[0].commit
    assert (found.nodes[0].name, found.nodes[1]) == ("renamed", known.nodes[1])
    assert world.asked == []
    assert world.fetched == [("renamed", known.nodes[0].commit)]


def test_a_model_that_moved_keeps_its_pin(store: Store, known: Lock) -> None:
    """Another name or folder for the same source loses nothing that was learned of it."""
    learned = msgspec.structs.replace(known.models[0], sha256="4" * 64, entry=locks.entry(4))
    known = msgspec.structs.replace(known, models=(learned,))
    for path, name in (("vae/m.st", None), ("loras/m.st", "name"), ("vae/n", "n")):
        model = {"source": "https://example.org/m.st", "target_path": path, "name": name}
        wanted = spec(models=[model])
        assert resolve.stale(wanted, known) == ["models"]
        found = resolve.resolve(store, wanted, known, ALLOWED)

        assert found.models == (
            msgspec.structs.replace(learned, path=path, name=wanted.models[0].name),
        )


def test_the_commit_that_is_locked_may_be_written_into_the_spec(
    store: Store, world: World, known: Lock
) -> None:
    """Writing pins into the spec changes the lock in nothing but what was asked for."""
    data = specs.with_commits(document(), known.core.commit, [node.commit for node in known.nodes])
    found = resolve.resolve(store, specs.parse(data, "versions/x.json"), known, ALLOWED)

    assert world.asked == []
    assert len(world.chosen) == 0
    assert [one.entry for one in (found.core, *found.nodes)] == [
        one.entry for one in (known.core, *known.nodes)
    ]


def test_a_lock_merged_by_hand_is_stale(known: Lock) -> None:
    """What stands in the lock counts, not only its digests of the spec's parts."""
    change = msgspec.structs.replace
    other = change(known.core, request="0" * 64)

    assert resolve.stale(spec(), change(known, nodes=known.nodes[:1])) == ["nodes"]
    assert resolve.stale(spec(), change(known, nodes=known.nodes[::-1])) == ["nodes"]
    assert resolve.stale(spec(), change(known, core=other)) == ["core"]
    assert resolve.stale(spec(), change(known, models=())) == ["models"]


# Packages.


def test_packages_are_kept_while_the_requirements_are(
    store: Store, world: World, known: Lock
) -> None:
    """A new commit that requires the same leaves the wheels; one that requires more does not."""
    found = resolve.resolve(store, spec(comfy={"repo": CORE, "ref": "v2"}), known, ALLOWED)
    assert (world.calls(), found.python) == ((1, 1, 0), known.python)
    world.requirements["core"] = b"torch\n"
    found = resolve.resolve(store, spec(comfy={"repo": CORE, "ref": "v3"}), found, ALLOWED)

    assert world.calls() == (2, 2, 1)
    assert world.chosen[0]["wanted"] == ["torch", "onnx"]
    assert world.chosen[0]["previous"] == known.python


def test_refresh_chooses_anew(store: Store, world: World, known: Lock) -> None:
    """Asked to, it chooses all wheels without a look at those of before, and moves no commit."""
    found = resolve.resolve(store, spec(), known, ALLOWED, refresh=True)

    assert world.calls() == (0, 0, 1)
    assert world.chosen[0]["previous"] is None
    assert (found.core, found.nodes) == (known.core, known.nodes)


def test_named_packages_are_chosen_anew(store: Store, world: World, known: Lock) -> None:
    """Of the wheels of before all but the named ones are kept, and no commit moves."""
    two = (locks.wheel("Torch_Audio"), locks.wheel("onnx"))
    before = msgspec.structs.replace(
        known, python=msgspec.structs.replace(known.python, wheels=two)
    )
    found = resolve.resolve(store, spec(), before, ALLOWED, packages=["torch-audio"])

    assert world.calls() == (0, 0, 1)
    assert world.chosen[0]["previous"].wheels == two[1:]
    assert (found.core, found.nodes) == (known.core, known.nodes)


def test_the_interpreter_stays(
    store: Store, world: World, known: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock keeps its minor version of Python where the spec names none."""
    asked = []

    def find(version: str | None, chosen: interpreter.Chosen | None) -> str:
        asked.append((version, chosen))
        return f"/usr/bin/python{version}"

    monkeypatch.setattr(interpreter, "find", find)
    chosen = interpreter.Chosen("/opt/python")
    access = Access(python=chosen)
    resolve.resolve(store, spec(python_packages=[]), known, access)
    resolve.resolve(store, spec(python={"version": "3.12"}), known, access)
    resolve.resolve(store, spec(models=[]), None, access)

    assert asked == [("3.11", chosen), ("3.12", chosen), (None, chosen)]


def test_the_date_that_counts() -> None:
    """By default the newest commit's, or the core's, none, or the one that is given."""
    commits = [locks.commit(date=f"2024-0{month}-01T00:00:00Z") for month in (2, 3, 1)]
    for setting, date in (
        (None, "2024-03-01T00:00:00Z"),
        ("core", "2024-02-01T00:00:00Z"),
        ("none", None),
        ("2023-01-01", "2023-01-01"),
    ):
        assert resolve.exclude_newer(spec(python={"exclude_newer": setting}), commits) == date


# Commits that are locked.


def test_a_locked_commit_that_is_gone_is_fetched_as_locked(
    store: Store, world: World, known: Lock
) -> None:
    """What the store lost is fetched by its commit, whatever its branch says now."""
    wanted = spec()
    resolve.ensure_commit(store, wanted.core, known.core, ALLOWED)
    assert world.calls() == (0, 0, 0)
    os.rename(store.path(known.core.entry), os.path.join(store.volume.root, "gone"))
    resolve.ensure_commit(store, wanted.core, known.core, ALLOWED)

    assert (world.asked, world.fetched) == ([], [("ComfyUI", known.core.commit)])
    assert store.has(known.core.entry)


def test_a_commit_that_gives_another_tree(store: Store, world: World, known: Lock) -> None:
    """A tree that differs from the locked one is refused, and both are named."""
    locked = msgspec.structs.replace(known.core, entry=locks.entry(7))
    with pytest.raises(IntegrityError) as caught:
        resolve.ensure_commit(store, spec().core, locked, ALLOWED)

    assert caught.value.message == (
        f"versions/x.json: comfy: commit {known.core.commit[:12]} gives the entry "
        f"{known.core.entry[:16]}, the lock has {locks.entry(7)[:16]}"
    )


def test_repositories_of_this_machine_need_to_be_allowed(store: Store, world: World) -> None:
    """A path in the spec is refused without --allow-local, before anything is fetched."""
    with pytest.raises(InputError, match=r"^versions/x.json: comfy\.repo: .* of this machine$"):
        resolve.resolve(store, spec(comfy={"repo": "../core"}, models=[]), None, Access())

    assert [name for name, _ in world.fetched if name == "ComfyUI"] == []


def test_what_is_missing_offline(
    store: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a connection would be needed for is named at once."""

    def offline(repository: Repository, *_: Any, **__: Any) -> Resolved:
        raise OfflineError(f"{repository.name} is missing")

    monkeypatch.setattr(git, "resolve", offline)
    with pytest.raises(OfflineError) as caught:
        resolve.resolve(store, spec(models=[]), None, Access(offline=True))

    for name in ("core", "node", "other"):
        assert f"{name} is missing" in caught.value.message


# --locked.


def test_locked_refuses_what_is_stale(known: Lock) -> None:
    """A fresh lock is given back; a stale or missing one is refused, with the parts."""
    assert resolve.check_locked(spec(), known, "x.lock.json") is known
    with pytest.raises(InputError) as caught:
        resolve.check_locked(spec(), None, "x.lock.json")
    assert caught.value.message == "there is no lock x.lock.json"
    with pytest.raises(InputError) as caught:
        resolve.check_locked(spec(models=[], comfy={"repo": CORE}), known, "x.lock.json")

    assert caught.value.message == (
        "the lock x.lock.json does not fit versions/x.json any more: core, models changed"
    )


# What a lock never says.

_SECRET = "s3cret"
_LOCAL = "/local-folder"
_repositories = st.sampled_from(
    [
        f"https://{_SECRET}@example.org/o/a",
        f"https://{_SECRET}@example.org/o/a@v1",
        "git@example.org:o/a",
        f"{_LOCAL}/a",
        f"file://{_LOCAL}/a",
        f"..{_LOCAL}/a@v1",
    ]
)
_sources = st.sampled_from(
    [
        f"https://{_SECRET}:{_SECRET}@example.org/m",
        f"https://example.org/m?token={_SECRET}&type=x",
        f"https://{_SECRET}@example.org/m?X-Amz-Signature={_SECRET}#{_SECRET}",
        f"{_LOCAL}/m",
        f"file://{_LOCAL}/m",
        f"..{_LOCAL}/m",
        "~/m",
    ]
)
_lines = st.sampled_from(
    [
        "numpy",
        f"git+https://{_SECRET}@example.org/o/a",
        f"x @ https://{_SECRET}:x@example.org/x.tar.gz",
        f"--extra-index-url https://me:{_SECRET}@example.org/simple",
        f"--index-url=https://{_SECRET}@example.org/simple",
        f"-f https://me:{_SECRET}@example.org",
    ]
)


@given(
    core=_repositories,
    node=_repositories,
    sources=st.lists(_sources, max_size=3),
    lines=st.lists(_lines, max_size=3),
    index=st.sampled_from([None, f"https://me:{_SECRET}@example.org/simple"]),
    links=st.lists(
        st.sampled_from([f"{_LOCAL}/w", f"https://{_SECRET}@example.org/w"]), max_size=2
    ),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_secret_and_no_local_path(
    store: Store,
    world: World,
    core: str,
    node: str,
    sources: list[str],
    lines: list[str],
    index: str | None,
    links: list[str],
) -> None:
    """Whatever a spec and requirement files say, the lock has no credential and no local path."""
    world.requirements["a"] = "\n".join(lines).encode()
    wanted = specs.parse(
        document(
            comfy={"repo": core},
            custom_nodes=[{"repo": node, "name": "n"}],
            models=[{"source": text, "path": f"m{index}"} for index, text in enumerate(sources)],
            python={
                "index_url": index,
                "extra_index_urls": [index or "https://h"],
                "find_links": links,
            },
            options={"skip_models": True},
        ),
        f"{_LOCAL}/versions/x.json",
    )
    found = documents.encode(resolve.resolve(store, wanted, None, ALLOWED)).decode()

    assert _SECRET not in found
    assert _LOCAL not in found
    assert os.path.expanduser("~") not in found
    assert store.volume.root not in found


def test_no_local_path_of_a_model(store: Store, world: World, tmp_path: Path) -> None:
    """A model of this machine is described by its bytes alone, also once it is stored."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"model")
    wanted = spec(models=[{"source": str(path)}, {"source": f"file://{path}", "name": "n"}])
    found = resolve.resolve(store, wanted, None, ALLOWED)
    completed = [
        models.ensure(store, want, model, ALLOWED)
        for want, model in zip(wanted.models, found.models, strict=True)
    ]
    found = msgspec.structs.replace(found, models=tuple(completed))

    assert [(one.source, one.size) for one in found.models] == [("", 5), ("", 5)]
    assert str(tmp_path) not in documents.encode(found).decode()
    assert resolve.stale(wanted, found) == []
