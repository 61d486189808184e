"""Makes projects that have to be built: small ones, which bring their own build back end."""

import io
import json
import os
import tarfile
import textwrap
from collections.abc import Mapping, Sequence

#: A back end of PEP 517 that needs nothing. `project.json` says what to build; `hook.py`, where it
#: is there, runs before and may change `files`, the content of the wheel.
_BACKEND = """\
import base64, hashlib, json, os, zipfile

project = json.load(open("project.json"))

def get_requires_for_build_wheel(config_settings=None):
    return project["asks"]

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    stem = project["name"].replace("-", "_") + "-" + project["version"]
    files = {path: text.encode() for path, text in project["files"].items()}
    if os.path.exists("hook.py"):
        exec(open("hook.py").read(), {"files": files})
    metadata = "Metadata-Version: 2.1\\nName: %(name)s\\nVersion: %(version)s\\n" % project
    metadata += "".join("Requires-Dist: %s\\n" % one for one in project["requires"])
    metadata += "".join("Provides-Extra: %s\\n" % one for one in project["extras"])
    info = stem + ".dist-info/"
    files[info + "METADATA"] = metadata.encode()
    files[info + "WHEEL"] = b"Wheel-Version: 1.0\\nTag: " + project["tag"].encode() + b"\\n"
    rows = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        rows.append("%s,sha256=%s,%d" % (path, digest, len(data)))
    rows.append(info + "RECORD,,")
    files[info + "RECORD"] = "\\n".join(rows).encode()
    name = "%s-%s.whl" % (stem, project["tag"])
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return name
"""


def files(
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    extras: Sequence[str] = (),
    build_requires: Sequence[str] = (),
    asks: Sequence[str] = (),
    tag: str = "py3-none-any",
    hook: str = "",
    content: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The files of a project: path → text.

    Args:
        requires: what its wheel needs.
        build_requires: what its pyproject.toml asks for, and `asks` what its back end does.
        hook: Python code that runs in the build; `files` is what goes into the wheel.
        content: what does; by default one module with the version.
    """
    project = {
        "name": name,
        "version": version,
        "requires": list(requires),
        "extras": list(extras),
        "asks": list(asks),
        "tag": tag,
        "files": content or {f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\n"},
    }
    made = {
        "pyproject.toml": "[build-system]\n"
        f"requires = {json.dumps(list(build_requires))}\n"
        'build-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": _BACKEND,
        "project.json": json.dumps(project),
    }
    return made | ({"hook.py": textwrap.dedent(hook)} if hook else {})


def sdist(folder: str, name: str, version: str, **more: object) -> str:
    """Makes a source archive as an index has them and returns its path; arguments as `files`."""
    stem = f"{name.replace('-', '_')}-{version}"
    members = files(name, version, **more)  # type: ignore[arg-type]
    return archive(folder, f"{stem}.tar.gz", {f"{stem}/{path}": members[path] for path in members})


def archive(folder: str, file: str, members: Mapping[str, str]) -> str:
    """Makes a tar archive and returns its path."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, file)
    with tarfile.open(path, "w:gz") as output:
        for member, text in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(text.encode())
            output.addfile(entry, io.BytesIO(text.encode()))
    return path
