"""The spec, `versions/<id>.json`: what a user wants, read strictly and brought to one form.

Field by field the form of the tool that cvs replaces (schema_version 2), plus `python`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cvs.store import document
from cvs.store.errors import InputError
from cvs.versions import repository
from cvs.versions.paths import relative_path

SCHEMA = 2

_VERSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all parts of a spec have in common."""


class _RawSource(_Document, frozen=True):
    repo: str
    ref: str | None = None
    commit: str | None = None


class _RawNode(_Document, frozen=True):
    repo: str
    ref: str | None = None
    commit: str | None = None
    name: str | None = None


class _RawModel(_Document, frozen=True):
    source: str
    name: str | None = None
    target_subdir: str | None = None
    target_path: str | None = None
    path: str | None = None
    checksum: str | None = None
    sha256: str | None = None


class PythonSettings(_Document, frozen=True):
    """How the wheels of a version are chosen."""

    version: str | None = None
    """`3.11`; None for the interpreter that cvs finds."""
    exclude_newer: str | None = None
    """A date, `core`, `none`; None for the date of the newest commit."""
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()


class _RawOptions(_Document, frozen=True):
    offline: bool = False
    skip_models: bool = False


class _RawSpec(_Document, frozen=True):
    schema_version: int
    version_id: str
    comfy: _RawSource
    custom_nodes: tuple[_RawNode, ...] = ()
    models: tuple[_RawModel, ...] = ()
    python_packages: tuple[str, ...] = ()
    env: dict[str, str | int | float] = {}
    options: _RawOptions = _RawOptions()
    python: PythonSettings = PythonSettings()


class Source(_Document, frozen=True):
    """A repository and what of it is wanted. `where` names its place in the spec."""

    name: str
    repo: str
    """Without `@ref`."""
    ref: str | None
    commit: str | None
    where: str
    base: str
    """The folder that a relative path in `repo` is relative to."""

    @property
    def request(self) -> str:
        """Digest of what is asked for; a lock is fresh for it while this stays the same."""
        return digest({"repo": self.repo, "ref": self.ref, "commit": self.commit})

    def repository(self, *, allow_local: bool) -> repository.Repository:
        """The repository in the form that git is given.

        Raises:
            InputError: it is a path or server of this machine and `allow_local` is not set.
        """
        return repository.parse(
            self.repo, f"{self.where}.repo", allow_local=allow_local, base=self.base
        )


class Model(_Document, frozen=True):
    """A model, where it is found and where it goes."""

    name: str
    source: str
    path: str
    """Relative to models/, with '/' between the parts."""
    sha256: str | None
    where: str

    @property
    def request(self) -> str:
        """Digest of what is asked for."""
        return digest({"source": self.source, "sha256": self.sha256})


class Spec(_Document, frozen=True):
    """A spec whose every field was checked."""

    version_id: str
    core: Source
    nodes: tuple[Source, ...]
    models: tuple[Model, ...]
    packages: tuple[str, ...]
    python: PythonSettings
    env: dict[str, str]
    offline: bool
    skip_models: bool
    file: str
    """The file it was read from: relative paths in it are relative to that file's folder."""


def digest(value: Any) -> str:
    """Digest of a value in its canonical JSON form: 64 hexadecimal digits."""
    from blake3 import blake3

    return blake3(document.canonical(value)).hexdigest()


def load(path: str) -> Spec:
    """Reads and checks a spec.

    Raises:
        InputError: one sentence with file and field for whatever cannot be used.
    """
    return parse(document.load(path), path)


