"""The shape of the package: folders, layers, lazy imports, one seam to the file system, builds."""

import ast
import functools
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cvs

ROOT = Path(__file__).resolve().parent.parent

#: The folders at the root that are subpackages of `cvs`.
SUBPACKAGES = ("store", "versions", "profiles")

#: From the lowest: each may import itself and what stands before it. The command is the last.
LAYERS = ("store", "versions", "profiles", "command")

#: What the command line imports only where it is needed: each costs more than a start may.
HEAVY_FOR_MAIN = {"requests", "git", "google", "runpod", "rich", "msgspec", "uv", "zstandard"}
HEAVY_FOR_STORE = HEAVY_FOR_MAIN - {"msgspec"}


_MODULE = re.compile(r"cvs(\.\w+)+")


def modules_of(layer: str) -> list[Path]:
    """The modules of a layer; data that happens to be Python (examples) is none."""
    folder = ROOT / "cmd/cvs" if layer == "command" else ROOT / layer
    found = [
        path
        for path in sorted(folder.rglob("*.py"))
        if not {"examples", *(SUBPACKAGES if layer == "command" else ())}
        & set(path.relative_to(folder).parts)
    ]
    assert found
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every import of a module with its line, also inside functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            for name in node.names:
                yield node.lineno, f"{node.module}.{name.name}"
        elif isinstance(node, ast.Constant) and _MODULE.fullmatch(str(node.value)):
            # What importlib.import_module and `python -m` would be given.
            yield node.lineno, str(node.value)


def layer_of(name: str) -> str | None:
    """The layer that a dotted name lies in; None for other packages."""
    first, _, rest = name.partition(".")
    if first != "cvs":
        return None
    second = rest.partition(".")[0]
    return second if second in SUBPACKAGES else "command"


# Folders.


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_subpackages_lie_at_the_root(name: str) -> None:
    """`cvs.<name>` is `<root>/<name>/`, reached by a link in a checkout."""
    assert (ROOT / name / "__init__.py").is_file()
    assert Path(cvs.__file__ or "").resolve() == ROOT / "cmd/cvs/__init__.py"
    assert (ROOT / "cmd/cvs" / name).is_symlink()
    assert (ROOT / "cmd/cvs" / name).readlink() == Path(f"../../{name}")
    module = __import__(f"cvs.{name}", fromlist=["__file__"])
    assert Path(module.__file__).resolve() == ROOT / name / "__init__.py"


def test_all_subpackages_are_known() -> None:
    """A new folder of the package is known here, to the build and as a link."""
    linked = {path.name for path in (ROOT / "cmd/cvs").iterdir() if path.is_symlink()}
    project = (ROOT / "pyproject.toml").read_text()

    assert linked == set(SUBPACKAGES)
    for name in SUBPACKAGES:
        assert f'"/cmd/cvs/{name}",' in project
        assert f'"{name}" = "cvs/{name}"' in project


def test_cmd_of_the_standard_library_is_found() -> None:
    """The folder `cmd` at the root does not shadow the standard library's `cmd`."""
    code = "import cmd, pdb; print(cmd.__file__); cmd.Cmd; pdb.Pdb"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )

    assert not (ROOT / "cmd/__init__.py").exists()
    assert str(ROOT) not in done.stdout.replace(sys.prefix, "")


# Layers.


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer: str) -> None:
    """No module imports from a layer above its own: store, versions, profiles, the command."""
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules_of(layer)
        for line, name in imports(parsed(path))
        if layer_of(name) not in (None, *allowed)
    ]

    assert upward == []


def test_packages_are_imported_by_one_name() -> None:
    """Every module is `cvs.<...>`: imported as `store` it would be there a second time."""
    twice = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for layer in LAYERS
        for path in modules_of(layer)
        for line, name in imports(parsed(path))
        if name.partition(".")[0] in SUBPACKAGES
    ]

    assert twice == []


def test_the_package_itself_is_empty() -> None:
    """Importing `cvs.store` must not import the command line: `cvs/__init__.py` has no code."""
    (docstring,) = parsed(ROOT / "cmd/cvs/__init__.py").body

    assert isinstance(docstring, ast.Expr)


def loaded_by(module: str) -> set[str]:
    """The top-level packages that importing a module loads."""
    code = (
        f"import sys; import {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cvs.main", HEAVY_FOR_MAIN),
        ("cvs.store", HEAVY_FOR_MAIN),
        ("cvs.store.entries", HEAVY_FOR_STORE),
        ("cvs.store.ingest", HEAVY_FOR_STORE),
        ("cvs.store.verify", HEAVY_FOR_STORE),
    ],
)
def test_importing_is_light(module: str, heavy: set[str]) -> None:
    """A start loads no package that only some commands need."""
    assert loaded_by(module) & heavy == set()


# One seam to the file system.

#: Functions of `os` that change a file system.
_OS_CHANGES = {
    *("chmod", "chown", "link", "makedirs", "mkdir", "mkfifo", "mknod", "remove", "removedirs"),
    *("rename", "renames", "replace", "rmdir", "symlink", "truncate", "unlink", "utime"),
    *(
        "ftruncate",
        "fchmod",
        "lchown",
        "setxattr",
        "removexattr",
        "fsync",
        "sync",
        "posix_fallocate",
    ),
    *("pwrite", "pwritev", "writev", "sendfile", "copy_file_range"),
}
#: Methods of `pathlib.Path` that do, where their name means nothing else.
_PATH_CHANGES = {
    *("write_text", "write_bytes", "symlink_to", "hardlink_to", "mkdir", "rmdir", "unlink"),
    *("rename", "touch", "chmod", "lchmod"),
}
#: Modules whose purpose is to change file systems.
_CHANGING_MODULES = {"shutil", "tempfile"}

