"""Writes that a sealed process tries against what it must not change; run as a program.

    attacks.py all|NAME OUTSIDE PID (FILE FOLDER)…

OUTSIDE is a folder that may be written, PID a process without the seal, each FILE and FOLDER lie in
what is protected, beside each other or not. Says a line for each: FILE, the attack, and `refused`,
`DONE`, or what else went wrong.
"""

import contextlib
import ctypes
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)

#: What the kernel says of what is not allowed; EXDEV is its word for a link or rename between
#: folders with different rights.
REFUSALS = (1, 13, 18)

AT_FDCWD, SYMLINK_FOLLOW, MS_BIND, PTRACE_SEIZE, RENAME_EXCHANGE = -100, 0x400, 4096, 0x4206, 2

#: What only root may do, seal or not, and not in every container.
PRIVILEGED = {"device", "bind mount", "mount namespace", "chroot", "handle", "ptrace", "memory"}
PRIVILEGED |= {"root of another"}


def attacks(outside: str, pid: int, file: str, folder: str) -> dict[str, Callable[[], object]]:
    mine, spare = f"{outside}/mine", f"{outside}/spare-{os.urandom(4).hex()}"
    quoted = shlex.quote(file)
    child = f"import os, sys; os.chroot('/') if sys.argv[2:] else 0; open({file!r}, 'a').write('x')"
    return {
        "append": lambda: append(file),
        "overwrite": lambda: open(file, "r+").write("x"),
        "open for truncation": lambda: open(file, "w"),
        "truncate": lambda: os.truncate(file, 0),
        "truncate by reading": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        "reopen": lambda: append(f"/proc/self/fd/{os.open(file, os.O_RDONLY)}"),
        "through /proc/self/root": lambda: append(f"/proc/self/root{file}"),
        "through a link": lambda: (os.symlink(file, spare), append(spare)),
        "through a folder's link": lambda: (
            os.symlink(folder, spare),
            open(f"{spare}/new", "x"),
        ),
        "create": lambda: open(f"{folder}/new", "x"),
        "create from inside": lambda: (os.chdir(folder), open("new", "x")),
        "create by descriptor": lambda: os.open(
            "new", os.O_CREAT | os.O_WRONLY, dir_fd=os.open(folder, os.O_RDONLY)
        ),
        "nameless file": lambda: nameless(folder),
        "mkdir": lambda: os.mkdir(f"{folder}/new"),
        "pycache": lambda: os.makedirs(f"{folder}/__pycache__/deep"),
        "unlink": lambda: os.unlink(file),
        "rmdir": lambda: os.rmdir(folder),
        "rename": lambda: os.rename(file, f"{file}.other"),
        "rename a folder": lambda: os.rename(folder, f"{folder}.other"),
        "rename what it lies in": lambda: os.rename(
            os.path.dirname(file), f"{os.path.dirname(file)}.other"
        ),
        "rename out": lambda: os.rename(file, spare),
        "rename in": lambda: os.rename(mine, f"{folder}/new"),
        "rename over": lambda: os.rename(mine, file),
        "exchange": lambda: call("renameat2", AT_FDCWD, mine, AT_FDCWD, file, RENAME_EXCHANGE),
        "link out": lambda: (os.link(file, spare, follow_symlinks=False), append(spare)),
        "link in": lambda: os.link(mine, f"{folder}/new"),
        "symlink": lambda: os.symlink("x", f"{folder}/new"),
        "fifo": lambda: os.mkfifo(f"{folder}/new"),
        "socket": lambda: bind(folder),
        "device": lambda: os.mknod(f"{folder}/new", 0o20600, os.makedev(1, 3)),
        "child": lambda: run("sh", "-c", f"echo x >> {quoted}"),
        "child of a child": lambda: run(
            "setsid", "-w", "sh", "-c", f"sh -c 'echo x | tee -a \"$0\"' {quoted}"
        ),
        "python of a child": lambda: run("sh", "-c", '"$0" -c "$1"', sys.executable, child),
        "sed": lambda: run("sed", "-i", "s/./y/", file),
        "cp": lambda: run("cp", "--remove-destination", mine, file),
        "handle": lambda: by_handle(file),
        "bind mount": lambda: call("mount", outside, folder, None, MS_BIND, None),
        "mount namespace": lambda: run("unshare", "-m", "mount", "--bind", outside, folder),
        "chroot": lambda: run(sys.executable, "-c", child, file, "chroot"),
        "root of another": lambda: append(f"/proc/{pid}/root{file}"),
        "memory": lambda: open(f"/proc/{pid}/mem", "r+b"),
        "ptrace": lambda: call("ptrace", PTRACE_SEIZE, pid, None, None),
    }


def append(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def nameless(folder: str) -> None:
    descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY)
    call(
        "linkat", AT_FDCWD, f"/proc/self/fd/{descriptor}", AT_FDCWD, f"{folder}/new", SYMLINK_FOLLOW
    )


def bind(folder: str) -> None:
    os.chdir(folder)
    socket.socket(socket.AF_UNIX).bind("new")


class Handle(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("bytes", ctypes.c_ubyte * 128),
    )


def by_handle(path: str) -> None:
    handle, mount = Handle(128), ctypes.c_int()
    call(
        "name_to_handle_at",
        AT_FDCWD,
        path,
        ctypes.byref(handle),
        ctypes.byref(mount),
        SYMLINK_FOLLOW,
    )
    near = os.open(os.path.dirname(path), os.O_RDONLY)
    call("open_by_handle_at", near, ctypes.byref(handle), os.O_WRONLY | os.O_APPEND)


def call(name: str, *arguments: object) -> None:
    raw = [os.fsencode(one) if isinstance(one, str) else one for one in arguments]
    if getattr(LIBC, name)(*raw) < 0:
        raise OSError(ctypes.get_errno(), name)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = ("denied", "not permitted", "superuser", "cross-device")
    if any(word in done.stderr.lower() for word in words):
        raise PermissionError(13, done.stderr)
    if done.returncode or done.stderr:
        raise RuntimeError(done.stderr)


def main(name: str, outside: str, pid: str, *targets: str) -> None:
    for file, folder in zip(targets[::2], targets[1::2], strict=True):
        for found in NAMES if name == "all" else [name]:
            attack = attacks(outside, int(pid), file, folder)[found]
            with open(f"{outside}/mine", "w") as mine:
                mine.write("mine")
            try:
                attack()
            except OSError as error:
                said = "refused" if error.errno in REFUSALS else repr(error)
            except RuntimeError as error:
                said = repr(error)
            else:
                said = "DONE"
            print(f"{file}: {found}: {said}", flush=True)
            with contextlib.suppress(OSError):
                os.chdir("/")


NAMES = list(attacks("outside", 0, "file", "folder"))

if __name__ == "__main__":
    main(*sys.argv[1:])
