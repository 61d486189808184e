"""Where an entry comes from: what locks, specs, records and manifests know of it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from world import World

from cvs.store import manifest
from cvs.store.digest import EntryId
from cvs.store.errors import InputError, OfflineError, SourceError
from cvs.store.progress import Progress
from cvs.store.source import Maker
from cvs.versions import restore
from cvs.versions import spec as specs
from cvs.versions.access import Access
from cvs.versions.spec import Spec

pytest_plugins = ["world_fixtures"]


class Heard(Progress):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def spec_of(world: World) -> Any:
    """Finds specs in the world's folder of specs."""

    def find(version: str) -> Spec | None:
        path = world.versions / f"{version}.json"
        return specs.load(str(path)) if path.exists() else None

    return find


def found(world: World, entry: EntryId, **access: Any) -> list[Maker]:
    """The sources of an entry, with the specs that there are."""
    known = restore.read_locks(world.volume, spec_of(world))
    access = {"wheels_dir": str(world.wheels), "allow_local": True, **access}
    return restore.sources(world.store, entry, known, Access(**access))


def names(world: World, entry: EntryId, **access: Any) -> list[str]:
    """What the sources of an entry are called."""
    return [source.shown for source in found(world, entry, **access)]


def entries(world: World) -> dict[str, EntryId]:
    """The entries of `demo` by what they are."""
    lock, record = world.lock(), world.profile().record(1)
    (wheel,) = [
        entry for entry in record.entries if world.store.manifest(entry).origin.endswith(".whl")
    ]
    return {
        "core": EntryId(lock["core"]["entry"]),
        "node": EntryId(lock["nodes"][0]["entry"]),
        "model": EntryId(lock["models"][0]["entry"]),
        "wheel": wheel,
        "set": record.wheel_set,
    }


def give(world: World, source: Maker, entry: EntryId) -> EntryId:
    """The id of what a source writes."""
    with source.open(world.store, entry) as offer:
        assert offer.document is not None
        return manifest.identity(offer.document)


@pytest.mark.parametrize("kind", ["core", "node", "model", "wheel", "set"])
def test_each_kind_of_entry(realized: World, kind: str) -> None:
    """Every entry of a version is found in its lock, is given once more by its source although it
    is stored, and says where it came from as the stored one does."""
    entry = entries(realized)[kind]
    commits = realized.material
    expected = {
        "core": [f"{realized.url}/ComfyUI.git at {commits.core[:12]}"],
        "node": [f"{realized.url}/demo-node.git at {commits.v1[:12]}"],
        "model": [str(realized.model)],
        "wheel": [str(next(realized.wheels.iterdir()))],
        "set": ["a generation of demo", "the lock of demo"],
    }
    sources = found(realized, entry)

    assert [source.shown for source in sources] == expected[kind]
    assert {give(realized, source, entry) for source in sources} == {entry}
    assert sources[0].origin == realized.store.manifest(entry).origin
    assert found(realized, EntryId("0" * 64)) == []


def test_without_its_spec(realized: World) -> None:
    """What came from this machine only its spec can find: without it the source says so."""
    (realized.versions / "demo.json").unlink()
    for kind, what in (("core", "a folder"), ("node", "a folder"), ("model", "a file")):
        entry = entries(realized)[kind]
        (source,) = found(realized, entry)
        sentence = f"it came from {what} of this machine that only the spec of demo names"
        with pytest.raises(SourceError, match=sentence):
            give(realized, source, entry)


def test_without_leave(realized: World) -> None:
    """A folder of this machine is asked with leave alone."""
    entry = entries(realized)["node"]
    (source,) = found(realized, entry, allow_local=False)
    with pytest.raises(InputError, match="is a path of this machine"):
        give(realized, source, entry)


def test_over_a_network(served: World) -> None:
    """What came over HTTP is found without a spec too; offline, by option or spec, nobody is
    asked."""
    model = {"source": f"{served.url}/lfs/model", "target_path": "vae/m"}
    assert served.server is not None
    served.server.objects["model"] = b"a model"
    served.spec(models=[model], python={"index_url": f"{served.url}/simple/"})
    served.ok("realize", "demo", *served.local)
    path = served.versions / "demo.json"
    data = json.loads(path.read_text())
    asked = served.requests()
    for kind in ("core", "node", "model"):
        entry = entries(served)[kind]
        path.write_text(json.dumps({**data, "options": {"offline": True}}))
        for access in ({}, {"offline": True}):
            (source,) = found(served, entry, **access)
            with pytest.raises(OfflineError, match="no connection may be made"):
                give(served, source, entry)
            path.unlink(missing_ok=True)
        assert served.requests() == asked
        (source,) = found(served, entry)
        assert give(served, source, entry) == entry
        assert served.requests() > asked
        asked = served.requests()


def test_credentials_of_a_spec(served: World) -> None:
    """A repository that asks for a login gets the token of the spec, which no lock and no name of
    a source has; without the spec it gives nothing."""
    assert served.server is not None
    there = served.url.replace("://", "://token@")
    served.spec(
        comfy={"repo": f"{there}/ComfyUI.git", "commit": served.material.core},
        python={"index_url": f"{served.url}/simple/"},
        custom_nodes=[],
    )
    served.server.login = ("token", "")
    served.ok("realize", "demo", *served.local)
    entry = EntryId(served.lock()["core"]["entry"])
    (source,) = found(served, entry)
    assert source.shown == f"{served.url}/ComfyUI.git at {served.material.core[:12]}"
    assert "token" not in source.origin
    assert give(served, source, entry) == entry
    (served.versions / "demo.json").unlink()
    (source,) = found(served, entry)
    with pytest.raises(SourceError, match="does not exist or needs a login"):
        give(served, source, entry)


