"""The seal: what a sealed process may not do, as root, and what it may."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attacks
import pytest

from cvs.store import seal

ATTACKS = Path(attacks.__file__).read_text()


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


def targets(root: Path) -> list[str]:
    """A file and a folder, for attacks to try."""
    (root / "closed" / "folder").mkdir(parents=True)
    (root / "closed" / "file").write_text("content\n")
    (root / "outside").mkdir()
    return [str(root / "closed" / "file"), str(root / "closed" / "folder")]


def test_every_write_is_refused(tmp_path: Path) -> None:
    """Nothing below a protected folder can be changed in any of many ways; reading goes on."""
    closed, (file, folder) = tmp_path / "closed", targets(tmp_path)
    before = listing(closed)

    made = seal.make([str(closed)], [])
    outside = str(tmp_path / "outside")
    said = run(made, ATTACKS, "all", outside, str(os.getpid()), file, folder).splitlines()

    assert [line for line in said if not line.endswith(": refused")] == []
    assert len(said) == len(attacks.NAMES)
    assert listing(closed) == before


@pytest.mark.parametrize("name", attacks.NAMES)
def test_the_attacks_are_real(tmp_path: Path, name: str) -> None:
    """Without the seal every one of them does what it is about."""
    command = [sys.executable, "-c", ATTACKS, name, str(tmp_path / "outside"), str(os.getpid())]
    if name == "bind mount":
        # So that it ends with the process.
        command = ["unshare", "-m", *command]
    done = subprocess.run(
        [*command, *targets(tmp_path)], capture_output=True, text=True, check=False
    )

    if name in attacks.PRIVILEGED and not done.stdout.endswith(": DONE\n"):
        pytest.skip("this takes more than is permitted here")
    assert done.stdout.endswith(f": {name}: DONE\n")


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
