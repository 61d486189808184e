"""Settings: every variable, and what holds where none is set."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cvs import settings
from cvs.settings import Settings

HOME = "/home/me"


def read(**variables: str) -> Settings:
    """The settings of an environment with a home and these variables."""
    return Settings({"HOME": HOME, **variables})


@pytest.fixture(autouse=True)
def no_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No volume is mounted, whatever machine this is."""
    places = (f"{tmp_path}/runpod-volume", f"{tmp_path}/workspace")
    monkeypatch.setattr(settings, "VOLUMES", places)


@pytest.fixture
def serverless(tmp_path: Path) -> str:
    """The volume as a serverless worker has it."""
    folder = tmp_path / "runpod-volume"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The volume as a pod has it."""
    folder = str(tmp_path / "workspace")
    os.mkdir(folder)
    ismount = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda path: path == folder or ismount(path))
    return folder


# The volume.


def test_defaults_without_a_volume() -> None:
    """On a machine of one's own everything is below the home."""
    found = read()

    assert found.runpod_volume is None
    assert found.cache_root == f"{HOME}/.cache/runpod-comfy"
    assert found.models_dir == f"{HOME}/.cache/runpod-comfy/models"
    assert found.comfy_home("x") == f"{HOME}/comfy-x"
    assert found.local_root == f"{HOME}/.cache/cvs"


def test_defaults_on_a_worker(serverless: str) -> None:
    """On a serverless worker the volume holds all but what is disposable."""
    found = read()

    assert found.runpod_volume == serverless
    assert found.cache_root == f"{serverless}/cache"
    assert found.models_dir == f"{serverless}/cache/models"
    assert found.comfy_home("x") == f"{serverless}/builds/comfy-x"
    assert not found.local_root.startswith(serverless)


def test_defaults_on_a_pod(pod: str) -> None:
    """On a pod the same volume is mounted at another place."""
    found = read()

    assert found.runpod_volume == pod
    assert found.cache_root == f"{pod}/cache"
    assert found.comfy_home("x") == f"{pod}/builds/comfy-x"
    assert not found.local_root.startswith(pod)


def test_a_workspace_that_is_no_mount(tmp_path: Path) -> None:
    """A folder called so is not the volume: it dies with the container."""
    (tmp_path / "workspace").mkdir()

    assert read().runpod_volume is None


def test_a_worker_comes_before_a_pod(serverless: str, pod: str) -> None:
    """Where both are there, the worker's place counts."""
    assert read().runpod_volume == serverless


