"""What the commands share: options, output, errors, and the objects that they work on."""

import argparse
import errno
import importlib
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from cvs.settings import Settings
from cvs.store import fs
from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError
from cvs.store.progress import Progress
from cvs.store.units import size as size
from cvs.store.volume import Volume

#: Exit code after Ctrl-C and after SIGTERM, as shells have them.
INTERRUPTED = 130
TERMINATED = 143

_CONTROL = re.compile("[\x7f-\x9f]")

#: What a terminal obeys, but for the ends of lines.
_STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Every parser makes one for every argument; argparse's own imports a lot for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """How wide the terminal is, as `shutil.get_terminal_size` has it."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdecimal() and int(given[:4]) > 0:
        return int(given[:4])
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors look like all others of cvs."""

    def __init__(self, command: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"cvs {command}",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Called by argparse for what it cannot parse."""
        raise InputError(message, hint=f"`{self.prog} --help` shows the options")

    def version_argument(self, what: str = "the version") -> None:
        """Adds the version's name, or the path of its spec."""
        self.add_argument("version", metavar="ID", help=f"{what}: its name, or its spec's path")

    def common(self, *, network: bool = False) -> None:
        """Adds the options that all commands have, and those of commands that fetch."""
        group = self.add_argument_group("common options")
        group.add_argument("--json", action="store_true", help="result and progress as JSON")
        group.add_argument("--quiet", "-q", action="store_true", help="no progress and remarks")
        group.add_argument("--versions-dir", metavar="DIR", help="the folder of specs")
        if network:
            group.add_argument("--offline", action="store_true", help="make no connection at all")
            group.add_argument(
                "--allow-local",
                action="store_true",
                help="accept repositories that are folders or servers of this machine",
            )
            group.add_argument(
                "--wheels-dir", metavar="DIR", help="a folder of wheels, asked before any index"
            )
            group.add_argument(
                "--no-build",
                action="store_true",
                help="refuse Python packages that would have to be built from their source",
            )
            group.add_argument(
                "--connections",
                metavar="N",
                help="of one download: 1 to 64; by default as many as make it quicker",
            )
            group.add_argument("--lock-file", metavar="FILE", help="the lock, instead of its place")


class Session:
    """One run of a command: its settings, output and store."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.settings = Settings(os.environ)
        self.json: bool = getattr(options, "json", False)
        self.quiet: bool = getattr(options, "quiet", False)
        self._progress: Progress | None = None

    @property
    def progress(self) -> Progress:
        """Where long work reports: bars, plain lines or events on standard error, or nowhere."""
        if self._progress is None:
            if self.quiet:
                self._progress = Progress()
            else:
                from cvs.terminal import progress

                self._progress = progress(as_json=self.json)
        return self._progress

    @property
    def volume(self) -> Volume:
        """The volume."""
        try:
            wheels = self.settings.wheels
        except ValueError as error:
            raise InputError(str(error)) from None
        return Volume(self.settings.cache_root, wheels=wheels)

    @property
    def store(self) -> Store:
        """The store on it, its layout checked."""
        volume = self.volume
        volume.check()
        return Store(volume)

    def say(self, text: str) -> None:
        """Tells a person something: on standard error, not with --quiet or --json."""
        if not self.quiet and not self.json:
            print(text, file=sys.stderr)

    def result(self, data: Any, text: str) -> None:
        """Gives the result: as JSON or as text, on standard output."""
        if self.json:
            import orjson

            text = orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()
            # JSON escapes U+0000 to U+001F only; a terminal obeys these as well.
            sys.stdout.write(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
        elif text:
            print(escaped(text))

    def flag(self, name: str) -> bool:
        """An environment variable that is true or false."""
        try:
            return self.settings.flag(name)
        except ValueError as error:
            raise InputError(str(error)) from None


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Runs a command; every error that cvs explains becomes a sentence and an exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    own = list(itertools.takewhile(lambda text: text not in ("--", "--extra-args"), arguments))
    try:
        module = importlib.import_module(f"cvs.cmd_{name.replace('-', '_')}")
        code: int = module.run(list(arguments))
        sys.stdout.flush()
        return code
    except CvsError as error:
        return _report(error, "--json" in own)
    except KeyboardInterrupt:
        print("interrupted: nothing is broken, run it again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _EXPLAINED:
            raise
        return _report(_explain(error), "--json" in own)


#: What the world does to a file system that is no defect of cvs.
_EXPLAINED = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.EIO: "the file system does not answer (input/output error)",
    errno.EINTR: "a signal interrupted the file system",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.ENAMETOOLONG: "the path is too long",
    errno.EMFILE: "too many files are open",
    errno.ENOENT: "a folder or file is not there",
    errno.EEXIST: "something is in the way",
    errno.EISDIR: "a folder is in the way",
    errno.ELOOP: "links lead in a circle",
    errno.EXDEV: "a folder of the volume lies on another file system",
    errno.ENOTCONN: "the volume is not connected any more",
    errno.ESTALE: "the volume was replaced while it was used",
    errno.ETIMEDOUT: "the volume does not answer",
    errno.EBUSY: "the file system is busy",
}


def _explain(error: OSError) -> CvsError:
    assert error.errno is not None
    # Of two names the second is what could not be made.
    full = error.errno in fs.FULL
    name = (full and error.filename2) or error.filename
    root = Settings(os.environ).cache_root
    place = os.fsdecode(name) if isinstance(name, str | bytes) else root
    text = f"{_EXPLAINED[error.errno]}: {place}"
    if not full:
        return CvsError(text)
    try:
        ours, free = _same_file_system(place, root), _free(place)
    except OSError:
        # The volume answers no more: what it said before has to do.
        return CvsError(text)
    where = f"on the volume {root}" if ours else "there"
    if error.errno == errno.EDQUOT:
        text += f"; `df` knows of no quota and shows {free} free {where}"
    else:
        # What was unfinished is removed already.
        text += f"; now {free} are free {where}"
    what = "versions that nobody needs (`cvs delete ID`; `cvs store du` shows what takes the room)"
    hint = f"delete {what if ours else 'something there'} and run it again: what was stored is "
    return CvsError(text, hint=hint + "kept, nothing is half written")


def _same_file_system(*paths: str) -> bool:
    return len({os.stat(_existing(path)).st_dev for path in paths}) == 1


def _free(path: str) -> str:
    """How much is free on the file system of a path, which need not exist."""
    found = os.statvfs(_existing(path))
    free = f"{size(found.f_bavail * found.f_frsize)} of {size(found.f_blocks * found.f_frsize)}"
    # Some file systems make inodes as long as there is space, and say 0 of 0.
    return f"{free} and {found.f_favail} of {found.f_files} inodes" if found.f_files else free


def _existing(path: str) -> str:
    """The path, or its nearest parent that is there."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _report(error: CvsError, as_json: bool) -> int:
    if as_json:
        document = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        print(json.dumps(document, ensure_ascii=False))
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


def escaped(text: str) -> str:
    """Text in which a terminal finds nothing to obey but the ends of lines."""
    return _STEERING.sub(lambda match: repr(match[0])[1:-1], text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns that line up; the last column is not padded. Each row is one line."""
    rows = [[cell.replace("\n", r"\n") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
