"""`cvs shell`: a sealed shell in a version; what it gets, what it gives back, what it cannot do."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import attacks
import pytest
from world import PATIENCE, Done, World, listing, start_line, until

from cvs.cmd_shell import prompt
from cvs.store import seal

pytest_plugins = ["world_fixtures"]

sealed = pytest.mark.skipif(seal.state() != "full", reason="the kernel has no whole seal")


def shell(world: World, script: str, *options: str, **environment: str) -> Done:
    """Runs a script in a shell of `demo`."""
    return world.process("shell", "demo", *options, "--", "-c", script, **environment)


@pytest.mark.parametrize("name", ["/bin/sh", "/bin/bash"])
def test_script(realized: World, name: str) -> None:
    """What follows `--` is the shell's; its output and exit code are passed on."""
    if not os.path.exists(name):
        pytest.skip(f"there is no {name} here")
    script = "echo $0 $1; echo told >&2; exit 7"
    done = realized.process("shell", "demo", "--", "-c", script, "zero", "one", SHELL=name)

    assert done == (7, "zero one\n", f"{start_line()}\ntold\n")
    assert realized.leases() == []
    assert os.listdir(realized.local_root / "run") == []


def test_which_shell(realized: World) -> None:
    """It is $SHELL, and /bin/sh where that is unset or empty."""
    own = realized.folder / "own-shell"
    own.write_text('#!/bin/sh\necho own "$@"\n')
    own.chmod(0o755)

    assert shell(realized, "echo x", SHELL=str(own)).out == "own -c echo x\n"
    asks = 'readlink "/proc/$$/exe"'
    for none in (None, ""):
        done = realized.process("shell", "demo", "-q", "--", "-c", asks, SHELL=none)
        assert done == (0, os.path.realpath("/bin/sh") + "\n", "")


def test_no_such_shell(realized: World) -> None:
    """A SHELL that cannot be run is a sentence with its cure, and leaves nothing."""
    closed = realized.folder / "closed"
    closed.write_text("#!/bin/sh\n")
    closed.chmod(0o644)
    cases = {
        "/no/shell": "there is no command '/no/shell'",
        str(closed): f"{closed} cannot be run: Permission denied",
    }
    for name, why in cases.items():
        done = realized.process("shell", "demo", "-q", SHELL=name)
        assert done == (2, "", f"error: {why}\nhint: SHELL names the shell\n")
    assert realized.leases() == []


