"""Objects: commits, trees and blobs as they are, each checked against the id it goes by.

Fetched objects were named by git after their bytes already, those of a local repository were
not; hashing all of them again costs little and makes the entry's content a fact.
"""

import contextlib
import datetime
import fcntl
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, NamedTuple

from cvs.store.errors import SourceError, shown
from cvs.store.tree import NODE_LIMIT, TARGET_LIMIT, TreeError, quote
from cvs.versions import git_errors
from cvs.versions.git_process import Failed, Git
from cvs.versions.repository import Repository

#: More files than any real commit has: what exceeds it is given up while it is listed.
_NODE_LIMIT = NODE_LIMIT

#: Bytes of the longest line of a listing (a path and what it is), and of the largest commit.
_LINE_LIMIT = 1 << 12
_COMMIT_LIMIT = 4 << 20

#: Bytes read at once, and the largest blob that is held whole.
CHUNK = 1 << 20


class Node(NamedTuple):
    """A line of a commit's tree, as git has it."""

    mode: str
    """`040000` folder, `100644` file, `100755` executable, `120000` link, `160000` submodule."""
    id: str
    path: bytes


class Part(NamedTuple):
    """A commit that was fetched, and where in the entry its tree goes (`prefix` ends in '/')."""

    git: Git
    commit: str
    prefix: bytes
    nodes: list[Node]


def local_folder(git: Git) -> tuple[str, str, str]:
    """The git folder of a local repository, its objects' folder, and their format.

    Raises:
        Failed: there is no repository.
    """
    answer = git.output(
        *("-C", git.local, "rev-parse", "--path-format=absolute", "--git-common-dir"),
        *("--git-path", "objects", "--show-object-format"),
    )
    common, objects, format = os.fsdecode(answer).rstrip("\n").split("\n")
    return common, objects, format


def nodes_of(git: Git, commit: str) -> list[Node]:
    """All lines of a commit's tree, folders before what is in them.

    Raises:
        SourceError: the commit is not there, or a folder of it.
        TreeError: a path in it is longer than any file's.
    """
    nodes: list[Node] = []
    options = ("-r", "-t", "-z", "--full-tree")
    with git.process(git.inside, "ls-tree", *options, commit) as process:
        assert process.stdout is not None and process.stderr is not None
        rest = b""
        while chunk := os.read(process.stdout.fileno(), CHUNK):
            *lines, rest = (rest + chunk).split(b"\0")
            for line in (*lines, rest):
                if len(line) > _LINE_LIMIT:
                    path = line.partition(b"\t")[2][:80]
                    raise TreeError(
                        f"{git.repository.shown} at {commit[:12]}: the path {shown(quote(path))}… "
                        "is too long"
                    )
            for line in lines:
                head, _, path = line.partition(b"\t")
                mode, _, id = head.decode("ascii").split(" ")
                nodes.append(Node(sys.intern(mode), id, path))
            if len(nodes) > _NODE_LIMIT:
                raise SourceError(
                    f"commit {commit[:12]} of {git.repository.shown} has more than "
                    f"{_NODE_LIMIT:,} files"
                )
        errors = process.stderr.read()
        status = process.wait()
    try:
        git.check(status, errors)
    except Failed as failed:
        unread = re.search(r"Could not read ([0-9a-f]{40,64})", failed.stderr)
        if unread is not None:
            folder = next((quote(node.path) for node in nodes if node.id == unread[1]), "")
            what = folder or "the root folder"
            raise damaged(what, "missing", commit, git.repository) from failed
        if "hash mismatch" in failed.stderr:
            raise damaged("the head", "not what its name says", commit, git.repository) from failed
        if re.search("Not a valid object name|not a tree object", failed.stderr):
            raise SourceError(f"commit {commit} is not in {git.repository.shown}") from failed
        raise git_errors.explain(failed.stderr, git.repository) from failed
    return nodes


