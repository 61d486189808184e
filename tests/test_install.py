"""`install.py` of a node: run once, sealed, in a copy; what it leaves is what runs."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import wheelmaker
from faults import leftovers
from world import Done, World

from cvs.profiles import install
from cvs.store import sandbox, seal, tree, unplugged
from cvs.store.digest import EntryId
from cvs.store.manifest import TreeManifest
from cvs.store.verify import verify

pytest_plugins = ["world_fixtures"]

STATES = (seal.state(), unplugged.state())
sealed = pytest.mark.skipif(set(STATES) != {"full"}, reason=", ".join(STATES))

INIT = b"NODE_CLASS_MAPPINGS = {}\n"


def scripted(world: World, script: str, name: str = "tools") -> dict[str, Any]:
    """A node with an install.py, for a spec that runs it."""
    content = {
        b"__init__.py": INIT,
        b"data/kept": b"kept",
        b"data/old": b"old",
        b"install.py": script.encode(),
        b"requirements.txt": b"cvs-demo-palette",
    }
    commit = world.new_source(f"{name}.git", content)
    return {
        "repo": f"{world.url}/{name}.git",
        "name": name,
        "commit": commit,
        "run_install": True,
    }


def installed(world: World, version: str = "demo", node: int = 0) -> dict[str, Any]:
    """What a lock says of what an install.py made."""
    found: dict[str, Any] = world.lock(version)["nodes"][node].get("installed", {})
    return found


def shown(world: World, path: str, version: str = "demo") -> Path:
    """A path of the node in the current view."""
    return world.cache / "profiles" / version / "current" / "custom_nodes" / "tools" / path


def nodes(world: World, entry: str) -> dict[str, tree.Node]:
    """The nodes of an entry."""
    document = world.store.manifest(EntryId(entry))
    assert isinstance(document, TreeManifest)
    return {node.path: node for node in document.nodes}


def run(world: World, script: str, *options: str, **fields: Any) -> Done:
    """Realizes a version with one node whose install.py is this."""
    world.spec(custom_nodes=[scripted(world, script) | fields])
    return world.cvs("realize", "demo", *world.local, *options)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was run in a sandbox."""
    found: list[str] = []
    real = sandbox.run

    def counted(command: Any, what: str, **options: Any) -> sandbox.Done:
        found.append(what)
        return real(command, what, **options)

    monkeypatch.setattr(sandbox, "run", counted)
    return found


WRITES = """
import os, stat, sys
open("new", "w").write("new")
open("data/old", "a").write(" and more")
os.makedirs("made/deep"); open("made/deep/file", "w").write("x"); os.mkdir("empty")
os.unlink("data/kept")
os.chmod("__init__.py", 0o755)
os.symlink("data/old", "link")
os.makedirs("lib/__pycache__"); open("lib/__pycache__/a.pyc", "w").write("x")
import compileall; compileall.compile_dir(".", quiet=1)
print("done")
"""


@sealed
def test_what_it_writes_is_what_runs(world: World, runs: list[str]) -> None:
    """The tree that it leaves is an entry of the node's name, its bytecode apart; the lock says
    what it wrote and removed; the view leads there; the commit's own tree is what it was."""
    done = run(world, WRITES)
    assert done.code == 0, done
    found = installed(world)

    assert found["wrote"] == ["__init__.py", "data/old", "empty/", "lib/", "link", "made/", "new"]
    assert found["removed"] == ["data/kept"]
    assert os.path.realpath(shown(world, "")) == str(
        world.cache / "store" / found["entry"] / "tools"
    )
    assert shown(world, "new").read_text() == "new"
    assert shown(world, "data/old").read_text() == "old and more"
    own = nodes(world, found["entry"])
    assert [path for path in own if "__pycache__" in path] == []
    init = own["__init__.py"]
    assert isinstance(init, tree.File) and init.executable
    source = nodes(world, world.lock()["nodes"][0]["entry"])
    assert set(source) == {
        *("__init__.py", "data", "data/kept", "data/old", "install.py", "requirements.txt")
    }
    world.assert_sound()
    assert leftovers(world.volume) == []
    assert os.listdir(world.local_root / "run") == []
    assert len(runs) == 1
    record = world.profile().record(1)
    assert found["entry"] in record.entries
    assert world.lock()["nodes"][0]["entry"] not in record.entries


