"""Trees: the nodes of an entry, the names they may have, and their digest. Pure.

The model is that of a Merkle tree (git, REAPI, tvix castore) with an encoding of its own,
specified in docs/format.md: fixed binary layout, sorted by raw name bytes; type, executable bit,
size and digest or link target; no time, owner or other mode. Empty folders count.
"""

import unicodedata
from collections.abc import Iterable, Mapping

import msgspec

from cvs.store.digest import EntryId, derive, is_id
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
    return "".join(_quoted(character) for character in text)


def _quoted(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"%{code - 0xDC00:02X}"
    if character == "%" or code < 0x20 or 0x7F <= code < 0xA0:
        return "".join(f"%{byte:02X}" for byte in character.encode())
    return character


def unquote(text: str) -> bytes:
    """The bytes of a quoted path; only the form that `quote` writes is accepted.

    Raises:
        TreeError: a '%' that does not begin an escape, or an escape that was not needed.
    """
    if "%" not in text and text.isprintable():
        return text.encode()
    try:
        head, *rest = text.split("%")
        parts = [head.encode()]
        for piece in rest:
            parts += (bytes([int(piece[:2], 16)]), piece[2:].encode())
    except UnicodeEncodeError:
        raise TreeError(f"{shown(text)} is not a quoted path: it has half a character") from None
    except ValueError:
        raise TreeError(f"{shown(text)} is not a quoted path: '%' needs two digits") from None
    raw = b"".join(parts)
    if quote(raw) != text:
        raise TreeError(f"{shown(text)} is not a quoted path in its one form")
    return raw


def check_name(name: bytes) -> None:
    """Raises TreeError unless `name` can be one component of a path in a tree."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
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


def digest(nodes: Iterable[Node]) -> bytes:
    """The digest of a tree's root folder, from its nodes in any order.

    Raises:
        TreeError: a bad path, name, link, size or digest, a path given twice or below a file, a
            missing folder, too many nodes, two names in one folder that are equal without case or
            in another normal form.
    """
    folders = {b""}
    children: dict[bytes, dict[bytes, Node]] = {b"": {}}
    siblings, last = children[b""], b""
    for count, node in enumerate(nodes, 1):
        if count > NODE_LIMIT:
            raise TreeError(f"the tree has more than {NODE_LIMIT:,} files, links and folders")
        path = unquote(node.path)
        check_path(path)
        parent, _, name = path.rpartition(b"/")
        check_name(name)
        if isinstance(node, File):
            if not (0 <= node.size < 1 << 63 and is_id(node.digest)):
                raise TreeError(f"{shown(node.path)} has a size or digest that no file has")
        elif isinstance(node, Folder):
            folders.add(path)
        else:
            check_target(path, unquote(node.target))
        if parent != last:
            siblings, last = children.setdefault(parent, {}), parent
        if name in siblings:
            raise TreeError(f"{shown(node.path)} is in the tree twice")
        siblings[name] = node
    if astray := children.keys() - folders:
        first = min(node.path for node in children[min(astray)].values())
        raise TreeError(f"{shown(first)} is in the tree, its folder is not")
    return _directory_digest(b"", children)


def _directory_digest(path: bytes, children: Mapping[bytes, Mapping[bytes, Node]]) -> bytes:
    encoding = bytearray()
    seen: set[bytes] = set()
    siblings = children.get(path, {})
    for name in sorted(siblings):
        key = folded(name)
        if key in seen:
            raise TreeError(
                f"two names in {shown(quote(path) or 'the root')} differ in case or normal form "
                f"alone: {shown(quote(name))}"
            )
        seen.add(key)
        node = siblings[name]
        head = len(name).to_bytes(4, "little") + name
        if isinstance(node, File):
            encoding += b"x" if node.executable else b"f"
            encoding += head + node.size.to_bytes(8, "little") + bytes.fromhex(node.digest)
        elif isinstance(node, Link):
            target = unquote(node.target)
            encoding += b"l" + head + len(target).to_bytes(4, "little") + target
        else:
            below = path + b"/" + name if path else name
            encoding += b"d" + head + _directory_digest(below, children)
    return derive(DIRECTORY_CONTEXT, encoding)


def tree_id(name: str, nodes: Iterable[Node]) -> EntryId:
    """The id of a tree entry: its name and its root's digest."""
    raw = check_tree_name(name)
    return EntryId(derive(TREE_CONTEXT, len(raw).to_bytes(4, "little"), raw, digest(nodes)).hex())


def set_id(members: Iterable[EntryId]) -> EntryId:
    """The id of a set entry: its members in ascending order, each once."""
    return EntryId(derive(SET_CONTEXT, *(bytes.fromhex(m) for m in sorted(set(members)))).hex())
