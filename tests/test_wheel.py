"""Wheels as entries: their layout, their sameness everywhere, and wheels that lie."""

import csv
import hashlib
import os
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import wheelmaker

from cvs.store import manifest, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, SourceError
from cvs.store.verify import verify
from cvs.versions import bytecode, interpreter, wheel

PROBE = interpreter.probe(interpreter.find(None))
PYC = f"{PROBE.cache_tag}.pyc"

Rows = list[list[str]]


def _add(store: Store, path: str) -> EntryId:
    return wheel.add_wheel(store, path, sha256=wheelmaker.sha256(path), probe=PROBE)


def _files(store: Store, entry: EntryId) -> dict[str, tree.File]:
    document = store.manifest(entry)
    assert isinstance(document, manifest.TreeManifest)
    return {node.path: node for node in document.nodes if isinstance(node, tree.File)}


def _text(store: Store, entry: EntryId, path: str) -> str:
    return Path(store.volume.store, store.content(entry), path).read_text()


def test_a_wheel_is_stored_in_its_installed_form(store: Store, tmp_path: Path) -> None:
    data = "Some_Thing-1.0.data"
    path = wheelmaker.make(
        str(tmp_path),
        "Some_Thing",
        "1.0",
        {
            "thing/__init__.py": "A = 1\n",
            "thing/lib.so": b"\x7fELF",
            "thing/tool": "#!/bin/sh\n",
            f"{data}/purelib/pure.py": "",
            f"{data}/platlib/plat.py": "",
            f"{data}/scripts/run": "#!/bin/sh\necho run\n",
            f"{data}/headers/thing.h": "",
            f"{data}/data/share/thing/data.txt": "data",
            f"{data}/data/etc/thing.conf": "",
        },
        executable=["thing/tool"],
        extra={"INSTALLER": "pip\n", "direct_url.json": "{}", "RECORD.jws": ""},
        record=lambda rows: [row for row in rows if "jws" not in row[0]],
    )

    entry = _add(store, path)

    files = _files(store, entry)
    minor = ".".join(PROBE.version.split(".")[:2])
    info = "site-packages/Some_Thing-1.0.dist-info"
    assert set(files) == {
        *("bin/run", "etc/thing.conf", "share/thing/data.txt"),
        f"include/site/python{minor}/some-thing/thing.h",
        *(f"{info}/{name}" for name in ("INSTALLER", "METADATA", "RECORD", "WHEEL")),
        *("site-packages/pure.py", f"site-packages/__pycache__/pure.{PYC}"),
        *("site-packages/plat.py", f"site-packages/__pycache__/plat.{PYC}"),
        *("site-packages/thing/__init__.py", f"site-packages/thing/__pycache__/__init__.{PYC}"),
        *("site-packages/thing/lib.so", "site-packages/thing/tool"),
    }
    assert [name for name, node in files.items() if node.executable] == [
        "bin/run",
        "site-packages/thing/tool",
    ]
    assert store.content(entry).endswith(f"/some-thing-1.0-{PROBE.abi}")
    assert _text(store, entry, f"{info}/INSTALLER") == "cvs\n"
    assert list(verify(store, entry)) == []


def test_record_is_written_anew_and_lists_what_is_there(store: Store, tmp_path: Path) -> None:
    """The wheel's order, signatures and bytecode are not in it; files outside are."""
    path = wheelmaker.make(
        str(tmp_path),
        "a",
        "1",
        {"a,b.py": "", "a.py": "A = 1\n", "a-1.data/data/share/x": "x"},
        scripts={"tool": "a:main"},
        record=lambda rows: rows[::-1],
    )

    entry = _add(store, path)

    lines = _text(store, entry, "site-packages/a-1.dist-info/RECORD").splitlines()
    rows = {row[0]: row[1:] for row in csv.reader(lines)}
    assert list(rows) == sorted(rows)
    assert rows["a-1.dist-info/RECORD"] == ["", ""]
    assert rows["a.py"] == [f"sha256={wheelmaker.digest(b'A = 1' + os.linesep.encode())}", "6"]
    assert {"a,b.py", "../../../share/x", "../../../bin/tool", "a-1.dist-info/INSTALLER"} <= set(
        rows
    )
    assert not [name for name in rows if name.endswith(".pyc")]


