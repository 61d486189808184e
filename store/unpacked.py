"""Packed trees, unpacked on this host's own disk: `<folder>/<id>/<name>/…`.

Disposable, and shared by all that need one. Every file is compared with its digest while it is
written. Nothing is synced: what was unpacked counts until the machine starts anew, and is made
again then.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from blake3 import blake3

from cvs.store import damage, fs, pack, tree, workers
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import IntegrityError, StoreError
from cvs.store.manifest import TreeManifest
from cvs.store.pack import Extent, Pack
from cvs.store.progress import SILENT, Progress
from cvs.store.scratch import Scratch, put, sweep
from cvs.store.workers import Advance

#: The file of an unpacked tree that is written last; says when the machine had been started.
MARKER = ".cvs"

#: How the names of what is being made begin.
_NEW = ".new-"

#: Packs that are open at once.
_OPEN = 200


class _Run(NamedTuple):
    """Files of one pack that are unpacked together."""

    entry: EntryId
    pack: Pack
    extents: Sequence[Extent]
    root: bytes


def ensure(
    store: Store,
    trees: Mapping[EntryId, TreeManifest],
    folder: str,
    progress: Progress = SILENT,
) -> dict[EntryId, str]:
    """Unpacks those of some entries that are packs, if they are not there yet.

    Two processes may do this at once: one of them wins and both have it.

    Args:
        trees: the entries and their manifests.
        folder: on a disk of this host; made if it is missing.

    Returns:
        Where the trees of those that are packs lie now.

    Raises:
        IntegrityError: a pack is damaged; it is marked.
        OSError: it cannot be read, or the disk is full.
    """
    packs = {
        entry: path
        for entry, document in trees.items()
        if (path := pack.find(store.path(entry), document))
    }
    lacking = [entry for entry in packs if not is_made(folder, entry)]
    if lacking:
        fs.makedirs(folder)
        clean(folder)
        lacking.sort(key=lambda entry: (-trees[entry].size, entry))
        total = sum(_files(trees[entry]) for entry in lacking)
        with progress.task(f"unpacking {len(lacking)} packages", total, "items") as task:
            for start in range(0, len(lacking), _OPEN):
                some = {entry: trees[entry] for entry in lacking[start : start + _OPEN]}
                with Scratch(folder, _NEW) as scratch:
                    _unpack(store, some, packs, scratch.folder)
                    for entry, document in some.items():
                        _put(os.path.join(scratch.folder, entry), folder, entry)
                        task.advance(_files(document))
    return {entry: os.path.join(folder, entry, trees[entry].name) for entry in packs}


def clean(folder: str) -> None:
    """Removes what processes left that were killed: who goes on may lack no tree any more."""
    sweep(folder, _NEW)


def is_made(folder: str, entry: EntryId) -> bool:
    """Whether an entry is unpacked in a folder, since the machine started."""
    try:
        with open(os.path.join(folder, entry, MARKER), encoding="ascii") as file:
            return file.read() == _started()
    except (OSError, UnicodeDecodeError):
        return False


def _started() -> str:
    """Which start of the machine this is; what was not synced before it may be lost."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read()


def _files(document: TreeManifest) -> int:
    return sum(isinstance(node, tree.File) for node in document.nodes)


def _put(staged: str, folder: str, entry: EntryId) -> None:
    fs.write_file(os.path.join(staged, MARKER), _started().encode())
    put(staged, os.path.join(folder, entry), lambda: is_made(folder, entry), _NEW)


def _unpack(
    store: Store,
    trees: Mapping[EntryId, TreeManifest],
    packs: Mapping[EntryId, str],
    folder: str,
) -> None:
    """Writes trees into `<folder>/<id>/<name>/`."""
    with contextlib.ExitStack() as opened:
        runs: list[_Run] = []
        for entry, document in trees.items():
            root = os.fsencode(os.path.join(folder, entry, document.name))
            _make_folders(root, document)
            try:
                found = opened.enter_context(Pack(packs[entry], document))
            except IntegrityError as error:
                raise _damaged(store, entry, error.message) from None
            extents = pack.layout(document)
            runs += [
                _Run(entry, found, extents[run.start : run.stop], root)
                for run in found.runs(extents)
            ]
        # The longest first: the others fill the time until it ends.
        runs.sort(key=lambda run: -sum(extent.node.size for extent in run.extents))

        def work(index: int, slot: memoryview, advance: Advance) -> None:
            slot[0] = _write(runs[index], advance)

        done = workers.spread(
            work,
            len(runs),
            1,
            workers=workers.count_for(store.volume.syncs_at_once),
            task=SILENT.task(""),
            batch=1,
        )
        for run, is_sound in zip(runs, done, strict=True):
            if not is_sound:
                for path, what in run.pack.faults(run.extents):
                    raise _damaged(store, run.entry, f"{path} {what}")
                raise StoreError(f"{packs[run.entry]} was read otherwise the first time")
    for entry, document in trees.items():
        root = os.fsencode(os.path.join(folder, entry, document.name))
        for node in document.nodes:
            if isinstance(node, tree.Link):
                fs.symlink(tree.unquote(node.target), root + b"/" + tree.unquote(node.path))


def _make_folders(root: bytes, document: TreeManifest) -> None:
    fs.mkdir(os.path.dirname(root))
    fs.mkdir(root)
    folders = (node.path for node in document.nodes if isinstance(node, tree.Folder))
    for path in sorted(map(tree.unquote, folders)):
        fs.mkdir(root + b"/" + path)


def _write(run: _Run, advance: Advance) -> bool:
    """In a worker: writes some files, and says whether each is what it should be."""
    try:
        return all(_write_file(run, extent, advance) for extent in run.extents)
    except IntegrityError:
        return False


def _write_file(run: _Run, extent: Extent, advance: Advance) -> bool:
    mode = 0o555 if extent.node.executable else 0o444
    descriptor = fs.create(run.root + b"/" + extent.path, mode)
    hasher = blake3()
    try:
        for piece in run.pack.read(extent):
            fs.write(descriptor, piece)
            hasher.update(piece)
            advance(len(piece))
    finally:
        fs.close(descriptor)
    return hasher.hexdigest() == extent.node.digest


def _damaged(store: Store, entry: EntryId, what: str) -> IntegrityError:
    with contextlib.suppress(OSError):
        # As in `damage.look`: it is told all the same.
        damage.mark(store.volume, entry)
    return IntegrityError(f"entry {entry[:16]} is damaged: {what}", hint=damage.cure(entry))
