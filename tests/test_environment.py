"""Environments: what they consist of, that Python runs in them, that they come again."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import bases
import elfmaker
import msgspec
import pytest
import wheelmaker

from cvs.profiles import environment
from cvs.profiles.environment import Environment
from cvs.store import damage
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, StoreError
from cvs.store.volume import Volume
from cvs.versions import interpreter, wheels
from cvs.versions.access import Access
from cvs.versions.lock import Python, Wheel
from cvs.versions.spec import PythonSettings

PYTHON = interpreter.find(None)
PROBE = interpreter.probe(PYTHON)
MINOR = ".".join(PROBE.version.split(".")[:2])
SITE = f"lib/python{MINOR}/site-packages"

Made = Callable[..., EntryId]


@pytest.fixture(params=["tree", "pack"])
def volume(request: pytest.FixtureRequest, memory: Path) -> Volume:
    """A volume with either form of wheels."""
    made = Volume(str(memory / "cache"), wheels=request.param)
    made.prepare()
    return made


@pytest.fixture
def made(store: Store, tmp_path: Path) -> Made:
    """Makes wheels and the set of them: `made(a={"a.py": ""}, b={…})`."""

    def make(scripts: dict[str, str] | None = None, **files: dict[str, str | bytes]) -> EntryId:
        folder = str(tmp_path / "wheels")
        members = []
        for name, content in files.items():
            path = wheelmaker.make(folder, name, "1", content, scripts=scripts)
            members.append(
                Wheel(
                    name=name,
                    version="1",
                    file=os.path.basename(path),
                    sha256=wheelmaker.sha256(path),
                    size=None,
                    url="",
                    uploaded=None,
                )
            )
        locked = Python(interpreter=PROBE.interpreter, exclude_newer=None, wheels=tuple(members))
        return wheels.fetch(
            store, locked, settings=PythonSettings(), access=Access(wheels_dir=folder)
        )

    return make


def _ensure(store: Store, wheel_set: EntryId, root: Path) -> Environment:
    return environment.ensure(store, wheel_set, PROBE.interpreter, PYTHON, str(root))


def _run(made: Environment, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [made.python, *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_python_runs_in_it_as_in_a_virtual_environment(
    store: Store, made: Made, tmp_path: Path
) -> None:
    wheel_set = made(a={"a/__init__.py": "X = 1\n"}, b={"b.py": "import a\nY = a.X + 1\n"})

    env = _ensure(store, wheel_set, tmp_path / "local")

    code = "import sys, b; print(b.Y, sys.prefix, sys.prefix != sys.base_prefix)"
    assert _run(env, "-c", code) == f"2 {env.path} True"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    assert _run(env, "-I", "-c", code) == f"{env.path}/{SITE}"
    code = "from importlib import metadata as m; print(m.version('a'), len(m.files('b')))"
    assert _run(env, "-c", code) == "1 5"
    versioned = os.path.join(env.path, "bin", f"python{MINOR}")
    assert _run(env._replace(python=versioned), "-c", "import b; print(b.Y)") == "2"


def test_nothing_is_compiled_and_nothing_is_written(
    store: Store, made: Made, tmp_path: Path
) -> None:
    wheel_set = made(a={"a/__init__.py": "from a import b\n", "a/b.py": "", "c.py": "import a\n"})
    env = _ensure(store, wheel_set, tmp_path / "local")
    before = sorted(map(str, Path(env.path).rglob("*")))

    for variables in ({}, {"PYTHONDONTWRITEBYTECODE": "1"}):
        done = subprocess.run(
            [env.python, "-v", "-c", "import c"], env=variables, capture_output=True, text=True
        )
        loaded = [line for line in done.stderr.splitlines() if f"{env.path}/lib" in line]
        assert [line for line in loaded if "code object from" in line] == [
            f"# code object from '{env.path}/{SITE}/{path}.{PROBE.cache_tag}.pyc'"
            for path in ("__pycache__/c", "a/__pycache__/__init__", "a/__pycache__/b")
        ]
        assert "wrote" not in done.stderr
    assert sorted(map(str, Path(env.path).rglob("*"))) == before


def test_scripts_run_in_it(store: Store, made: Made, tmp_path: Path) -> None:
    wheel_set = made(
        scripts={"tool": "a:main"},
        a={"a.py": "import sys\ndef main(): print(sys.prefix)\n"},
    )

    env = _ensure(store, wheel_set, tmp_path / "a b")

    script = os.path.join(env.path, "bin", "tool")
    assert subprocess.check_output([script], text=True).strip() == env.path
    onpath = {"PATH": f"{env.path}/bin:{os.environ['PATH']}"}
    assert subprocess.check_output(["sh", "-c", "tool"], env=onpath, text=True).strip() == env.path


def test_it_is_there_the_second_time_and_comes_again(
    store: Store, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without uv and without a network: both are made to fail here."""
    wheel_set = made(a={"a.py": "X = 1\n"})
    env = _ensure(store, wheel_set, tmp_path / "local")
    (Path(env.path) / "mark").touch()
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setitem(sys.modules, "requests", None)

    assert _ensure(store, wheel_set, tmp_path / "local") == env
    assert (Path(env.path) / "mark").exists()
    shutil.rmtree(env.path)
    assert _ensure(store, wheel_set, tmp_path / "local") == env
    assert not (Path(env.path) / "mark").exists()
    assert _run(env, "-c", "import a; print(a.X)") == "1"
    lines = (Path(env.path) / environment.MARKER).read_text().splitlines()
    unpacked = [*store.closure([wheel_set]) - {wheel_set}] if store.volume.packs_wheels else []
    assert lines == [wheel_set, *sorted(unpacked)]
    # Somebody began to delete it: the marker is gone, the rest is not.
    (Path(env.path) / environment.MARKER).unlink()
    (Path(env.path) / "bin/python").unlink()
    assert _run(_ensure(store, wheel_set, tmp_path / "local"), "-c", "import a") == ""
    names = set(os.listdir(tmp_path / "local/environments"))
    assert names - {"wheels"} == {os.path.basename(env.path)}