def test_scripts_run_the_python_that_lies_beside_them(store: Store, tmp_path: Path) -> None:
    path = wheelmaker.make(
        str(tmp_path / "wheels"),
        "a",
        "1",
        {
            "a.py": "import sys\nclass C:\n    def main():\n        print(sys.argv[1:])\n"
            "        return 3\n",
            "a-1.data/scripts/old": "#!pythonw -O\nimport sys; print('old', sys.argv[1:])\n",
            "a-1.data/scripts/both": "#!python\nprint('the wheel has it too')\n",
        },
        scripts={"new": "a:C.main", "both": "a:C.main [extra]"},
    )
    entry = _add(store, path)
    # As in an environment: the scripts are links, `python` is another thing than beside them.
    folder = tmp_path / "an env" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text(
        f'#!/bin/sh\nPYTHONPATH="{store.volume.store}/{store.content(entry)}/site-packages" '
        f'exec {PROBE.executable} "$@"\n'
    )
    (folder / "python").chmod(0o755)
    for name in ("new", "old", "both"):
        (folder / name).symlink_to(Path(store.volume.store, store.content(entry), "bin", name))

    def run(name: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(folder / name), "x y", "$z"], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    assert run("new") == (3, "['x y', '$z']\n")
    assert run("both") == (3, "['x y', '$z']\n")
    assert run("old") == (0, "old ['x y', '$z']\n")


