"""The seal: what cvs starts may read everything and write nothing of the store, even as root.

Landlock, a Linux security module that a process applies to itself and its children; it needs no
privileges and is allowed by Docker's default profile. It grants whole subtrees, so everything
that is not on the way to a protected folder is granted, and of the volume only the version's own
state and the loose models. In a folder on that way its other folders can be written, but no file
right in it, and nothing new can be made there; TMPDIR is therefore a folder of the process.

What is built, with code that nobody has read, gets a stricter one (`only`): it writes nothing but
what it is given. `cvs.store.unplugged` takes the network from it besides.

It does not stop chmod, changed times, or writes through a hard link made earlier: entries are
never hard-linked into a place that can be written. Numbers: linux/landlock.h.
"""

import ctypes
import errno
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

#: System calls; the same numbers on x86-64 and arm64.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE, _TRUNCATE, _REFER = 1 << 1, 1 << 14, 1 << 13
#: remove a folder or file; make a character device, folder, file, socket, fifo, block device, link
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))

_MAKE_DEVICE, _IOCTL_DEVICE = 1 << 6 | 1 << 11, 1 << 15
#: bind and connect, of TCP
_TCP = 1 << 0 | 1 << 1
#: abstract Unix sockets and signals, across the seal
_SCOPES = 1 << 0 | 1 << 1

#: Landlock versions: the first is incomplete, the third covers truncate. Later ones cover more
#: than the writing of files: TCP, ioctl of devices, and what lies in `_SCOPES`.
_COMPLETE, _WITH_TCP, _WITH_IOCTL, _WITH_SCOPES = 3, 4, 5, 6

#: What programs write into that keeps nothing. Not the terminal, which would show and do what it
#: is told, nor /dev/shm: the memory that other programs share lies there. So a build has no
#: semaphores of POSIX, and multiprocessing no locks.
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")

#: The version of capget and capset; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
_CAPABILITIES, _KEPT = 0x20080522, 1 << 1 | 1 << 2


class _Ruleset(ctypes.Structure):
    """Fields that a kernel does not know have to be 0."""

    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class Seal(NamedTuple):
    """A seal that a child can put on."""

    state: str
    """`full`, `partial` or `none`, as the start line says it."""
    apply: Callable[[], None]
    """Called in the child, between fork and exec."""
    close: Callable[[], None]
    """Called in the parent when no more children are started."""


def state() -> str:
    """What the kernel can do: `full`, `partial: …` (what is not covered) or `none: …` (why)."""
    version = _version()
    if version >= _COMPLETE:
        return "full"
    if version >= 1:
        return "partial: truncating files is not covered by this kernel"
    reason = {
        -errno.ENOSYS: "this kernel has no Landlock",
        -errno.EOPNOTSUPP: "Landlock is switched off in this kernel",
        -errno.EPERM: "this container forbids Landlock",
    }.get(version, "Landlock does not work here")
    return f"none: {reason}"


def make(protected: Iterable[str], writable: Iterable[str]) -> Seal:
    """Prepares a seal.

    Args:
        protected: folders that must not be written; those that do not exist are left out.
        writable: folders inside of protected ones that may be written all the same.
    """
    version = _version()
    rights = _writing(version)
    closed = {os.path.realpath(path) for path in protected if os.path.isdir(path)}
    paths = (*_around(closed), *(os.path.realpath(path) for path in writable))
    return _prepared(version, _Ruleset(rights), dict.fromkeys(paths, rights))


