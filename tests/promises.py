"""Processes that write to a volume without end, and what they were told that is stored.

What was acknowledged is a promise: whatever happens to the process, its host or its disk, it must
be there from then on.
"""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from blake3 import blake3
from faults import assert_whole

from cvs.profiles.generations import Profile
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.volume import Volume

RUNNER = Path(__file__).with_name("promises_runner.py")


class Process:
    """A process that carries out an order, in a group of its own with all that it starts."""

    def __init__(self, environment: dict[str, str] | None = None, **order: Any) -> None:
        whole = {"disks": [], "cut": None, "neighbour": False, "arguments": None} | order
        self._process = subprocess.Popen(
            [sys.executable, str(RUNNER), json.dumps(whole)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self.said: list[Any] = []

    def hear(self) -> bool:
        """Waits for the next thing that is acknowledged; False if there is no more."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            self.said.append(json.loads(line))
        return bool(line)

    def last(self, seconds: float) -> None:
        """Lets it work on for some time, unless it ends before."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """Kills it, unless it has ended, with all that it started; hears what it had said."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self.end()

    def end(self) -> tuple[int, str]:
        """Waits for its end; its exit status and what it said of errors."""
        while self.hear():
            pass
        assert self._process.stderr is not None
        text = self._process.stderr.read().decode()
        # Before its number is free for others: what it started is in the group of that number.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            return self._process.wait(), text


class Promises:
    """What was acknowledged on one volume; use as a context manager, which ends all processes."""

    def __init__(self, volume: Volume, scratch: Path, disks: Sequence[str] = ()) -> None:
        self.volume = volume
        self._scratch = scratch
        self._disks = disks
        self._seeds = itertools.count()
        self._entries: set[EntryId] = set()
        self._generations: dict[str, int] = {}
        self._moved: dict[str, EntryId] = {}
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()

    def start(self, **order: Any) -> Process:
        """A process that adds to the volume: without end, or so many `deeds`.

        Args:
            order: as the runner has it; `repair` is a volume from which all that is marked as
                damaged is repaired, instead of adding anything.
        """
        seed = next(self._seeds)
        work = {"volume": self.volume.root, "deeds": None, "seed": seed, "disks": self._disks}
        work["repair"] = None
        process = Process(source=str(self._scratch / f"source-{seed}"), **(work | order))
        self._processes.append(process)
        return process

    def keep(self, process: Process, cut: float = math.inf) -> None:
        """Takes note of what a process had said before the power was cut, if it was."""
        for said in process.said:
            if said["at"] > cut:
                return
            self._entries.update(said.get("entries", ()))
            if "kept" in said:
                self._moved[said["kept"]] = EntryId(said["content"])
            if "generation" in said:
                self._generations[said["version"]] = said["generation"]

    def check(self, volume: Volume | None = None) -> None:
        """All of it is there, and whatever else has a name is whole as well.

        Args:
            volume: the same one, as another host sees it.
        """
        volume = volume or self.volume
        if not volume.exists():
            assert self._entries == set()
            return
        store = Store(volume)
        assert self._entries <= set(store.ids())
        assert_whole(store)
        for path, entry in self._moved.items():
            # A file's entry is named by the digest of its bytes.
            place = os.path.join(volume.models, os.path.basename(path))
            if not store.has(entry):
                assert entry == blake3(Path(place).read_bytes()).hexdigest()
        for version, number in self._generations.items():
            current = Profile(volume, version).current()
            assert current is not None
            assert current >= number
        for version in os.listdir(volume.profiles):
            profile = Profile(volume, version)
            assert {profile.current()} <= {None, *profile.numbers()}
            for number in profile.numbers():
                assert all(map(store.has, profile.record(number).entries))

    def go_on(self) -> None:
        """The next process finds nothing in its way."""
        process = self.start(deeds=5)
        assert process.end() == (0, "")
        self.keep(process)
        self.check()
