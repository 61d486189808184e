"""Trees: the nodes of an entry, the names they may have, and their digest. Pure.

The model is that of a Merkle tree (git, REAPI, tvix castore) with an encoding of its own,
specified in docs/format.md: fixed binary layout, sorted by raw name bytes; type, executable bit,
size and digest or link target; no time, owner or other mode. Empty folders count.
"""

import unicodedata
from collections.abc import Iterable

import msgspec

from cvs.store.digest import EntryId, derive
from cvs.store.errors import SHOWN, InputError, shown

DIRECTORY_CONTEXT = "cvs 2026 directory v1"
TREE_CONTEXT = "cvs 2026 tree v1"
SET_CONTEXT = "cvs 2026 set v1"

#: The longest name of one file in bytes, and the longest link target, as Linux has them.
NAME_LIMIT = 255
TARGET_LIMIT = 4095

#: The longest path inside a tree. Linux takes 4096 bytes with everything before it, and a tree
#: that fits on one volume must fit under any other's mount point.
PATH_LIMIT = 1024

#: The most files, links and folders of a tree: some times those of the largest wheel or repository
#: that anybody has, and few enough to be read on a small machine.
NODE_LIMIT = 200_000

#: What lies beside a tree's folder, and can therefore not be its name.
RESERVED = "manifest.json"


class File(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="f"
):
    """A regular file: `digest` is the BLAKE3 of its bytes, `size` counts them."""

    path: str
    size: int
    digest: str
    executable: bool = False


class Link(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="l"
):
    """A symbolic link that stays inside its tree."""

    path: str
    target: str


class Folder(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag="d"
):
    """A folder; every folder of a tree but its root is listed."""

    path: str


#: One line of a manifest. `path` is relative to the tree's root and quoted (see `quote`).
Node = File | Link | Folder


class TreeError(InputError):
    """A tree that no entry may have: a bad name, two names that are one, a link that leaves it."""


def quote(raw: bytes) -> str:
    """Writes a path as text that JSON can hold and a terminal can show, without loss.

    Bytes that are not UTF-8, control characters and '%' become %XX.

    >>> quote(b"a/50%.txt"), quote(b"tab\\there"), quote(b"\\xff")
    ('a/50%25.txt', 'tab%09here', '%FF')
    """
    text = raw.decode("utf-8", "surrogateescape")
    if text.isprintable() and "%" not in text:
        return text
    return text.translate(_QUOTED)


#: What is not written as it is: '%', control characters, and bytes beyond UTF-8 as `decode` has
#: them, by their code; and each byte by the digits that stand for it.
_QUOTED = {
    code: "".join(f"%{byte:02X}" for byte in chr(code).encode("utf-8", "surrogateescape"))
    for code in (*range(0x20), ord("%"), *range(0x7F, 0xA0), *range(0xDC80, 0xDD00))
}
_BYTES = {b"%02X" % byte: bytes([byte]) for byte in range(256)}


def unquote(text: str) -> bytes:
    """The bytes of a quoted path; only the form that `quote` writes is accepted.

    Raises:
        TreeError: a '%' that does not begin an escape, or an escape that was not needed.
    """
    if "%" not in text and text.isprintable():
        return text.encode()
    try:
        head, *rest = text.encode().split(b"%")
        parts = [head]
        for piece in rest:
            parts += (_BYTES[piece[:2]], piece[2:])
    except UnicodeEncodeError:
        raise TreeError(f"{shown(text)} is not a quoted path: it has half a character") from None
    except KeyError:
        raise TreeError(f"{shown(text)} is not a quoted path: '%' needs two digits") from None
    raw = b"".join(parts)
    if quote(raw) != text:
        raise TreeError(f"{shown(text)} is not a quoted path in its one form")
    return raw


#: What cannot be the last part of a path, and what cannot be its beginning.
_NO_NAMES = frozenset({b"", b".", b".."})
_SLASH = ord("/")


def check_name(name: bytes) -> None:
    """Raises TreeError unless `name` can be one component of a path in a tree."""
    if name in _NO_NAMES or b"/" in name or b"\0" in name:
        raise TreeError(f"{shown(quote(name[:SHOWN]))} cannot be the name of a file in an entry")
    if len(name) > NAME_LIMIT:
        raise TreeError(f"the name {quote(name[:40])!r}… is longer than {NAME_LIMIT} bytes")


def check_path(path: bytes) -> None:
    """Raises TreeError where a path as a whole is at fault; its names are `check_name`'s."""
    if path.startswith(b"/"):
        raise TreeError(f"{quote(path[:80])!r} is not relative to the tree's root")
    if len(path) > PATH_LIMIT:
        raise TreeError(f"the path {quote(path[:80])!r}… is longer than {PATH_LIMIT} bytes")


