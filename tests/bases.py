"""An interpreter of its own, as an image has one: what lies in its site-packages is the test's."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from cvs.versions import interpreter

_MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make(folder: Path) -> str:
    """Makes an interpreter of the version that runs the tests, without packages.

    Returns:
        Its path.
    """
    executable = folder / "bin" / f"python{_MINOR}"
    library = folder / "lib" / f"python{_MINOR}"
    executable.parent.mkdir(parents=True)
    (library / "site-packages").mkdir(parents=True)
    shutil.copy(os.path.realpath(interpreter.find(None)), executable)
    standard = sysconfig.get_path("stdlib")
    for name in os.listdir(standard):
        if name not in ("site-packages", "dist-packages"):
            (library / name).symlink_to(os.path.join(standard, name))
    return str(executable)


def packages(executable: str) -> Path:
    """The site-packages of such an interpreter."""
    return Path(executable).parent.parent / "lib" / f"python{_MINOR}" / "site-packages"


def install(folder: Path, name: str, version: str) -> None:
    """Puts a distribution with one module into a folder: its `WHERE` is `image`."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / f"{name}.py").write_text("WHERE = 'image'\n")
