"""The store as a library: what docs/library.md shows works, and imports no more than it says."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from locks import generation, stored

from cvs import store
from cvs.store import damage
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError, IntegrityError, StoreError

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text()


def test_the_example_of_the_page(tmp_path: Path) -> None:
    """The page's program runs as it stands, by itself."""
    (code,) = re.findall(r"^```python example\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "my-node").mkdir()
    (tmp_path / "my-node" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "no entry of the store begins with 01234567\n"
    assert len(os.listdir(tmp_path / "cache" / "store")) == 2


def test_the_staging_of_the_page(tmp_path: Path) -> None:
    """So does the part for content that is no local file."""
    code = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    mine = store.open(str(tmp_path / "cache"))
    scope: dict[str, object] = {"mine": mine}
    exec(code[0], scope)

    assert list(mine.ids()) == [scope["entry"]]


def test_what_the_page_names_is_there() -> None:
    """Every method with the parameters that the page shows."""
    shown = re.findall(r"^`Store\.(\w+)\(([^)]*)\)[^`]*`$", PAGE, re.MULTILINE)
    assert {name for name, _ in shown} == {"add", "get", "verify", "check", "roots"}
    for name, parameters in shown:
        wanted = re.findall(r"\w+(?==|,|$)", re.sub(r"=\w+", "=", parameters))
        known = list(inspect.signature(getattr(Store, name)).parameters)[1:]
        assert known == wanted, name
    for name in re.findall(r"Store\.(\w+)\(", PAGE):
        assert callable(getattr(Store, name))


def test_no_command_line_is_imported() -> None:
    """Adding and verifying needs neither the command line nor what it brings along."""
    code = (
        "import sys; from cvs import store; import cvs.store.verify, cvs.store.ingest\n"
        "import cvs.store.roots\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('cvs.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages, own = done.stdout.splitlines()

    assert {"requests", "git", "rich", "yaml", "orjson"}.isdisjoint(packages.split())
    assert all(name.startswith("cvs.store") for name in own.split())


def test_opening(tmp_path: Path) -> None:
    """A new volume is set up, an old one opened; a newer layout is refused."""
    first = store.open(str(tmp_path / "cache"))
    entry = first.add(__file__)
    assert list(store.open(str(tmp_path / "cache")).ids()) == [entry]

    (tmp_path / "cache" / "format").write_text("cvs-layout 99\n")
    with pytest.raises(StoreError, match="layout 99"):
        store.open(str(tmp_path / "cache"))


def test_getting(store: Store, tmp_path: Path) -> None:
    """By id or its first digits; not what is missing, damaged, or has no content."""
    (tmp_path / "file").write_bytes(b"x")
    entry = store.add(str(tmp_path / "file"))
    assert store.get(entry) == store.get(entry[:8]) == f"{store.path(entry)}/content"
    with pytest.raises(EntryMissing):
        store.get("0" * 64)
    damage.mark(store.volume, entry)
    with pytest.raises(IntegrityError, match="damaged"):
        store.get(entry)
    with store.stage() as stage:
        (group,) = store.publish(stage.set([entry]))
    with pytest.raises(InputError, match="no content"):
        store.get(group)


def test_checking(store: Store, tmp_path: Path) -> None:
    """The first thing that is not right is raised, with the cure."""
    (tmp_path / "file").write_bytes(b"x")
    entry = store.add(str(tmp_path / "file"))
    store.check(entry)
    Path(store.get(entry)).chmod(0o777)
    with pytest.raises(IntegrityError, match="content lost or gained") as caught:
        store.check(entry)
    assert caught.value.hint == f"cvs store repair {entry[:16]}"


def test_roots(store: Store) -> None:
    """Leases, generations and pins, each with its closure; others are left alone."""
    record = stored(store)
    generation(store, record)
    os.link(f"{store.volume.profiles}/{record.version}/1.json", f"{store.volume.pins}/release.json")
    Path(store.volume.pins, "notes.txt").touch()
    Path(store.volume.profiles, "stray").touch()
    from cvs.store.leases import Lease

    with Lease.take(store.volume, record) as lease:
        found = {(root.kind, root.name): root.entries for root in store.roots()}

    assert found == {
        ("lease", lease.name): record.entries,
        ("generation", f"{record.version}@1"): record.entries,
        ("pin", "release"): record.entries,
    }


def test_a_root_that_cannot_be_read(store: Store) -> None:
    """It is there, and asking what it keeps is an error: never nothing."""
    Path(store.volume.pins, "broken.json").write_text("{}")
    (root,) = store.roots()

    assert (root.kind, root.name) == ("pin", "broken")
    with pytest.raises(StoreError, match="not a record"):
        _ = root.entries
