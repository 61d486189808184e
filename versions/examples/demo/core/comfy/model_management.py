"""Interrupting a prompt: one flag, set by a request and read by the thread that runs nodes."""

import os
import threading


class InterruptProcessingException(Exception):
    """The running prompt was told to stop."""


_lock = threading.Lock()
_interrupted = False


def interrupt_current_processing(value: bool = True) -> None:
    """Ask the running prompt to stop, or forget that it was asked."""
    global _interrupted
    with _lock:
        _interrupted = value


def processing_interrupted() -> bool:
    """Whether it was asked."""
    return _interrupted


def throw_exception_if_processing_interrupted() -> None:
    """Stop here if asked; long-running nodes come by through their progress bar."""
    global _interrupted
    with _lock:
        interrupted, _interrupted = _interrupted, False
    if interrupted:
        raise InterruptProcessingException


def memory() -> tuple[int, int]:
    """Bytes of RAM, and those that are free."""
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
