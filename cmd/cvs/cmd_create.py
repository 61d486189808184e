"""`cvs create`: write the spec of a new version, its refs resolved to commits."""

import os
from collections.abc import Iterable
from typing import Any

from cvs import project
from cvs.cli import Parser, Session
from cvs.store import document
from cvs.store.errors import InputError
from cvs.versions import checksums, repository, resolve
from cvs.versions import spec as specs
from cvs.versions.access import Access

DEFAULT_REPO = "https://github.com/comfyanonymous/ComfyUI"

EXAMPLES = """\
  cvs create wan-demo --repo https://github.com/comfyanonymous/ComfyUI@master \\
      --nodes nodes.json --models models.yaml
  cvs create test --nodes https://github.com/cubiq/ComfyUI_essentials@main
  cvs create mine --models models.json --models-root /workspace/models --auto-checksum
"""


def parser() -> Parser:
    """The options."""
    found = Parser("create", "Write the spec of a new version.", EXAMPLES)
    found.version_argument("the new version")
    found.add_argument("--repo", default=DEFAULT_REPO, metavar="REPO[@REF]", help="ComfyUI itself")
    found.add_argument("--ref", help="its branch, tag or commit")
    found.add_argument(
        "--nodes",
        action="append",
        default=[],
        metavar="JSON|FILE|REPO[@REF]",
        help="custom nodes: a list as JSON, a JSON or YAML file, or one repository; repeats",
    )
    found.add_argument("--nodes-file", action="append", default=[], metavar="FILE")
    found.add_argument(
        "--models",
        action="append",
        default=[],
        metavar="JSON|FILE",
        help="models: a list as JSON, or a JSON or YAML file; repeats",
    )
    found.add_argument("--models-file", action="append", default=[], metavar="FILE")
    found.add_argument(
        "--package", action="append", default=[], metavar="REQUIREMENT", help="a Python package"
    )
    found.add_argument("--models-root", metavar="DIR", help="where models lie already")
    found.add_argument(
        "--auto-checksum",
        action="store_true",
        help="fill in sha256 from files in --models-root; several are read at once, and those that "
        "are links into the store not at all",
    )
    found.add_argument("--output", metavar="FILE", help="the spec's file")
    found.add_argument("--force", action="store_true", help="replace an existing spec")
    found.common(network=True)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    specs.check_version_id(options.version, "the version")
    path = options.output or project.spec_file(session)
    if os.path.lexists(path) and not options.force:
        raise InputError(f"{path} exists already", hint="--force replaces it")
    comfy = {"repo": _from_here(options.repo)}
    if options.ref:
        comfy["ref"] = options.ref
    data: dict[str, Any] = {
        "schema_version": specs.SCHEMA,
        "version_id": options.version,
        "comfy": comfy,
        "custom_nodes": _nodes([*options.nodes, *options.nodes_file]),
        "models": list(_lists([*options.models, *options.models_file], "models")),
        "python_packages": options.package,
        "env": {},
        "options": {},
    }
    if options.auto_checksum:
        _fill_checksums(session, data["models"], path)
    spec = specs.parse(data, path)
    access = project.access(session, spec)
    commits = [source.commit or resolve.tip(source, access) for source in (spec.core, *spec.nodes)]
    data = specs.with_commits(data, commits[0], commits[1:])
    project.write_spec(path, data, replace=options.force)
    session.result(
        {"version": spec.version_id, "file": path, "spec": data},
        f"wrote {path}: ComfyUI {commits[0][:12]}, {len(spec.nodes)} nodes, "
        f"{len(spec.models)} models",
    )
    return 0


def _nodes(given: Iterable[str]) -> list[Any]:
    found: list[Any] = []
    for text in given:
        if _is_document(text):
            found.extend(_lists([text], "custom_nodes"))
        else:
            found.append({"repo": _from_here(text)})
    return found


def _from_here(text: str) -> str:
    """A repository from the command line: a relative path is relative to where the user stands.

    In a spec it would be relative to the spec's folder.
    """
    repo, ref = repository.split_ref(text)
    if not repository.parse(repo, "the command line", allow_local=True).is_local:
        return text
    if not repo.startswith(("/", "~", "file:")):
        repo = os.path.abspath(repo)
    return repo if ref is None else f"{repo}@{ref}"


def _is_document(text: str) -> bool:
    return text.lstrip().startswith(("[", "{")) or text.endswith((".json", ".yaml", ".yml"))


def _lists(given: Iterable[str], field: str) -> Iterable[Any]:
    for text in given:
        if text.lstrip().startswith(("[", "{")):
            where = "--nodes" if field == "custom_nodes" else f"--{field}"
            data = document.load_json(text.encode(), where)
        else:
            data, where = document.load(text), text
        if isinstance(data, dict) and field in data:
            data = data[field]
        if not isinstance(data, list):
            raise InputError(f"{where}: a list is needed, or an object with a list {field!r}")
        for index, item in enumerate(data):
            if isinstance(item, str) and field == "custom_nodes":
                item = {"repo": item}
            if not isinstance(item, dict):
                raise InputError(f"{where}: {field}[{index}]: an object is needed")
            yield item


def _fill_checksums(session: Session, models: list[Any], path: str) -> None:
    """Adds the sha256 of every model that lies in the models folder and has none."""
    roots = _models_roots(session)
    found: list[tuple[Any, str]] = []
    data = {"schema_version": specs.SCHEMA, "version_id": "x", "comfy": {"repo": DEFAULT_REPO}}
    for raw, model in zip(
        models, specs.parse({**data, "models": models}, path).models, strict=True
    ):
        if model.sha256 is not None:
            continue
        candidates = [os.path.join(root, model.path) for root in roots]
        file = next(filter(os.path.isfile, candidates), None)
        if file is None:
            where = " or ".join(roots)
            session.progress.warn(f"{model.path} is not in {where}: no checksum")
            continue
        found.append((raw, file))
    access = Access(progress=session.progress)
    sums = checksums.of_files(session.store, [file for _, file in found], access)
    for (raw, _), digest in zip(found, sums, strict=True):
        raw["checksum"] = f"sha256:{digest}"


def _models_roots(session: Session) -> list[str]:
    """Where models lie already: --models-root, else MODELS_DIR, else the models of COMFY_HOME and
    those of the cache."""
    settings = session.settings
    if session.options.models_root:
        return [os.path.abspath(os.path.expanduser(session.options.models_root))]
    if settings.get("MODELS_DIR"):
        return [settings.models_dir]
    below = os.path.join(settings.comfy_home(session.options.version), "models")
    return [*([below] if os.path.isdir(below) else []), settings.models_dir]