def test_what_no_lock_knows_any_more(served: World) -> None:
    """Commits and models are found by what their own manifests say, when spec and lock are gone;
    wheels are not."""
    model = {"source": f"{served.url}/lfs/model", "target_path": "vae/m"}
    assert served.server is not None
    served.server.objects["model"] = b"a model"
    served.spec(models=[model], python={"index_url": f"{served.url}/simple/"})
    served.ok("realize", "demo", *served.local)
    there = entries(served)
    (served.versions / "demo.json").unlink()
    shutil.rmtree(served.volume.resolved)

    for kind in ("core", "node", "model"):
        (source,) = found(served, there[kind])
        assert give(served, source, there[kind]) == there[kind]
    assert found(served, there["wheel"]) == []
    assert names(served, there["set"]) == ["a generation of demo"]
    shutil.rmtree(served.volume.profiles)
    assert found(served, there["set"]) == []
    os.unlink(os.path.join(served.store.path(there["core"]), manifest.NAME))
    assert found(served, there["core"]) == []


def test_a_spec_that_moved_on(realized: World) -> None:
    """The place in a spec that a locked commit came from serves, though another commit is wanted
    there now."""
    entry = entries(realized)["node"]
    realized.spec(custom_nodes=[realized.node(realized.material.v2)])
    (source,) = found(realized, entry)
    assert give(realized, source, entry) == entry
    realized.spec(custom_nodes=[])
    (source,) = found(realized, entry)
    assert source.shown == f"demo-node at {realized.material.v1[:12]}"


def test_wheels_whose_refs_are_lost(realized: World) -> None:
    """The lock knows what its wheels became, and with that the set; a lock that does not knows a
    wheel by the name of its tree, read from the manifest or seen on disk, and of the set then the
    generation knows."""
    there = entries(realized)
    shutil.rmtree(realized.volume.refs)
    whole = realized.store.path(there["wheel"])
    os.rename(whole, whole + "-away")
    assert names(realized, there["wheel"]) == [str(next(realized.wheels.iterdir()))]
    assert names(realized, there["set"]) == ["a generation of demo", "the lock of demo"]
    os.rename(whole + "-away", whole)
    lock = realized.lock()
    del lock["python"]["wheels"][0]["entry"]
    (realized.cache / "resolved" / "demo.lock.json").write_text(json.dumps(lock))
    assert names(realized, there["wheel"]) == [str(next(realized.wheels.iterdir()))]
    os.unlink(os.path.join(realized.store.path(there["wheel"]), manifest.NAME))
    assert names(realized, there["wheel"]) == [str(next(realized.wheels.iterdir()))]
    shutil.rmtree(realized.store.path(there["wheel"]))
    assert names(realized, there["wheel"]) == []
    assert names(realized, there["set"]) == ["a generation of demo"]


def test_a_wheel_that_is_nowhere(realized: World) -> None:
    """A wheel that came from a folder says so where that is not given; it is called by its
    file."""
    entry = entries(realized)["wheel"]
    (source,) = found(realized, entry, wheels_dir=None)
    assert source.shown == "cvs_demo_palette-1.0-py3-none-any.whl"
    with pytest.raises(SourceError, match="wheels that came from a local folder are in none"):
        give(realized, source, entry)


def test_a_loose_model(realized: World) -> None:
    """A loose model of the right place and size is asked before the model's source."""
    entry = entries(realized)["model"]
    folder = realized.folder / "loose"
    loose = folder / "checkpoints" / "demo.safetensors"
    loose.parent.mkdir(parents=True)
    shutil.copyfile(realized.model, loose)
    folders = (str(folder),)
    assert names(realized, entry, model_dirs=folders) == [str(loose), str(realized.model)]
    assert give(realized, found(realized, entry, model_dirs=folders)[0], entry) == entry
    loose.write_bytes(b"other")
    assert names(realized, entry, model_dirs=folders) == [str(realized.model)]


def test_each_source_is_asked_once(realized: World) -> None:
    """What several versions have from one place is one source."""
    realized.spec("other")
    realized.realize("other", "--target", str(realized.folder / "other-home"))
    there = entries(realized)
    for kind in ("core", "node", "model", "wheel"):
        assert len(names(realized, there[kind])) == 1
    assert len(restore.read_locks(realized.volume, spec_of(realized))) == 2


def test_reading_locks(realized: World) -> None:
    """All locks of a volume are read, and further ones; what is no lock is passed over, one that
    cannot be read with a warning."""
    resolved = Path(realized.volume.resolved)
    shutil.copyfile(resolved / "demo.lock.json", realized.folder / "mine.lock")
    (resolved / "demo.lock.json.before-cvs").write_text("{")
    (resolved / "broken.lock.json").write_text("{")
    heard = Heard()
    more = [str(realized.folder / "mine.lock"), str(realized.folder / "none.lock")]
    known = restore.read_locks(realized.volume, spec_of(realized), more, heard)

    assert [one.lock.version_id for one in known] == ["demo", "demo"]
    assert all(one.spec is not None for one in known)
    assert len(heard.warnings) == 1
    assert f"{resolved}/broken.lock.json" in heard.warnings[0]
    shutil.rmtree(resolved)
    assert restore.read_locks(realized.volume, spec_of(realized)) == []


def test_records_that_cannot_be_read(realized: World) -> None:
    """A record that is damaged knows of no set, and is no obstacle."""
    entry = entries(realized)["set"]
    path = Path(realized.volume.profiles, "demo", "1.json")
    path.chmod(0o644)
    path.write_text("{")
    assert names(realized, entry) == ["the lock of demo"]
