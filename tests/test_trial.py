"""The trial: new Python packages are started once before a version is switched to them."""

import os
import signal
from pathlib import Path

import pytest
import wheelmaker
from faults import leftovers
from world import DEMO, World, files_of, until

from cvs.profiles import trial

pytest_plugins = ["world_fixtures"]

#: A module that names what this machine lacks, as one that is built for another does.
BROKEN = "raise ImportError('libGL.so.1: cannot open shared object file')\n"


def noted(world: World) -> list[str]:
    """The sets that stand, as the volume has it."""
    folder = world.cache / "refs" / "trial"
    return [os.readlink(path) for path in folder.iterdir()] if folder.exists() else []


def needing(world: World, package: str, name: str = "other") -> str:
    """A node that requires a package; its commit."""
    files = {
        b"__init__.py": b"NODE_CLASS_MAPPINGS = {}\n",
        b"requirements.txt": f"{package}\n".encode(),
    }
    return world.new_source(f"{name}.git", files)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that trials run."""
    found: list[list[str]] = []
    run = trial._run

    def counted(place: trial._Place, command: list[str]) -> tuple[int, str]:
        found.append(command)
        return run(place, command)

    monkeypatch.setattr(trial, "_run", counted)
    return found


def test_once_on_a_volume(world: World, starts: list[list[str]]) -> None:
    """Then it is known, whatever else changes, on any machine; and nothing of it stays."""
    world.realize()
    assert len(starts) == 2
    assert "--quick-test-for-ci" in starts[0]
    assert starts[1][-1] == '["cvs_demo_palette"]'
    assert noted(world) == ["stands"]
    assert leftovers(world.volume) == []
    assert os.listdir(world.local_root / "run") == []
    for name in ("user", "output", "temp", "input"):
        assert not list((world.state() / name).glob("**/*.db*"))

    world.spec(custom_nodes=[world.node(world.material.v2)])
    world.realize()
    world.spec("twin")
    world.realize("twin", "--target", f"{world.folder}/twin")
    assert len(starts) == 2


def test_what_lies_elsewhere_in_the_environment_is_tried(
    world: World, starts: list[list[str]]
) -> None:
    """One wheel set gives several environments, by where its wheels may overlap."""
    world.realize()
    tried = len(starts)
    world.spec(python={"overlaps": ["bin/*"]})
    world.realize()
    assert len(starts) == 2 * tried
    world.realize()

    assert len(starts) == 2 * tried


def test_core_that_does_not_start(realized: World, starts: list[list[str]]) -> None:
    """One sentence with the import that failed and what may help, and the end of the log; the
    version stays as it was, the next realize tries again, and a core that starts is taken."""
    files = files_of(DEMO / "core")
    main = files[b"main.py"]
    assert isinstance(main, bytes)
    bad = realized.new_source("bad.git", files | {b"main.py": b"import not_there\n" + main})
    realized.spec(comfy={"repo": f"{realized.url}/bad.git", "commit": bad})
    for count in (1, 2):
        done = realized.cvs("realize", "demo", *realized.local)
        assert done.code == 1
        first, *rest = done.err.splitlines()
        assert first == (
            "error: demo: ComfyUI does not start with these Python packages: "
            "ModuleNotFoundError: No module named 'not_there'"
        )
        assert any("import not_there" in line for line in rest)
        assert "what was current before is current still" in rest[-1]
        assert "python.constraints" in rest[-1] or '"exclude_newer": "core"' in rest[-1]
        assert len(starts) == count
        assert realized.profile().numbers() == [1]
        assert realized.profile().current() == 1
        assert noted(realized) == ["stands"]
        assert leftovers(realized.volume) == []

    assert realized.ok("realize", "demo", *realized.local, "--no-trial").code == 0
    assert realized.profile().current() == 2
    assert len(starts) == 2


@pytest.mark.parametrize(
    ("chosen", "setting", "hint"),
    [
        ("2026-01-01T00:00:00Z", None, '"exclude_newer": "core"'),
        (None, "none", '"exclude_newer": "core"'),
        ("2025-10-05T00:00:00Z", None, "python.constraints"),
        ("2025-10-05T00:00:00Z", "core", "python.constraints"),
    ],
)
def test_hint(realized: World, chosen: str | None, setting: str | None, hint: str) -> None:
    """The core's own time is proposed where packages were chosen after it."""
    import msgspec

    from cvs.versions import lock as locks
    from cvs.versions import spec as specs

    path = realized.spec(python={"exclude_newer": setting} if setting else None)
    lock = locks.read(str(realized.cache / "resolved" / "demo.lock.json"))
    assert lock is not None
    replace = msgspec.structs.replace
    lock = replace(
        lock,
        core=replace(lock.core, date="2025-10-05T00:00:00Z"),
        python=replace(lock.python, exclude_newer=chosen),
    )
    assert hint in trial._hint(specs.load(str(path)), lock)