@sealed
def test_it_runs_once(world: World, runs: list[str]) -> None:
    """Not again where nothing changed, offline, locked, or for another version on the volume; again
    for another commit and for other wheels."""
    assert run(world, "open('new', 'w').write('new')").code == 0
    first = world.lock()
    world.ok("realize", "demo", "--locked", "--offline")
    (world.cache / "resolved" / "demo.lock.json").unlink()
    world.realize()
    assert world.lock() == first
    node = scripted(world, "open('new', 'w').write('new')")
    world.spec("twin", custom_nodes=[node])
    world.realize("twin", "--target", f"{world.folder}/twin")
    assert installed(world, "twin") == installed(world)
    assert len(runs) == 1

    node = scripted(world, "open('new', 'w').write('newer')")
    world.spec(custom_nodes=[node])
    world.realize()
    assert shown(world, "new").read_text() == "newer"
    assert len(runs) == 2
    wheelmaker.make(str(world.wheels), "other", "1.0", {"other.py": ""})
    world.spec(custom_nodes=[node], python_packages=["other"])
    world.realize()
    assert len(runs) == 3
    assert world.profile().numbers() == [1, 2, 3]


@sealed
def test_without_the_flag_nothing_runs(world: World, runs: list[str]) -> None:
    """By default the commit's tree is what runs; taking the flag away brings that back, and the
    lock forgets what was installed."""
    assert run(world, "open('new', 'w')", run_install=False).code == 0
    plain = world.lock()
    assert not shown(world, "new").exists()
    assert runs == []
    assert run(world, "open('new', 'w')").code == 0
    assert shown(world, "new").exists()
    assert "stale" not in world.ok("show", "demo").out
    assert run(world, "open('new', 'w')", run_install=False).code == 0
    assert not shown(world, "new").exists()
    assert world.lock() == plain
    assert len(runs) == 1
    assert world.profile().numbers() == [1, 2]


@sealed
def test_where_it_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of the node below what looks like ComfyUI, on the version's own Python and with
    its packages, with no input and without a variable of this process but PATH."""
    monkeypatch.setitem(world.environment, "CVS_TEST_TOKEN", "a secret")
    script = """
import json, os, sys
sys.path.append(os.path.join("..", ".."))
import folder_paths, cvs_demo_palette
assert os.path.realpath(folder_paths.__file__) == os.path.realpath("../../folder_paths.py")
assert os.getcwd().endswith("ComfyUI/custom_nodes/tools")
assert os.path.realpath(os.environ["COMFYUI_PATH"]) == os.path.realpath("../..")
assert os.path.isfile("../../comfy/cli_args.py")
assert os.listdir("../../models") == os.listdir("../../output") == []
assert sys.stdin.read() == ""
open(os.path.expanduser("~/.mine"), "w").write("x")
import tempfile; tempfile.NamedTemporaryFile().write(b"x")
names = sorted(set(os.environ) - {"LC_CTYPE"})
json.dump([names, sys.prefix], open("seen", "w"))
"""
    node = scripted(world, script)
    world.spec(custom_nodes=[node], env={"MY_TOKEN": "a secret too"})
    done = json.loads(world.realize("demo", "--json").out)
    names, prefix = json.loads(shown(world, "seen").read_text())

    assert prefix == done["environment"]
    expected = "COMFYUI_PATH CUDA_VISIBLE_DEVICES HOME LANG PATH PYTHONDONTWRITEBYTECODE "
    expected += "PYTHONHASHSEED PYTHONNOUSERSITE PYTHONUNBUFFERED SOURCE_DATE_EPOCH TMPDIR TZ "
    assert names == [*expected.split(), "VIRTUAL_ENV"]


ATTEMPTS = {
    "network": "import socket; socket.create_connection(('127.0.0.1', {port}))",
    "store": "os.mkdir('{store}/new')",
    "core": "open(os.path.join('..', '..', 'comfy', 'cli_args.py'), 'a')",
    "volume": "open('{cache}/new', 'w')",
    "home": "open('{home}/new', 'w')",
    "own tree": "import glob; open(glob.glob('{store}/*/tools/install.py')[0], 'a')",
    "environment": "open(os.path.join(sys.prefix, 'pyvenv.cfg'), 'a')",
    "temporary files": "open('/tmp/cvs-install-new', 'w')",
}


@sealed
@pytest.mark.parametrize("name", ATTEMPTS)
def test_what_it_must_not_do(world: World, name: str) -> None:
    """Nothing but its own copy can be written, and nobody asked: one error with the end of what it
    said and what may help; the version is as it was, nothing is left, and it is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = {
            "port": server.getsockname()[1],
            "store": world.cache / "store",
            "cache": world.cache,
            "home": world.folder,
        }
        attempt = ATTEMPTS[name].format(**places)
        for _ in range(2):
            done = run(world, f"import os, sys\n{attempt}\nopen('new', 'w')")
            assert done.code == 1
            first, *lines = done.err.splitlines()
            assert first.startswith(
                f"error: {world.versions}/demo.json: custom_nodes[0]: install.py of tools ended "
                "with 1: "
            ), done.err
            assert "Errno" in first
            assert any(line.startswith("PermissionError: ") for line in lines), done.err
            assert any("ComfyUI/custom_nodes/tools/install.py" in line for line in lines) or (
                name == "network"
            )
            assert "python_packages" in lines[-1]
            assert world.profile().numbers() == []
            assert leftovers(world.volume) == []
            assert os.listdir(world.local_root / "run") == []
    for entry in world.store.ids():
        assert list(verify(world.store, entry)) == []


