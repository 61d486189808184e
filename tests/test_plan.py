"""The plan: told before anything is done, and it does nothing."""

import os
from pathlib import Path
from typing import Any

import locks
import msgspec
import pytest

from cvs.profiles.plan import Item, plan
from cvs.store import fs, refs
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.volume import Volume
from cvs.versions import resolve, wheel
from cvs.versions import spec as specs
from cvs.versions.access import Access
from cvs.versions.lock import Lock
from cvs.versions.spec import Spec

OFFLINE = Access(offline=True)


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def spec(**fields: Any) -> Spec:
    """A spec with one of everything, and fields in place of its own."""
    document = {
        "schema_version": 2,
        "version_id": "x",
        "comfy": {"repo": "https://example.org/o/core", "ref": "master"},
        "custom_nodes": [{"repo": "https://example.org/o/node"}],
        "models": [{"source": "https://example.org/m.st", "target_subdir": "vae"}],
    }
    return specs.parse({**document, **fields}, "versions/x.json")


@pytest.fixture
def lock() -> Lock:
    """The lock of that spec, of which nothing is stored."""
    wanted = spec()
    return locks.lock(
        parts=resolve.parts(wanted),
        core=locks.commit(request=wanted.core.request, entry=locks.entry(1), size=10),
        nodes=(
            locks.commit("node", request=wanted.nodes[0].request, entry=locks.entry(2), size=20),
        ),
        models=(locks.model("vae/m.st", request=wanted.models[0].request, sha256=None, size=400),),
    )


def test_without_a_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is still to be resolved; the pins are what the spec says."""
    nodes = [
        {"repo": "https://example.org/o/a"},
        {"repo": "https://example.org/o/b", "commit": "b" * 40},
    ]
    found = plan(store, spec(custom_nodes=nodes), None, OFFLINE)

    assert found.stale == ("core", "nodes", "python", "models", "interpreter")
    assert found.items == (
        Item("core", "ComfyUI", "master", None, stored=False, resolved=False),
        Item("node", "a", "HEAD", None, stored=False, resolved=False),
        Item("node", "b", "b" * 40, None, stored=False, resolved=False),
        Item("model", "vae/m.st", "", None, stored=False, resolved=False),
    )
    assert found.bytes_to_fetch == 0


def test_nothing_stored(store: Store, lock: Lock) -> None:
    """A lock tells every part with its size."""
    found = plan(store, spec(), lock, OFFLINE)

    assert found.stale == ()
    assert found.items == found.to_fetch
    assert found.items == (
        Item("core", "ComfyUI", "c" * 40, 10, stored=False),
        Item("node", "node", "c" * 40, 20, stored=False),
        Item("wheel", "numpy", "1.0", 34, stored=False),
        Item("model", "vae/m.st", locks.entry(4), 400, stored=False),
    )
    assert found.bytes_to_fetch == 464


def test_what_is_stored(store: Store, lock: Lock) -> None:
    """What the store has need not be fetched, whoever put it there."""
    core = locks.tree(store, "ComfyUI", {"main.py": b""})
    numpy = locks.tree(store, "numpy-1.0-cp311", {"numpy.py": b""})
    model = locks.file(store, b"model")
    key = wheel.ref_key(lock.python.wheels[0].sha256, locks.CPYTHON.abi)
    refs.put(store.volume, wheel.REFS, key, numpy)
    refs.put(store.volume, "sha256", "9" * 64, model)
    change = msgspec.structs.replace
    lock = change(
        lock,
        core=change(lock.core, entry=core),
        models=(change(lock.models[0], sha256="9" * 64, entry=None),),
    )
    found = plan(store, spec(), lock, OFFLINE)

    assert [(item.kind, item.stored) for item in found.items] == [
        *(("core", True), ("node", False), ("wheel", True), ("model", True)),
    ]
    assert found.items[3].pin == model
    assert found.to_fetch == (found.items[1],)
    assert found.bytes_to_fetch == 20


@pytest.mark.parametrize(
    ("fields", "stale", "unresolved"),
    [
        ({"comfy": {"repo": "https://example.org/o/core", "ref": "v2"}}, ("core",), ["ComfyUI"]),
        ({"custom_nodes": [{"repo": "https://example.org/o/new"}]}, ("nodes",), ["new"]),
        ({"custom_nodes": []}, ("nodes",), []),
        ({"models": [{"source": "https://example.org/n.st"}]}, ("models",), ["n.st"]),
        ({"models": []}, ("models",), []),
        ({"models": [{"source": "https://example.org/m.st", "path": "a"}]}, ("models",), []),
    ],
)
def test_stale_parts(
    store: Store, lock: Lock, fields: dict[str, Any], stale: tuple[str, ...], unresolved: list[str]
) -> None:
    """What the spec has changed is told as the spec has it, all else as the lock has it."""
    found = plan(store, spec(**fields), lock, OFFLINE)

    assert found.stale == stale
    assert [item.name for item in found.items if not item.resolved] == unresolved
    assert len(found.items) == 4 - (list(fields.values()) == [[]])


@pytest.mark.parametrize("fields", [{"python_packages": ["x"]}, {"python": {"version": "3.12"}}])
def test_wheels_that_nobody_knows_yet(store: Store, lock: Lock, fields: dict[str, Any]) -> None:
    """Where packages have to be chosen anew, none is promised."""
    found = plan(store, spec(**fields), lock, OFFLINE)

    assert [item.kind for item in found.items] == ["core", "node", "model"]


def test_models_that_are_skipped(store: Store, lock: Lock) -> None:
    """They are no part of what is done."""
    found = plan(store, spec(options={"skip_models": True}), lock, OFFLINE)

    assert [item.kind for item in found.items] == ["core", "node", "wheel"]


def test_a_local_model_is_measured(store: Store, tmp_path: Path) -> None:
    """Of a model that is not locked yet its source says the size, or that there is none."""
    (tmp_path / "m.st").write_bytes(b"12345")
    found = plan(store, spec(models=[{"source": f"{tmp_path}/m.st"}]), None, OFFLINE)
    assert found.items[-1] == Item("model", "m.st", "", 5, stored=False, resolved=False)

    with pytest.raises(InputError, match="No such file"):
        plan(store, spec(models=[{"source": f"{tmp_path}/n.st"}]), None, OFFLINE)


def test_a_plan_changes_nothing(
    lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a volume is made for it."""

    def observe(call: str, where: object) -> None:
        raise AssertionError(f"{call} {where}")

    monkeypatch.setattr(fs, "observer", observe)
    store = Store(Volume(str(tmp_path / "none")))

    assert len(plan(store, spec(), lock, OFFLINE).to_fetch) == 4
    assert not os.path.exists(store.volume.root)