def test_package_of_a_node(realized: World, starts: list[list[str]]) -> None:
    """What a node needs and cannot be imported is a warning that names both; ComfyUI runs
    without it."""
    wheelmaker.make(str(realized.wheels), "badly-built", "1.0", {"badly_built.py": BROKEN})
    wheelmaker.make(
        str(realized.wheels),
        "well-built",
        "1.0",
        {"well_built/__init__.py": "print('hello')\n", "_hidden.py": BROKEN, "setup.py": BROKEN},
    )
    commit = needing(realized, "badly-built\nwell-built")
    node = {"repo": f"{realized.url}/other.git", "commit": commit}
    realized.spec(custom_nodes=[realized.node(), node])
    done = realized.realize()

    assert done.code == 0
    assert done.err.count("warning") == 1
    assert (
        "other needs badly-built 1.0, whose module badly_built cannot be imported: "
        "ImportError: libGL.so.1: cannot open shared object file"
    ) in done.err
    assert realized.profile().current() == 2
    assert len(starts) == 2


def test_package_that_ends_python(realized: World) -> None:
    """That is told too."""
    text = "import os\nos._exit(9)\n"
    wheelmaker.make(str(realized.wheels), "badly-built", "1.0", {"badly_built.py": text})
    node = {"repo": f"{realized.url}/other.git", "commit": needing(realized, "badly-built")}
    realized.spec(custom_nodes=[node])
    done = realized.realize()
    assert "importing what the nodes need ended with 9" in done.err


def test_locked_and_old(world: World, starts: list[list[str]]) -> None:
    """A lock that must be taken as it is was tried where it was made."""
    world.ok("resolve", "demo", *world.local)
    world.realize("demo", "--locked")
    assert starts == []
    assert noted(world) == []


def test_it_cannot_write(world: World) -> None:
    """A core in a trial is sealed: neither the store nor the state of the version changes."""
    files = files_of(DEMO / "core")
    main = files[b"main.py"]
    assert isinstance(main, bytes)
    text = f"""
import os
for path in ({str(world.cache)!r} + "/store/x", {str(world.cache)!r} + "/state/demo/user/x"):
    try:
        open(path, "w").close()
    except OSError:
        pass
open("output/mine", "w").close()
""".encode()
    commit = world.new_source("writes.git", files | {b"main.py": text + main})
    world.spec(comfy={"repo": f"{world.url}/writes.git", "commit": commit})
    world.realize()
    assert not (world.cache / "store" / "x").exists()
    assert not (world.state() / "user" / "x").exists()
    assert not (world.state() / "output" / "mine").exists()


def test_caches_of_libraries(world: World) -> None:
    """What libraries keep for later goes to the local disk, as when ComfyUI runs."""
    files = files_of(DEMO / "core")
    main = files[b"main.py"]
    assert isinstance(main, bytes)
    text = b"""
import os
for name in ("HF_HOME", "MPLCONFIGDIR"):
    open(os.path.join(os.environ[name], "made"), "w").close()
"""
    commit = world.new_source("caches.git", files | {b"main.py": text + main})
    world.spec(comfy={"repo": f"{world.url}/caches.git", "commit": commit})
    home = world.folder / "user"
    (home / ".config" / "matplotlib").mkdir(parents=True)
    unset = dict.fromkeys(("HF_HOME", "MPLCONFIGDIR"))
    done = world.cvs("realize", "demo", *world.local, HOME=str(home), **unset)
    assert done.code == 1, "a folder in HOME that is there is in use, and has no variable"
    assert "KeyError: 'MPLCONFIGDIR'" in done.err

    (home / ".config" / "matplotlib").rmdir()
    world.ok("realize", "demo", *world.local, HOME=str(home), **unset)

    for name in ("hf_home", "mplconfigdir"):
        assert (world.local_root / "caches" / name / "made").exists()


def test_ctrl_c(world: World, tmp_path: Path) -> None:
    """Ends it and what it started, and nothing is left."""
    files = files_of(DEMO / "core")
    main = files[b"main.py"]
    assert isinstance(main, bytes)
    # Right in a folder around the volume nothing new can be made.
    mark = tmp_path / "beside" / "mark"
    mark.parent.mkdir()
    text = f"""
import os, time
with open({str(mark)!r} + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename({str(mark)!r} + ".new", {str(mark)!r})
time.sleep(600)
""".encode()
    commit = world.new_source("waits.git", files | {b"main.py": text + main})
    world.spec(comfy={"repo": f"{world.url}/waits.git", "commit": commit})
    with world.start("realize", "demo", *world.local) as running:
        until(mark.exists)
        running.send_signal(signal.SIGINT)
        running.communicate()
    assert running.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert world.profile().numbers() == []
    assert leftovers(world.volume) == []
    assert os.listdir(world.local_root / "run") == []
