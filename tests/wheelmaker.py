"""Makes small wheels: the same arguments give the same bytes."""

import base64
import csv
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable, Mapping, Sequence

#: Of every member, so that a wheel has one digest.
_WHEN = (2026, 1, 2, 3, 4, 6)


def make(
    folder: str,
    name: str,
    version: str,
    files: Mapping[str, str | bytes] | None = None,
    *,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    scripts: Mapping[str, str] | None = None,
    executable: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    record: Callable[[list[list[str]]], list[list[str]]] | None = None,
    change: Callable[[zipfile.ZipFile], None] | None = None,
) -> str:
    """Makes a wheel and returns its path.

    Args:
        files: path in the wheel → content; by default one module of the wheel's name.
        requires: its dependencies.
        tag: python, ABI and platform.
        scripts: entry points, `name` → `module:function`.
        executable: paths that have an executable bit.
        extra: more files of .dist-info.
        record: changes the lines of RECORD, for wheels that lie.
        change: adds members that no honest wheel has, after all others.
    """
    module = name.replace("-", "_")
    stem = f"{module}-{version}"
    info = f"{stem}.dist-info"
    if files is None:
        files = {f"{module}.py": f"VERSION = {version!r}\n"}
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    members: dict[str, bytes] = {path: _bytes(data) for path, data in sorted(files.items())}
    members[f"{info}/METADATA"] = metadata.encode()
    members[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: wheelmaker\nRoot-Is-Purelib: true\nTag: {tag}\n"
    ).encode()
    if scripts:
        lines = "".join(f"{script} = {call}\n" for script, call in sorted(scripts.items()))
        members[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}".encode()
    for path, text in (extra or {}).items():
        members[f"{info}/{path}"] = _bytes(text)
    rows = [[path, f"sha256={digest(data)}", str(len(data))] for path, data in members.items()]
    rows.append([f"{info}/RECORD", "", ""])
    if record is not None:
        rows = record(rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    members[f"{info}/RECORD"] = text.getvalue().encode()
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{stem}-{tag}.whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(entry(member, executable=member in executable), data)
        if change is not None:
            change(archive)
    return path


def entry(path: str, *, executable: bool = False, mode: int = stat.S_IFREG) -> zipfile.ZipInfo:
    """A member of an archive with nothing of this moment or machine in it."""
    member = zipfile.ZipInfo(path, _WHEN)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3
    member.external_attr = (mode | (0o755 if executable else 0o644)) << 16
    return member


def digest(data: bytes) -> str:
    """SHA-256 as RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def sha256(path: str) -> str:
    """SHA-256 of a file as an index writes it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes(data: str | bytes) -> bytes:
    return data if isinstance(data, bytes) else data.encode()
