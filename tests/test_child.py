"""A child in the foreground: its exit code, its signals, its end."""

import os
import signal
import sys
from pathlib import Path

import pytest

from cvs.profiles import child
from cvs.store.errors import InputError
from cvs.store.seal import Seal

NO_SEAL = Seal("none", lambda: None, lambda: None)

HANDLED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


def run(folder: Path, *command: str, seal: Seal = NO_SEAL) -> int:
    """Runs a command with an environment of its own."""
    variables = {"PATH": os.environ["PATH"], "MINE": "1"}
    return child.run(command, folder=str(folder), variables=variables, seal=seal)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_exit_code(tmp_path: Path, script: str, code: int) -> None:
    """The command's own, 128 + N where signal N ended it."""
    assert run(tmp_path, "sh", "-c", script) == code


def test_place_and_environment(tmp_path: Path) -> None:
    """It runs in the folder, with the variables and no others; handlers are as before."""
    before = [signal.getsignal(number) for number in HANDLED]

    assert run(tmp_path, "sh", "-c", 'echo "$MINE$HOME" > told') == 0
    assert (tmp_path / "told").read_text() == "1\n"
    assert before == [signal.getsignal(number) for number in HANDLED]


def test_signals_of_its_own(tmp_path: Path) -> None:
    """It begins with the signals as they were here: what is ignored, and nothing else."""
    code = (
        "import signal; print([n for n in range(1, 32) if signal.getsignal(n) == signal.SIG_IGN])"
    )
    with (tmp_path / "told").open("w") as told:
        script = f"exec {sys.executable} -c '{code}' > {told.name}"
        assert run(tmp_path, "sh", "-c", script) == 0
        own = (tmp_path / "told").read_text()
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert run(tmp_path, "sh", "-c", script) == 0
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    # Python itself ignores SIGPIPE and SIGXFSZ.
    assert own == "[13, 25]\n"
    assert (tmp_path / "told").read_text() == "[1, 13, 25]\n"


def test_signals_here(tmp_path: Path) -> None:
    """Here a Ctrl-C passes unheard; SIGTERM and SIGHUP are passed on."""
    parent = os.getpid()
    for number in (signal.SIGINT, signal.SIGQUIT):
        assert run(tmp_path, "sh", "-c", f"kill -{number.value} {parent}") == 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        script = f"trap 'exit 5' {number.value}; kill -{number.value} {parent}; "
        assert run(tmp_path, "sh", "-c", script + "while :; do :; done") == 5


def test_what_cannot_be_run(tmp_path: Path) -> None:
    """A command that is not there, is no program, or whose seal fails, is a sentence."""

    def refuse() -> None:
        raise OSError("no seal")

    (tmp_path / "text").write_text("x")
    cases = {
        "no-such-command": "there is no command 'no-such-command'",
        str(tmp_path / "text"): f"{tmp_path}/text cannot be run: Permission denied",
        str(tmp_path): f"{tmp_path} cannot be run: Permission denied",
    }
    for command, message in cases.items():
        with pytest.raises(InputError) as caught:
            run(tmp_path, command)
        assert caught.value.message == message
    with pytest.raises(InputError, match=r"^true cannot be run: "):
        run(tmp_path, "true", seal=Seal("full", refuse, lambda: None))