def test_bytecode_is_used_as_it_is_and_names_no_build_folder(store: Store, tmp_path: Path) -> None:
    path = wheelmaker.make(
        str(tmp_path),
        "a",
        "1",
        {
            "a/__init__.py": "def f():\n    raise ValueError\n",
            "a/template.py": "{{ no python }}\n",
            f"a/__pycache__/__init__.{PYC}": b"stale",
            f"a/__pycache__/sourceless.{PYC}": b"kept",
        },
    )

    entry = _add(store, path)

    files = _files(store, entry)
    pyc = f"site-packages/a/__pycache__/__init__.{PYC}"
    assert f"site-packages/a/__pycache__/template.{PYC}" not in files
    assert files[f"site-packages/a/__pycache__/sourceless.{PYC}"].size == 4
    root = os.path.join(store.volume.store, store.content(entry))
    with open(os.path.join(root, pyc), "rb") as file:
        data = file.read()
    # Hash-based and unchecked (PEP 552): used whatever the source's time or content.
    assert data[4:8] == (1).to_bytes(4, "little")
    assert os.fsencode(store.volume.root) not in data
    assert b"a/__init__.py" in data
    code = "import a, sys\ntry: a.f()\nexcept ValueError as e:\n"
    code += " print(e.__traceback__.tb_next.tb_frame.f_code.co_filename)"
    done = subprocess.run(
        [PROBE.executable, "-B", "-c", code],
        env={"PYTHONPATH": f"{root}/site-packages"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{root}/site-packages/a/__init__.py"


def test_a_ref_leads_from_the_wheel_to_its_entry(store: Store, tmp_path: Path) -> None:
    path = wheelmaker.make(str(tmp_path), "a", "1")
    sha256 = wheelmaker.sha256(path)
    assert wheel.stored(store, sha256, PROBE.abi) is None

    entry = _add(store, path)

    assert wheel.stored(store, sha256, PROBE.abi) == entry
    assert wheel.stored(store, sha256, "cp99") is None


def test_another_digest_stores_nothing(store: Store, tmp_path: Path) -> None:
    path = wheelmaker.make(str(tmp_path), "a", "1")

    with pytest.raises(IntegrityError, match=r"has the SHA-256 [0-9a-f]{64} instead of 0{64}$"):
        wheel.add_wheel(store, path, sha256="0" * 64, probe=PROBE)
    assert list(store.ids()) == []


def _lie(index: int, text: str) -> Callable[[Rows], Rows]:
    """Changes one field of the first line of RECORD."""

    def record(rows: Rows) -> Rows:
        rows[0][index] = text
        return rows

    return record


def _member(
    path: str, data: bytes = b"", mode: int = 0o100000
) -> Callable[[zipfile.ZipFile], None]:
    def change(archive: zipfile.ZipFile) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of a second file of one name.
            archive.writestr(wheelmaker.entry(path, mode=mode), data)

    return change


OTHER = f"sha256={wheelmaker.digest(b'other')}"
MD5 = "md5=" + hashlib.md5(b"", usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (_lie(1, OTHER), r"has other bytes in 'a\.py' than its RECORD says"),
        (_lie(1, "sha256=?"), r"has other bytes in 'a\.py' than its RECORD says"),
        (_lie(2, "7"), r"has other bytes in 'a\.py' than its RECORD says"),
        (_lie(2, "x"), "has a RECORD that cannot be read"),
        (_lie(1, ""), r"has no digest for 'a\.py' in its RECORD"),
        (_lie(1, MD5), r"has the digest 'md5' for 'a\.py' in its RECORD"),
        (lambda rows: rows[1:], r"has the file 'a\.py' that its RECORD does not name"),
        (lambda rows: [*rows, ["b.py", OTHER, "5"]], r"lacks the file 'b\.py' that its RECORD"),
        (lambda rows: [*rows, ["a.py", OTHER, "5"]], r"has two lines for 'a\.py' in its RECORD"),
        (lambda rows: [["a.py"], *rows], "has a RECORD that cannot be read"),
    ],
)
def test_a_record_that_lies_is_refused(
    store: Store, tmp_path: Path, record: Callable[[Rows], Rows], problem: str
) -> None:
    path = wheelmaker.make(str(tmp_path), "a", "1", {"a.py": "A = 1\n"}, record=record)

    with pytest.raises(SourceError, match=rf"^the wheel a-1-py3-none-any\.whl {problem}"):
        _add(store, path)
    assert (list(store.ids()), os.listdir(store.volume.tmp)) == ([], [])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_member("../a.py"), r"has a file that would lie outside, '\.\./a\.py'"),
        (_member("/etc/a"), "has a file that would lie outside, '/etc/a'"),
        (_member("a/./b"), "has a file that would lie outside"),
        (_member("a\\b"), "has a file with the name"),
        (_member("a.py"), r"has the file 'a\.py' twice"),
        (_member("link", b"/etc/passwd", 0o120000), "has a link, 'link'"),
    ],
)
def test_members_that_no_honest_wheel_has_are_refused(
    store: Store, tmp_path: Path, change: Callable[[zipfile.ZipFile], None], problem: str
) -> None:
    path = wheelmaker.make(str(tmp_path), "a", "1", change=change)

    with pytest.raises(SourceError, match=problem):
        _add(store, path)
    assert (list(store.ids()), os.listdir(store.volume.tmp)) == ([], [])


@pytest.mark.parametrize(
    ("files", "extra", "scripts", "problem"),
    [
        ({"A.py": "", "a.py": ""}, {}, None, r"cannot be stored: two names .* differ in case"),
        ({"a": "", "a/b.py": ""}, {}, None, "cannot be stored: 'site-packages/a' is in the tree"),
        ({"a-1.data/data/site-packages/x": ""}, {}, None, "belongs nowhere"),
        ({"a-1.data/unknown/x": ""}, {}, None, "belongs nowhere"),
        ({"a-1.data/x": ""}, {}, None, "belongs nowhere"),
        ({"b-1.dist-info/METADATA": ""}, {}, None, "is not one: it does not have exactly"),
        ({}, {"WHEEL": "Wheel-Version: 2.0\n"}, None, r"has the format '2\.0', only 1\.x is known"),
        ({}, {"WHEEL": b"\xff"}, None, "has a WHEEL that is not UTF-8 text"),
        ({}, {"entry_points.txt": "[console_scripts\n"}, None, "has entry points that cannot be"),
        ({}, {"entry_points.txt": "[console_scripts]\nx = y\n"}, None, "has entry points that"),
        ({}, {}, {"../x": "a:b"}, r"has a script called '\.\./x'"),
    ],
)
def test_wheels_that_cannot_be_installed_are_refused(
    store: Store,
    tmp_path: Path,
    files: dict[str, str],
    extra: dict[str, str],
    scripts: dict[str, str] | None,
    problem: str,
) -> None:
    path = wheelmaker.make(str(tmp_path), "a", "1", files, extra=extra, scripts=scripts)

    with pytest.raises(SourceError, match=problem):
        _add(store, path)
    assert (list(store.ids()), os.listdir(store.volume.tmp)) == ([], [])


