"""Prepare what cvs needs to run the real ComfyUI on a machine without a GPU.

    CVS_REAL_COMFYUI=<git URL or path> python tests/real/rig.py WORK

Three things stand in the way of a plain `cvs create` there, and each is dealt with here, outside
cvs, so that cvs itself is tested on ordinary repositories and ordinary wheels:

- a repository copy may lack large blobs; cvs rightly refuses such a commit, so the rig makes a
  commit whose tree leaves them out, and says which they were;
- the index serves CUDA builds of torchvision and torchaudio, which do not import beside a CPU
  torch; the rig makes wheels of them under a version of their own;
- requirements that no longer name all they need (`requests`) go into the spec.

WORK/real.json is the spec; everything it names lies in WORK. A node that writes into its own folder
has to be `writable` there: CVS_REAL_WRITABLE names those nodes, in place of `WRITABLE`.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

TORCH = "2.13.0"
TORCHVISION = "0.28.0"
TORCHAUDIO = "2.11.0"
LOCAL = "cvs.cpu"
"""The local version of the patched wheels: nothing on an index can be taken for them."""
DAY = "2026-11-23"
"""The last day of which packages count: what is known to go with that torch, every day the same."""
WRITABLE = ("ComfyUI-Custom-Scripts",)
"""Nodes that are known to write into their own folder."""

Wheel = dict[str, tuple[bytes, int]]
"""A wheel in memory: path within it → content and Unix mode."""


class RigError(Exception):
    """The rig can not be prepared here; the message says why."""


@dataclass(frozen=True)
class Source:
    """A bare repository with one commit, complete in itself."""

    repo: Path
    commit: str
    origin_commit: str
    left_out: tuple[str, ...]

    @property
    def url(self) -> str:
        """An address that git fetches from like any other: `fetch --depth 1 URL COMMIT`."""
        return self.repo.as_uri()


@dataclass(frozen=True)
class Rig:
    """All that was prepared."""

    comfy: Source
    nodes: tuple[Source, ...]
    wheels: Path
    spec: Path


# Repositories -----------------------------------------------------------------------------------


def git(
    repo: Path, *arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run git on the bare repository `repo` and return what it printed.

    No configuration of the user takes part: the same input gives the same commit everywhere.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {name: os.environ[name] for name in ("GIT_SSL_CAINFO",) if name in os.environ}
    clean |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }
    done = subprocess.run(
        ["git", "--git-dir", str(repo), *arguments],
        input=stdin,
        env={**clean, **(env or {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RigError(f"git {' '.join(arguments)} in {repo}: {done.stderr.strip()}")
    return done.stdout


def prepare_source(origin: str, repo: Path, revision: str = "HEAD") -> Source:
    """Make `repo` a bare repository whose HEAD is `revision` of `origin` less its missing blobs.

    The objects are borrowed from the origin while the commit is made and packed into `repo` at the
    end; where nothing is missing the tree is the origin's own. The commit has no parent, since the
    origin's history may lack objects too, and is dated by the author's date of the original, so
    that preparing twice gives one id and the date still tells when the code was written.
    """
    if repo.exists():
        shutil.rmtree(repo)
    repo.parent.mkdir(parents=True, exist_ok=True)
    git(repo, "init", "--quiet", "--bare", "--initial-branch=main", str(repo))
    # git serves a commit that is not a branch's tip only where it is told to.
    git(repo, "config", "uploadpack.allowAnySHA1InWant", "true")
    original = _borrow(repo, origin, revision)

    index = {"GIT_INDEX_FILE": str(repo / "rig-index")}
    git(repo, "read-tree", original, env=index)
    left_out = _missing_blobs(repo, original)
    # `--index-info` and not `rm`: it drops an entry without a look at the object or a work tree.
    # -z, for paths are any bytes.
    git(
        repo,
        "update-index",
        "-z",
        "--index-info",
        stdin="".join(f"0 {'0' * 40}\t{path}\0" for path in left_out),
        env=index,
    )
    tree = git(repo, "write-tree", "--missing-ok", env=index).strip()
    (repo / "rig-index").unlink()

    commit = _commit(repo, original, tree, left_out)
    _keep_only(repo, commit)
    return Source(repo, commit, original, left_out)


def _borrow(repo: Path, origin: str, revision: str) -> str:
    """Let `repo` see the origin's objects; return the id of the commit asked for."""
    alternates = repo / "objects" / "info" / "alternates"
    path = Path(origin)
    if path.is_dir():
        git_dir = path / ".git" if (path / ".git").is_dir() else path
        alternates.write_text(f"{(git_dir / 'objects').resolve()}\n")
        return git(git_dir, "rev-parse", "--verify", f"{revision}^{{commit}}").strip()
    git(repo, "fetch", "--quiet", "--depth", "1", "--", origin, revision)
    return git(repo, "rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()


def _missing_blobs(repo: Path, commit: str) -> tuple[str, ...]:
    """The paths of the commit's files whose content is not there."""
    paths: dict[str, list[str]] = {}
    for entry in git(repo, "ls-tree", "-r", "-z", commit).split("\0"):
        if not entry:
            continue
        (_, kind, blob), path = entry.split("\t", 1)[0].split(" "), entry.split("\t", 1)[1]
        if kind == "blob":  # a submodule's commit lies in another repository
            paths.setdefault(blob, []).append(path)
    # A partial clone would go and fetch what it is asked about.
    answers = git(
        repo, "cat-file", "--batch-check", stdin="\n".join(paths), env={"GIT_NO_LAZY_FETCH": "1"}
    )
    missing = [line.split(" ")[0] for line in answers.splitlines() if line.endswith(" missing")]
    return tuple(sorted(path for blob in missing for path in paths[blob]))


def _commit(repo: Path, original: str, tree: str, left_out: Sequence[str]) -> str:
    name, email, date, message = git(
        repo, "show", "--no-patch", "--format=%an%x00%ae%x00%aI%x00%B", original
    ).split("\0")
    note = f"\n\nTree of {original}"
    note += "".join(f"\nleft out: {path}" for path in left_out) + "\n"
    who = {
        "GIT_AUTHOR_NAME": name or "unknown",
        "GIT_AUTHOR_EMAIL": email,
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_NAME": "cvs rig",
        "GIT_COMMITTER_EMAIL": "rig@cvs.invalid",
        "GIT_COMMITTER_DATE": date,
    }
    return git(repo, "commit-tree", tree, stdin=message.strip() + note, env=who).strip()


def _keep_only(repo: Path, commit: str) -> None:
    """Pack the commit into `repo`, and drop all else that was borrowed or fetched."""
    objects = git(repo, "rev-list", "--objects", "--no-object-names", commit)
    packs = repo / "objects" / "pack"
    before = set(packs.iterdir())
    git(repo, "pack-objects", "--quiet", str(packs / "pack"), stdin=objects)
    for pack in before:
        pack.unlink()
    for leftover in ("objects/info/alternates", "shallow", "FETCH_HEAD"):
        (repo / leftover).unlink(missing_ok=True)
    git(repo, "update-ref", "refs/heads/main", commit)
    git(repo, "prune-packed", "--quiet")
    git(repo, "fsck", "--full", "--strict", "--no-dangling")


# Wheels -----------------------------------------------------------------------------------------


def prepare_wheels(folder: Path) -> Path:
    """Fill `folder` with a CPU torch, and with a torchvision and torchaudio that suit it."""
    folder.mkdir(parents=True, exist_ok=True)
    downloads = folder.parent / "downloads"
    torch = download("torch", TORCH, downloads)
    if f"-{TORCH}+cpu-" not in torch.name:
        raise RigError(
            f"pip found {torch.name}, which is not a CPU build: give pip a folder or an index that "
            f"has torch {TORCH}+cpu (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL)"
        )
    link = folder / torch.name
    if not link.exists():
        shutil.copyfile(torch, link)
    for name, version, patch in (
        ("torchvision", TORCHVISION, patch_torchvision),
        ("torchaudio", TORCHAUDIO, patch_torchaudio),
    ):
        repack(download(name, version, downloads), folder, patch)
    return folder


def download(name: str, version: str, folder: Path) -> Path:
    """The wheel of `name` that pip finds with the settings of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.glob(f"{name}-{version}*.whl")):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", "--dest", str(folder), f"{name}=={version}"),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RigError(f"pip finds no wheel of {name} {version}: {done.stderr.strip()}")
    (wheel,) = folder.glob(f"{name}-{version}*.whl")
    return wheel


def patch_torchvision(wheel: Wheel) -> None:
    """Make torchvision import without its compiled operators.

    `nms` and `qnms` are registered as fake kernels whether or not the operators exist; where they
    do not, their definitions must. The libraries are built for CUDA and would not load.
    """
    _drop(wheel, lambda path: path.suffix == ".so" or path.parts[0] == "torchvision.libs")
    path = "torchvision/_meta_registrations.py"
    anchor = "import torchvision.extension  # noqa: F401\n"
    source = wheel[path][0].decode()
    if source.count(anchor) != 1:
        raise RigError(f"{path} is not the one that this patch was made for")
    shim = (
        "\nif not torchvision.extension._has_ops():\n"
        "    from torch import library\n\n"
        '    _definitions = library.Library("torchvision", "DEF")\n'
        "    _definitions.define("
        '"nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
        "    _definitions.define("
        '"qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
    )
    wheel[path] = (source.replace(anchor, anchor + shim).encode(), wheel[path][1])


def patch_torchaudio(wheel: Wheel) -> None:
    """Drop torchaudio's libraries: it does without them, but not with ones that fail to load."""
    _drop(wheel, lambda path: path.suffix == ".so")


def _drop(wheel: Wheel, unwanted: Callable[[PurePosixPath], bool]) -> None:
    for path in [path for path in wheel if unwanted(PurePosixPath(path))]:
        del wheel[path]


def repack(wheel: Path, folder: Path, patch: Callable[[Wheel], None]) -> Path:
    """Write `wheel`, patched and under the local version `LOCAL`, into `folder`.

    The name, dist-info, METADATA and RECORD agree again, as installers demand; times are fixed, so
    that repacking twice gives the same bytes.
    """
    name, version, tags = wheel.name.split("-", 2)
    local = f"{version}+{LOCAL}"
    content: Wheel = {}
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                content[info.filename] = (archive.read(info), info.external_attr >> 16 or 0o644)
    patch(content)

    old, new = f"{name}-{version}.dist-info", f"{name}-{local}.dist-info"
    content = {
        (f"{new}{path.removeprefix(old)}" if path.startswith(f"{old}/") else path): member
        for path, member in content.items()
    }
    _replace(
        content, f"{new}/METADATA", rf"(?m)^Version: {re.escape(version)}$", f"Version: {local}"
    )
    _replace(content, f"{name}/version.py", r"__version__ = '[^']*'", f"__version__ = '{local}'")
    content[f"{new}/RECORD"] = (record(content, f"{new}/RECORD"), 0o644)

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}-{local}-{tags}"
    part = target.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, (data, mode) in sorted(
            content.items(), key=lambda item: _dist_info_last(item[0])
        ):
            info = zipfile.ZipInfo(path)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    part.rename(target)
    return target


