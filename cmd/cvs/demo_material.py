"""What `cvs demo` works on: real repositories, a real wheel and a model, made from files that
the package ships. The same bytes on every machine, so the demo's hashes can be compared."""

import base64
import hashlib
import importlib.resources
import io
import json
import os
import zipfile
from importlib.resources.abc import Traversable

from cvs.store import fs

#: Commits are dated, so that they are the same commits everywhere: this many seconds since 1970.
DATE = 1_767_225_600

WHEEL = "cvs_demo_palette-1.0-py3-none-any.whl"


def examples() -> Traversable:
    """The folder of the shipped example."""
    return importlib.resources.files("cvs.versions") / "examples" / "demo"


def copy(source: Traversable, target: str) -> None:
    """Copies shipped files into a folder, over what is there."""
    fs.makedirs(target)
    for item in sorted(source.iterdir(), key=lambda item: item.name):
        path = os.path.join(target, item.name)
        if item.name == "__pycache__":
            continue
        if item.is_dir():
            copy(item, path)
            continue
        if os.path.lexists(path):
            fs.unlink(path)
        fs.write_file(path, item.read_bytes())


def commit(folder: str, message: str, tag: str | None = None) -> str:
    """Commits everything in a folder on its branch `main` and returns the commit."""
    from git import Actor, Repo

    known = os.path.isdir(os.path.join(folder, ".git"))
    with Repo(folder) if known else Repo.init(folder, initial_branch="main") as repository:
        repository.index.add(_files(folder))
        author = Actor("cvs demo", "demo@cvs.invalid")
        done = repository.index.commit(
            message,
            author=author,
            committer=author,
            author_date=f"{DATE} +0000",
            commit_date=f"{DATE} +0000",
        )
        if tag:
            repository.create_tag(tag, ref=done.hexsha)
        return done.hexsha


def _files(folder: str) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names]
    return found


def wheel(folder: str) -> str:
    """Builds the wheel of the demo's package into a folder and returns its path."""
    module = (examples() / "package" / "cvs_demo_palette.py").read_bytes()
    info = "cvs_demo_palette-1.0.dist-info"
    files = {
        "cvs_demo_palette.py": module,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: cvs-demo-palette\nVersion: 1.0\n"
        b"Summary: Colours and letters for the demo node of cvs\nRequires-Python: >=3.11\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: cvs demo\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\n"
        b"cvs-demo-palette = cvs_demo_palette:main\n",
    }
    lines = [
        f"{name},sha256={_urlsafe(hashlib.sha256(data).digest())},{len(data)}"
        for name, data in files.items()
    ]
    record = f"{info}/RECORD"
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # ZipInfo's default date is fixed: 1980-01-01.
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    fs.makedirs(folder)
    path = os.path.join(folder, WHEEL)
    fs.write_file(path, buffer.getvalue())
    return path


def model(path: str) -> str:
    """Writes a small safetensors file and returns its sha256."""
    tensor = bytes(range(256)) * 64
    header = json.dumps(
        {
            "__metadata__": {"format": "pt", "title": "cvs demo"},
            "weight": {"dtype": "F16", "shape": [64, 128], "data_offsets": [0, len(tensor)]},
        },
        separators=(",", ":"),
    ).encode()
    data = len(header).to_bytes(8, "little") + header + tensor
    fs.makedirs(os.path.dirname(path))
    fs.write_file(path, data)
    return hashlib.sha256(data).hexdigest()


def _urlsafe(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