def test_standard_input(realized: World) -> None:
    """Without ARGS it reads commands, from a pipe too; the line on its start says how to leave."""
    with subprocess.Popen(
        [sys.executable, "-m", "cvs", "shell", "demo"],
        cwd=realized.folder,
        env=realized.environment | {"SHELL": "/bin/sh"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, err = process.communicate("echo hello\nexit 3\n", timeout=PATIENCE)

    assert (process.returncode, out) == (3, "hello\n")
    assert err == f"{start_line()}; `exit` or Ctrl-D leaves\n"


def test_killed_by_a_signal(realized: World) -> None:
    """A shell that a signal ended gives 128 and its number."""
    assert shell(realized, "kill -KILL $$", "--quiet") == (137, "", "")


def test_environment(realized: World) -> None:
    """The folder, Python, variables and packages are those of `exec`."""
    realized.spec(env={"PAINT": "red"})
    code = (
        "import json, os, sys, cvs_demo_palette\n"
        "names = ('PAINT', 'COMFY_HOME', 'MODELS_DIR', 'VIRTUAL_ENV', 'PATH')\n"
        "print(json.dumps([os.getcwd(), sys.prefix, {n: os.environ[n] for n in names}]))\n"
    )
    by_exec = realized.process("exec", "demo", "--", "python", "-c", code)
    by_shell = shell(realized, f"exec python -c '{code.replace(chr(39), chr(34))}'")

    assert by_shell.out == by_exec.out
    folder, prefix, variables = json.loads(by_shell.out)
    assert folder == f"{realized.cache}/profiles/demo/1" == variables["COMFY_HOME"]
    assert variables["PAINT"] == "red"
    assert variables["PATH"].startswith(f"{prefix}/bin:")


def test_options(realized: World) -> None:
    """--generation and --models-dir are those of `exec`."""
    realized.spec(custom_nodes=[])
    realized.realize()
    script = "pwd; echo $MODELS_DIR"
    done = shell(realized, script, "-q", "--generation", "1", "--models-dir", "elsewhere")

    assert done.out.splitlines() == [
        f"{realized.cache}/profiles/demo/1",
        f"{realized.folder}/elsewhere",
    ]
    assert shell(realized, "pwd", "-q").out == f"{realized.cache}/profiles/demo/2\n"
    done = realized.cvs("shell", "demo", "--generation", "9")
    assert (done.code, done.err.splitlines()[0]) == (2, "error: demo has no generation 9")


def test_not_realized(world: World) -> None:
    """A version that is not realized says so, and how."""
    done = world.cvs("shell", "demo")

    assert done == (2, "", "error: demo is not realized here\nhint: cvs realize demo\n")


# Signals and terminals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end(realized: World, number: signal.Signals) -> None:
    """A signal to cvs ends a shell that would not mind a SIGTERM itself, and what runs in it."""
    with Terminal(realized) as terminal:
        terminal.until("(demo@1) ")
        terminal.type(f"{BUSY}\n")
        pid = int(terminal.until("=up\n").rpartition("\n")[2])
        terminal.process.send_signal(number)
        terminal.end()
        until(lambda: status(pid) in ("", "Z"))

    assert terminal.process.returncode == 129
    assert realized.leases() == []
    assert os.listdir(realized.local_root / "run") == []


def test_without_its_parent(realized: World) -> None:
    """When cvs itself is killed, what it started does not live on."""
    here = realized.state() / "user" / "here"
    script = f"trap '' TERM; echo $$ > {here}.new; mv {here}.new {here}; exec tail -f /dev/null"
    with realized.start("shell", "demo", "--", "-c", script) as process:
        until(here.exists)
        pid = int(here.read_text())
        process.kill()
        process.communicate(timeout=PATIENCE)

    until(lambda: status(pid) in ("", "Z"))


def status(pid: int) -> str:
    """The state of a process, a letter; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


class Terminal:
    """A `cvs shell` that is talked to through a terminal."""

    def __init__(self, world: World, *options: str, name: str = "/bin/bash", **extra: str) -> None:
        if not os.path.exists(name):
            pytest.skip(f"there is no {name} here")
        self._master, slave = pty.openpty()
        # Wide: of a line that does not fit a dumb terminal is shown a part.
        termios.tcsetwinsize(slave, (24, 1000))
        self.process = subprocess.Popen(
            # As a terminal's own shell starts it: a session with the terminal, a group of its own.
            [sys.executable, "-c", LEADER, sys.executable, "-m", "cvs", "shell", "demo", *options],
            cwd=world.folder,
            env=world.environment | {"SHELL": name, "TERM": "dumb"} | extra,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.said = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str) -> str:
        """Reads until something was said; what was said up to there is not looked at again."""
        while text not in self.said:
            ready, _, _ = select.select([self._master], [], [], PATIENCE)
            assert ready, self.said
            # Ends with an error (EIO) when nobody has the terminal any more.
            piece = os.read(self._master, 4096).decode("utf-8", "replace")
            self.said += piece.replace("\r", "")
        before, _, self.said = self.said.partition(text)
        return before

    def end(self) -> None:
        """Waits for the end."""
        self.process.wait(PATIENCE)


#: Takes the terminal as its own and becomes the command.
LEADER = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


#: A command that says its process id and `up`, and waits. What is typed does not look like it.
BUSY = """python -c 'import os, signal; print(f"{os.getpid()}={chr(117)}p"); signal.pause()'"""


@pytest.mark.parametrize("name", ["/bin/bash", "/bin/sh"])
def test_in_a_terminal(realized: World, name: str) -> None:
    """The prompt names version and generation; Ctrl-C is for what runs in it, not for cvs."""
    (Path(os.environ["HOME"]) / ".bashrc").write_text("PS1='mine> '\n")
    with Terminal(realized, name=name) as terminal:
        terminal.until(f"{start_line()}; `exit` or Ctrl-D leaves")
        terminal.until("(demo@1) ")
        terminal.type(f"{BUSY}\n")
        terminal.until("=up\n")
        terminal.type("\x03")
        terminal.until("(demo@1) ")
        terminal.type("echo code=$?\n")
        terminal.until("code=130\n")
        terminal.type("exit 7\n")
        terminal.end()

    assert terminal.process.returncode == 7
    assert realized.leases() == []


def test_prompt_of_start_files_stays(realized: World) -> None:
    """The prefix comes before the prompt of one's own, once, beside other hooks of it."""
    (Path(os.environ["HOME"]) / ".bashrc").write_text(
        "PS1='mine> '\nPROMPT_COMMAND=\"printf hook:;$PROMPT_COMMAND\"\n"
    )
    with Terminal(realized, PROMPT_COMMAND="printf older:") as terminal:
        for _ in range(3):
            assert terminal.until("older:(demo@1) mine> ").endswith("hook:")
            terminal.type("\n")
        terminal.until("older:(demo@1) mine> ")
        terminal.type("exit\n")
        terminal.end()


def test_prompt() -> None:
    """Which variables make a prompt, for shells that take it from the environment alone."""
    assert prompt("/usr/bin/zsh", "(x@1) ", {}) == {"PS1": "(x@1) %m%# "}
    assert prompt("dash", "(x@1) ", {"PS1": "> "}) == {"PS1": "(x@1) > "}
    assert prompt("/usr/bin/fish", "(x@1) ", {}) == {}
    assert prompt("/bin/bash", "(x@1) ", {}).keys() == {"PROMPT_COMMAND"}


def test_suspended(realized: World) -> None:
    """A shell that suspends itself stops cvs too, and both go on together."""
    with Terminal(realized) as terminal:
        terminal.until("(demo@1) ")
        terminal.type("suspend\n")
        until(lambda: status(terminal.process.pid) == "T", lambda: terminal.said)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until("(demo@1) ")
        terminal.type("exit 4\n")
        terminal.end()

    assert terminal.process.returncode == 4


# The seal


def protected(world: World) -> list[tuple[Path, Path]]:
    """A file and a folder of everything that must not change while the shell runs."""
    lease = world.profile().lease(1)
    (world.cache / "pins" / "mine.json").write_text("{}")
    (world.cache / "pins" / "folder").mkdir()
    (world.cache / "state" / "other").mkdir()
    (world.cache / "state" / "other" / "file").write_text("x\n")
    (made,) = (world.local_root / "environments").iterdir()
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    node = world.cache / "store" / world.lock()["nodes"][0]["entry"]
    generation = world.cache / "profiles" / "demo"
    return [
        (node / "demo-node" / "__init__.py", node / "demo-node" / "web"),
        (node / "manifest.json", node),
        (generation / "1.json", generation / "1"),
        (generation / "1" / "main.py", generation / "1" / "custom_nodes"),
        (Path(lease.path), Path(lease.heartbeat)),
        (world.cache / "pins" / "mine.json", world.cache / "pins" / "folder"),
        (world.cache / "resolved" / "demo.lock.json", world.cache / "refs"),
        (world.cache / "format", world.cache / "tmp"),
        (world.cache / "state" / "other" / "file", world.cache / "state" / "other"),
        (made / "pyvenv.cfg", made / "lib" / minor / "site-packages"),
        (made / "bin" / "cvs-demo-palette", made / "bin"),
    ]


def frozen(world: World) -> dict[str, Any]:
    """Everything that must be as it was: all but what is made and dropped by the run itself."""
    kept = {**listing(world.cache), **listing(world.local_root)}
    return {
        path: (value[:2], value[3]) if path in ("leases", "tmp", "run") else value
        for path, value in kept.items()
        if not path.startswith(("state/demo", "run/", "databases", "caches"))
    }


@sealed
@pytest.mark.parametrize("how", ["shell", "exec"])
def test_nothing_of_the_volume_can_be_written(realized: World, tmp_path: Path, how: str) -> None:
    """Store, generations, leases, pins, locks and environment stay as they are, whatever root
    does in it, or a child of a child."""
    targets = protected(realized)
    assert all(file.is_file() and folder.is_dir() for file, folder in targets)
    outside = tmp_path / "outside"
    outside.mkdir()
    program = [attacks.__file__, "all", str(outside), str(os.getpid())]
    program += [str(path) for pair in targets for path in pair]
    # What the first run makes is there before.
    realized.process("exec", "demo", "-q", "--", "true")
    before = frozen(realized)
    if how == "exec":
        done = realized.process("exec", "demo", "-q", "--", "python", *program)
    else:
        script = 'sh -c \'python "$@"; exit $?\' "$@"'
        options = ["-q", "--", "-c", script, "shell"]
        done = realized.process("shell", "demo", *options, "sh", *program)

    assert (done.code, done.err) == (0, "")
    said = done.out.splitlines()
    assert len(said) == len(targets) * len(attacks.NAMES)
    assert [line for line in said if not line.endswith(": refused")] == []
    assert before == frozen(realized)


@sealed
def test_what_can_be_written(realized: World) -> None:
    """The version's state, the loose models, TMPDIR and the caches of libraries."""
    script = (
        'set -e; echo x > user/mine; echo x > "$MODELS_DIR/loose.gguf"; '
        'echo x > output/image; mkdir -p "$HF_HOME/hub"; d=$(mktemp -d); echo x > "$d/file"; '
        'python -c "import tempfile; tempfile.NamedTemporaryFile().write(b\\"x\\")"; echo "$d"'
    )
    done = shell(realized, script, "-q")

    assert (done.code, done.err) == (0, "")
    assert re.match(rf"{realized.local_root}/run/[^/]+/tmp/", done.out)
    assert not os.path.exists(done.out.strip())
    assert (realized.state() / "user" / "mine").read_text() == "x\n"
    assert (realized.state() / "output" / "image").exists()
    assert (realized.cache / "models" / "loose.gguf").exists()


@sealed
def test_a_shell_in_a_shell(realized: World) -> None:
    """cvs itself can look at things in it, and says that it may not write."""
    cvs = f"{sys.executable} -m cvs"
    done = shell(realized, f"{cvs} store verify -q && {cvs} shell demo -q -- -c true", "-q")

    assert (done.code, done.out) == (2, "5 entries, all well\n")
    assert done.err.startswith(f"error: permission is denied: {realized.cache}/leases/")