@sealed
def test_pip_is_refused(world: World) -> None:
    """An install is told where packages belong, whether the script minds or not."""
    pip = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'pip', 'install', 'x'], check={})"
    )
    done = run(world, pip.format(True))
    assert done.code == 1
    assert "nothing is installed into it" in done.err.splitlines()[0]

    done = run(world, pip.format(False))
    assert done.code == 0, done
    assert "asked pip to install something, which was refused" in done.err


@sealed
def test_what_goes_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that exits, is killed, hangs or takes its folder away is one error that says so."""
    monkeypatch.setattr(install, "PATIENCE", 1.0)
    for script, said in {
        "raise SystemExit(3)": "ended with 3",
        "import os; os.kill(os.getpid(), 9)": "was ended by signal 9",
        "import time; time.sleep(600)": "did not end within 1 s",
        "import subprocess; subprocess.Popen(['sleep', '600']); raise ValueError('no: good')": (
            "ended with 1: ValueError: no: good"
        ),
        "import os, shutil; shutil.rmtree(os.getcwd())": (
            "left what cannot be stored: its folder is gone"
        ),
        "import os, shutil; here = os.getcwd(); os.chdir('/'); shutil.rmtree(here)\n"
        "os.symlink('/etc', here)": "left what cannot be stored: its folder is gone",
        "import os; os.symlink('/etc/passwd', 'link')": "left what cannot be stored: ",
        "import os; os.symlink('../../../home', 'link')": "left what cannot be stored: ",
        "import os; os.mkfifo('pipe')": (
            "left what cannot be stored: pipe is not a file, folder or link"
        ),
        "open('A', 'w'); open('a', 'w')": "left what cannot be stored: ",
        "import os\nfor _ in range(3000): os.mkdir('deep'); os.chdir('deep')": (
            "left what cannot be stored: the path 'deep/"
        ),
        "import os; os.chdir('../../models')\n"
        "for _ in range(3000): os.mkdir('d'); os.chdir('d')\n"
        "os.chmod('/proc/self/cwd', 0); raise SystemExit(4)": "ended with 4",
        "import os; os.chmod('../../..', 0); raise SystemExit(5)": "ended with 5",
        "import os; os.rename('../../../ComfyUI', '../../../other')": (
            "left what cannot be stored: its folder is gone"
        ),
        "print('x' * 100_000); raise SystemExit('\\x1b[31m')": "ended with 1",
    }.items():
        done = run(world, script)
        assert done.code == 1, (script, done)
        assert f"custom_nodes[0]: install.py of tools {said}" in done.err.splitlines()[0], done.err
        assert str(world.local_root) not in done.err, done.err
        assert "\x1b" not in done.err
        assert max(map(len, done.err.splitlines())) < 1000
        assert world.profile().numbers() == []
        assert leftovers(world.volume) == []
        assert os.listdir(world.local_root / "run") == []


@sealed
def test_folders_that_it_closed(world: World) -> None:
    """What its owner may not look into is taken in all the same, and goes with the copy."""
    script = "import os; os.mkdir('p'); open('p/file', 'w'); os.chmod('p', 0); os.chmod('.', 0)"
    assert run(world, script).code == 0

    assert (shown(world, "p") / "file").exists()
    assert os.listdir(world.local_root / "run") == []


@sealed
def test_what_it_writes_elsewhere_is_not_kept(world: World) -> None:
    """Around its folder it may write, and is told that nothing of it stays; so it is with files
    that name the place where it ran."""
    done = run(
        world,
        "import os\nopen('../../models/a', 'w').write('x'); open('../../main.py', 'a').write('#')\n"
        "os.mkdir('../../models/empty'); open('config', 'w').write(os.getcwd())",
    )

    assert done.code == 0, done
    assert "wrote outside of its folder, which is not kept: main.py, models/a\n" in done.err
    assert "wrote the path that it ran in, which is gone, into config\n" in done.err
    assert installed(world)["wrote"] == ["config"]


@sealed
def test_without_a_script(world: World, runs: list[str]) -> None:
    """A node that has none is warned of, and runs as its commit has it."""
    world.spec(custom_nodes=[world.node(run_install=True)])
    done = world.realize()

    assert "custom_nodes[0]: run_install is set, and there is no install.py" in done.err
    assert installed(world) == {}
    assert runs == []


def test_without_a_seal(world: World, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel cannot seal it, it is not run: that is an error."""
    monkeypatch.setattr(unplugged, "state", lambda: "none: there is no seccomp here")
    done = run(world, "open('new', 'w')")

    assert done.code == 1
    assert "is not run: it cannot be sealed here, there is no seccomp here" in done.err
    assert runs == []
    assert world.profile().numbers() == []


