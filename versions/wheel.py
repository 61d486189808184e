"""Wheels as tree entries: a wheel in its installed form, the same on every machine.

    site-packages/…     modules (purelib and platlib), metadata, bytecode for one interpreter
    bin/…               scripts, which run the `python` that lies beside them
    include/site/…      headers
    share/…, etc/…      data files, where the wheel puts them

A wheel is believed in nothing: every byte is checked against its RECORD while it is written, and
whatever a name could do (climb out, be there twice, be a link) is refused.
"""

import base64
import binascii
import configparser
import csv
import hashlib
import io
import os
import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

from installer.exceptions import InstallerError
from installer.records import InvalidRecordEntry, parse_record_file
from installer.sources import WheelFile
from installer.utils import parse_entrypoints, parse_metadata_file
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from cvs.store import refs, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import IntegrityError, SourceError
from cvs.store.ingest import chunks
from cvs.store.stage import Stage, Staged, TreeWriter
from cvs.versions import bytecode, parallel
from cvs.versions.interpreter import Probe

#: The version of the layout above; a new one makes new entries of all wheels.
LAYOUT = 1

#: What refs of wheels lie under.
REFS = "wheel"

#: A wheel may unpack to this many times its size and this much more; libraries of zeros reach
#: some dozens, deflate at most 1032.
_RATIO = 200
_SPARE = 1 << 30
_MEMBERS = 500_000

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

_PYTHON_SHEBANG = re.compile(rb"#!pythonw?[^\n]*\n")
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


class _Bad(Exception):
    """What is wrong with a wheel, as the end of a sentence."""


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
        entry = store.publish(stage_wheel(stage, path, probe))[0]
    refs.put(store.volume, REFS, ref_key(sha256, probe.abi), entry)
    return entry