class Objects:
    """The output of `git cat-file --batch`: each object checked against the id it goes by.

    First come the commit and its root folder, then the objects of the part's nodes in their
    order (see `wanted`), each of which must be read.
    """

    def __init__(self, stream: IO[bytes], part: Part) -> None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, CHUNK)
        self._stream = io.BufferedReader(io.FileIO(stream.fileno(), closefd=False), CHUNK)
        self._part = part

    @staticmethod
    def wanted(part: Part) -> list[str]:
        """What `git cat-file --batch` is to be asked for."""
        ids = [node.id for node in part.nodes if node.mode != "160000"]
        return [part.commit, f"{part.commit}^{{tree}}", *ids]

    def date(self) -> str:
        """Reads the commit and its root folder; returns the commit's date in UTC."""
        head = Node("", self._part.commit, b"")
        fields: dict[bytes, bytes] = {}
        size = self.begin(head, "commit")
        if size > _COMMIT_LIMIT:
            raise SourceError(
                f"commit {self._part.commit} of {self._part.git.repository.shown} has "
                f"{size} bytes, too many"
            )
        data = self.whole(head, "commit", size)
        for line in data.partition(b"\n\n")[0].split(b"\n"):
            key, _, value = line.partition(b" ")
            fields.setdefault(key, value)
        try:
            seconds = int(fields[b"committer"].rpartition(b"> ")[2].split(b" ")[0])
            date = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            root = fields[b"tree"].decode("ascii")
        except (KeyError, ValueError, OverflowError, OSError):
            shown = self._part.git.repository.shown
            raise SourceError(
                f"commit {self._part.commit} of {shown} has no valid date or tree"
            ) from None
        self.folder(Node("040000", root, b""))
        return date.strftime("%Y-%m-%dT%H:%M:%SZ")

    def folder(self, node: Node) -> None:
        """Checks the object that a folder is; `git ls-tree` has read it."""
        for _ in self.chunks(node, self.begin(node, "tree"), "tree"):
            pass

    def target(self, node: Node) -> bytes:
        """The target of a symbolic link."""
        size = self.begin(node, "blob")
        if size > TARGET_LIMIT:
            raise TreeError(f"the link {quote(node.path)!r} has a target that is too long")
        return self.whole(node, "blob", size)

    def begin(self, node: Node, kind: str) -> int:
        """Reads the head of the next object, which is that of `node`, and returns its size."""
        words = self._stream.readline().split()
        if kind == "commit" and len(words) == 3 and words[1] != b"commit":
            shown = self._part.git.repository.shown
            raise SourceError(f"{node.id} of {shown} is a {words[1].decode()}, not a commit")
        if words != [node.id.encode(), kind.encode(), *words[2:]] or len(words) != 3:
            raise self._broken(node, "missing" if words[1:] == [b"missing"] else "not readable")
        return int(words[2])

    def whole(self, node: Node, kind: str, size: int) -> bytes:
        """The content of the object that was begun."""
        data = self._stream.read(size)
        if new_hash(node.id, kind, size, data).hexdigest() != node.id:
            raise self._broken(node, "not what its name says")
        self._stream.read(1)
        return data

    def chunks(self, node: Node, size: int, kind: str = "blob") -> Iterator[bytes]:
        """The content of the object that was begun, in pieces of up to 1 MiB."""
        hasher, left = new_hash(node.id, kind, size), size
        while left:
            chunk = self._stream.read(min(left, CHUNK))
            if not chunk:
                break
            hasher.update(chunk)
            left -= len(chunk)
            yield chunk
        if hasher.hexdigest() != node.id:
            raise self._broken(node, "not what its name says")
        self._stream.read(1)

    def _broken(self, node: Node, how: str) -> SourceError:
        path = quote(self._part.prefix + node.path) or "the root folder"
        return damaged(path, how, self._part.commit, self._part.git.repository)


def new_hash(id: str, kind: str, size: int, data: bytes = b"") -> "hashlib._Hash":
    """A hash of git's that names an object, SHA-1 or SHA-256 by the length of `id`."""
    new = hashlib.sha1 if len(id) == 40 else hashlib.sha256
    hasher = new(b"%s %d\0" % (kind.encode(), size), usedforsecurity=False)
    hasher.update(data)
    return hasher


def damaged(path: str, how: str, commit: str, repository: Repository) -> SourceError:
    return SourceError(f"{repository.shown} is damaged: {path} of commit {commit[:12]} is {how}")


@contextlib.contextmanager
def in_words(part: Part) -> Iterator[None]:
    """Adds the repository and commit to what is wrong with a tree."""
    try:
        yield
    except TreeError as error:
        shown = part.git.repository.shown
        raise TreeError(f"{shown} at {part.commit[:12]}: {error.message}") from None
