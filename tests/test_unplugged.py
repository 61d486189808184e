"""Unplugged: a process that opens no socket, whatever it tries, and what it may do all the same."""

import errno
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvs.store import seal, unplugged

pytestmark = pytest.mark.skipif(unplugged.state() != "full", reason=unplugged.state())

#: What every attempt begins with. `call` makes a system call by its number.
HEAD = """
import ctypes, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "call")
x86 = os.uname().machine == "x86_64"
host, port, path, dgram = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
"""

#: Attempts to get out, by name. Each raises OSError, or did it.
ATTEMPTS = {
    "IPv4": "socket.create_connection(('127.0.0.1', port))",
    "IPv6": "socket.socket(socket.AF_INET6)",
    "datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (host, port))",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "Unix": "socket.socket(socket.AF_UNIX).connect(path)",
    "abstract Unix": "socket.socket(socket.AF_UNIX).bind('\\0cvs' + str(os.getpid()))",
    "listening": "socket.create_server(('127.0.0.1', 0))",
    "by number": "call(41 if x86 else 198, 2, 1, 0)",
    "by number, with high bits": "call(41 if x86 else 198, ctypes.c_ulong(1 << 32 | 2), 1, 0)",
    "pair of datagrams": (
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', dgram)"
    ),
    "pair of raw": "socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW)[0].sendto(b'x', dgram)",
    "pair of datagrams with flags": (
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)"
    ),
    "ring": "call(425, 8, ctypes.byref((ctypes.c_char * 256)()))",
    "child": (
        "code = 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))'\n"
        "command = [sys.executable, '-c', code, host, str(port)]\n"
        "done = subprocess.run(command, capture_output=True)\n"
        "if b'PermissionError' in done.stderr: raise PermissionError(13, 'child')\n"
        "assert done.returncode == 0, done.stderr"
    ),
    "thread": (
        "import threading\n"
        "found = []\n"
        "def go():\n"
        "    try: socket.create_connection((host, port))\n"
        "    except OSError as error: found.append(error)\n"
        "one = threading.Thread(target=go); one.start(); one.join()\n"
        "if found: raise found[0]"
    ),
    "descriptor of another": (
        "pid = os.pidfd_open(os.getppid())\ncall(438, pid, int(sys.argv[5]), 0)"
    ),
    "shell": (
        "done = subprocess.run(['bash', '-c', f'echo > /dev/tcp/{host}/{port}'],"
        " capture_output=True)\n"
        "if done.returncode: raise PermissionError(13, done.stderr)"
    ),
}

#: What not everybody may do, or not everywhere.
SOMETIMES = {"raw", "packet", "IPv6", "ring", "descriptor of another", "pair of raw", "shell"}


class Servers:
    """Servers on this machine that take whatever comes."""

    def __init__(self, folder: Path) -> None:
        self.inet = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(folder / "unix"))
        self.unix.listen()
        self.dgram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.dgram.bind(str(folder / "dgram"))
        host, port = self.inet.getsockname()
        own = str(self.inet.fileno())
        self.arguments = [host, str(port), str(folder / "unix"), str(folder / "dgram"), own]

    def close(self) -> None:
        for one in (self.inet, self.unix, self.dgram):
            one.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    made.close()


def run(made: seal.Seal, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code under a seal."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        preexec_fn=made.apply,
        capture_output=True,
        text=True,
        check=False,
    )
    made.close()
    return done


def attempt(name: str) -> str:
    indented = ATTEMPTS[name].replace("\n", "\n    ")
    return f"{HEAD}\ntry:\n    {indented}\nexcept OSError as error: print(error.errno)\n"


@pytest.mark.parametrize("name", ATTEMPTS)
def test_no_socket_is_opened(servers: Servers, name: str) -> None:
    """Every way out that is known fails, with an error that the process survives."""
    done = run(unplugged.make(), attempt(name), *servers.arguments)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("13", "1", "38"), done.stdout


@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_attempts_are_real(servers: Servers, name: str) -> None:
    """Without the filter each of them does what it is about."""
    nothing = seal.Seal("none", lambda: None, lambda: None)
    done = run(nothing, attempt(name), *servers.arguments)

    if name in SOMETIMES and done.stdout:
        pytest.skip("this takes more than is permitted here")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_calls_of_another_architecture_end_the_process() -> None:
    """A call of i386, which would be counted otherwise, is no way around the filter."""
    if platform.machine() != "x86_64":
        pytest.skip("only x86-64 has a second way in")
    # mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret
    code = (
        "import ctypes, mmap\n"
        "raw = bytes.fromhex('b867010000bb02000000b90100000031d2cd80c3')\n"
        "page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "page.write(b'\\x53' + raw[:-1] + b'\\x5b\\xc3')\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(at)())\n"
    )
    nothing = seal.Seal("none", lambda: None, lambda: None)
    before = run(nothing, code)

    assert run(unplugged.make(), code).returncode == -signal.SIGSYS
    if before.returncode or int(before.stdout) < 0:
        pytest.skip("this kernel has no calls of i386")