def check_sha256(path: str, sha256: str) -> None:
    """Raises IntegrityError unless a file has that digest, SourceError if it cannot be read."""
    checksum = hashlib.sha256()
    try:
        for chunk in chunks(path):
            checksum.update(chunk)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    if checksum.hexdigest() != sha256:
        raise IntegrityError(f"{path} has the SHA-256 {checksum.hexdigest()} instead of {sha256}")


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
    try:
        name, version, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename:
        raise SourceError(f"{file} is not the name of a wheel") from None
    try:
        with zipfile.ZipFile(path) as archive:
            writer = stage.tree(f"{name}-{version}-{probe.abi}")
            root = os.path.join(stage.folder, f"{name}-{version}-{probe.abi}")
            unpacking = _Unpacking(archive, writer, name, probe, stop or threading.Event())
            unpacking.run(root, os.path.getsize(path))
            return writer.finish(origin=file)
    except _Bad as error:
        raise SourceError(f"the wheel {file} {error}") from None
    except tree.TreeError as error:
        raise SourceError(f"the wheel {file} cannot be stored: {error.message}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SourceError(f"the wheel {file} is damaged: {error}") from None


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
        try:
            self.info = WheelFile(archive).dist_info_dir
        except (InstallerError, ValueError) as error:
            reason = getattr(error, "reason", str(error))
            raise _Bad(f"is not one: {reason[:1].lower()}{reason[1:]}") from None
        self.data = self.info.removesuffix(".dist-info") + ".data"
        self.record: dict[str, _Row] = {}
        #: Lines of the RECORD to be written: path in site-packages → digest and size.
        self.rows: dict[str, tuple[str, int]] = {}
        self.sources: list[bytes] = []

    def run(self, root: str, size: int) -> None:
        """Writes everything; `root` is the tree's folder, `size` that of the wheel's file."""
        total = sum(member.file_size for member in self.members.values())
        if total > size * _RATIO + _SPARE or len(self.members) > _MEMBERS:
            raise _Bad(f"would unpack to {total} bytes in {len(self.members)} files, too many")
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
        fields = parse_metadata_file(self._text("WHEEL"))
        version = str(fields.get("Wheel-Version", "")).strip()
        if not version.startswith("1."):
            raise _Bad(f"has the format {version or 'unknown'}, only 1.x is known")

    def _read_record(self) -> None:
        try:
            for path, digest, size in parse_record_file(self._text("RECORD").splitlines()):
                algorithm, _, value = digest.partition("=")
                row = _Row(algorithm, value, int(size) if size else None)
                if self.record.setdefault(path, row) != row:
                    raise _Bad(f"has two lines for {path!r} in its RECORD")
        except (InvalidRecordEntry, ValueError, csv.Error) as error:
            raise _Bad(f"has a RECORD that cannot be read: {error}") from None
        listed = {path for path in self.record if not path.endswith("/")}
        exempt = {f"{self.info}/{one}" for one in ("RECORD", *_SIGNATURES)}
        for path in sorted(self.members.keys() - listed - exempt):
            raise _Bad(f"has the file {path!r} that its RECORD does not name")
        for path in sorted(listed - self.members.keys() - exempt):
            raise _Bad(f"lacks the file {path!r} that its RECORD names")

    def _entry_points(self) -> dict[str, str]:
        """The scripts that entry_points.txt asks for, by name."""
        if f"{self.info}/entry_points.txt" not in self.members:
            return {}
        found = {}
        try:
            for name, module, call, _ in parse_entrypoints(self._text("entry_points.txt")):
                if "/" in name or name in (".", ".."):
                    raise _Bad(f"has a script called {name!r}")
                found[name] = _ENTRY_SCRIPT.format(
                    module=module, first=call.split(".")[0], call=call
                )
        except (configparser.Error, AssertionError):
            raise _Bad("has entry points that cannot be read") from None
        return found

    def _text(self, name: str) -> str:
        member = self.members.get(f"{self.info}/{name}")
        if member is None:
            raise _Bad(f"has no {name}")
        if member.file_size > 256 << 20:
            raise _Bad(f"has a {name} of {member.file_size} bytes")
        try:
            return self.archive.read(member).decode()
        except UnicodeDecodeError:
            raise _Bad(f"has a {name} that is not UTF-8 text") from None

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
        raise _Bad(f"has the file {path!r}, which belongs nowhere")

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
            check = _Check(path, self.record[path])
            if member.file_size <= _SMALL:
                data = b"".join(check.chunks(stream))
                if script and (line := _PYTHON_SHEBANG.match(data)):
                    self._write(target, _SHEBANG + data[line.end() :], executable=True)
                    return
                self.writer.write(raw, data, executable)
            else:
                self.writer.write_chunks(raw, check.chunks(stream), executable)
        self._listed(target, check.sha256, member.file_size)
        if raw.endswith(b".py") and raw.startswith(b"site-packages/"):
            self.sources.append(raw.removeprefix(b"site-packages/"))

    def _verify(self, path: str, member: zipfile.ZipInfo) -> None:
        """Checks a member that is not taken over."""
        if path in self.record and self.record[path].digest:
            with self.archive.open(member) as stream:
                for _ in _Check(path, self.record[path]).chunks(stream):
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

    def __init__(self, path: str, row: _Row) -> None:
        if row.algorithm not in ("sha256", "sha384", "sha512"):
            what = f"the digest {row.algorithm!r}" if row.algorithm else "no digest"
            raise _Bad(f"has {what} for {path!r} in its RECORD")
        self.path = path
        self.row = row
        self.sha256 = b""

    def chunks(self, stream: IO[bytes]) -> Iterator[bytes]:
        """The member's bytes.

        Raises:
            _Bad: at the end, if they are not what RECORD says.
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
        if self.row.size not in (None, size) or not _same(found, self.row.digest):
            raise _Bad(f"has other bytes in {self.path!r} than its RECORD says")


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by path; folders are left out.

    Raises:
        _Bad: a name that climbs out, is absolute or there twice, a link, anything encrypted.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        path = member.filename
        if path != member.orig_filename or "\\" in path or "\0" in path:
            raise _Bad(f"has a file with the name {member.orig_filename!r}")
        mode = member.external_attr >> 16
        if stat.S_ISLNK(mode):
            raise _Bad(f"has a link, {path!r}")
        if {"", ".", ".."}.intersection(path.removesuffix("/").split("/")):
            raise _Bad(f"has a file that would lie outside, {path!r}")
        if path.endswith("/"):
            continue
        if member.flag_bits & 1:
            raise _Bad(f"has an encrypted file, {path!r}")
        # The other methods of zip may take any amount of memory to unpack.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Bad(f"has a file in a compression that wheels do not use, {path!r}")
        if path in found:
            raise _Bad(f"has the file {path!r} twice")
        found[path] = member
    return found


def _same(digest: bytes, text: str) -> bool:
    """Whether a digest is what RECORD writes in URL-safe base64, padded or not."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == digest
    except binascii.Error:
        return False


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