def only(writable: Iterable[str]) -> Seal:
    """Prepares a seal under which nothing can be written but below the given folders, and into
    /dev/null and its like.

    No device can be made, even there: root's would be the disk that everything lies on. Of root's
    privileges those over the modes of files stay: with the others it would read the variables of
    every process, secrets among them, and reach the kernel in many ways. Where the kernel can,
    signals and abstract Unix sockets reach nobody outside of the seal, TCP nobody at all, and
    devices obey no ioctl; that is no part of its state, which is about writing.

    Args:
        writable: folders that exist.
    """
    version = _version()
    rights = _writing(version)
    ruleset = _Ruleset(rights)
    if version >= _WITH_TCP:
        ruleset.handled_access_net = _TCP
    if version >= _WITH_IOCTL:
        ruleset.handled_access_fs |= _IOCTL_DEVICE
    if version >= _WITH_SCOPES:
        ruleset.scoped = _SCOPES
    granted = dict.fromkeys(_DEVICES, rights)
    granted |= {os.path.realpath(path): rights & ~_MAKE_DEVICE for path in writable}
    return together(_prepared(version, ruleset, granted), _unprivileged())


def together(*seals: Seal) -> Seal:
    """One seal of several; its state is that of the first that is not `full`."""

    def apply() -> None:
        for one in seals:
            one.apply()

    def close() -> None:
        for one in seals:
            one.close()

    states = [one.state for one in seals if one.state != "full"]
    return Seal(states[0] if states else "full", apply, close)


def _unprivileged() -> Seal:
    """Takes all privileges but those of `_KEPT`; after no_new_privs no program gives them back."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    # Effective, permitted, inheritable; and once more for those above the 32nd.
    sets = (ctypes.c_uint32 * 6)()
    libc = _libc()

    def apply() -> None:
        if libc.capget(header, sets) != 0:
            raise OSError(ctypes.get_errno(), "capabilities")
        sets[:] = [sets[0] & _KEPT, sets[1] & _KEPT, 0, 0, 0, 0]
        if libc.capset(header, sets) != 0:
            raise OSError(ctypes.get_errno(), "capabilities")

    return Seal("full", apply, lambda: None)


def _writing(version: int) -> int:
    """The rights that have to do with writing, as far as the kernel knows them."""
    rights = _WRITE_FILE | _CHANGE_FOLDER
    if version >= 2:
        rights |= _REFER
    if version >= _COMPLETE:
        rights |= _TRUNCATE
    return rights


def _prepared(version: int, attributes: _Ruleset, granted: Mapping[str, int]) -> Seal:
    """A seal that refuses what `attributes` has but for the rights granted below each path."""
    if version < 1:
        return Seal(state(), lambda: None, lambda: None)
    ruleset = _call(
        _CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), ctypes.c_uint32(0)
    )
    for path, rights in granted.items():
        _grant(ruleset, path, rights)
    libc = _libc()

    def apply() -> None:
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))

    return Seal(state(), apply, lambda: os.close(ruleset))


def _around(closed: set[str]) -> list[str]:
    """Every path that is neither in a protected folder nor on the way to one."""
    granted: list[str] = []
    waiting = ["/"]
    while waiting:
        folder = waiting.pop()
        below = folder.rstrip("/") + "/"
        if folder in closed:
            continue
        if not any(path.startswith(below) for path in closed):
            granted.append(folder)
            continue
        try:
            with os.scandir(folder) as items:
                # A rule holds its inode: a granted file that is removed would keep its space
                # until the last sealed process has ended, and a while longer.
                waiting += [
                    item.path
                    for item in items
                    if not item.is_symlink() and not item.is_file(follow_symlinks=False)
                ]
        except OSError:
            # What cannot be listed cannot hold anything that is needed.
            continue
    return granted


def _grant(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # Devices and sockets are no folders.
        allowed = rights if os.path.isdir(path) else rights & (_WRITE_FILE | _TRUNCATE)
        rule = _PathBeneath(allowed, descriptor)
        path_beneath = 1
        _call(
            _ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(path_beneath),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(descriptor)


def _version() -> int:
    """The kernel's Landlock version; minus an errno where there is none.

    Asked by the system call: /sys/kernel/security is not mounted in containers.
    """
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError as error:
        return -(error.errno or errno.ENOSYS)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc().syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