def test_the_places_that_runpod_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where RunPod mounts volumes."""
    monkeypatch.undo()

    assert settings.VOLUMES == ("/runpod-volume", "/workspace")


# Every variable.


SYSTEM_PYTHON = ("python3", "COMFY_USE_SYSTEM_PYTHON")


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "ask", "found"),
    [
        ("COMFY_CACHE_ROOT", "/c", lambda s: s.cache_root, "/c"),
        ("COMFY_CACHE_ROOT", "/c/../d/", lambda s: s.cache_root, "/d"),
        ("COMFY_CACHE_ROOT", "~/c", lambda s: s.cache_root, f"{HOME}/c"),
        ("COMFY_CACHE_ROOT", "/c", lambda s: s.models_dir, "/c/models"),
        ("MODELS_DIR", "/m", lambda s: s.models_dir, "/m"),
        ("MODELS_DIR", "~", lambda s: s.models_dir, HOME),
        ("COMFY_HOME", "/h", lambda s: s.comfy_home("x"), "/h"),
        ("COMFY_HOME", "/h/", lambda s: s.comfy_home("x"), "/h"),
        ("COMFY_HOME", "/h", lambda s: s.comfy_home("x", "~/t"), f"{HOME}/t"),
        ("COMFY_BUILDS_ROOT", "/b", lambda s: s.comfy_home("x"), "/b/comfy-x"),
        ("COMFY_VERSION_NAME", "x", lambda s: s.comfy_home("x"), "/runpod-volume/ComfyUI"),
        ("CVS_LOCAL_ROOT", "/l", lambda s: s.local_root, "/l"),
        ("XDG_CACHE_HOME", "/x", lambda s: s.local_root, "/x/cvs"),
        ("CVS_VERSIONS_DIR", "/v", lambda s: s.versions_dir(), "/v"),
        ("CVS_VERSIONS_DIR", "/v", lambda s: s.versions_dir("~/w"), f"{HOME}/w"),
        ("CVS_VERSIONS_DIR", "/v", lambda s: s.spec_file("x"), "/v/x.json"),
        ("COMFY_PYTHON", "/p", lambda s: s.python, ("/p", "COMFY_PYTHON")),
        *(
            ("COMFY_USE_SYSTEM_PYTHON", value, lambda s: s.python, SYSTEM_PYTHON)
            for value in ("1", "true", "YES", " True ")
        ),
        ("COMFY_USE_SYSTEM_PYTHON", "0", lambda s: s.python, None),
        ("OUTPUT_MODE", "gcs", lambda s: s.get("OUTPUT_MODE"), "gcs"),
        ("NO_COLOR", "1", lambda s: s.get("NO_COLOR"), "1"),
        ("COMFY_OFFLINE", "true", lambda s: s.flag("COMFY_OFFLINE"), True),
    ],
)
def test_variables(
    request: pytest.FixtureRequest,
    volume: bool,
    name: str,
    value: str,
    ask: Callable[[Settings], object],
    found: object,
) -> None:
    """What is set counts, with a volume and without; a flag of the command comes first."""
    if volume:
        request.getfixturevalue("serverless")

    assert ask(read(**{name: value})) == found


def test_the_system_s_python_comes_before_comfy_python() -> None:
    """COMFY_PYTHON is not looked at where the system's own Python is asked for."""
    assert read(COMFY_PYTHON="/p", COMFY_USE_SYSTEM_PYTHON="yes").python == SYSTEM_PYTHON
    assert read(COMFY_PYTHON="/p", COMFY_USE_SYSTEM_PYTHON="no").python == ("/p", "COMFY_PYTHON")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is relative to where cvs was started."""
    monkeypatch.chdir(tmp_path)
    found = read(COMFY_CACHE_ROOT="c", MODELS_DIR="./m", COMFY_HOME="h", XDG_CACHE_HOME="x")

    assert found.cache_root == f"{tmp_path}/c"
    assert found.models_dir == f"{tmp_path}/m"
    assert found.comfy_home("x") == f"{tmp_path}/h"
    assert found.local_root == f"{tmp_path}/x/cvs"


def test_empty_variables_are_unset() -> None:
    """A variable that is set to nothing is not set."""
    names = [name for name, _ in settings.VARIABLES]
    found = read(**dict.fromkeys(names, ""))

    assert found.cache_root == read().cache_root
    assert found.comfy_home("x") == read().comfy_home("x")
    assert [name for name in names if found.get(name) is not None] == []
    assert found.flag("COMFY_OFFLINE") is False


def test_the_image_s_version_is_one(serverless: str) -> None:
    """Only the version that an image runs has the image's place."""
    found = read(COMFY_VERSION_NAME="x")

    assert found.comfy_home("y") == f"{serverless}/builds/comfy-y"


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HOME the system says where the home is."""
    monkeypatch.setattr(os.path, "expanduser", lambda _: "/root")

    assert Settings({}).cache_root == "/root/.cache/runpod-comfy"


@pytest.mark.parametrize("value", ["1", "true", "TRUE", " yes ", "on"])
def test_true(value: str) -> None:
    """What counts as true."""
    assert read(COMFY_OFFLINE=value).flag("COMFY_OFFLINE") is True


@pytest.mark.parametrize("value", ["0", "false", "No", "off", "", " "])
def test_false(value: str) -> None:
    """What counts as false."""
    assert read(COMFY_OFFLINE=value).flag("COMFY_OFFLINE") is False


@pytest.mark.parametrize("value", ["2", "maybe", "wahr"])
def test_neither(value: str) -> None:
    """Anything else is refused in a sentence: silence here would mean a connection."""
    with pytest.raises(ValueError, match="neither true nor false") as caught:
        read(COMFY_OFFLINE=value).flag("COMFY_OFFLINE")

    assert str(caught.value) == f"COMFY_OFFLINE is {value!r}, neither true nor false"


def test_the_table_of_variables() -> None:
    """Each name once, each with a meaning."""
    names = [name for name, _ in settings.VARIABLES]

    assert len(set(names)) == len(names)
    assert all(meaning for _, meaning in settings.VARIABLES)


# Specs.


def test_specs_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`versions/` here or in the nearest folder above, as with git."""
    inner = tmp_path / "project" / "deep" / "er"
    inner.mkdir(parents=True)
    (tmp_path / "project" / "versions").mkdir()
    monkeypatch.chdir(inner)
    assert read().versions_dir() == f"{tmp_path}/project/versions"
    (tmp_path / "project" / "deep" / "versions").mkdir()

    assert read().versions_dir() == f"{tmp_path}/project/deep/versions"
    assert read().spec_file("x") == f"{tmp_path}/project/deep/versions/x.json"
    (inner / "versions").write_text("a file is no folder of specs")
    assert read().versions_dir() == f"{tmp_path}/project/deep/versions"


def test_specs_without_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a project they are in $CVS_HOME, or where programs keep their data."""
    monkeypatch.chdir("/")
    monkeypatch.setattr(os.path, "isdir", lambda path: False)

    assert read(CVS_HOME="/h").versions_dir() == "/h/versions"
    assert read(CVS_HOME="~/h").versions_dir() == f"{HOME}/h/versions"
    assert read().versions_dir() == f"{HOME}/.local/share/cvs/versions"


@pytest.mark.parametrize("text", ["./x.json", "x.json", "/v/x.json", "a/b"])
def test_paths_of_specs(text: str) -> None:
    """What looks like a path is one."""
    assert read(CVS_VERSIONS_DIR="/v").spec_file(text) == text


def test_a_folder_of_specs_that_is_given() -> None:
    """A flag of the command comes before the variable."""
    assert read(CVS_VERSIONS_DIR="/v").spec_file("x", "/w") == "/w/x.json"
