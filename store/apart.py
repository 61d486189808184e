"""Work apart from the thread that hears of signals.

Python's events, conditions, pools and futures lock by code in Python. A Ctrl-C that comes amid it
may leave a lock taken for ever, and whoever needs that next waits as long. So what waits for other
threads does so where no signal raises anything, and the main thread waits for one answer, in a
single call of the interpreter's own.
"""

import queue
import signal
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Does some work, in another thread if this is the main one; returns or raises what it does.

    Args:
        stop: asks the work to end soon. Called when a signal raised something here; that is raised
            when the work has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    answers: queue.SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = queue.SimpleQueue()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def do() -> None:
        # What is started from here hears of signals as usual.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        answer: tuple[T, None] | tuple[None, BaseException]
        try:
            answer = work(), None
        except BaseException as error:
            answer = None, error
        # Twice: a Ctrl-C may come when the first was taken and is not here yet.
        answers.put(answer)
        answers.put(answer)

    thread = threading.Thread(target=do, name="apart")
    try:
        start(thread)
        result, error = answers.get()
    except BaseException:
        if thread.ident is not None:
            stop()
            answers.get()
        raise
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def start(thread: threading.Thread) -> None:
    """Starts a thread, which waits for that and must not be interrupted; it hears of no signals."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