def _dist_info_last(path: str) -> tuple[bool, str]:
    return ".dist-info/" in path, path


def _replace(wheel: Wheel, path: str, pattern: str, replacement: str) -> None:
    data, mode = wheel[path]
    text, times = re.subn(pattern, replacement, data.decode(), count=1)
    if not times:
        raise RigError(f"{path} has no {pattern!r}")
    wheel[path] = (text.encode(), mode)


def record(wheel: Wheel, path: str) -> bytes:
    """The RECORD of a wheel: digest and size of every file, and of itself only the name."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    for name, (data, _) in sorted(wheel.items()):
        if name != path:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            writer.writerow((name, f"sha256={digest}", len(data)))
    writer.writerow((path, "", ""))
    return table.getvalue().encode()


# The whole --------------------------------------------------------------------------------------


def spec_document(
    comfy: Source,
    nodes: Sequence[Source],
    wheels: Path,
    exclude_newer: str | None = DAY,
    writable: Sequence[str] = WRITABLE,
) -> dict[str, Any]:
    """The spec of a version `real`.

    `exclude_newer` is the last day of which packages count: "none" takes today's, None leaves it to
    cvs, which takes the day of the newest commit. The rig's own wheels are found in either case:
    what lies in a folder has no date. Not every package has had a wheel from its beginning
    (pixeloe), so an early day may find none.
    """
    return {
        "schema_version": 2,
        "version_id": "real",
        "comfy": {"repo": comfy.url, "commit": comfy.commit},
        "custom_nodes": [
            {
                "name": node.repo.stem,
                "repo": node.url,
                "commit": node.commit,
                **({"writable": True} if node.repo.stem in writable else {}),
            }
            for node in nodes
        ],
        "models": [],
        "python_packages": ["requests"],
        "env": {},
        "python": {
            "find_links": [str(wheels)],
            "overrides": [
                f"torch=={TORCH}+cpu",
                f"torchvision=={TORCHVISION}+{LOCAL}",
                f"torchaudio=={TORCHAUDIO}+{LOCAL}",
            ],
            **({} if exclude_newer is None else {"exclude_newer": exclude_newer}),
        },
    }


def prepare(
    work: Path,
    comfyui: str,
    nodes: Sequence[str] = (),
    revision: str = "HEAD",
    exclude_newer: str | None = DAY,
    writable: Sequence[str] = WRITABLE,
) -> Rig:
    """Prepare the whole rig in `work`; a second call there downloads nothing again."""
    work = work.resolve()
    sources = work / "git"
    comfy = prepare_source(comfyui, sources / "ComfyUI.git", revision)
    prepared = tuple(
        prepare_source(node, sources / f"{repository_name(node)}.git") for node in nodes
    )
    wheels = prepare_wheels(work / "wheels")
    spec = work / "real.json"
    document = spec_document(comfy, prepared, wheels, exclude_newer, writable)
    spec.write_text(json.dumps(document, indent=2) + "\n")
    return Rig(comfy, prepared, wheels, spec)


def repository_name(origin: str) -> str:
    """What to call a repository: the last part of its address that names it.

    A mirror may keep each repository as `owner+name/repo`; `repo` alone would name all alike.
    """
    parts = [part for part in re.split(r"[/:\\]", origin) if part not in ("", ".git", "repo")]
    return parts[-1].split("+")[-1].removesuffix(".git")


def nodes_from_environment() -> tuple[str, ...]:
    """The node repositories of CVS_REAL_NODES: URLs or paths, each on a line of its own or, paths
    only, separated by `os.pathsep`, which URLs contain."""
    value = os.environ.get("CVS_REAL_NODES", "")
    return tuple(_nodes(value))


def writable_from_environment() -> tuple[str, ...]:
    """The names of CVS_REAL_WRITABLE, separated by commas; where it is unset, `WRITABLE`."""
    value = os.environ.get("CVS_REAL_WRITABLE")
    if value is None:
        return WRITABLE
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _nodes(value: str) -> Iterator[str]:
    for line in value.splitlines():
        yield from [line] if "://" in line else filter(None, line.split(os.pathsep))


def main() -> int:
    """Prepare the rig in the folder given on the command line, and say what was done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--revision", default="HEAD", help="of ComfyUI; a full id or a ref")
    parser.add_argument(
        "--dated", action="store_true", help=f"resolve as of the newest commit, not of {DAY}"
    )
    arguments = parser.parse_args()
    comfyui = os.environ.get("CVS_REAL_COMFYUI")
    if not comfyui:
        parser.error("CVS_REAL_COMFYUI names no ComfyUI repository")
    try:
        rig = prepare(
            arguments.work,
            comfyui,
            nodes_from_environment(),
            arguments.revision,
            None if arguments.dated else DAY,
            writable_from_environment(),
        )
    except RigError as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    for source in (rig.comfy, *rig.nodes):
        print(f"{source.repo}  {source.commit}  (tree of {source.origin_commit})")
        for path in source.left_out:
            print(f"  left out, its content is missing: {path}")
    for wheel in sorted(rig.wheels.iterdir()):
        print(wheel)
    print(rig.spec)
    return 0


if __name__ == "__main__":
    sys.exit(main())