#: (module, call): why it may.
ALLOWED_CHANGES: dict[tuple[str, str], str] = {
    ("store/temporary.py", "tempfile"): "asked where temporary files go, and for nothing else",
}


def changes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every call of a module that changes a file system without `fs`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
            for name in _CHANGING_MODULES & set(names):
                yield node.lineno, name
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                for name in _OS_CHANGES & {name.name for name in node.names}:
                    yield node.lineno, f"os.{name}"
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner == "os" and node.attr in _OS_CHANGES:
                yield node.lineno, f"os.{node.attr}"
            elif owner not in ("fs", "os") and node.attr in _PATH_CHANGES:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if called == "os.open" and not _reads(ast.unparse(node)):
                yield node.lineno, called
            if called in ("open", "io.open", "gzip.open") and any(map(_writes, arguments[1:])):
                yield node.lineno, called


def _reads(call: str) -> bool:
    return ("O_RDONLY" in call or "O_PATH" in call) and not any(
        flag in call for flag in ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC", "O_APPEND")
    )


def _writes(argument: ast.expr) -> bool:
    """Whether an argument is a mode of `open` that writes; one that is not literal may be."""
    if not isinstance(argument, ast.Constant):
        return True
    value = argument.value
    return (
        isinstance(value, str) and set(value) <= set("rwaxbt+") and bool(set(value) & set("wax+"))
    )


@pytest.mark.parametrize("layer", ["store", "profiles"])
def test_every_change_goes_through_one_seam(layer: str) -> None:
    """Only store/fs.py creates, renames and removes: tests can fail and stop a run anywhere."""
    found = [
        f"{path.relative_to(ROOT)}:{line} {call}"
        for path in modules_of(layer)
        if path != ROOT / "store/fs.py"
        for line, call in changes(parsed(path))
        if (str(path.relative_to(ROOT)), call) not in ALLOWED_CHANGES
    ]

    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        *("os.mkdir(x)", "f = os.unlink", "from os import rename", "import shutil"),
        *("from tempfile import mkdtemp", "Path(x).write_text('')", "path.symlink_to(y)"),
        *("open(x, 'w')", "open(x, mode='ab')", "open(x, m)", "os.open(x, os.O_WRONLY)"),
        *("os.open(x, flags)", "def f():\n    import shutil", "open(x, 'r+b')"),
    ],
)
def test_the_seam_is_guarded(code: str) -> None:
    """The guard sees what it is there to see."""
    assert list(changes(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        *("fs.mkdir(x)", "fs.unlink(x)", "open(x)", "open(x, 'rb')", "text.replace('a', 'b')"),
        *("open(x, encoding='utf-8')", "os.open(x, os.O_RDONLY | os.O_CLOEXEC)", "os.listdir(x)"),
        "os.open(x, os.O_PATH)",
    ],
)
def test_reading_is_free(code: str) -> None:
    """The guard lets reading pass."""
    assert list(changes(ast.parse(code))) == []


# Builds.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and an sdist, built from a copy with a user's own spec in it."""
    copy, out = tmp_path_factory.mktemp("source") / "cvs", tmp_path_factory.mktemp("dist")
    copy.mkdir()
    for name in ("cmd", *SUBPACKAGES):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "versions/mine.json").write_text("{}")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    return out


def sources() -> set[str]:
    """Every file of the package by its name inside `cvs/`."""
    found = {
        f"{name}/{path.relative_to(ROOT / name)}"
        for name in SUBPACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    }
    found |= {path.name for path in (ROOT / "cmd/cvs").iterdir() if path.is_file()}
    specs = {f"versions/{path.name}" for path in (ROOT / "versions").glob("*.json")}
    return {name for name in found if "__pycache__" not in name} - specs


def test_the_wheel_is_whole(built: Path) -> None:
    """The wheel has every file of the package, once, and no spec of a user."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    inside = [name.removeprefix("cvs/") for name in names if name.startswith("cvs/")]

    assert sorted(inside) == sorted(sources())
    assert all(".dist-info/" in name for name in names if not name.startswith("cvs/"))


def test_the_wheel_is_imported_without_the_checkout(built: Path) -> None:
    """What the wheel holds can be imported, all subpackages."""
    (path,) = built.glob("*.whl")
    names = ", ".join(f"cvs.{name}" for name in SUBPACKAGES)
    code = f"import sys; sys.path.insert(0, {str(path)!r}); import {names}, cvs.store.verify; "
    code += "print(cvs.store.verify.__file__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == f"{path}/cvs/store/verify.py"


def test_the_sdist_is_whole(built: Path) -> None:
    """The sdist has the real folders, not the links to them, and no spec of a user."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    expected = {
        name if name.partition("/")[0] in SUBPACKAGES else f"cmd/cvs/{name}" for name in sources()
    }

    assert expected <= names
    assert "versions/mine.json" not in names
    assert not [
        name for name in names if name.startswith(tuple(f"cmd/cvs/{s}/" for s in SUBPACKAGES))
    ]
