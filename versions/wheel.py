"""Wheels as tree entries: a wheel in its installed form, the same on every machine.

    site-packages/…     modules (purelib and platlib), metadata, bytecode for one interpreter
    bin/…               scripts, which run the `python` that lies beside them
    include/site/…      headers
    share/…, etc/…      data files, where the wheel puts them

A wheel is believed in nothing: every byte is checked against its RECORD while it is written, and
whatever a name could do (climb out, be there twice, be a link) is refused.
"""

import base64
import csv
import hashlib
import io
import os
import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

from blake3 import blake3
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from cvs.store import damage, pack, refs, temporary, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import SHOWN, IntegrityError, SourceError, shown
from cvs.store.ingest import chunks
from cvs.store.manifest import TreeManifest
from cvs.store.stage import Stage, Staged, TreeWriter
from cvs.versions import archive as archives
from cvs.versions import bytecode, parallel
from cvs.versions.archive import Bad
from cvs.versions.interpreter import Probe
from cvs.versions.locked_file import check_sha256

#: The version of the layout above; a new one makes new entries of all wheels.
LAYOUT = 1

#: What refs of wheels lie under.
REFS = "wheel"

#: A wheel may unpack to this many times its size and this much more; libraries of zeros reach
#: some dozens, deflate at most 1032.
_RATIO = 200
_SPARE = 64 << 20

#: Bytes of the largest RECORD, which has 100 for every file, its lines and the characters of the
#: longest; bytes of the other files that are read; scripts. No honest wheel comes near.
_RECORD_LIMIT = 16 << 20
_LINES_LIMIT = 2 * archives.MEMBER_LIMIT
_LINE_LIMIT = 1 << 16
_TEXT_LIMIT = 1 << 20
_SCRIPT_LIMIT = 1000

#: Where a wheel's tree has its METADATA.
_METADATA = re.compile(rb"site-packages/[^/]+\.dist-info/METADATA")

#: Of a member's flags: it is encrypted, in the old or the strong way.
_ENCRYPTED = 0x41

#: Files up to this size are written from memory, larger ones in pieces.
_SMALL = 4 << 20

_ENTRY_SCRIPT = """\
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({call}())
"""

#: A shell runs `python` beside the script, Python sees a string. The script may be reached by a
#: link in an environment, whose `python` is the one that counts: no realpath.
_SHEBANG = b"""\
#!/bin/sh
'''exec' "$(dirname -- "$0")/python" "$0" "$@"
' '''
"""

_SCRIPT_SECTIONS = ("[console_scripts]", "[gui_scripts]")

#: What an entry point may call: a module and a name in it, and extras that nobody needs here.
_ENTRY_POINT = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<call>[\w.]+)\s*(?:\[[^\]]*\])?")

_PYTHON_SHEBANG = re.compile(rb"#!pythonw?[^\n]*\n")
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


class _Row(NamedTuple):
    """A line of RECORD."""

    algorithm: str
    digest: str
    size: int | None


def ref_key(sha256: str, abi: str) -> str:
    """The key of the ref that leads from a wheel to its entry for one interpreter."""
    return refs.key(sha256, abi, str(LAYOUT))


def stored(store: Store, sha256: str, abi: str) -> EntryId | None:
    """The entry of a wheel, if the store has it."""
    entry = refs.get(store.volume, REFS, ref_key(sha256, abi))
    return entry if entry is not None and store.has(entry) else None


def add_wheel(store: Store, path: str, *, sha256: str, probe: Probe) -> EntryId:
    """Adds one wheel to the store.

    Args:
        path: the file, under the name it was published with.
        sha256: what it must have.
        probe: the interpreter whose bytecode goes with it.

    Raises:
        IntegrityError: the file has another digest.
        SourceError: it is not a sound wheel; nothing is stored.
    """
    check_sha256(path, sha256)
    with store.stage() as stage:
        staged = in_form(store, stage, lambda stage: stage_wheel(stage, path, probe))
        entry = store.publish(staged)[0]
    refs.put(store.volume, REFS, ref_key(sha256, probe.abi), entry)
    return entry


