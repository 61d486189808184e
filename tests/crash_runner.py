"""Runs one command of cvs again and again, each time with a file-system call that goes wrong.

Started by test_crash.py as a process of its own: it forks for every run, which is quick and needs
a process without threads. Reads a JSON document from standard input, writes one per line.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from cvs.main import main
from cvs.profiles import client, environment, realize, session  # noqa: F401
from cvs.store import fs
from cvs.versions import git, interpreter, models, python, wheels  # noqa: F401

#: What of a world's folder a command may change.
CHANGED = ("cache", "local", "versions", "ComfyUI", "twin")

#: What a full volume refuses; renaming and removing it does not.
GROWING = ("create", "write", "fsync", "syncfs", "close", "mkdir", "symlink", "link")


def run(arguments: list[str], log: str, observer: Callable[[str, object], None] | None) -> int:
    """Runs a command in a child with an observer; its status as waitpid has it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        text = io.StringIO()
        fs.observer = observer
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(text):
            code = main(arguments)
        fs.observer = None
        with open(log, "w", encoding="utf-8") as file:
            file.write(text.getvalue())
    except SystemExit as error:
        code = int(str(error.code))
    except BaseException:
        import traceback

        with open(log, "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


def counting(log: str) -> Callable[[str, object], None]:
    """Writes down every call."""

    def observe(call: str, _where: object) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{call}\n")

    return observe


def error(code: int, where: object) -> OSError:
    """As the kernel's: it knows a path where one was given."""
    path = [where] if isinstance(where, str | bytes) else []
    return OSError(code, os.strerror(code), *path)


def at(number: int, what: str) -> Callable[[str, object], None]:
    """Lets the call with a number (from 1) go wrong."""
    count = 0
    lock = threading.Lock()
    code = getattr(errno, what, 0)

    def observe(call: str, where: object) -> None:
        nonlocal count
        with lock:
            count += 1
            mine = count
        if what == "FULL":
            if mine >= number and call in GROWING:
                raise error(errno.ENOSPC, where)
        elif mine == number:
            if code:
                raise error(code, where)
            os.kill(os.getpid(), getattr(signal, what))

    return observe


def restore(template: str, folder: str) -> None:
    """Puts everything that a command may have changed back as it was."""
    for name in CHANGED:
        fs.remove_tree(f"{folder}/{name}")
        source = f"{template}/{name}"
        if os.path.islink(source):
            os.symlink(os.readlink(source), f"{folder}/{name}")
        elif os.path.isdir(source):
            shutil.copytree(source, f"{folder}/{name}", symlinks=True)


def answer(**members: Any) -> None:
    print(json.dumps(members), flush=True)


def interesting(names: list[str]) -> list[int]:
    """The numbers of all calls but those amid others of their kind."""
    around = zip(names, [None, *names[:-1]], [*names[1:], None], strict=True)
    return [n for n, (call, *others) in enumerate(around, 1) if others != [call, call]]


def serve() -> None:
    """Does what standard input asks for."""
    order = json.loads(sys.stdin.readline())
    template, folder, log = order["template"], order["folder"], order["log"]
    os.environ.clear()
    os.environ.update(order["environment"])
    restore(template, folder)
    # Asked once, before any fork.
    interpreter.probe(interpreter.find(None))
    calls = log + ".calls"
    status = run(order["arguments"], log, counting(calls))
    with open(calls, encoding="utf-8") as file:
        names = file.read().split()
    os.unlink(calls)
    answer(status=status, calls=names)
    for number in interesting(names)[order["part"] :: order["of"]]:
        restore(template, folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        status = run(order["arguments"], log, at(number, order["what"]))
        text = ""
        with contextlib.suppress(FileNotFoundError), open(log, encoding="utf-8") as file:
            text = file.read()
        answer(number=number, status=status, text=text)
        # The test looks at the folder, and may let the next realize run.
        if sys.stdin.readline() == "again\n":
            status = run(order["arguments"], log, None)
            with open(log, encoding="utf-8") as file:
                text = file.read()
            answer(number=number, status=status, text=text)
            sys.stdin.readline()


if __name__ == "__main__":
    serve()