def check_tree_name(name: str) -> bytes:
    """The bytes of a name that a tree may have; raises TreeError for others."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise TreeError(f"{shown(name)} cannot be the name of an entry: it is not UTF-8") from None
    check_name(raw)
    if folded(raw) == RESERVED.encode():
        raise TreeError(f"{name!r} cannot be the name of an entry: its manifest is called so")
    return raw


def check_target(path: bytes, target: bytes) -> None:
    """Raises TreeError unless a link at `path` with `target` stays inside the tree.

    Judged by the text alone, so that the answer does not depend on what other links there are:
    '..' stands only at the beginning, where it climbs from the real folder that the link lies in.
    After a name it would climb from wherever that name leads, if it is a link itself.
    """
    where = shown(quote(path))
    if not target or b"\0" in target:
        raise TreeError(f"the link {where} has a target that no link can have")
    if len(target) > TARGET_LIMIT:
        raise TreeError(f"the link {where} has a target longer than {TARGET_LIMIT} bytes")
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    climbs = next((at for at, part in enumerate(parts) if part != b".."), len(parts))
    if target.startswith(b"/") or climbs > path.count(b"/"):
        raise TreeError(f"the link {where} has a target that leaves it: {shown(quote(target))}")
    if b".." in parts[climbs:]:
        raise TreeError(f"the link {where} has '..' after a name: {shown(quote(target))}")


def folded(name: bytes) -> bytes:
    """What a file system that ignores case and normal forms makes of a name."""
    if name.isascii():
        return name.lower()
    text = unicodedata.normalize("NFD", name.decode("utf-8", "surrogateescape"))
    # Folding may leave a form that is not normal: U+0390 folds to three characters.
    return unicodedata.normalize("NFD", text.casefold()).encode("utf-8", "surrogateescape")


class Encoding:
    """The encoding of a tree as it is put together from its nodes, in any order.

    Every method raises TreeError for what no tree has: a bad path, name, link or size, a path
    given twice, too many nodes.
    """

    def __init__(self) -> None:
        self._folders = {b""}
        #: Folder → name → the child's encoding; that of a folder is made when all are known.
        self._children: dict[bytes, dict[bytes, bytes | None]] = {b"": {}}
        self._last = b""
        self._siblings = self._children[b""]
        self._count = 0

    def folder(self, path: bytes) -> None:
        """Adds a folder."""
        self._put(path, None)
        self._folders.add(path)

    def file(self, path: bytes, size: int, digest: bytes, executable: bool) -> None:
        """Adds a file; `digest` is the BLAKE3 of its bytes."""
        if not (0 <= size < 1 << 63 and len(digest) == 32):
            raise TreeError(f"{shown(quote(path))} has a size or digest that no file has")
        kind = b"x" if executable else b"f"
        name = path[path.rfind(b"/") + 1 :]
        self._put(path, kind + _length(name) + name + size.to_bytes(8, "little") + digest)

    def link(self, path: bytes, target: bytes) -> None:
        """Adds a symbolic link."""
        check_target(path, target)
        name = path[path.rfind(b"/") + 1 :]
        self._put(path, b"l" + _length(name) + name + _length(target) + target)

    def _put(self, path: bytes, child: bytes | None) -> None:
        parent, _, name = path.rpartition(b"/")
        if len(path) > NAME_LIMIT or name in _NO_NAMES or b"\0" in path or path[0] == _SLASH:
            check_path(path)
            check_name(name)
        self._count += 1
        if self._count > NODE_LIMIT:
            raise TreeError(f"the tree has more than {NODE_LIMIT:,} files, links and folders")
        if parent != self._last:
            # Nodes come folder by folder, mostly.
            self._siblings, self._last = self._children.setdefault(parent, {}), parent
        if name in self._siblings:
            raise TreeError(f"{shown(quote(path))} is in the tree twice")
        self._siblings[name] = child

    def digest(self) -> bytes:
        """The digest of the root folder.

        Raises:
            TreeError: a missing folder, something below a file, two names in one folder that are
                equal without case or in another normal form.
        """
        if astray := self._children.keys() - self._folders:
            folder = min(astray)
            path = folder + b"/" + min(self._children[folder])
            raise TreeError(f"{shown(quote(path))} is in the tree, its folder is not")
        return self._directory(b"")

    def _directory(self, path: bytes) -> bytes:
        parts: list[bytes] = []
        seen: set[bytes] = set()
        for name, child in sorted(self._children.get(path, {}).items()):
            key = folded(name)
            if key in seen:
                raise TreeError(
                    f"two names in {shown(quote(path) or 'the root')} differ in case or normal "
                    f"form alone: {shown(quote(name))}"
                )
            seen.add(key)
            if child is None:
                below = path + b"/" + name if path else name
                child = b"d" + _length(name) + name + self._directory(below)
            parts.append(child)
        return derive(DIRECTORY_CONTEXT, b"".join(parts))


def _length(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "little")


def encode(nodes: Iterable[Node]) -> Encoding:
    """The encoding of a tree whose nodes are known.

    Raises:
        TreeError: as `Encoding`; a path that is not quoted in its one form.
    """
    encoding = Encoding()
    for node in nodes:
        path = unquote(node.path)
        if isinstance(node, File):
            try:
                digest = bytes.fromhex(node.digest)
            except ValueError:
                digest = b""
            if digest.hex() != node.digest:
                raise TreeError(f"{shown(node.path)} has a size or digest that no file has")
            encoding.file(path, node.size, digest, node.executable)
        elif isinstance(node, Link):
            encoding.link(path, unquote(node.target))
        else:
            encoding.folder(path)
    return encoding


def digest(nodes: Iterable[Node]) -> bytes:
    """The digest of a tree's root folder, from its nodes in any order. Raises as `encode`."""
    return encode(nodes).digest()


def tree_id(name: str, root: bytes) -> EntryId:
    """The id of a tree entry: its name and the digest of its root folder."""
    raw = check_tree_name(name)
    return EntryId(derive(TREE_CONTEXT, _length(raw), raw, root).hex())


def set_id(members: Iterable[EntryId]) -> EntryId:
    """The id of a set entry: its members in ascending order, each once."""
    return EntryId(derive(SET_CONTEXT, *(bytes.fromhex(m) for m in sorted(set(members)))).hex())