def test_its_name_covers_what_it_is_made_from(store: Store, made: Made, tmp_path: Path) -> None:
    one = _ensure(store, made(a={"a.py": ""}), tmp_path)
    two = _ensure(store, made(a={"a.py": ""}, b={"b.py": ""}), tmp_path)

    assert len({one.path, two.path}) == 2
    assert os.listdir(os.path.join(one.path, SITE)) != os.listdir(os.path.join(two.path, SITE))


def test_what_was_left_is_removed(store: Store, made: Made, tmp_path: Path) -> None:
    """Also by who finds all that it needs."""
    wheel_set = made(a={"a.py": ""})
    _ensure(store, wheel_set, tmp_path)
    wheels_folder = tmp_path / "environments" / "wheels"
    wheels_folder.mkdir(exist_ok=True)
    (wheels_folder / (".new-" + "0" * 32)).mkdir()
    _ensure(store, wheel_set, tmp_path)
    assert not list(wheels_folder.glob(".new-*"))


def test_of_two_at_once_one_wins_and_both_have_it(
    store: Store, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_set = made(a={"a.py": "X = 1\n"})
    both = threading.Barrier(2)
    build = environment._build

    def together(*arguments: object, **named: object) -> None:
        build(*arguments, **named)  # type: ignore[arg-type]
        both.wait(20)

    monkeypatch.setattr(environment, "_build", together)
    found: list[Environment] = []
    threads = [
        threading.Thread(target=lambda: found.append(_ensure(store, wheel_set, tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 2
    assert found[0] == found[1]
    names = set(os.listdir(tmp_path / "environments"))
    assert names - {"wheels"} == {os.path.basename(found[0].path)}
    assert _run(found[0], "-c", "import a; print(a.X)") == "1"


def test_folders_are_links_where_nothing_can_look_outside(
    store: Store, made: Made, tmp_path: Path
) -> None:
    wheel_set = made(
        pure={"pure/__init__.py": "", "pure/sub/data.json": "{}"},
        mixed={"mixed/__init__.py": "", "mixed/lib/libx.so.1": b"\x7fELF", "mixed/py/x.py": ""},
        left={"shared/__init__.py": "", "shared/left/x.py": ""},
        right={"shared/__init__.py": "", "shared/right/tool": b"\x7fELF"},
        top={"top.py": ""},
    )

    env = _ensure(store, wheel_set, tmp_path)

    site = Path(env.path, SITE)
    assert {
        path: (site / path).is_symlink()
        for path in (
            *("pure", "mixed", "mixed/__init__.py", "mixed/lib", "mixed/lib/libx.so.1"),
            *("mixed/py", "shared", "shared/__init__.py", "shared/left", "shared/right"),
            *("shared/right/tool", "top.py", "top-1.dist-info"),
        )
    } == {
        "pure": True,
        "mixed": False,
        "mixed/__init__.py": True,
        "mixed/lib": False,
        "mixed/lib/libx.so.1": True,
        "mixed/py": True,
        "shared": False,
        "shared/__init__.py": True,
        "shared/left": True,
        "shared/right": False,
        "shared/right/tool": True,
        "top.py": True,
        "top-1.dist-info": True,
    }
    assert _run(env, "-c", "import shared.left.x, mixed.py.x, pure, top") == ""


def test_folders_of_libraries_that_stand_alone_are_links(
    store: Store, made: Made, tmp_path: Path
) -> None:
    """Also those whose libraries are beside them in the same wheel; never those that look for
    another wheel's, nor a folder that two wheels share."""
    beside = elfmaker.make(("libblas.so", "libc.so.6"), "$ORIGIN/../../array.libs")
    outside = elfmaker.make(("libcublas.so.12",), "$ORIGIN/../../nvidia/cublas/lib")
    wheel_set = made(
        array={
            "array/__init__.py": "",
            "array/core/x.so": beside,
            "array.libs/libblas.so": elfmaker.make(("libc.so.6",)),
        },
        torch={"torch/__init__.py": "", "torch/lib/x.so": outside, "torch/nn/y.py": ""},
        cublas={"nvidia/cublas/lib/libcublas.so.12": elfmaker.make(("libc.so.6",))},
        cudnn={"nvidia/cudnn/lib/libcudnn.so.9": elfmaker.make((), "$ORIGIN/../../cublas/lib")},
    )
    env = _ensure(store, wheel_set, tmp_path)

    site = Path(env.path, SITE)
    links = {
        str(path.relative_to(site))
        for path in site.rglob("*")
        if path.is_symlink() and ".dist-info" not in path.name
    }
    assert links == {
        *("array", "array.libs", "torch/__init__.py", "torch/lib/x.so", "torch/nn"),
        *("nvidia/cublas", "nvidia/cudnn/lib/libcudnn.so.9"),
        *(("torch/__pycache__",) if (site / "torch/__pycache__").exists() else ()),
    }
    for path, root in (("array/core", "array.libs"), ("torch/lib", "nvidia/cublas/lib")):
        assert (site / path / "../.." / root).is_dir()
    assert (site / "nvidia/cudnn/lib/../../cublas/lib/libcublas.so.12").is_file()


def test_folders_of_scripts_and_data_take_part(store: Store, made: Made, tmp_path: Path) -> None:
    wheel_set = made(
        a={"a-1.data/scripts/x.py": "", "a-1.data/data/share/a/one": "1"},
        b={"b-1.data/data/share/b/two%.txt": "2", "b-1.data/data/etc/b.conf": "3"},
    )

    env = _ensure(store, wheel_set, tmp_path)

    assert (Path(env.path) / "share/a/one").read_text() == "1"
    assert (Path(env.path) / "share/b/two%.txt").read_text() == "2"
    assert (Path(env.path) / "etc/b.conf").read_text() == "3"
    assert not (Path(env.path) / "bin").is_symlink()


def test_two_files_in_one_place_are_an_error_that_names_both(
    store: Store, made: Made, tmp_path: Path
) -> None:
    wheel_set = made(left={"cv2/__init__.py": "1"}, right={"cv2/__init__.py": "2"})

    with pytest.raises(InputError) as caught:
        _ensure(store, wheel_set, tmp_path)

    abi = PROBE.abi
    assert caught.value.message == (
        f"the wheels left-1-{abi} and right-1-{abi} have different files in one place: "
        f"{SITE}/cv2/__init__.py"
    )
    assert caught.value.hint is not None
    assert '"overrides": ["left; python_version < ' in caught.value.hint
    assert caught.value.hint.endswith('"overlaps": ["site-packages/cv2/__init__.py"]')


def test_where_wheels_may_overlap_the_first_by_name_stays(
    store: Store, made: Made, tmp_path: Path
) -> None:
    """Each module with its own bytecode; the environment of another list is another one."""
    scripts = {"bin-1.data/scripts/run.py": "#!python\nprint('bin')\n"}
    wheel_set = made(
        bin=scripts,
        left={"cv2/__init__.py": "X = 'left'\n", "cv2/data.txt": "left", "cv2/l.py": ""},
        right={"cv2/__init__.py": "X = 'right'\n", "cv2/data.txt": "right", "cv2/r.py": ""},
        z={"z-1.data/scripts/run.py": "#!python\nprint('z')\n"},
    )

    def ensure(*overlaps: str) -> Environment:
        return environment.ensure(
            store, wheel_set, PROBE.interpreter, PYTHON, str(tmp_path), overlaps=overlaps
        )

    every = ensure("site-packages/cv2/*", "bin/*.py")
    exact = ensure("site-packages/cv2/__init__.py", "site-packages/cv2/data.txt", "bin/run.py")

    assert every.path != exact.path
    for env in (every, exact):
        code = "import cv2, cv2.l, cv2.r; print(cv2.X, cv2.__cached__ is not None)"
        assert _run(env, "-c", code) == "left True"
        assert (Path(env.path) / SITE / "cv2/data.txt").read_text() == "left"
        assert _run(env, f"{env.path}/bin/run.py") == "bin"
    for some in (["site-packages/cv2/*"], ["site-packages/cv2/d*", "bin/*"], ["cv2/*", "bin/*"]):
        with pytest.raises(InputError, match="have different files in one place"):
            ensure(*some)


def test_bytecode_of_a_module_that_does_not_stay_is_refused(
    store: Store, made: Made, tmp_path: Path
) -> None:
    """Python takes it for that of the module that stays, which has none: it does not compile."""
    wheel_set = made(left={"m.py": "print 'two'\n"}, right={"m.py": "X = 3\n"})

    with pytest.raises(InputError, match=rf"in one place: {SITE}/m\.py$") as caught:
        environment.ensure(
            store, wheel_set, PROBE.interpreter, PYTHON, str(tmp_path), overlaps=("*",)
        )
    assert "overlaps" not in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": ""}, {"a/b.py": ""}),
        ({"a/b/c.py": ""}, {"a/b": ""}),
        ({"left-1.data/data/x/y": ""}, {"right-1.data/data/x": ""}),
    ],
)
def test_a_file_and_a_folder_in_one_place_are_an_error(
    store: Store, made: Made, tmp_path: Path, left: dict[str, str], right: dict[str, str]
) -> None:
    with pytest.raises(InputError, match=r"left-1-\w+ and right-1-|right-1-\w+ and left-1-"):
        _ensure(store, made(left=left, right=right), tmp_path)


def test_clutter_of_the_top_level_does_not_count(store: Store, made: Made, tmp_path: Path) -> None:
    """Many wheels ship their tests, documents and licence by mistake; the first ones stay."""
    left = {"a.py": "", "tests/test_it.py": "1", "LICENSE": "1", "docs/conf.py": "1"}
    right = {"b.py": "", "tests/test_it.py": "2", "LICENSE": "2", "docs/conf.py": "2"}

    env = _ensure(store, made(left=left, right=right), tmp_path)

    assert Path(env.path, SITE, "tests/test_it.py").read_text() == "1"
    assert Path(env.path, SITE, "LICENSE").read_text() == "1"


@pytest.mark.parametrize("path", ["bin/python3", "pyvenv.cfg", environment.MARKER])
def test_what_makes_an_environment_is_not_left_to_a_wheel(
    store: Store, made: Made, tmp_path: Path, path: str
) -> None:
    with pytest.raises(InputError, match=r"which every environment has$"):
        _ensure(store, made(a={f"a-1.data/data/{path}": "#!/bin/sh\n"}), tmp_path)


def test_a_missing_entry_is_named(store: Store, made: Made, tmp_path: Path) -> None:
    wheel_set = made(a={"a.py": ""})
    member = next(iter(store.closure([wheel_set]) - {wheel_set}))
    path = Path(store.path(member)) / "manifest.json"
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-20])

    with pytest.raises(IntegrityError) as caught:
        _ensure(store, wheel_set, tmp_path)
    assert caught.value.hint is not None
    assert "cvs store repair" in caught.value.hint
    shutil.rmtree(path.parent)
    with pytest.raises(IntegrityError, match=f"the store has no entry {member}"):
        _ensure(store, wheel_set, tmp_path)


def test_what_was_found_damaged(store: Store, made: Made, tmp_path: Path) -> None:
    """No environment is made of a damaged wheel or set."""
    wheel_set = made(a={"a.py": ""})
    for entry in store.closure([wheel_set]):
        damage.mark(store.volume, entry)
        with pytest.raises(IntegrityError, match=f"entry {entry[:16]} is damaged"):
            _ensure(store, wheel_set, tmp_path)
        damage.clear(store.volume, entry)


def test_another_interpreter_is_refused(store: Store, made: Made, tmp_path: Path) -> None:
    wheel_set = made(a={"a.py": ""})
    other = msgspec.structs.replace(PROBE.interpreter, version="3.2.1")

    with pytest.raises(InputError, match=r"another version$"):
        environment.ensure(store, wheel_set, other, PYTHON, str(tmp_path))


def test_what_the_image_provides_is_seen_behind_the_wheels(
    store: Store, made: Made, tmp_path: Path
) -> None:
    """The interpreter's own packages are there, a wheel of the same name comes first, and a
    version that has none provided does not see them."""
    base = bases.make(tmp_path / "base")
    for name in ("torch", "a"):
        bases.install(bases.packages(base), name, "2.7")
    user = tmp_path / f"user/lib/python{MINOR}/site-packages"
    bases.install(user, "stranger", "1")
    wheel_set = made(a={"a.py": "WHERE = 'wheel'\n"})

    def ensure(*provided: str) -> Environment:
        return environment.ensure(
            store, wheel_set, PROBE.interpreter, base, str(tmp_path / "local"), provided=provided
        )

    plain, env = ensure(), ensure("torch>=2")

    assert plain.path != env.path == ensure("torch").path
    code = "import a, torch; print(a.WHERE, torch.WHERE)"
    variables = {"PYTHONNOUSERSITE": "1", "PYTHONUSERBASE": str(tmp_path / "user")}
    assert _run(env, "-c", code, **variables) == "wheel image"
    code = "from importlib.util import find_spec as f; print(f('torch'), f('stranger'))"
    assert _run(plain, "-c", code, PYTHONUSERBASE=str(tmp_path / "user")) == "None None"
    assert _run(env, "-c", code, **variables).endswith(" None")


def test_what_the_image_does_not_provide_is_said_each_time(
    store: Store, made: Made, tmp_path: Path
) -> None:
    """An environment may be there from before; the image is another one now."""
    base = bases.make(tmp_path / "base")
    bases.install(bases.packages(base), "torch", "2.7")
    wheel_set = made(a={"a.py": ""})
    local = str(tmp_path / "local")
    environment.ensure(store, wheel_set, PROBE.interpreter, base, local, provided=("torch",))
    shutil.rmtree(bases.packages(base) / "torch-2.7.dist-info")

    with pytest.raises(InputError, match=r"the image provides torch; .* has no torch$"):
        environment.ensure(store, wheel_set, PROBE.interpreter, base, local, provided=("torch",))


def test_a_place_that_cannot_hold_one_is_named(store: Store, made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"no environment can be made in .*/file/environments"):
        _ensure(store, made(a={"a.py": ""}), tmp_path / "file")


def test_what_a_killed_run_left_goes(store: Store, made: Made, tmp_path: Path) -> None:
    """A half-made environment that no process holds is swept by the next one."""
    left = tmp_path / "environments" / f".new-{'0' * 32}"
    (left / "lib").mkdir(parents=True)

    _ensure(store, made(a={"a.py": ""}), tmp_path)

    assert not left.exists()


def test_pip_removes_nothing_from_the_store(store: Store, made: Made, tmp_path: Path) -> None:
    """It follows RECORD; a whole folder behind a link is not its environment to it."""
    wheel_set = made(a={"a/__init__.py": "", "a/lib.so": b"\x7fELF", "a/sub/x.py": ""})
    env = _ensure(store, wheel_set, tmp_path)
    if subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("no pip beside this interpreter")
    member = next(iter(store.closure([wheel_set]) - {wheel_set}))
    before = sorted(map(str, Path(store.path(member)).rglob("*")))

    done = subprocess.run(
        [PYTHON, "-m", "pip", "--python", env.path, "uninstall", "-y", "a"],
        capture_output=True,
        text=True,
    )

    assert "Uninstalling a-1" in done.stdout
    assert sorted(map(str, Path(store.path(member)).rglob("*"))) == before


def test_pip_answers_and_installs_nothing(store: Store, made: Made, tmp_path: Path) -> None:
    """`pip freeze` and `list` say what is there; an install is refused with one sentence."""
    env = _ensure(store, made(a={"a.py": ""}, b={"b.py": ""}), tmp_path / "local")

    assert _run(env, "-m", "pip", "freeze") == "a==1\nb==1"
    assert json.loads(_run(env, "-m", "pip", "list", "--format=json")) == [
        {"name": "a", "version": "1"},
        {"name": "b", "version": "1"},
    ]
    assert _run(env, "-m", "pip", "show", "a") == "Name: a\nVersion: 1"
    for command in (
        [f"{env.path}/bin/pip", "install", "x"],
        [env.python, "-m", "pip", "uninstall"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("cvs: this environment is locked and shared")


def test_a_pip_of_the_wheels_stays(store: Store, made: Made, tmp_path: Path) -> None:
    """Where a wheel brings pip along, that is what runs."""
    env = _ensure(store, made(pip={"pip/__main__.py": "print('its own')\n"}), tmp_path / "local")

    assert _run(env, "-m", "pip") == "its own"
