"""What all tests share: a clean process environment, a volume, its store, one small entry."""

import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from cvs.store import fs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.volume import Volume

# Disk, quota and other processes decide how long one example takes: a deadline would only flake.
hypothesis.settings.register_profile("cvs", deadline=None, database=None, max_examples=60)
hypothesis.settings.register_profile("thorough", deadline=None, database=None, max_examples=3000)
hypothesis.settings.register_profile("nightly", deadline=None, database=None, max_examples=20_000)
hypothesis.settings.load_profile("cvs")

#: Beginnings of the variables that steer cvs or the libraries below it.
_STEERING = (
    *("AWS_", "CIVITAI_", "CLOUDSDK_", "COMFY_", "COMFYUI_", "CVS_", "GCE_", "GCS_", "GIT_"),
    *("GITHUB_", "GOOGLE_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_", "MODELS_DIR", "PIP_"),
    *("PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "RUNPOD_", "S3_", "UV_", "XDG_"),
    *("NO_COLOR", "FORCE_COLOR", "NETRC"),
)
_KEPT = ("CVS_MOOSEFS", "CVS_NGINX", "CVS_REAL_", "GIT_SSL_CAINFO")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--nightly`: many more failures are tried, and a test that is skipped has failed."""
    parser.addoption("--nightly", action="store_true", help="the amounts of a night; no skips")


def pytest_configure(config: pytest.Config) -> None:
    """In a nightly run property tests try many examples, unless another profile is asked for.

    Lets tests hear signals that what runs them does not: nohup, or the background of a script.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("nightly") and not config.getoption("--hypothesis-profile"):
        hypothesis.settings.load_profile("nightly")


@pytest.fixture(scope="session")
def nightly(request: pytest.FixtureRequest) -> bool:
    """Whether this is a nightly run, in which tests that count try their full amount."""
    return bool(request.config.getoption("nightly"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In a nightly run what cannot be tried for want of root or a device has failed."""
    report = yield
    if report.skipped and item.config.getoption("nightly") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how much was counted by tests that count: what they recorded as `kills` and `errors`."""
    passed = terminalreporter.stats.get("passed", [])
    for what in ("kills", "errors"):
        found = [
            value for report in passed for name, value in report.user_properties if name == what
        ]
        if found:
            terminalreporter.write_line(f"{what}: {sum(found)} were tried")


@pytest.fixture(autouse=True)
def clean_environment(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test sees or changes the home, the settings or the credentials of who runs it."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(_STEERING) and not name.startswith(_KEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / ".local/share"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".local/state"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")


@pytest.fixture(autouse=True)
def no_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that sets `fs.observer` through monkeypatch leaves none behind."""
    monkeypatch.setattr(fs, "observer", None)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one, for small tests that sync often."""
    if not os.path.ismount("/dev/shm") or not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cvs-test-") as folder:
        yield Path(folder)


@pytest.fixture
def memory_volume(memory: Path) -> Volume:
    """A prepared volume that syncs fast; a module of such tests overrides `volume` with it."""
    made = Volume(str(memory / "cache"))
    made.prepare()
    return made


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A prepared volume of its own."""
    made = Volume(str(tmp_path / "cache"))
    made.prepare()
    return made


@pytest.fixture
def store(volume: Volume) -> Store:
    """The store of `volume`."""
    return Store(volume)


@pytest.fixture
def small(store: Store) -> Callable[..., EntryId]:
    """Publishes a small tree: `small("node")`, `small("node", {"a.py": b"1"}, store=other)`."""

    def publish(
        name: str = "small", files: dict[str, bytes] | None = None, store: Store = store
    ) -> EntryId:
        with store.stage() as stage:
            writer = stage.tree(name)
            for path, data in (files or {"file.txt": b"hello\n"}).items():
                writer.write(path.encode(), data)
            return store.publish(writer.finish(origin=name))[0]

    return publish
