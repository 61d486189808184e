"""Finding a path in a tree by its manifest alone, through links as a file system would go. Pure."""

import difflib

from cvs.store import tree
from cvs.store.errors import InputError
from cvs.store.manifest import TreeManifest

#: Links that one path may lead through, as on Linux.
_LINKS = 40

#: How many names are suggested for one that is not there.
_NEAR = 3


def find(document: TreeManifest, path: bytes) -> tuple[bytes, tree.File | tree.Folder | None]:
    """What `path` leads to: where it really lies, and its node; the root is b"" and None.

    Empty parts and `.` are dropped, so a slash at either end does not matter.

    Raises:
        InputError: the tree has no such path, with near names as the hint; or it leads out of
            the tree, or in a circle.
    """
    nodes: dict[bytes, tree.Node] = {tree.unquote(node.path): node for node in document.nodes}
    waiting = _parts(path)[::-1]
    here: list[bytes] = []
    links = 0
    said = f"{_name(document)} has no {tree.quote(path)!r}"
    while waiting:
        part = waiting.pop()
        folder = b"/".join(here)
        if isinstance(nodes.get(folder), tree.File):
            raise InputError(f"{said}: {tree.quote(folder)!r} is a file")
        if part == b"..":
            if not here:
                raise InputError(f"{tree.quote(path)!r} leads out of {_name(document)}")
            here.pop()
            continue
        at = b"/".join([*here, part])
        node = nodes.get(at)
        if node is None:
            where = f": a link leads to {tree.quote(at)!r}, which is not there" if links else ""
            raise InputError(said + where, hint=_hint(nodes, folder, part))
        if isinstance(node, tree.Link):
            links += 1
            if links > _LINKS:
                raise InputError(f"{said}: links lead in a circle")
            waiting += _parts(tree.unquote(node.target))[::-1]
        else:
            here.append(part)
    real = b"/".join(here)
    found = nodes.get(real)
    assert not isinstance(found, tree.Link)
    return real, found


def children(document: TreeManifest, folder: bytes) -> list[tuple[bytes, tree.Node]]:
    """The names right in a folder and their nodes, sorted."""
    prefix = folder + b"/" if folder else b""
    found = []
    for node in document.nodes:
        path = tree.unquote(node.path)
        if path.startswith(prefix) and b"/" not in path[len(prefix) :]:
            found.append((path[len(prefix) :], node))
    return sorted(found, key=lambda item: item[0])


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _name(document: TreeManifest) -> str:
    return tree.quote(document.name.encode())


def _hint(nodes: dict[bytes, tree.Node], folder: bytes, name: bytes) -> str | None:
    """Paths of the same name elsewhere, then names in the folder that are spelt nearly so."""
    same = [path for path in sorted(nodes) if path.rpartition(b"/")[2].lower() == name.lower()]
    beside = {
        tree.quote(path.rpartition(b"/")[2]): path
        for path in nodes
        if path.rpartition(b"/")[0] == folder
    }
    spelt = difflib.get_close_matches(tree.quote(name), beside, _NEAR)
    near = dict.fromkeys([*same, *(beside[text] for text in spelt)])
    if not near:
        return None
    shown = [repr(tree.quote(path)) for path in list(near)[:_NEAR]]
    return f"did you mean {' or '.join(shown)}?"
