"""Reads inputs in a process of its own and says how much memory that took.

    python hostile_memory.py READER PATH…

Prints one line of JSON: for each input what was said of it, or null where it was taken; and the
most memory that this process had, in bytes. Of a child, `ru_maxrss` would also count what its
parent had when it made it; the kernel's own count of a process begins with what it runs.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def _manifest(path: str) -> None:
    from cvs.store import manifest
    from cvs.store.document import read_stored

    manifest.identity(manifest.decode(read_stored(path, manifest.SIZE_LIMIT), path))


#: Bytes of the one file of the tree that packs are read for; all of them are zero.
PACKED = 96 << 20


def _pack(path: str) -> None:
    from blake3 import blake3

    from cvs.store import pack, tree
    from cvs.store.errors import SourceError
    from cvs.store.manifest import TreeManifest

    digest = blake3()
    for _ in range(PACKED >> 20):
        digest.update(bytes(1 << 20))
    nodes = (tree.File("a", PACKED, digest.hexdigest()),)
    document = TreeManifest(format=1, name="t", size=PACKED, nodes=nodes)
    with pack.Pack(path, document) as opened:
        for _, what in opened.faults(pack.layout(document)):
            raise SourceError(what)


def _record(path: str) -> None:
    from cvs.store import record

    record.read(path)


def _document(path: str) -> None:
    from cvs.store import document

    document.load(path)


def _lock(path: str) -> None:
    from cvs.versions import lock

    lock.read(path)


def _spec(path: str) -> None:
    from cvs.versions import spec

    spec.load(path)


def _wheel(path: str) -> None:
    import wheelmaker

    from cvs.store.entries import Store
    from cvs.store.volume import Volume
    from cvs.versions import interpreter, wheel

    probe = interpreter.probe(interpreter.find(None))
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        volume = Volume(folder)
        volume.prepare()
        wheel.add_wheel(Store(volume), path, sha256=wheelmaker.sha256(path), probe=probe)


def _commit(path: str) -> None:
    from cvs.store.entries import Store
    from cvs.store.volume import Volume
    from cvs.versions import git
    from cvs.versions.repository import parse

    repository = parse(path, "test", allow_local=True)
    commit = git.resolve(repository, "main", where="test").commit
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        volume = Volume(folder)
        volume.prepare()
        git.fetch_commit(Store(volume), repository, commit, "node", where="test", allow_local=True)


def _model(path: str) -> None:
    from cvs.versions import formats

    formats.check(path, os.path.basename(path))


READERS: dict[str, Callable[[str], None]] = {
    "manifest": _manifest,
    "pack": _pack,
    "record": _record,
    "document": _document,
    "lock": _lock,
    "spec": _spec,
    "wheel": _wheel,
    "commit": _commit,
    "model": _model,
}


def main() -> None:
    """Reads what the command line names."""
    from cvs.store.errors import CvsError

    said: list[str | None] = []
    for path in sys.argv[2:]:
        try:
            READERS[sys.argv[1]](path)
            said.append(None)
        except CvsError as error:
            said.append(error.message)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps([said, peak]))


if __name__ == "__main__":
    main()