def in_form(store: Store, stage: Stage, write: Callable[[Stage], Staged]) -> Staged:
    """Has a wheel written into a stage in the form in which the volume keeps wheels.

    Args:
        write: writes it unpacked: on this host's own disk where the volume is to have a pack.
    """
    if not store.volume.packs_wheels:
        return write(stage)
    with temporary.folder() as held, Stage(held.folder, synced=False) as local:
        return pack.stage(write(local), stage)


def tree_name(file: str, abi: str) -> tuple[str, str]:
    """The name of a wheel's package, and what the tree is called that the wheel becomes.

    Raises:
        SourceError: no wheel can be called so.
    """
    try:
        name, version, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename:
        raise SourceError(f"{shown(file)} is not the name of a wheel") from None
    return name, f"{name}-{version}-{abi}"


def metadata(store: Store, entry: EntryId) -> bytes:
    """The METADATA of a stored wheel.

    Raises:
        IntegrityError: it is damaged.
    """
    document = store.manifest(entry)
    assert isinstance(document, TreeManifest)
    folder = store.path(entry)
    packed = pack.find(folder, document)
    for extent in pack.layout(document):
        if not _METADATA.fullmatch(extent.path):
            continue
        if packed is None:
            path = os.path.join(folder, document.name, os.fsdecode(extent.path))
            data = b"".join(map(bytes, chunks(path)))
        else:
            with pack.Pack(packed, document) as opened:
                data = b"".join(map(bytes, opened.read(extent)))
        if blake3(data).hexdigest() == extent.node.digest:
            return data
    raise IntegrityError(
        f"the wheel {document.name} has no sound METADATA", hint=damage.cure(entry)
    )


def stage_wheel(
    stage: Stage, path: str, probe: Probe, stop: threading.Event | None = None
) -> Staged:
    """Writes a wheel in its installed form into a stage; its digest was checked before.

    Args:
        stop: looked at between two files; set by others to end the work.

    Raises:
        SourceError: it is not a sound wheel.
        Stopped: `stop` was set.
    """
    file = os.path.basename(path)
    name, folder = tree_name(file, probe.abi)
    try:
        with archives.opened(path) as archive:
            writer = stage.tree(folder)
            unpacking = _Unpacking(archive, writer, name, probe, stop or threading.Event())
            unpacking.run(os.path.join(stage.folder, folder), os.path.getsize(path))
            return writer.finish(origin=file)
    except Bad as error:
        raise SourceError(f"the wheel {file} {error}") from None
    except tree.TreeError as error:
        raise SourceError(f"the wheel {file} cannot be stored: {error.message}") from None
    except UnicodeDecodeError:
        raise SourceError(f"the wheel {file} has a file whose name is not UTF-8") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        said = str(error)[:SHOWN].rstrip(".")
        raise SourceError(f"the wheel {file} is damaged: {said}") from None


