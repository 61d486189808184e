"""Writing: the tree of a commit into an entry, out of one stream of objects, with no checkout."""

import os
import tempfile
from collections.abc import Iterable, Iterator

from cvs.store.progress import Task
from cvs.store.stage import TreeWriter
from cvs.store.tree import quote
from cvs.versions import git_errors, lfs
from cvs.versions.facts import Facts
from cvs.versions.git_objects import CHUNK, Node, Objects, Part, local_folder
from cvs.versions.git_process import Failed, Git


def write_part(part: Part, writer: TreeWriter, task: Task, offline: bool) -> Facts:
    """Writes a part's tree; returns its commit's date and the paths of what Git LFS had."""
    git = part.git
    pointers: list[lfs.Pointer] = []
    with (
        git.listed(Objects.wanted(part)) as wanted,
        git.process(git.inside, "cat-file", "--batch", "--buffer", stdin=wanted) as process,
    ):
        assert process.stdout is not None
        stream = Objects(process.stdout, part)
        date = stream.date()
        for node in part.nodes:
            path = part.prefix + node.path
            if node.mode == "040000":
                stream.folder(node)
                writer.folder(path)
            elif node.mode == "160000":
                writer.folder(path)
            elif node.mode == "120000":
                writer.link(path, stream.target(node))
            else:
                _write_file(stream, node, path, writer, pointers)
            task.advance(1)
    for item, chunks in _contents(part, pointers, offline):
        writer.write_chunks(item.path, chunks, item.executable)
    return Facts(date, lfs=tuple(quote(item.path) for item in pointers))


def _write_file(
    stream: Objects, node: Node, path: bytes, writer: TreeWriter, pointers: list[lfs.Pointer]
) -> None:
    executable = bool(int(node.mode, 8) & 0o100)
    size = stream.begin(node, "blob")
    if size > CHUNK:
        writer.write_chunks(path, stream.chunks(node, size), executable)
        return
    data = stream.whole(node, "blob", size)
    found = lfs.pointer(path, data, executable) if size < lfs.POINTER_LIMIT else None
    if found is None:
        writer.write(path, data, executable)
    else:
        pointers.append(found)


def _contents(
    part: Part, pointers: list[lfs.Pointer], offline: bool
) -> Iterator[tuple[lfs.Pointer, Iterable[bytes | memoryview]]]:
    git, objects = part.git, None
    if pointers and git.repository.is_local:
        try:
            objects = os.path.join(local_folder(git)[0], "lfs", "objects")
        except Failed as failed:
            raise git_errors.explain(failed.stderr, git.repository) from failed
    return lfs.fetch(
        pointers, git.repository, objects=objects, login=lambda: _login(git), offline=offline
    )


def _login(git: Git) -> tuple[str, str] | None:
    """User name and password of the repository's host, as the user's credential helpers know it."""
    scheme, _, rest = git.repository.url.partition("://")
    host, _, path = rest.partition("/")
    with tempfile.TemporaryFile(dir=git.folder) as question:
        question.write(f"protocol={scheme}\nhost={host}\npath={path}\n\n".encode())
        question.seek(0)
        try:
            answer = git.output("credential", "fill", stdin=question)
        except Failed:
            # No helper knows one, and nobody may be asked.
            return None
    fields = dict(line.split("=", 1) for line in answer.decode().splitlines() if "=" in line)
    if "username" not in fields or "password" not in fields:
        return None
    return fields["username"], fields["password"]
