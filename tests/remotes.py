"""A server of one file in memory, which does what a test wants; a `cvs.versions.remote.Remote`."""

import threading
import time

from cvs.versions.remote import Changed, Passing, Reply


class Remote:
    """A server in memory.

    Attributes:
        asked: every range that was asked for.
        breaks: bytes after which each of the first answers breaks off.
        most: how many answers may be read at once.
    """

    shown = "http://server/file"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int | None]] = []
        self.ranges = True
        self.validator = '"1"'
        self.says_size = True
        self.breaks: list[int] = []
        self.most = 99
        self.open_now = 0
        self.most_seen = 0
        self.given = 0
        self.delay = 0.0
        self.lock = threading.Lock()

    def open(self, start: int, end: int | None, validator: str) -> Reply:
        with self.lock:
            self.asked.append((start, end))
            if validator not in ("", self.validator):
                raise Changed("http://server/file changed while it was fetched")
            if self.open_now >= self.most:
                raise Passing("answered 503")
            self.open_now += 1
            self.most_seen = max(self.most_seen, self.open_now)
            left = self.breaks.pop(0) if self.breaks else None
        if not self.ranges:
            start, end = 0, None
        size = len(self.data) if self.says_size else None
        return Reply(Body(self, start, end, left), start, size, self.validator, self.ranges)


class Body:
    def __init__(self, remote: Remote, start: int, end: int | None, left: int | None) -> None:
        self.remote, self.at, self.left = remote, start, left
        self.end_at = len(remote.data) if end is None else min(end, len(remote.data))
        self.is_closed = False

    def read(self, limit: int) -> bytes:
        if self.remote.delay:
            time.sleep(self.remote.delay)
        if self.left is not None:
            if not self.left:
                raise Passing("broke off")
            limit = min(limit, self.left)
        data = self.remote.data[self.at : min(self.at + limit, self.end_at)]
        self.at += len(data)
        if self.left is not None:
            self.left -= len(data)
        with self.remote.lock:
            self.remote.given += len(data)
        return data

    def end(self) -> None:
        pass

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            with self.remote.lock:
                self.remote.open_now -= 1