def parse(data: Any, file: str) -> Spec:
    """Checks a parsed spec; `file` begins every message."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version != SCHEMA:
        raise InputError(
            f"{file}: schema_version: {version} is not known, this cvs reads {SCHEMA}",
            hint="update cvs" if version > SCHEMA else None,
        )
    raw = document.convert(data, _RawSpec, file)
    check_version_id(raw.version_id, f"{file}: version_id")
    core = _source(raw.comfy, None, f"{file}: comfy")
    nodes = tuple(
        _source(node, node.name, f"{file}: custom_nodes[{index}]")
        for index, node in enumerate(raw.custom_nodes)
    )
    models = tuple(
        _model(model, f"{file}: models[{index}]") for index, model in enumerate(raw.models)
    )
    _check_distinct([(node.name, node.where) for node in nodes], "custom node")
    _check_paths(models)
    return Spec(
        version_id=raw.version_id,
        core=core,
        nodes=nodes,
        models=models,
        packages=tuple(
            _text(text, f"{file}: python_packages[{index}]")
            for index, text in enumerate(raw.python_packages)
        ),
        python=_python(raw.python, file),
        env={name: _env(name, value, file) for name, value in raw.env.items()},
        offline=raw.options.offline,
        skip_models=raw.options.skip_models,
        file=file,
    )


def check_version_id(text: str, where: str) -> None:
    """Raises InputError unless `text` can name a version: it becomes part of paths."""
    if not _VERSION_ID.fullmatch(text) or text.endswith((".json", ".lock")):
        raise InputError(
            f"{where}: {text!r} cannot be the name of a version",
            hint="up to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )


def _source(raw: _RawSource | _RawNode, name: str | None, where: str) -> Source:
    text, inline = repository.split_ref(raw.repo)
    base = os.path.dirname(os.path.abspath(where.partition(": ")[0]))
    parsed = repository.parse(text, f"{where}.repo", allow_local=True, base=base)
    if inline is not None and raw.ref is not None and inline != raw.ref:
        raise InputError(f"{where}: repo names the ref {inline!r} and ref names {raw.ref!r}")
    ref = raw.ref if raw.ref is not None else inline
    if ref is not None:
        repository.check_ref(ref, f"{where}.ref")
    commit = raw.commit
    if commit is None and ref is not None and _COMMIT.fullmatch(ref):
        commit = ref
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise InputError(
            f"{where}.commit: {commit!r} is not a full commit of 40 hexadecimal digits",
            hint="short commits and branches go into `ref`",
        )
    if isinstance(raw, _RawNode):
        name = name if name is not None else parsed.name
        _check_node_name(name, f"{where}.name")
    name = name or "ComfyUI"
    return Source(name=name, repo=text, ref=ref, commit=commit, where=where, base=base)


def _check_node_name(name: str, where: str) -> None:
    if "/" in name:
        raise InputError(f"{where}: {name!r} is not the name of one folder")
    relative_path(name, where)
    if name.startswith(".") or name.endswith(".disabled") or name == "__pycache__":
        raise InputError(f"{where}: ComfyUI does not load a custom node called {name!r}")


def _model(raw: _RawModel, where: str) -> Model:
    source = _text(raw.source, f"{where}.source")
    name = raw.name if raw.name is not None else _last_part(source)
    if raw.target_path is not None and raw.path is not None and raw.target_path != raw.path:
        raise InputError(f"{where}: target_path and path name different places")
    target = raw.target_path if raw.target_path is not None else raw.path
    if target is not None:
        for prefix in ("$MODELS_DIR/", "${MODELS_DIR}/", "$COMFY_HOME/models/"):
            target = target.removeprefix(prefix)
        path = relative_path(target.removeprefix("${COMFY_HOME}/models/"), f"{where}.target_path")
    else:
        if not name:
            raise InputError(f"{where}: the name cannot be told from the source", hint="add `name`")
        relative_path(name, f"{where}.name")
        path = name
        if raw.target_subdir is not None:
            subdir = raw.target_subdir.removeprefix("$MODELS_DIR/").rstrip("/")
            path = f"{relative_path(subdir, f'{where}.target_subdir')}/{name}"
    return Model(
        name=name or path.rpartition("/")[2],
        source=source,
        path=path,
        sha256=_checksum(raw, where),
        where=where,
    )


def _last_part(source: str) -> str:
    path = source.partition("?")[0].partition("#")[0].rstrip("/")
    return path.rpartition("/")[2].rpartition(":")[2]


def _checksum(raw: _RawModel, where: str) -> str | None:
    found = None
    for field in ("checksum", "sha256"):
        value = getattr(raw, field)
        if value is None:
            continue
        plain = value.strip().lower().removeprefix("sha256:")
        if not _SHA256.fullmatch(plain):
            raise InputError(f"{where}.{field}: {value!r} is not sha256:<64 hexadecimal digits>")
        if found is not None and found != plain:
            raise InputError(f"{where}: checksum and sha256 differ")
        found = plain
    return found


def _python(raw: PythonSettings, file: str) -> PythonSettings:
    where = f"{file}: python"
    if raw.version is not None and not re.fullmatch(r"3\.\d{1,2}", raw.version):
        raise InputError(f"{where}.version: {raw.version!r} is not like '3.11'")
    if (
        raw.exclude_newer is not None
        and raw.exclude_newer not in ("core", "none")
        and not re.fullmatch(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?", raw.exclude_newer)
    ):
        raise InputError(
            f"{where}.exclude_newer: {raw.exclude_newer!r} is not a date, 'core' or 'none'"
        )
    for field in ("extra_index_urls", "find_links", "overrides", "constraints"):
        for index, text in enumerate(getattr(raw, field)):
            _text(text, f"{where}.{field}[{index}]")
    base = os.path.dirname(os.path.abspath(file))
    links = tuple(
        link if "://" in link else os.path.join(base, os.path.expanduser(link))
        for link in raw.find_links
    )
    return msgspec.structs.replace(raw, find_links=links)


def _env(name: str, value: str | int | float, file: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise InputError(f"{file}: env: {name!r} cannot be the name of a variable")
    if isinstance(value, str) and "\0" in value:
        raise InputError(f"{file}: env.{name}: the value holds a NUL character")
    return str(value)


def _text(text: str, where: str) -> str:
    if not text.strip() or not text.isprintable() or text.startswith("-"):
        raise InputError(f"{where}: {text!r} cannot be used")
    return text.strip()


def _check_distinct(items: Sequence[tuple[str, str]], what: str) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for name, where in items:
        other = seen.setdefault(name.casefold(), (name, where))
        if other != (name, where):
            raise InputError(
                f"{where}: a second {what} is called {name!r}, "
                f"the first is {other[1].rpartition(': ')[2]}"
            )


def _check_paths(models: Sequence[Model]) -> None:
    _check_distinct([(model.path, model.where) for model in models], "model")
    files = {model.path.casefold(): model for model in models}
    for model in models:
        parts = model.path.casefold().split("/")
        for length in range(1, len(parts)):
            other = files.get("/".join(parts[:length]))
            if other is not None:
                raise InputError(
                    f"{model.where}: {model.path!r} lies below another model, {other.path!r}"
                )


def with_commits(
    data: Mapping[str, Any], core: str | None, nodes: Sequence[str | None]
) -> dict[str, Any]:
    """A parsed spec with the commits of its core and nodes written in; None leaves one alone."""

    def pinned(source: Mapping[str, Any], commit: str | None) -> dict[str, Any]:
        return dict(source) if commit is None else {**source, "commit": commit}

    changed = dict(data)
    changed["comfy"] = pinned(data["comfy"], core)
    if "custom_nodes" in data:
        changed["custom_nodes"] = [
            pinned(node, commit) for node, commit in zip(data["custom_nodes"], nodes, strict=True)
        ]
    return changed
