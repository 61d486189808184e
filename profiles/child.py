"""A child process of a session: sealed before its first instruction, never without its parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from cvs.store.errors import InputError
from cvs.store.seal import Seal

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

_Handler = Callable[[int, FrameType | None], object] | int | None


def settle(seal: Seal, ending: signal.Signals = signal.SIGTERM) -> None:
    """For `preexec_fn`: the child gets `ending` when its parent is gone, and puts on the seal."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, ending)
    seal.apply()


def run(
    command: Sequence[str],
    *,
    folder: str,
    variables: Mapping[str, str],
    seal: Seal,
    ending: signal.Signals = signal.SIGTERM,
) -> int:
    """Runs a command in the foreground, with this process's files and terminal.

    A Ctrl-C is for the command: it has it from the terminal. What asks this process to end is
    passed on, and it waits.

    Args:
        folder: where it runs.
        ending: what it gets in place of SIGTERM, and when this process is gone: programs that
            talk to a terminal, such as shells, go on at a SIGTERM.

    Returns:
        Its exit code, 128 + N if signal N ended it.

    Raises:
        InputError: there is no such command, or it cannot be run.
    """
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if child is None:
            asked.append(number)
        else:
            child.send_signal(ending if number == signal.SIGTERM else number)

    def begin() -> None:
        for number in ours:
            # A handler of this process ends with it; what it ignores, its children ignore.
            signal.signal(number, signal.SIG_DFL)
        settle(seal, ending)

    handlers: dict[int, _Handler] = {
        signal.SIGINT: signal.SIG_IGN,
        signal.SIGQUIT: signal.SIG_IGN,
        signal.SIGTERM: pass_on,
        signal.SIGHUP: pass_on,
    }
    with _handling(handlers) as ours:
        try:
            child = subprocess.Popen(command, cwd=folder, env=dict(variables), preexec_fn=begin)
        except FileNotFoundError:
            raise InputError(f"there is no command {command[0]!r}") from None
        except OSError as error:
            raise InputError(f"{command[0]} cannot be run: {error.strerror}") from None
        except subprocess.SubprocessError as error:
            raise InputError(f"{command[0]} cannot be run: {error}") from None
        for number in asked:
            pass_on(number, None)
        code = _wait(child)
    return code if code >= 0 else 128 - code


def _wait(child: "subprocess.Popen[bytes]") -> int:
    while True:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            # Popen is not asked: it does not tell of a child that stops.
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode
        # A shell that suspends itself, in a process group of its own: whoever started this process
        # waits for it to stop too. In one group a Ctrl-Z is for both, as is what ends it.
        if os.getpgid(child.pid) != os.getpgrp():
            os.kill(os.getpid(), signal.SIGSTOP)
            child.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def _handling(handlers: Mapping[int, _Handler]) -> Iterator[tuple[int, ...]]:
    """Handles signals otherwise for a while, but for those that are ignored (as by nohup).

    Gives the numbers of those that it handles.
    """
    before = {number: signal.getsignal(number) for number in handlers}
    ours = tuple(number for number in handlers if before[number] != signal.SIG_IGN)
    try:
        for number in ours:
            signal.signal(number, handlers[number])
        yield ours
    finally:
        for number in ours:
            signal.signal(number, before[number])
