"""A version with packages that have to be built, through the real commands."""

import json

import pytest
import sourcemaker
from world import World

from cvs.store import seal, unplugged
from cvs.store.manifest import TreeManifest
from cvs.store.verify import verify

pytest_plugins = ["world_fixtures"]

STATES = (seal.state(), unplugged.state())
pytestmark = pytest.mark.skipif(set(STATES) != {"full"}, reason=", ".join(STATES))


@pytest.fixture
def built(world: World) -> World:
    """A world whose node asks for a repository, and whose spec for a source archive."""
    files = sourcemaker.files("from-git", "2", hook="files['data.txt'] = b'data'")
    world.new_source("package.git", {name.encode(): text.encode() for name, text in files.items()})
    sourcemaker.sdist(str(world.wheels), "from-archive", "1", requires=["from-git>=1"])
    asking = f"from-git @ git+file://{world.repos}/package.git@main\n".encode()
    world.new_source("asking.git", {b"__init__.py": b"", b"requirements.txt": asking})
    node = {"repo": f"{world.url}/asking.git", "name": "asking"}
    world.spec(custom_nodes=[node], models=None, python_packages=["from-archive"])
    return world


def test_from_spec_to_import(built: World) -> None:
    """Both are in the lock with their sources, stored, and there in the environment."""
    built.realize("demo", "--no-trial")

    wheels = {one["name"]: one for one in built.lock()["python"]["wheels"]}
    commit = (built.repos / "package.git/refs/heads/main").read_text().strip()
    assert wheels["from-git"]["built"]["commit"] == commit
    assert wheels["from-git"]["required_by"] == ["asking", "from-archive"]
    assert wheels["from-archive"]["built"]["file"] == "from_archive-1.tar.gz"
    done = built.process(
        "exec", "demo", "--", "python", "-c", "import from_git, from_archive as a; print(a.VERSION)"
    )
    assert (done.code, done.out.split()[-1:]) == (0, ["1"])
    built.assert_sound()
    assert built.realize("demo", "--no-trial").err == ""


def test_told(built: World) -> None:
    """`why` says what it was built from, `lock diff` when that changes; `update` moves a branch."""
    built.realize("demo", "--no-trial")
    old = built.cache / "resolved" / "demo.lock.json"
    kept = built.folder / "old.lock.json"
    kept.write_bytes(old.read_bytes())

    said = built.ok("validate", "demo", *built.local).out
    commit = (built.repos / "package.git/refs/heads/main").read_text().strip()
    assert "built: from-archive from from_archive-1.tar.gz\n" in said
    assert f"built: from-git from a local repository@{commit[:12]}\n" in said
    # No date keeps a repository out.
    assert "undated, so whatever their age: from-archive, from-git\n" in said
    assert "from_archive-1.tar.gz" in built.ok("why", "demo", "from-archive").out
    files = sourcemaker.files("from-git", "2", hook="files['data.txt'] = b'other'")
    source = built.source("package.git")
    source.commit({name.encode(): text.encode() for name, text in files.items()})
    assert built.ok("resolve", "demo", *built.local).code == 0
    assert kept.read_bytes() == old.read_bytes()
    built.ok("update", "demo", "--package", "from-git", *built.local)

    found = built.ok("lock", "diff", "demo", str(kept), "--json").json
    assert [one["name"] for one in found["packages"]] == ["from-git"]
    commit = (source.folder / "refs/heads/main").read_text().strip()
    assert f"a local repository@{commit[:12]}" in json.dumps(found)


@pytest.mark.parametrize("how", ["option", "spec"])
def test_nothing_is_built(built: World, how: str) -> None:
    """--no-build and python.no_build name what would have to be built, and nothing is done."""
    options = ["--no-build"]
    if how == "spec":
        spec = json.loads((built.versions / "demo.json").read_text())
        spec["python"] = {"no_build": True}
        (built.versions / "demo.json").write_text(json.dumps(spec))
        options = []

    done = built.cvs("realize", "demo", *built.local, *options)

    assert done.code == 2
    assert "asking/requirements.txt:1: from-git @ git+file://" in done.err
    assert "would have to be built, and nothing is built here" in done.err
    assert "hint: without python.no_build and --no-build it is" in done.err
    assert not (built.cache / "resolved").exists() or not list((built.cache / "resolved").iterdir())


def test_repaired(built: World) -> None:
    """A damaged wheel that was built comes back: it is built once more, and is the same."""
    built.realize("demo", "--no-trial")
    for entry in built.store.ids():
        document = built.store.manifest(entry)
        if isinstance(document, TreeManifest) and document.name.startswith("from-archive"):
            path = built.cache / "store" / entry / document.name / "site-packages/from_archive.py"
            path.chmod(0o644)
            path.write_text("damaged")
            damaged = entry
    assert built.cvs("store", "verify", damaged).code == 1

    built.ok("store", "repair", damaged, *built.local)

    assert list(verify(built.store, damaged)) == []


def test_a_build_that_fails(built: World) -> None:
    """One sentence that names the file and line; the lock and the version stay as they were."""
    built.realize("demo", "--no-trial")
    lock = (built.cache / "resolved" / "demo.lock.json").read_bytes()
    files = sourcemaker.files("from-git", "3", hook="raise SystemError('it does not compile')")
    built.source("package.git").commit(
        {name.encode(): text.encode() for name, text in files.items()}
    )

    done = built.cvs("update", "demo", "--package", "from-git", *built.local)

    assert done.code == 2
    last = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(last) == 1
    assert last[0].startswith("error: asking/requirements.txt:1: package at ")
    assert last[0].endswith(" cannot be built: SystemError: it does not compile")
    assert (built.cache / "resolved" / "demo.lock.json").read_bytes() == lock
    built.assert_sound()
