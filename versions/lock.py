"""The lock: every input of a version, exactly, and one digest per part of the spec it came from.

A lock says nothing of this machine: no credential, no local path. What came from a local path is
pinned by commit, digest and entry alone, and found again through the spec.
"""

import msgspec

from cvs.store.digest import EntryId

#: The version of the document that this code writes, and the newest it reads.
SCHEMA = 1


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all parts of a lock have in common."""


class Submodule(_Document, frozen=True):
    """A repository inside a tree: its commit's tree lies at `path`."""

    path: str
    repo: str
    """"" where it was a local path."""
    commit: str


class Commit(_Document, frozen=True):
    """A commit of the core or of a custom node, and the tree entry that it is."""

    name: str
    """The folder's name: `ComfyUI` for the core, the name in custom_nodes/ for a node."""
    request: str
    """Digest of what the spec asks for (repository, ref, commit); another one is resolved again."""
    repo: str
    """The repository's URL without credentials; "" for a local path."""
    ref: str | None
    commit: str
    date: str
    """The committer's date in UTC, `YYYY-MM-DDTHH:MM:SSZ`."""
    entry: EntryId
    size: int
    submodules: tuple[Submodule, ...] = ()
    lfs: tuple[str, ...] = ()
    """Paths that are stored with Git LFS; the entry has their content."""


class Interpreter(_Document, frozen=True):
    """What an environment is made for. A patch difference at run time is only a warning."""

    implementation: str
    """`cpython`"""
    version: str
    """`3.11.7`; the first two numbers must match."""
    abi: str
    """`cp311`"""
    platform: str
    """`linux_x86_64`"""
    libc: str
    """`glibc 2.36`, the one that the wheels were chosen for; "" if unknown."""


class Wheel(_Document, frozen=True):
    """One wheel, pinned by its bytes."""

    name: str
    version: str
    file: str
    sha256: str
    size: int | None
    url: str
    """Where it is fetched; "" for one that came from a local folder (find_links, --wheels-dir)."""
    uploaded: str | None
    """When the index says it was uploaded; None if undated, so no date could exclude it."""
    required_by: tuple[str, ...] = ()
    """The requirers that name it: `ComfyUI`, a node's name, `python_packages`, other packages."""


class Python(_Document, frozen=True):
    """The wheel set of a version."""

    interpreter: Interpreter
    exclude_newer: str | None
    """Nothing newer than this was considered; None for no limit."""
    wheels: tuple[Wheel, ...]
    ignored: tuple[str, ...] = ()
    """Lines of requirement files that were not followed, as `requirer: line`."""


class Model(_Document, frozen=True):
    """One model and its place below models/."""

    name: str
    path: str
    request: str
    """Digest of what the spec asks for (source, checksum)."""
    source: str
    """Its URL without credentials; "" for a local path."""
    size: int | None
    sha256: str | None
    """Known from the spec, or once it was fetched; a later fetch must fit it."""
    entry: EntryId | None
    """The BLAKE3 of its bytes, once known."""


class Parts(_Document, frozen=True):
    """One digest per part of the spec; a part whose digest differs is resolved again."""

    core: str
    nodes: str
    python: str
    models: str
    interpreter: str


class Lock(_Document, frozen=True):
    """A version, resolved."""

    schema_version: int
    version_id: str
    parts: Parts
    core: Commit
    nodes: tuple[Commit, ...]
    python: Python
    models: tuple[Model, ...]