def test_calls_of_x32_are_not_there() -> None:
    """Nor is one of x32, whose numbers are others in the same architecture."""
    code = HEAD.partition("host, port")[0] + "call(0x40000000 | 41, 2, 1, 0)"
    done = run(unplugged.make(), code)

    assert "[Errno 38]" in done.stderr


def test_what_goes_on(tmp_path: Path) -> None:
    """Pipes, pairs of streams, event loops, processes, threads and files are as they were."""
    code = (
        "import asyncio, multiprocessing, os, socket, subprocess, sys, threading\n"
        "one, two = socket.socketpair()\n"
        "one.send(b'pair'); print(two.recv(4).decode())\n"
        "print(subprocess.check_output(['echo', 'child'], text=True).strip())\n"
        "async def wait(): return 'loop'\n"
        "print(asyncio.run(wait()))\n"
        "here, there = multiprocessing.Pipe()\n"
        "here.send('pipe'); print(there.recv())\n"
        "open(sys.argv[1], 'w').write('x')\n"
    )
    done = run(unplugged.make(), code, str(tmp_path / "file"))

    assert done.stdout.split() == ["pair", "child", "loop", "pipe"], done.stderr
    assert (tmp_path / "file").read_text() == "x"


def test_it_is_made_before_a_thread_forks() -> None:
    """It is put on in the child of a program that has threads, as the seal is."""
    running = threading.Event()
    other = threading.Thread(target=running.wait)
    other.start()
    try:
        done = run(unplugged.make(), attempt("by number"), "127.0.0.1", "1", "", "")
    finally:
        running.set()
        other.join()

    assert done.stdout == "13\n"


def test_a_machine_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the numbers of system calls are not known the state says so, and nothing is put on."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    made = unplugged.make()

    assert made.state == "none: the system calls of riscv64 are not known"
    made.apply()
    made.close()


def test_both_seals_at_once(tmp_path: Path, servers: Servers) -> None:
    """With the seal of what may be written, both hold, and the state is that of the weaker one."""
    if seal.state() != "full":
        pytest.skip(f"the seal is {seal.state()}")
    (tmp_path / "mine").mkdir()
    both = seal.together(seal.only([str(tmp_path / "mine")]), unplugged.make())
    code = HEAD + (
        "open(sys.argv[6] + '/mine/x', 'w').close()\n"
        "for what in (lambda: open(sys.argv[6] + '/x', 'w'),\n"
        "             lambda: socket.create_connection((host, port))):\n"
        "    try: what()\n"
        "    except PermissionError: print('no')\n"
    )
    weak = seal.Seal("none: a reason", lambda: None, lambda: None)

    assert both.state == "full"
    assert run(both, code, *servers.arguments, str(tmp_path)).stdout == "no\nno\n"
    assert seal.together(both, weak).state == "none: a reason"
    assert os.path.exists(tmp_path / "mine" / "x")


# The program itself, for machines that are not at hand


def decided(
    program: Sequence[tuple[int, int, int, int]], architecture: int, number: int, *arguments: int
) -> int:
    """What a filter decides of a system call, as the kernel runs it."""
    words = [number, architecture, 0, 0]
    for argument in arguments:
        words += [argument & 0xFFFFFFFF, argument >> 32]
    at = value = 0
    while True:
        code, when, otherwise, constant = program[at]
        at += 1
        if code == unplugged._LOAD:
            value = words[constant // 4]
        elif code == unplugged._AND:
            value &= constant
        elif code == unplugged._RETURN:
            return constant
        else:
            is_so = value == constant if code == unplugged._EQUAL else value >= constant
            at += when if is_so else otherwise


@pytest.mark.parametrize("name", unplugged._MACHINES)
@given(st.data())
def test_what_the_filter_decides(name: str, data: st.DataObject) -> None:
    """On every machine: sockets, rings and descriptors of others are refused, pairs but for those
    of streams of Unix too, calls of other architectures end the process, all else is allowed."""
    machine = unplugged._MACHINES[name]
    known = [*machine.refused, machine.socketpair, *unplugged._RINGS, 438]
    number = data.draw(st.sampled_from(known) | st.integers(0, 0xFFFFFFFF))
    others = [other.architecture for other in unplugged._MACHINES.values()]
    architecture = data.draw(
        st.just(machine.architecture) | st.sampled_from([*others, 0x40000003, 0x40000028])
    )
    family = data.draw(st.integers(0, 3) | st.integers(0, (1 << 64) - 1))
    kind = data.draw(st.integers(0, 10)) | data.draw(
        st.sampled_from([0, 0o4000, 0o2000000, 1 << 32])
    )
    pair = (family & 0xFFFFFFFF, kind & 0xF)
    if architecture != machine.architecture:
        expected = 0x80000000
    elif number >= 0x40000000:
        expected = 0x50000 | errno.ENOSYS
    elif number in machine.refused:
        expected = 0x50000 | errno.EACCES
    elif number in (425, 426, 427):
        expected = 0x50000 | errno.ENOSYS
    elif number == 438:
        expected = 0x50000 | errno.EPERM
    elif number == machine.socketpair and pair not in [(1, 1), (1, 5)]:
        expected = 0x50000 | errno.EACCES
    else:
        expected = 0x7FFF0000

    program = unplugged._filter(machine)
    assert decided(program, architecture, number, family, kind, 0) == expected
