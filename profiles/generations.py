"""Generations: numbered records of a version, one of which is current.

    profiles/<version>/7.json    the record, a hard link of the lease it was made under
    profiles/<version>/7/        its view
    profiles/<version>/7.link    → 7, the link that stays as long as the generation
    profiles/<version>/current   → 7, a hard link of 7.link

Flipping renames a hard link of `<n>.link` over `current`. A freshly made symlink would do on a
local disk; on a network file system readers lose the old one for a moment (docs/design.md).
"""

import os
import re

from cvs.store import fs
from cvs.store.errors import InputError, StoreError
from cvs.store.leases import Lease
from cvs.store.record import Record
from cvs.store.record import read as read_record
from cvs.store.scratch import Scratch
from cvs.store.volume import Volume

_RECORD = re.compile(r"([1-9][0-9]*)\.json")
_TRACE = re.compile(r"([1-9][0-9]*)(?:\.json|\.link)?")

#: How often a reader looks again for `current` while another host flips it.
_TRIES = 20


class Profile:
    """The generations of one version."""

    def __init__(self, volume: Volume, version: str) -> None:
        self.volume = volume
        self.version = version
        self.folder = os.path.join(volume.profiles, version)
        self.current_link = os.path.join(self.folder, "current")

    def exists(self) -> bool:
        """Whether the version was ever realized here and not deleted."""
        return os.path.isdir(self.folder)

    def numbers(self) -> list[int]:
        """The numbers of all generations, ascending."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(m[1]) for m in map(_RECORD.fullmatch, names) if m)

    def current(self) -> int | None:
        """The number of the current generation; None if there is none."""
        for _ in range(_TRIES):
            try:
                target = os.readlink(self.current_link)
            except FileNotFoundError:
                if not os.path.isdir(self.folder):
                    return None
                continue
            except OSError as error:
                raise StoreError(f"{self.current_link} is not a link: {error.strerror}") from None
            if not target.isdecimal():
                raise StoreError(f"{self.current_link} leads to {target!r}, not to a generation")
            return int(target)
        return None

    def view(self, number: int) -> str:
        """The folder that ComfyUI runs in."""
        return os.path.join(self.folder, str(number))

    def record_path(self, number: int) -> str:
        """The file of a generation's record."""
        return os.path.join(self.folder, f"{number}.json")

    def record(self, number: int) -> Record:
        """Reads the record of a generation.

        Raises:
            InputError: there is no such generation.
        """
        try:
            return read_record(self.record_path(number))
        except FileNotFoundError:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise InputError(
                f"{self.version} has no generation {number}", hint=f"there are: {known}"
            ) from None

    def find(self, wanted: Record) -> int | None:
        """The newest generation that has the same content as a record, if there is one."""
        for number in reversed(self.numbers()):
            try:
                if read_record(self.record_path(number)).same_content(wanted):
                    return number
            except (FileNotFoundError, StoreError):
                # Removed meanwhile; or damaged, or of a newer cvs, which is no reason to fail.
                continue
        return None

    def lease(self, number: int) -> Lease:
        """Takes a lease on a generation, so that what it needs stays while it is used.

        Raises:
            InputError: there is no such generation any more.
        """
        path = self.record_path(number)
        try:
            return Lease.of_generation(self.volume, path)
        except FileNotFoundError:
            if os.path.lexists(path):
                # A stale cache: the generation is there.
                raise
            raise InputError(f"{self.version} has no generation {number} any more") from None

    def publish(self, lease: Lease) -> int:
        """Makes the lease's record a generation and returns its number; not current yet.

        Raises:
            LeaseLost: the lease was expired; nothing was published.
        """
        fs.makedirs(self.folder)
        # A number is not given again while a view or link of it is left: it would pass for ours.
        used = [int(m[1]) for m in map(_TRACE.fullmatch, os.listdir(self.folder)) if m]
        number = lease.publish(self.folder, max(used, default=0) + 1)
        fs.sync_folder(self.folder)
        return number

    def flip(self, number: int) -> bool:
        """Makes a generation current in one rename; False if it was already.

        Its record must be held by a lease or just published, and its view be in place. Uses
        symlink, link, rename and unlink alone, which work on a full volume.
        """
        if self.current() == number:
            return False
        permanent = os.path.join(self.folder, f"{number}.link")
        try:
            fs.symlink(str(number), permanent)
        except FileExistsError:
            pass
        # Renaming one hard link over another of the same inode does nothing and leaves both.
        with Scratch(self.volume.tmp) as scratch:
            temporary = os.path.join(scratch.folder, "current")
            fs.link(permanent, temporary)
            fs.rename(temporary, self.current_link)
        fs.sync_folder(self.folder)
        return True

    def before(self, number: int) -> int:
        """The generation before one.

        Raises:
            InputError: there is none.
        """
        earlier = [n for n in self.numbers() if n < number]
        if not earlier:
            raise InputError(f"{self.version} has no generation before {number}")
        return earlier[-1]
