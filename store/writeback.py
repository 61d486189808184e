"""Letting the disk write what is staged while more is staged: the last sync then waits for less.

Nothing rests on it. Errors of the disk are told by the sync that counts, which goes through a
folder that was opened before.
"""

import contextlib
import os
import queue
import threading
from types import TracebackType
from typing import Self

from cvs.store import apart, fs

#: Seconds between the end of one sync and the next.
_PAUSE = 0.1


class Writeback:
    """Syncs the file system of a folder again and again, in a thread, until it is left.

    Only where `Volume.syncs_at_once`; elsewhere files are synced as they are written.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Begins; no more than once. Not before processes are forked that shall do the work."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="writeback", daemon=True)
            apart.start(self._thread)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.put(None)
        # After an error what was staged is removed, and the disk need not write it any more.
        if kind is None and self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                while not self._has_ended():
                    fs.write_back(descriptor)
            finally:
                os.close(descriptor)

    def _has_ended(self) -> bool:
        try:
            self._ended.get(timeout=_PAUSE)
        except queue.Empty:
            return False
        return True
