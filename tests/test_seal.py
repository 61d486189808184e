"""The seal: what a sealed process may not do, as root, and what it may."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvs.profiles import seal

#: Writes that a sealed process tries, each below a folder given to it.
ATTACKS = """
import os, socket, sys
root = sys.argv[1]
file, folder = f"{root}/file", f"{root}/folder"
outside = sys.argv[2]
def append(): open(file, "a").write("x")
def truncate(): os.truncate(file, 0)
def through_link():
    os.symlink(file, f"{outside}/to-file"); open(f"{outside}/to-file", "a").write("x")
def bind():
    socket.socket(socket.AF_UNIX).bind(f"{root}/socket")
attacks = {
    "append": append,
    "truncate": truncate,
    "create": lambda: open(f"{root}/new", "x"),
    "mkdir": lambda: os.mkdir(f"{root}/new"),
    "pycache": lambda: os.makedirs(f"{folder}/__pycache__"),
    "unlink": lambda: os.unlink(file),
    "rmdir": lambda: os.rmdir(folder),
    "rename": lambda: os.rename(file, f"{root}/other"),
    "rename out": lambda: os.rename(file, f"{outside}/file"),
    "rename in": lambda: os.rename(f"{outside}/mine", f"{root}/mine"),
    "link out": lambda: os.link(file, f"{outside}/hard"),
    "symlink": lambda: os.symlink("x", f"{root}/new"),
    "fifo": lambda: os.mkfifo(f"{root}/new"),
    "socket": bind,
    "through a link": through_link,
    "reopen": lambda: os.open(f"/proc/self/fd/{os.open(file, os.O_RDONLY)}", os.O_RDWR),
    "child": lambda: sys.exit() if os.system(f"echo x >> {file}") else None,
}
for name, attack in attacks.items():
    try:
        attack()
    except SystemExit:
        print(name, "refused")
    except OSError as error:
        print(name, "refused" if error.errno in (1, 13, 18) else error)
    else:
        print(name, "DONE")
"""


@pytest.fixture(autouse=True)
def landlock() -> Iterator[None]:
    """The tests need a kernel with Landlock; without it the state says so and why."""
    if seal.state() != "full":
        assert seal.state().startswith(("none: ", "partial: "))
        pytest.skip(f"the seal is {seal.state()}")
    yield


def run(made: seal.Seal, code: str, *arguments: str) -> str:
    """Runs Python code sealed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        preexec_fn=made.apply,
        capture_output=True,
        text=True,
        check=False,
    )
    made.close()
    assert done.returncode == 0, done.stderr
    return done.stdout


def listing(root: Path) -> list[tuple[str, bytes | None]]:
    """Everything below a folder."""
    return sorted((str(p), p.read_bytes() if p.is_file() else None) for p in root.rglob("*"))


def test_every_write_is_refused(tmp_path: Path) -> None:
    """Nothing below a protected folder can be changed in any of many ways; reading goes on."""
    closed, outside = tmp_path / "closed", tmp_path / "outside"
    (closed / "folder").mkdir(parents=True)
    outside.mkdir()
    (closed / "file").write_text("content")
    (outside / "mine").write_text("mine")
    before = listing(closed)

    said = run(seal.make([str(closed)], []), ATTACKS, str(closed), str(outside)).splitlines()

    assert [line for line in said if not line.endswith(" refused")] == []
    assert len(said) == 17
    assert listing(closed) == before


def test_what_is_granted_inside(tmp_path: Path) -> None:
    """Of a protected folder, the folders that are named may be written; their siblings not."""
    for name in ("volume/state/mine", "volume/state/other", "volume/store"):
        (tmp_path / name).mkdir(parents=True)
    made = seal.make([str(tmp_path / "volume")], [str(tmp_path / "volume/state/mine")])
    code = (
        "import os, sys\n"
        "for name in ('state/mine', 'state/other', 'state', 'store', '.'):\n"
        "    try: open(f'{sys.argv[1]}/{name}/x', 'w').close(); print('yes')\n"
        "    except PermissionError: print('no')\n"
    )

    assert run(made, code, str(tmp_path / "volume")).split() == ["yes", "no", "no", "no", "no"]


def test_the_rest_of_the_machine_can_be_written(tmp_path: Path) -> None:
    """Siblings of a protected folder, /dev/null and folders elsewhere stay as they were."""
    for name in ("volume", "beside"):
        (tmp_path / name).mkdir()
    code = (
        "import sys, tempfile, multiprocessing\n"
        "open(f'{sys.argv[1]}/beside/x', 'w').write('x')\n"
        "open('/dev/null', 'w').write('x')\n"
        "multiprocessing.Queue().put(1)\n"
        "print(open(sys.argv[2]).read())\n"
    )
    file = tmp_path / "volume" / "readable"
    file.write_text("read")

    said = run(seal.make([str(tmp_path / "volume")], []), code, str(tmp_path), str(file))
    assert said == "read\n"


def test_files_right_beside_are_not_granted(tmp_path: Path) -> None:
    """A file beside a protected folder cannot be written: a rule would hold it on the disk."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("kept")
    code = (
        "import sys\ntry: open(sys.argv[1], 'w')\nexcept PermissionError: print('no')\n"
        "print(open(sys.argv[1]).read())"
    )

    made = seal.make([str(tmp_path / "volume")], [])
    assert run(made, code, str(tmp_path / "file")) == "no\nkept\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A protected folder that does not exist, and one behind a link, are no error."""
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    made = seal.make([str(tmp_path / "none"), str(tmp_path / "link")], [])
    code = "import os, sys\ntry: os.mkdir(sys.argv[1])\nexcept PermissionError: print('no')"

    assert run(made, code, str(tmp_path / "real" / "x")) == "no\n"
