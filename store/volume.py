"""The volume: where everything of cvs lies, and what one may expect of its file system.

    store/<hash>/               an entry: manifest.json and content; immutable
    tmp/<uuid>/                 staging, on the same file system
    partial/<key>.<random>/     what is fetched over a long time, and gone on with
    leases/<id>.json            what a running process needs; its heartbeat is a folder beside it
    profiles/<version>/<n>.json a generation record; the same document as a lease
    profiles/<version>/<n>/     its view
    profiles/<version>/<n>.link → <n>, the link that `current` is flipped with
    profiles/<version>/current  → <n>
    state/<version>/            user, input, output, temp, custom_nodes; survives switches
    models/                     the user's own loose models
    pins/<name>.json            permanent roots
    refs/<kind>/<key>           → entry id: every input of a resolution; may be lost
    resolved/<version>.lock.json
    condemned/<hash>  gc/<id>/  a collection in progress, and its trash
    damaged/<hash>  <hash>.…/   marks of damaged entries, and what repairs took out of them
    reserve/                    room for what frees room when there is none
    format                      layout version of this volume

Nothing inside holds an absolute path of the volume: it is mounted at different places.
"""

import os

from cvs.store import fs, reserve, scratch, temporary
from cvs.store.errors import StoreError

#: The layouts that this code writes, by how the volume keeps wheels; a volume with a newer one is
#: left alone. Who knows the first alone knows no packs.
LAYOUTS = {"tree": 1, "pack": 2}
LAYOUT = max(LAYOUTS.values())

FOLDERS = (
    *("store", "tmp", "leases", "profiles", "state", "models", "pins", "refs", "resolved"),
    *("partial", "reserve"),
)

#: How long a read may be stale, in seconds: none on a disk of this host, the caches of a network
#: file system's clients elsewhere.
STALE_LOCAL = 0.0
STALE_NETWORK = 10.0


class Volume:
    """The folder that COMFY_CACHE_ROOT names. Constructing one touches nothing.

    Args:
        wheels: how a new volume is to keep wheels, `tree` or `pack`; by default packs where the
            file system is a network's. One that is set up has it recorded.
    """

    def __init__(self, root: str, *, wheels: str | None = None) -> None:
        self.root = os.path.abspath(root)
        self.store = os.path.join(self.root, "store")
        self.tmp = os.path.join(self.root, "tmp")
        self.partial = os.path.join(self.root, "partial")
        self.leases = os.path.join(self.root, "leases")
        self.profiles = os.path.join(self.root, "profiles")
        self.state = os.path.join(self.root, "state")
        self.models = os.path.join(self.root, "models")
        self.pins = os.path.join(self.root, "pins")
        self.refs = os.path.join(self.root, "refs")
        self.resolved = os.path.join(self.root, "resolved")
        self.condemned = os.path.join(self.root, "condemned")
        self.damaged = os.path.join(self.root, "damaged")
        self.reserve = os.path.join(self.root, "reserve")
        self._filesystem: str | None = None
        self._wheels = wheels

    def __repr__(self) -> str:
        return f"Volume({self.root!r})"

    @property
    def filesystem(self) -> str:
        """The type of the file system, as mountinfo names it; "" where that is unknown."""
        if self._filesystem is None:
            self._filesystem = fs.filesystem_of(self.root)
        return self._filesystem

    @property
    def syncs_at_once(self) -> bool:
        """Whether one call waits until the file system has everything, errors included.

        Elsewhere (FUSE, NFS: the kernel does not ask the server) each file is synced by itself.
        """
        return self.filesystem in fs.SYNCFS_TYPES

    @property
    def staleness(self) -> float:
        """Seconds by which a read may lag behind another host's change (D in docs/design.md)."""
        return STALE_LOCAL if self.filesystem in fs.SYNCFS_TYPES else STALE_NETWORK

    def exists(self) -> bool:
        """Whether the volume has been set up."""
        return os.path.exists(os.path.join(self.root, "format"))

    @property
    def layout(self) -> int:
        """The volume's layout, as recorded or as it will be."""
        found = self._recorded()
        if found is None:
            wheels = self._wheels or ("tree" if self.syncs_at_once else "pack")
            return LAYOUTS[wheels]
        return found

    @property
    def packs_wheels(self) -> bool:
        """Whether each wheel is kept as one pack instead of its many files."""
        return self.layout >= LAYOUTS["pack"]

    def check(self) -> None:
        """Refuses a layout that this code does not know.

        Raises:
            StoreError: the volume was written by a newer cvs, or its format file is damaged.
        """
        found = self._recorded()
        if found is not None and found > LAYOUT:
            raise StoreError(
                f"{self.root} has layout {found}, this cvs knows up to {LAYOUT}: "
                "nothing was changed",
                hint="update cvs",
            )

    def _recorded(self) -> int | None:
        path = os.path.join(self.root, "format")
        try:
            with open(path, encoding="ascii") as file:
                text = file.read(100)
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            text = "?"
        word, _, number = text.strip().partition(" ")
        if word != "cvs-layout" or not number.isdecimal():
            raise StoreError(f"{path} is not the format file of a cvs volume: {text.strip()!r}")
        return int(number)

    def prepare(self) -> None:
        """Makes the folders and the format file where they are missing, sweeps tmp/ and what this
        host's own disk has of the kind, and fills the reserve.

        Raises:
            StoreError: as `check`.
        """
        self.check()
        for name in FOLDERS:
            fs.makedirs(os.path.join(self.root, name))
        scratch.sweep(self.tmp)
        temporary.sweep()
        if not self.exists():
            # Last, so that a volume with a format file is whole; two hosts write the same bytes.
            scratch.replace_file(
                os.path.join(self.root, "format"), f"cvs-layout {self.layout}\n".encode(), self.tmp
            )
        reserve.fill(self.reserve)