class _Unpacking:
    """One wheel on its way into a tree."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        writer: TreeWriter,
        name: str,
        probe: Probe,
        stop: threading.Event,
    ) -> None:
        self.stop = stop
        self.archive = archive
        self.writer = writer
        self.name = name
        self.probe = probe
        self.minor = ".".join(probe.version.split(".")[:2])
        self.members = _members(archive)
        self.info = _dist_info(self.members, name)
        self.data = self.info.removesuffix(".dist-info") + ".data"
        self.record: dict[str, _Row] = {}
        #: Lines of the RECORD to be written: path in site-packages → digest and size.
        self.rows: dict[str, tuple[str, int]] = {}
        self.sources: list[bytes] = []

    def run(self, root: str, size: int) -> None:
        """Writes everything; `root` is the tree's folder, `size` that of the wheel's file."""
        total = sum(member.file_size for member in self.members.values())
        if total > size * _RATIO + _SPARE:
            raise Bad(f"would unpack to {total} bytes, too many")
        self._check_format()
        self._read_record()
        scripts = self._entry_points()
        special = {f"{self.info}/{one}" for one in ("RECORD", "INSTALLER", "direct_url.json")}
        special |= {f"{self.info}/{one}" for one in _SIGNATURES}
        taken = {f"bin/{script}" for script in scripts}
        for path, member in self.members.items():
            parallel.check(self.stop)
            target = self._target(path)
            if path in special or target in taken or self._is_stale_bytecode(path):
                self._verify(path, member)
            else:
                self._copy(path, member, target)
        for script, text in scripts.items():
            self._write(f"bin/{script}", _SHEBANG + text.encode(), executable=True)
        self._write(f"site-packages/{self.info}/INSTALLER", b"cvs\n")
        self._write_record()
        self._compile(root)

    def _check_format(self) -> None:
        version = ""
        for line in self._text("WHEEL").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() == "wheel-version":
                version = value.strip()
            if version or not line.strip():
                break
        if not version.startswith("1."):
            said = shown(version) if version else "unknown"
            raise Bad(f"has the format {said}, only 1.x is known")

    def _read_record(self) -> None:
        exempt = {f"{self.info}/{one}" for one in ("RECORD", *_SIGNATURES)}
        try:
            for row in csv.reader(self._lines("RECORD")):
                if len(row) == 3:
                    self._add_row(row[0], row[1], row[2], exempt)
                elif row:
                    raise Bad(f"has a RECORD that cannot be read: a line has {len(row)} fields")
        except csv.Error as error:
            raise Bad(f"has a RECORD that cannot be read: {error}") from None
        except UnicodeDecodeError:
            raise Bad("has a RECORD that is not UTF-8 text") from None
        for path in sorted(self.members.keys() - self.record.keys() - exempt):
            raise Bad(f"has the file {shown(path)} that its RECORD does not name")

    def _add_row(self, path: str, digest: str, size: str, exempt: set[str]) -> None:
        if path.endswith("/"):
            return
        if path not in self.members and path not in exempt:
            raise Bad(f"lacks the file {shown(path)} that its RECORD names")
        if size and not (size.isascii() and size.isdecimal() and len(size) < 20):
            raise Bad(f"has a RECORD that cannot be read: {shown(size)} is not a size")
        algorithm, _, value = digest.partition("=")
        row = _Row(algorithm, value, int(size) if size else None)
        if self.record.setdefault(path, row) != row:
            raise Bad(f"has two lines for {shown(path)} in its RECORD")

    def _entry_points(self) -> dict[str, str]:
        """The scripts that entry_points.txt asks for, by name."""
        if f"{self.info}/entry_points.txt" not in self.members:
            return {}
        found: dict[str, str] = {}
        section = ""
        for line in map(str.strip, self._text("entry_points.txt").splitlines()):
            if not line or line[0] in "#;":
                continue
            name, _, value = (part.strip() for part in line.partition("="))
            call = _ENTRY_POINT.fullmatch(value)
            if line[0] == "[" and line[-1] == "]":
                section = line
            elif line[0] == "[" or (section in _SCRIPT_SECTIONS and not (name and call)):
                raise Bad(f"has entry points that cannot be read: {shown(line)}")
            elif section in _SCRIPT_SECTIONS and call:
                if "/" in name or name in (".", "..") or not name.isprintable():
                    raise Bad(f"has a script called {shown(name)}")
                text = _ENTRY_SCRIPT.format(
                    module=call["module"], first=call["call"].split(".")[0], call=call["call"]
                )
                if found.setdefault(name, text) != text:
                    raise Bad(f"has two scripts called {shown(name)}")
                if len(found) > _SCRIPT_LIMIT:
                    raise Bad(f"has more than {_SCRIPT_LIMIT:,} scripts")
        return found

    def _text(self, name: str) -> str:
        try:
            return self.archive.read(self._member(name, _TEXT_LIMIT)).decode()
        except UnicodeDecodeError:
            raise Bad(f"has a {name} that is not UTF-8 text") from None

    def _lines(self, name: str) -> Iterator[str]:
        """The lines of a file, with their ends; never held as a whole."""
        with self.archive.open(self._member(name, _RECORD_LIMIT)) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            for number, line in enumerate(iter(lambda: text.readline(_LINE_LIMIT), "")):
                if number == _LINES_LIMIT:
                    raise Bad(f"has a {name} with too many lines")
                if len(line) == _LINE_LIMIT:
                    raise Bad(f"has a {name} with a line that is too long")
                yield line

    def _member(self, name: str, limit: int) -> zipfile.ZipInfo:
        member = self.members.get(f"{self.info}/{name}")
        if member is None:
            raise Bad(f"has no {name}")
        if member.file_size > limit:
            raise Bad(f"has a {name} of {member.file_size} bytes, too many")
        return member

    def _target(self, path: str) -> str:
        """Where a member goes in the tree."""
        top, _, rest = path.partition("/")
        if top != self.data:
            return f"site-packages/{path}"
        scheme, _, rest = rest.partition("/")
        if scheme in ("purelib", "platlib") and rest:
            return f"site-packages/{rest}"
        if scheme == "scripts" and rest:
            return f"bin/{rest}"
        if scheme == "headers" and rest:
            return f"include/site/python{self.minor}/{self.name}/{rest}"
        if scheme == "data" and rest and rest.split("/")[0] != "site-packages":
            return rest
        raise Bad(f"has the file {shown(path)}, which belongs nowhere")

    def _is_stale_bytecode(self, path: str) -> bool:
        """Whether a member is bytecode whose source is there too: it is compiled anew."""
        folder, _, name = path.rpartition("/")
        if not name.endswith(".pyc") or not f"/{folder}".endswith("/__pycache__"):
            return False
        parent = folder[: -len("__pycache__")]
        return f"{parent}{name.split('.')[0]}.py" in self.members

    def _copy(self, path: str, member: zipfile.ZipInfo, target: str) -> None:
        mode = member.external_attr >> 16
        script = target.startswith("bin/")
        executable = script or bool(stat.S_ISREG(mode) and mode & 0o111)
        raw = target.encode()
        with self.archive.open(member) as stream:
            check = _Check(member, self.record[path])
            if member.file_size <= _SMALL:
                data = b"".join(check.chunks(stream))
                if script and (line := _PYTHON_SHEBANG.match(data)):
                    self._write(target, _SHEBANG + data[line.end() :], executable=True)
                    return
                self.writer.write(raw, data, executable)
            else:
                self.writer.write_chunks(raw, check.chunks(stream), executable)
        self._listed(target, check.sha256, member.file_size)
        is_source = raw.endswith(b".py") and raw.startswith(b"site-packages/")
        if is_source and member.file_size <= bytecode.SOURCE_LIMIT:
            self.sources.append(raw.removeprefix(b"site-packages/"))

    def _verify(self, path: str, member: zipfile.ZipInfo) -> None:
        """Checks a member that is not taken over."""
        if path in self.record and self.record[path].digest:
            with self.archive.open(member) as stream:
                for _ in _Check(member, self.record[path]).chunks(stream):
                    pass

    def _write(self, target: str, data: bytes, *, executable: bool = False) -> None:
        self.writer.write(target.encode(), data, executable)
        self._listed(target, hashlib.sha256(data).digest(), len(data))

    def _listed(self, target: str, sha256: bytes, size: int) -> None:
        # Seen from lib/python3.X/site-packages, as installers write it.
        inside = target.removeprefix("site-packages/")
        path = inside if inside != target else f"../../../{target}"
        self.rows[path] = (f"sha256={_base64(sha256)}", size)

    def _write_record(self) -> None:
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        rows = [(path, digest, str(size)) for path, (digest, size) in self.rows.items()]
        lines.writerows(sorted([*rows, (f"{self.info}/RECORD", "", "")]))
        self.writer.write(f"site-packages/{self.info}/RECORD".encode(), text.getvalue().encode())

    def _compile(self, root: str) -> None:
        ending = f".{self.probe.cache_tag}.pyc".encode()
        folder = os.path.join(root, "site-packages")
        for source, data in bytecode.compiled(self.probe.executable, folder, sorted(self.sources)):
            parallel.check(self.stop)
            parent, slash, name = source.rpartition(b"/")
            path = parent + slash + b"__pycache__/" + name[: -len(b".py")] + ending
            self.writer.write(b"site-packages/" + path, data)


class _Check:
    """Digests a member while it is read and compares it with its line of RECORD."""

    def __init__(self, member: zipfile.ZipInfo, row: _Row) -> None:
        path = member.filename
        if row.algorithm not in ("sha256", "sha384", "sha512"):
            what = f"the digest {shown(row.algorithm)}" if row.algorithm else "no digest"
            raise Bad(f"has {what} for {shown(path)} in its RECORD")
        self.path = path
        self.row = row
        self.size = member.file_size
        self.sha256 = b""

    def chunks(self, stream: IO[bytes]) -> Iterator[bytes]:
        """The member's bytes.

        Raises:
            Bad: at the end, if they are not what RECORD says.
        """
        sha256, size = hashlib.sha256(), 0
        other = None if self.row.algorithm == "sha256" else hashlib.new(self.row.algorithm)
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
            if other is not None:
                other.update(chunk)
            size += len(chunk)
            yield chunk
        self.sha256 = sha256.digest()
        found = self.sha256 if other is None else other.digest()
        if size != self.size:
            raise Bad(f"is damaged: {shown(self.path)} has {size} bytes instead of {self.size}")
        if self.row.size not in (None, size) or not _same(found, self.row.digest):
            raise Bad(f"has other bytes in {shown(self.path)} than its RECORD says")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by path; folders are left out.

    Raises:
        Bad: a name that climbs out, is absolute or there twice, a link, a device, anything
            encrypted.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for member in archive.infolist():
        path = member.filename
        if path != member.orig_filename or "\\" in path or "\0" in path:
            raise Bad(f"has a file with the name {shown(member.orig_filename)}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise Bad(f"has a link, {shown(path)}")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Bad(f"has something that is neither file nor folder, {shown(path)}")
        if {"", ".", ".."}.intersection(path.removesuffix("/").split("/")):
            raise Bad(f"has a file that would lie outside, {shown(path)}")
        if path.endswith("/"):
            folders.add(path[:-1])
            continue
        if member.flag_bits & _ENCRYPTED:
            raise Bad(f"has an encrypted file, {shown(path)}")
        # The other methods of zip may take any amount of memory to unpack.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Bad(f"has a file in a compression that wheels do not use, {shown(path)}")
        if path in found:
            raise Bad(f"has the file {shown(path)} twice")
        found[path] = member
    for path in sorted(folders & found.keys()):
        raise Bad(f"has {shown(path)} as a file and as a folder")
    return found


def _dist_info(paths: Iterable[str], name: str) -> str:
    """The folder of a wheel's metadata; one of another wheel, or a second one, is refused."""
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    found = sorted(folder for folder in folders if folder.endswith(".dist-info"))
    if len(found) != 1:
        raise Bad("is not one: it does not have exactly one .dist-info folder")
    if canonicalize_name(found[0].rsplit("-", 2)[0]) != name:
        raise Bad(f"is not one: its metadata is that of another, {shown(found[0])}")
    return found[0]


def _same(digest: bytes, text: str) -> bool:
    """Whether a digest is what RECORD writes in URL-safe base64, padded or not."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == digest
    except ValueError:
        return False


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