def test_a_file_that_is_no_archive_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(b"<html>")

    with pytest.raises(SourceError, match=r"the wheel a-1-py3-none-any\.whl is damaged"):
        _add(store, str(path))
    named = tmp_path / "a.whl"
    named.write_bytes(b"")
    with pytest.raises(SourceError, match=r"'a\.whl' is not the name of a wheel"):
        _add(store, str(named))
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        wheel.add_wheel(store, str(tmp_path / "none.whl"), sha256="0" * 64, probe=PROBE)


def test_a_broken_member_is_refused(store: Store, tmp_path: Path) -> None:
    path = wheelmaker.make(str(tmp_path), "a", "1", {"a.py": "x = 1\n" * 1000})
    data = bytearray(Path(path).read_bytes())
    data[60] ^= 0xFF
    Path(path).write_bytes(data)

    with pytest.raises(SourceError, match=r"the wheel a-1-py3-none-any\.whl is damaged"):
        _add(store, path)


def test_a_bomb_is_refused_before_it_unpacks(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel, "_SPARE", 1 << 20)
    path = wheelmaker.make(str(tmp_path), "a", "1", {"zeros.bin": bytes(8 << 20)})

    with pytest.raises(SourceError, match="would unpack to 8388973 bytes, too many"):
        _add(store, path)


def test_large_files_pass_in_pieces(store: Store, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 9
    path = wheelmaker.make(str(tmp_path), "a", "1", {"big.so": data})

    entry = _add(store, path)

    assert _files(store, entry)["site-packages/big.so"].size == len(data)
    assert list(verify(store, entry)) == []


def test_an_interpreter_that_ends_early_stores_nothing(store: Store, tmp_path: Path) -> None:
    import msgspec

    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'out of order' >&2\nexit 3\n")
    broken.chmod(0o755)
    path = wheelmaker.make(str(tmp_path), "a", "1")
    probe = msgspec.structs.replace(PROBE, executable=str(broken))

    with pytest.raises(Exception, match=r"ended while it compiled a\.py: out of order"):
        wheel.add_wheel(store, path, sha256=wheelmaker.sha256(path), probe=probe)
    assert list(store.ids()) == []


def test_sources_that_take_too_long_to_compile_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling takes the square of the number of equal functions; it ends, and says why."""
    monkeypatch.setattr(bytecode, "TIME_LIMIT", 1)
    path = wheelmaker.make(str(tmp_path), "a", "1", {"a.py": "def f(): pass\n" * 100_000})

    with pytest.raises(InputError, match=r"while it compiled a\.py: it took more than 1 s$"):
        _add(store, path)
    assert (list(store.ids()), os.listdir(store.volume.tmp)) == ([], [])


def test_large_sources_have_no_bytecode(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that could fill the memory of a compiler is stored without its bytecode."""
    monkeypatch.setattr(bytecode, "SOURCE_LIMIT", 6)
    path = wheelmaker.make(str(tmp_path), "a", "1", {"a.py": "A = 1\n", "b.py": "A = 10\n"})

    files = _files(store, _add(store, path))

    assert f"site-packages/__pycache__/a.{PYC}" in files
    assert f"site-packages/__pycache__/b.{PYC}" not in files
