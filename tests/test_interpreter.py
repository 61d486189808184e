"""Finding an interpreter, and what it must have in common with the one of a lock."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import bases
import msgspec
import pytest

from cvs.store.errors import InputError
from cvs.versions import interpreter
from cvs.versions.interpreter import Chosen
from cvs.versions.lock import Interpreter

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"

LOCKED = Interpreter(
    implementation="cpython", version="3.11.7", abi="cp311", platform="linux_x86_64", libc=""
)


def _script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_the_running_interpreter_is_found_and_not_its_virtual_environment() -> None:
    found = interpreter.find(None)

    assert os.path.samefile(os.path.dirname(os.path.dirname(found)), sys.base_prefix)
    assert interpreter.find(MINOR) == found


def test_probe_describes_the_interpreter_as_it_is() -> None:
    probed = interpreter.probe(interpreter.find(None))

    assert probed.interpreter.version == ".".join(map(str, sys.version_info[:3]))
    assert probed.cache_tag == sys.implementation.cache_tag
    assert probed.tags[0].startswith(f"{probed.abi}-{probed.abi}-")
    assert probed.tags[-1] == "py30-none-any"


def test_probe_of_a_virtual_environment_is_that_of_its_base(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)

    probed = interpreter.probe(str(tmp_path / "env/bin/python"))

    assert probed == interpreter.probe(interpreter.find(None))


def test_comfy_python_is_the_only_one_considered(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    python = str(tmp_path / "env/bin/python")

    assert interpreter.find(MINOR, Chosen(python)) == interpreter.find(None)
    with pytest.raises(InputError, match=r"COMFY_PYTHON is Python 3\.\d+\.\d+ .*3\.2 is needed$"):
        interpreter.find("3.2", Chosen(python))
    with pytest.raises(InputError, match=r"there is no interpreter at .*/nowhere"):
        interpreter.find(None, Chosen(str(tmp_path / "nowhere")))


def test_the_system_s_python_is_the_one_on_path_and_its_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is the base of the `python3` on PATH; what is said names the setting."""
    venv.create(tmp_path / "env", symlinks=True)
    system = Chosen("python3", "COMFY_USE_SYSTEM_PYTHON")
    monkeypatch.setenv("PATH", str(tmp_path / "env/bin"))

    assert interpreter.find(MINOR, system) == interpreter.find(None)
    with pytest.raises(InputError) as caught:
        interpreter.find("3.2", system)
    assert str(caught.value).startswith("COMFY_USE_SYSTEM_PYTHON is Python 3.")
    assert str(caught.value).endswith(f"({tmp_path}/env/bin/python3), Python 3.2 is needed")
    assert "COMFY_PYTHON" not in f"{caught.value}{caught.value.hint}"
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"^COMFY_USE_SYSTEM_PYTHON: there is no python3 on PATH$"):
        interpreter.find(MINOR, system)


def test_a_command_that_is_no_python_is_named(tmp_path: Path) -> None:
    broken = _script(tmp_path / "python", "#!/bin/sh\necho 'no such version' >&2; exit 127\n")

    with pytest.raises(InputError, match="not a usable Python interpreter: no such version"):
        interpreter.find(None, Chosen(broken))


def test_path_is_searched_past_what_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shims of version managers lie on PATH and may stand for nothing."""
    name = f"python{MINOR}"
    _script(tmp_path / f"a/{name}", "#!/bin/sh\nexit 127\n")
    base = interpreter.find(None)
    _script(tmp_path / f"b/{name}", f'#!/bin/sh\nexec {base} "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    monkeypatch.setattr(sys, "version_info", (2, 7, 18))

    assert interpreter.find(MINOR) == base


def test_no_interpreter_of_a_version_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(InputError, match=r"no Python 3\.5 found") as caught:
        interpreter.find("3.5")
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("implementation", "pypy", "implementation"),
        ("version", "3.12.7", "version"),
        ("abi", "cp311t", "ABI"),
        ("platform", "linux_aarch64", "platform"),
    ],
)
def test_what_decides_about_wheels_must_match(field: str, value: str, what: str) -> None:
    other = msgspec.structs.replace(LOCKED, **{field: value})

    with pytest.raises(InputError, match=f"another {what}$"):
        interpreter.check(LOCKED, other)


def test_a_patch_difference_is_a_warning() -> None:
    other = msgspec.structs.replace(LOCKED, version="3.11.9", libc="glibc 2.39")

    assert interpreter.check(LOCKED, LOCKED) is None
    assert (
        interpreter.check(LOCKED, other) == "the lock was made with Python 3.11.7, this is 3.11.9"
    )


def test_a_glibc_that_is_too_old_is_refused() -> None:
    """A wheel that wants a newer one would fail at its first import, with the loader's words."""
    file = "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"
    locked = msgspec.structs.replace(LOCKED, glibc_needed="2.28", glibc_needed_by=file)

    for libc in ("glibc 2.28", "glibc 2.100", "glibc 3.0"):
        assert interpreter.check(locked, msgspec.structs.replace(LOCKED, libc=libc)) is None
    for libc, here in (
        ("glibc 2.9", "glibc 2.9"),
        ("musl 1.2", "musl 1.2"),
        ("", "another C library"),
    ):
        with pytest.raises(InputError) as caught:
            interpreter.check(locked, msgspec.structs.replace(LOCKED, libc=libc))
        assert caught.value.message == f"the wheel {file} needs glibc 2.28, this system has {here}"
        assert caught.value.hint is not None


