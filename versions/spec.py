"""The spec, `versions/<id>.json`: what a user wants, read strictly and brought to one form.

Field by field the form of the tool that cvs replaces (schema_version 2), plus `python`.
"""

import datetime
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cvs.store import document
from cvs.store.errors import InputError, shown
from cvs.versions import repository
from cvs.versions.paths import check_distinct, check_places, relative_path

SCHEMA = 2

_VERSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")

#: Characters of the longest requirement, URL or name; signed URLs have some thousand.
_LONGEST = 8192

#: What `--torch-backend` of uv knows; `auto` asks the GPU driver of the machine that resolves.
TORCH_BACKENDS = (
    *("auto", "cpu", "xpu"),
    *("cu132", "cu130", "cu129", "cu128", "cu126", "cu125", "cu124", "cu123", "cu122", "cu121"),
    *("cu120", "cu118", "cu117", "cu116", "cu115", "cu114", "cu113", "cu112", "cu111", "cu110"),
    *("cu102", "cu101", "cu100", "cu92", "cu91", "cu90", "cu80"),
    *("rocm7.2", "rocm7.1", "rocm7.0", "rocm6.4", "rocm6.3", "rocm6.2.4", "rocm6.2", "rocm6.1"),
    *("rocm6.0", "rocm5.7", "rocm5.6", "rocm5.5", "rocm5.4.2", "rocm5.4", "rocm5.3", "rocm5.2"),
    *("rocm5.1.1", "rocm4.2", "rocm4.1", "rocm4.0.1"),
)

#: What a model's place may begin with; it is relative to the models folder all the same.
_MODELS_FOLDERS = (
    *("$MODELS_DIR/", "${MODELS_DIR}/"),
    *("$COMFY_HOME/models/", "${COMFY_HOME}/models/"),
)


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
    writable: bool = False
    run_install: bool = False


class _RawModel(_Document, frozen=True):
    source: str | msgspec.UnsetType = msgspec.UNSET
    sources: tuple[str, ...] = ()
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
    torch_backend: str | None = None
    """One of TORCH_BACKENDS: torch and its family come from PyTorch's index for it."""
    no_build: bool = False
    """No wheel is built from its source: what has none is refused by name."""
    provided: tuple[str, ...] = ()
    """Requirements that the image's own interpreter meets: `torch>=2.7`. Not locked, not stored."""
    overlaps: tuple[str, ...] = ()
    """Patterns of paths (`site-packages/cv2/*`) where wheels may have different files."""

    @property
    def indexes(self) -> list[str]:
        """The indexes that are named, the first one first; their URLs may hold credentials."""
        return [url for url in (self.index_url, *self.extra_index_urls) if url]


class _RawOptions(_Document, frozen=True):
    offline: bool = False
    skip_models: bool = False
    allow_pickle: bool = True


class _RawSpec(_Document, frozen=True):
    schema_version: int
    version_id: str
    comfy: _RawSource
    custom_nodes: tuple[_RawNode, ...] = ()
    models: tuple[_RawModel, ...] = ()
    python_packages: tuple[str, ...] = ()
    env: dict[str, Any] = {}
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
    writable: bool = False
    """The node writes into its own folder: it gets a private copy."""
    run_install: bool = False
    """The node's install.py is run, and what it leaves is what runs."""

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
    mirrors: tuple[str, ...] = ()
    """Where else it is found, in the order in which they are tried."""

    @property
    def sources(self) -> tuple[str, ...]:
        """All places where it is found."""
        return (self.source, *self.mirrors)

    @property
    def request(self) -> str:
        """Digest of what is asked for."""
        asked: dict[str, Any] = {"source": self.source, "sha256": self.sha256}
        # As a lock of before the field has it, where it is not set.
        return digest({**asked, "mirrors": self.mirrors} if self.mirrors else asked)


class Spec(_Document, frozen=True):
    """A spec whose every field was checked."""

    version_id: str
    core: Source
    nodes: tuple[Source, ...]
    models: tuple[Model, ...]
    packages: tuple[str, ...]
    python: PythonSettings
    find_links: tuple[str, ...]
    """As they are written; those of `python` are absolute, and differ where the volume does."""
    env: dict[str, str]
    offline: bool
    skip_models: bool
    allow_pickle: bool
    """Whether a model may be a pickle, which is a program that runs when it is loaded."""
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
    if type(version) is int and version != SCHEMA:
        raise InputError(
            f"{file}: schema_version: {str(version)[:40]} is not known, this cvs reads {SCHEMA}",
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
    check_distinct([(node.name, node.where) for node in nodes], "custom node")
    check_places([(model.path, model.where) for model in models], "model")
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
        find_links=raw.python.find_links,
        env={name: _env(name, value, file) for name, value in raw.env.items()},
        offline=raw.options.offline,
        skip_models=raw.options.skip_models,
        allow_pickle=raw.options.allow_pickle,
        file=file,
    )


