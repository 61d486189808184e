"""What resolvers and fetchers may use: the network, this machine, and where to report."""

import os
import threading

import msgspec

from cvs.store.errors import InputError
from cvs.store.progress import SILENT, Progress
from cvs.versions.connections import Connections
from cvs.versions.interpreter import Chosen
from cvs.versions.sites import PUBLIC, Sites
from cvs.versions.tokens import NO_TOKENS, Tokens


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The permissions and places of one run."""

    offline: bool = False
    """No connection at all."""
    allow_local: bool = False
    """Repositories may be folders and servers of this machine."""
    python: Chosen | None = None
    """The interpreter that settings name."""
    wheels_dir: str | None = None
    """A folder of wheels, asked first; the only source of wheels when offline."""
    no_build: bool = False
    """No wheel is built from its source."""
    model_dirs: tuple[str, ...] = ()
    """Folders with models that need not be fetched if their bytes are right."""
    allow_pickle: bool = True
    """Models may be pickles."""
    sites: Sites = PUBLIC
    """Where HuggingFace and Civitai are asked."""
    tokens: Tokens = NO_TOKENS
    """What servers are told of who asks."""
    connections: Connections = msgspec.field(default_factory=Connections)
    """Those of all transfers together."""
    progress: Progress = SILENT
    stop: threading.Event = msgspec.field(default_factory=threading.Event)
    """Set when the run is to end: long work looks at it between two pieces."""


def check_wheels_dir(path: str | None) -> None:
    """Raises InputError unless `path` is None or a folder."""
    if path is not None and not os.path.isdir(path):
        raise InputError(f"--wheels-dir: {path} is not a folder")