@pytest.mark.parametrize(
    ("tags", "needed"),
    [
        ("py3-none-any", None),
        ("cp311-cp311-linux_x86_64", None),
        ("cp311-cp311-musllinux_1_2_x86_64", None),
        ("cp311-cp311-manylinux1_x86_64", (2, 5)),
        ("cp311-cp311-manylinux2010_x86_64", (2, 12)),
        ("cp311-cp311-manylinux2014_x86_64", (2, 17)),
        ("cp311-cp311-manylinux_2_28_x86_64", (2, 28)),
        ("cp311-cp311-manylinux_2_28_x86_64.manylinux2014_x86_64", (2, 17)),
        ("cp311-cp311-manylinux_2_28_x86_64.manylinux_2_5_aarch64", (2, 28)),
        ("cp311-cp311-manylinux_2_28_x86_64.linux_x86_64", None),
        ("cp312-cp312-manylinux_2_28_x86_64", None),
    ],
)
def test_the_glibc_of_a_wheel_stands_in_its_tags(tags: str, needed: tuple[int, int] | None) -> None:
    """Of the tags that fit here the oldest counts, and one that names no libc fits any."""
    names = ["manylinux_2_28", "manylinux2014", "manylinux2010", "manylinux1", "linux"]
    accepted = tuple(f"cp311-cp311-{name}_x86_64" for name in (*names, "musllinux_1_2"))
    probe = msgspec.structs.replace(
        interpreter.probe(interpreter.find(None)), tags=(*accepted, "py3-none-any")
    )

    assert probe.glibc_needed(f"a-1-{tags}.whl") == needed


def test_what_an_image_provides_is_looked_for_in_its_interpreter(tmp_path: Path) -> None:
    """Each requirement has a distribution whose version lies in its range, or is named."""
    path = bases.make(tmp_path / "base")
    for name, version in (("torch", "2.6.0+cu124"), ("Some_Thing", "3.0rc1")):
        bases.install(bases.packages(path), name, version)

    interpreter.check_provided(path, ("torch", "torch>=2.6", "some-thing>2"))
    for text, have in (
        ("torch>=2.7", "torch 2.6.0+cu124"),
        ("some.thing>=3", "some-thing 3.0rc1"),
        ("xformers", "no xformers"),
    ):
        with pytest.raises(InputError) as caught:
            interpreter.check_provided(path, ("torch", text))
        assert caught.value.message == (
            f"the spec says that the image provides {text}; {path} has {have}"
        )
    with pytest.raises(InputError, match=r"^what the image provides: "):
        interpreter.check_provided(path, ("a b",))


def test_nobody_is_asked_for_nothing() -> None:
    """What an interpreter provides costs nothing where the spec names none."""
    interpreter.check_provided("/nowhere/python", ())


def test_packages_of_a_user_are_not_provided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs would not see them."""
    path = bases.make(tmp_path / "base")
    bases.install(tmp_path / f"user/lib/python{MINOR}/site-packages", "torch", "2.7")
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / f"user/lib/python{MINOR}/site-packages"))

    with pytest.raises(InputError, match=r"has no torch$"):
        interpreter.check_provided(path, ("torch",))


def test_wheels_are_ranked_by_their_tags() -> None:
    probe = interpreter.probe(interpreter.find(None))
    own = probe.rank(f"x-1-{probe.tags[0]}.whl")

    assert own == 0
    assert probe.rank("x-1-py2.py3-none-any.whl") == probe.rank("x-1-py3-none-any.whl")
    assert probe.rank("x-1-py3-none-any.whl") is not None
    assert probe.rank("x-1-cp311-cp311-win_amd64.whl") is None
    assert probe.rank("x-1.tar.gz") is None


def test_the_probe_needs_no_package_in_the_interpreter(tmp_path: Path) -> None:
    """`packaging` is lent to it, and its own startup files are not run."""
    venv.create(tmp_path / "env", symlinks=True)
    python = str(tmp_path / "env/bin/python")
    lacking = subprocess.run([python, "-c", "import packaging"], capture_output=True, check=False)

    assert lacking.returncode == 1
    assert interpreter.probe(python).tags