def is_version_id(text: str) -> bool:
    """Whether `text` can name a version."""
    return bool(_VERSION_ID.fullmatch(text)) and not text.endswith((".json", ".lock"))


def check_version_id(text: str, where: str) -> None:
    """Raises InputError unless `text` can name a version: it becomes part of paths."""
    if not is_version_id(text):
        raise InputError(
            f"{where}: {shown(text)} cannot be the name of a version",
            hint="up to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )


def _source(raw: _RawSource | _RawNode, name: str | None, where: str) -> Source:
    text, inline = repository.split_ref(raw.repo)
    base = os.path.dirname(os.path.abspath(where.partition(": ")[0]))
    parsed = repository.parse(text, f"{where}.repo", allow_local=True, base=base)
    if inline is not None and raw.ref is not None and inline != raw.ref:
        raise InputError(
            f"{where}: repo names the ref {shown(inline)} and ref names {shown(raw.ref)}"
        )
    ref = raw.ref if raw.ref is not None else inline
    if ref is not None:
        repository.check_ref(ref, f"{where}.ref")
    commit = raw.commit
    if ref is not None and _COMMIT.fullmatch(ref):
        if commit not in (None, ref):
            raise InputError(f"{where}: ref and commit name different commits")
        commit = ref
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise InputError(
            f"{where}.commit: {shown(commit)} is not a full commit of 40 hexadecimal digits",
            hint="short commits and branches go into `ref`",
        )
    if isinstance(raw, _RawNode):
        name = name if name is not None else parsed.name
        _check_node_name(name, f"{where}.name")
    name = name or "ComfyUI"
    return Source(
        name=name,
        repo=text,
        ref=ref,
        commit=commit,
        where=where,
        base=base,
        writable=isinstance(raw, _RawNode) and raw.writable,
        run_install=isinstance(raw, _RawNode) and raw.run_install,
    )


def _check_node_name(name: str, where: str) -> None:
    if "/" in name:
        raise InputError(f"{where}: {shown(name)} is not the name of one folder")
    relative_path(name, where)
    if name.startswith(".") or name.endswith(".disabled") or name == "__pycache__":
        raise InputError(f"{where}: ComfyUI does not load a custom node called {shown(name)}")


def _model(raw: _RawModel, where: str) -> Model:
    places = _places(raw, where)
    source = places[0]
    name = raw.name if raw.name is not None else _last_part(source)
    if name and (name.isspace() or not name.isprintable() or len(name) > _LONGEST):
        raise InputError(f"{where}.name: {shown(name)} cannot be used")
    if raw.target_path is not None and raw.path is not None and raw.target_path != raw.path:
        raise InputError(f"{where}: target_path and path name different places")
    if raw.target_path is not None:
        path = relative_path(_below_models(raw.target_path), f"{where}.target_path")
    elif raw.path is not None:
        path = relative_path(_below_models(raw.path), f"{where}.path")
    else:
        if not name:
            raise InputError(f"{where}: the name cannot be told from the source", hint="add `name`")
        relative_path(name, f"{where}.name")
        path = name
        subdir = raw.target_subdir or ""
        if subdir.strip("/"):
            subdir = _below_models(subdir.rstrip("/") + "/").rstrip("/")
        if subdir:
            relative_path(subdir, f"{where}.target_subdir")
            path = relative_path(f"{subdir}/{name}", f"{where}.target_subdir")
    return Model(
        name=name or path.rpartition("/")[2],
        source=source,
        path=path,
        sha256=_checksum(raw, where),
        where=where,
        mirrors=places[1:],
    )


def _places(raw: _RawModel, where: str) -> tuple[str, ...]:
    """The sources of a model, each once."""
    given = [] if raw.source is msgspec.UNSET else [_text(raw.source, f"{where}.source")]
    given += [_text(text, f"{where}.sources[{index}]") for index, text in enumerate(raw.sources)]
    if not given:
        raise InputError(f"{where}: the field 'source' is missing", hint="or a list 'sources'")
    return tuple(dict.fromkeys(given))


def _below_models(path: str) -> str:
    """A path without the variable for the models folder that it may begin with."""
    for prefix in _MODELS_FOLDERS:
        if path.startswith(prefix):
            return path[len(prefix) :]
    return path


#: Sources that are numbers, which say nothing of a name.
_NAMELESS = re.compile(r"(?:civitai|cvs):[0-9A-Fa-f]", re.IGNORECASE)


def _last_part(source: str) -> str:
    """The last part of the path of a URL, or of a local path."""
    if _NAMELESS.match(source):
        return ""
    if "://" in source:
        address = source.partition("://")[2].partition("?")[0].partition("#")[0]
        parts = address.partition("/")[2].rstrip("/").split("/")
        if len(parts) == 1 and source.startswith(("hf://", "huggingface://")):
            # A whole repository, maybe with a revision.
            return parts[0].partition("@")[0]
        return parts[-1]
    return source.rstrip("/").rpartition("/")[2].rpartition(":")[2]


def _checksum(raw: _RawModel, where: str) -> str | None:
    found = None
    for field in ("checksum", "sha256"):
        value = getattr(raw, field)
        if value is None:
            continue
        plain = value.strip().lower().removeprefix("sha256:")
        if not _SHA256.fullmatch(plain):
            raise InputError(
                f"{where}.{field}: {shown(value)} is not sha256:<64 hexadecimal digits>"
            )
        if found is not None and found != plain:
            raise InputError(f"{where}: checksum and sha256 differ")
        found = plain
    return found


def _python(raw: PythonSettings, file: str) -> PythonSettings:
    where = f"{file}: python"
    if raw.version is not None and not re.fullmatch(r"3\.[0-9]{1,2}", raw.version):
        raise InputError(f"{where}.version: {shown(raw.version)} is not like '3.11'")
    if (
        raw.exclude_newer is not None
        and raw.exclude_newer not in ("core", "none")
        and not _is_date(raw.exclude_newer)
    ):
        raise InputError(
            f"{where}.exclude_newer: {shown(raw.exclude_newer)} is not a date, 'core' or 'none'"
        )
    if raw.index_url is not None:
        _index(raw.index_url, f"{where}.index_url")
    for index, url in enumerate(raw.extra_index_urls):
        _index(url, f"{where}.extra_index_urls[{index}]")
    for field in ("find_links", "overrides", "constraints", "provided", "overlaps"):
        for index, text in enumerate(getattr(raw, field)):
            _text(text, f"{where}.{field}[{index}]")
    _provided(raw, where)
    for index, pattern in enumerate(raw.overlaps):
        _overlap(pattern, f"{where}.overlaps[{index}]")
    if raw.torch_backend is not None and raw.torch_backend not in TORCH_BACKENDS:
        raise InputError(
            f"{where}.torch_backend: {shown(raw.torch_backend)} is not known",
            hint=f"it is one of {', '.join(TORCH_BACKENDS)}",
        )
    base = os.path.dirname(os.path.abspath(file))
    links = tuple(
        link if "://" in link else os.path.join(base, os.path.expanduser(link))
        for link in raw.find_links
    )
    return msgspec.structs.replace(raw, find_links=links)


def _provided(raw: PythonSettings, where: str) -> None:
    """Refuses what is not a name with a range, and what is named twice or overridden as well."""
    if not raw.provided:
        return
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    places: dict[str, str] = {}
    for field in ("provided", "overrides"):
        for index, text in enumerate(getattr(raw, field)):
            place = f"{field}[{index}]"
            try:
                one = Requirement(text)
            except InvalidRequirement:
                one = None
            if field == "provided" and (one is None or one.url or one.marker or one.extras):
                raise InputError(
                    f"{where}.{place}: {shown(text)} is not a name with a range",
                    hint="it is like 'torch' or 'torch>=2.7'",
                )
            if one is None:
                continue
            name = canonicalize_name(one.name)
            if name in places:
                raise InputError(f"{where}.{place}: {places[name]} names {name} as well")
            if field == "provided":
                places[name] = place


def _overlap(pattern: str, where: str) -> None:
    """Refuses a pattern that can be that of no path of a wheel."""
    if pattern.startswith(("/", "~", "lib/python")) or ".." in pattern.split("/"):
        raise InputError(
            f"{where}: {shown(pattern)} cannot be the path of a file of a wheel",
            hint="it is like 'site-packages/cv2/*' or 'bin/convert.py'",
        )


def _is_date(text: str) -> bool:
    """Whether `text` is a day, or a moment in UTC, that there is."""
    try:
        return bool(_DATE.fullmatch(text) and datetime.datetime.fromisoformat(text))
    except ValueError:
        return False


def _index(url: str, where: str) -> None:
    """Refuses what cannot be the URL of an index: uv takes a list of them apart at spaces."""
    if (
        not url.startswith(("https://", "http://", "file://"))
        or not url.isprintable()
        or len(url) > _LONGEST
    ):
        raise InputError(f"{where}: an index is a URL that begins with https://")
    if " " in url:
        raise InputError(f"{where}: there is a space in the URL")


def _env(name: str, value: Any, file: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise InputError(f"{file}: env: {shown(name)} cannot be the name of a variable")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{file}: env.{name}: {value!r:.40} is neither text nor a number")
    if isinstance(value, str) and "\0" in value:
        raise InputError(f"{file}: env.{name}: the value holds a NUL character")
    return str(value)


def _text(text: str, where: str) -> str:
    stripped = text.strip()
    if not stripped or not text.isprintable() or stripped.startswith("-") or len(text) > _LONGEST:
        raise InputError(f"{where}: {shown(text)} cannot be used")
    return stripped


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