@sealed
def test_a_result_that_is_gone_is_made_again(world: World, runs: list[str]) -> None:
    """And has to be the same: where it is another, an update of the node takes that one."""
    same = "open('new', 'w').write('new')"
    assert run(world, same).code == 0
    first = world.lock()
    _remove(world, installed(world)["entry"])
    world.realize()
    assert (len(runs), world.lock()) == (2, first)

    other = "import os; open('new', 'w').write(os.urandom(8).hex())"
    assert run(world, other).code == 0
    lost = installed(world)["entry"]
    _remove(world, lost)
    for options in ((), ("--locked",)):
        done = world.cvs("realize", "demo", *world.local, *options)
        assert done.code == 2
        error, hint = done.err.splitlines()[-2:]
        assert "custom_nodes[0]: install.py of tools made the entry " in error
        assert f", the lock has {lost[:16]}" in error
        assert "`cvs update demo --node tools` takes what it made now" in hint
    said = world.ok("update", "demo", "--node", "tools", "--allow-local").out
    assert "install.py" in said
    count = len(runs)
    world.realize()
    assert len(runs) == count
    assert installed(world)["entry"] != lost
    assert world.profile().current() == 3


@sealed
def test_the_tree_of_the_commit_is_not_needed(world: World, runs: list[str]) -> None:
    """Where what the script left is stored, nobody asks for what it was made from."""
    assert run(world, "open('new', 'w').write('new')").code == 0
    _remove(world, world.lock()["nodes"][0]["entry"])
    os.rename(world.repos / "tools.git", world.repos / "gone.git")
    world.ok("realize", "demo", "--locked", "--target", f"{world.folder}/twin", *world.local)

    assert (world.folder / "twin" / "custom_nodes" / "tools" / "new").read_text() == "new"
    assert len(runs) == 1


def _remove(world: World, entry: str) -> None:
    """Takes an entry out of the store, as a collection or an accident would."""
    os.rename(
        world.cache / "store" / entry, world.folder / f"{entry}-{len(os.listdir(world.folder))}"
    )


@sealed
def test_repair_says_how_it_comes_back(world: World) -> None:
    """A repair has no source for what a script made, and says how it is made again."""
    assert run(world, "open('new', 'w').write('new')").code == 0
    entry = installed(world)["entry"]
    path = world.cache / "store" / entry / "tools" / "new"
    path.chmod(0o644)
    path.write_text("bad")
    assert world.cvs("store", "verify", entry).code == 1
    done = world.cvs("store", "repair", entry)
    assert done.code == 1
    assert "install.py of tools made it: remove" in done.out
    assert "and `cvs realize demo` runs it again" in done.out

    _remove(world, entry)
    world.realize()
    world.assert_sound()
    assert installed(world)["entry"] == entry
    assert shown(world, "new").read_text() == "new"


@sealed
def test_a_node_that_is_writable(world: World) -> None:
    """Its private copy is one of what the script left."""
    assert run(world, "open('new', 'w').write('new')", writable=True).code == 0
    private = os.path.realpath(shown(world, ""))

    assert private == str(world.state() / "private" / f"tools-{installed(world)['entry'][:16]}")
    assert shown(world, "new").read_text() == "new"


@sealed
def test_what_is_told(world: World) -> None:
    """A plan says that it will run, the lock's tables what it wrote, a diff what came and went."""
    script = "import os; open('new', 'w'); open('newer', 'w'); os.unlink('data/old')"
    world.spec(custom_nodes=[scripted(world, script)])
    world.ok("resolve", "demo", *world.local)
    plan = world.ok("realize", "demo", "--dry-run", *world.local).out
    assert "stored, its install.py to run" in plan
    items = world.ok("realize", "demo", "--dry-run", "--json", *world.local).json["items"]
    assert [item["name"] for item in items if item["to_install"]] == ["tools"]
    world.realize()
    assert "install.py" not in world.ok("realize", "demo", "--dry-run", *world.local).out
    for command in (["show", "demo"], ["validate", "demo", *world.local]):
        assert "install.py of tools wrote new, newer and removed data/old" in world.ok(*command).out

    assert "nothing differs" in world.ok("lock", "diff", "demo").out
    older = world.folder / "older.json"
    older.write_text(json.dumps(world.lock()))
    world.spec(custom_nodes=[scripted(world, "open('other', 'w')")])
    world.realize()
    said = world.ok("lock", "diff", "demo", str(older)).out
    assert "install.py: +other, -new, -newer" in said
