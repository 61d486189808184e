"""A trial: whether ComfyUI starts on a wheel set that nobody has started it on.

A lock pins packages that were chosen by their ranges, and ranges promise more than packages keep.
So the core is started once with `--quick-test-for-ci`, which imports all that it needs and ends,
before a version is switched to such a set; and what each node requires is imported. What stands is
noted with the volume's refs, and is not tried again on any machine.

It runs in a view of its own on the volume, sealed like everything that cvs starts, on the
processor alone, without nodes: a node that fails to load is not the fault of the packages.
"""

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cvs.profiles import child, environment, process, state, view
from cvs.profiles.environment import Environment
from cvs.store import fs, refs, scratch, seal, tree
from cvs.store.entries import Store
from cvs.store.errors import RunError
from cvs.store.progress import Progress
from cvs.store.record import Record
from cvs.store.scratch import Scratch
from cvs.store.seal import Seal
from cvs.versions import wheel as wheels
from cvs.versions.lock import Lock
from cvs.versions.spec import Spec

#: What is noted of a set that stands, and under what.
_KIND = "trial"
_STANDS = "stands"

#: The option that has a core start and end; cores of before 2023-04 lack it and are not started.
_QUICK = "--quick-test-for-ci"

#: Seconds after which a start is given up; the slowest that was seen took 32.
_PATIENCE = 600.0

#: Lines of a log that are shown.
_SHOWN = 12

_RAISED = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Iteration)(?:: .*)?")

_IMPORTS = """
import importlib, json, sys
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
sys.__stdout__.write("\\n" + json.dumps(failed))
"""


class _Place(NamedTuple):
    """Where a trial runs."""

    folder: str
    """The view."""
    python: str
    variables: dict[str, str]
    sealed: Seal


def ensure(
    store: Store,
    spec: Spec,
    lock: Lock,
    record: Record,
    made: Environment,
    *,
    base: Mapping[str, str],
    local_root: str,
    progress: Progress,
) -> None:
    """Tries a wheel set with its core, if that was not done on this volume.

    Packages of nodes that cannot be imported are warned of: ComfyUI runs without such a node.

    Args:
        made: the environment of the record's wheel set.
        base: the caller's environment variables.

    Raises:
        RunError: ComfyUI does not start.
    """
    core = next(place.target for place in record.links if not place.path)
    more = [*record.provided, "overlaps", *record.overlaps]
    key = refs.key(
        *(core, record.wheel_set, lock.python.interpreter.abi),
        *(more if record.provided or record.overlaps else []),
    )
    note = os.path.join(store.volume.refs, _KIND, key)
    with contextlib.suppress(OSError):
        if os.readlink(note) == _STANDS:
            return
    with (
        progress.task("trying the Python packages", 2, "items") as task,
        _place(store, spec, record, made, base, local_root) as place,
    ):
        _start(place, spec, lock)
        task.advance(1)
        for text in _failed_imports(store, lock, record, place):
            progress.warn(text)
        task.advance(1)
    with contextlib.suppress(OSError):
        # It would be tried once more, no worse.
        fs.makedirs(os.path.dirname(note))
        scratch.replace_symlink(_STANDS, note, store.volume.tmp)


@contextlib.contextmanager
def _place(
    store: Store,
    spec: Spec,
    record: Record,
    made: Environment,
    base: Mapping[str, str],
    local_root: str,
) -> Iterator[_Place]:
    with Scratch(store.volume.tmp) as held, process.scratch(local_root) as local:
        # As deep as the view of a generation is: links lead up to the volume from both.
        folder = os.path.join(held.folder, "view")
        fs.mkdir(folder)
        view.build(store, record, folder)
        for name in state.LINKED:
            fs.unlink(os.path.join(folder, name))
            fs.mkdir(os.path.join(folder, name))
        fs.unlink(os.path.join(folder, view.EXTRA_PATHS))
        variables = process.environment(
            base,
            python=made.python,
            home=folder,
            models_dir=os.path.join(folder, "models"),
            extra=spec.env,
        )
        process.write_locally(variables, local.folder, local_root)
        sealed = seal.make([store.volume.root, os.path.dirname(made.path)], [held.folder])
        try:
            yield _Place(folder, made.python, variables, sealed)
        finally:
            sealed.close()


def _start(place: _Place, spec: Spec, lock: Lock) -> None:
    flags = process.known_flags(place.folder)
    if _QUICK not in flags:
        return
    options = [_QUICK]
    options += [name for name in ("--cpu", "--disable-all-custom-nodes") if name in flags]
    if "--database-url" in flags:
        options += ["--database-url", "sqlite:///:memory:"]
    code, said = _run(place, [place.python, "main.py", *options])
    if code == 0:
        return
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    raised = next((line for line in reversed(lines) if _RAISED.fullmatch(line)), None)
    why = raised or (f"it was ended by signal {-code}" if code < 0 else f"it ended with {code}")
    raise RunError(
        f"{spec.version_id}: ComfyUI does not start with these Python packages: {why}\n"
        + "\n".join(lines[-_SHOWN:]),
        hint=_hint(spec, lock),
    )


def _hint(spec: Spec, lock: Lock) -> str:
    """What may help: packages of the core's own time, if they were chosen later."""
    kept = "what was current before is current still"
    chosen, core = lock.python.exclude_newer, lock.core.date
    if spec.python.exclude_newer != "core" and (chosen is None or chosen > core):
        return (
            f'"python": {{"exclude_newer": "core"}} in the spec takes the packages of the core\'s '
            f"own time, {core[:10]}; {kept}"
        )
    return f"python.constraints in the spec chooses other packages; {kept}"


def _failed_imports(store: Store, lock: Lock, record: Record, place: _Place) -> Iterator[str]:
    """What the nodes require and cannot be imported, in words."""
    nodes = {node.name for node in lock.nodes}
    wanted: dict[str, str] = {}
    trees = {
        document.name: document
        for document in environment.members(store, record.wheel_set).values()
    }
    for wheel in lock.python.wheels:
        asking = sorted(nodes.intersection(wheel.required_by))
        _, name = wheels.tree_name(wheel.file, lock.python.interpreter.abi)
        if asking and name in trees:
            for module in _modules(trees[name].nodes):
                wanted[module] = f"{', '.join(asking)} needs {wheel.name} {wheel.version}"
    if not wanted:
        return
    code, said = _run(place, [place.python, "-c", _IMPORTS, json.dumps(list(wanted))])
    if code:
        yield f"importing what the nodes need ended with {code}: {_last_line(said)}"
        return
    for module, why in json.loads(_last_line(said)).items():
        yield f"{wanted[module]}, whose module {module} cannot be imported: {why}"


def _last_line(text: str) -> str:
    lines = text.rstrip().splitlines()
    return lines[-1] if lines else ""


def _modules(nodes: Iterable[tree.Node]) -> list[str]:
    """The modules of a wheel that are right in site-packages and meant for others."""
    found = set()
    for node in nodes:
        parts = node.path.split("/")
        if parts[0] != "site-packages" or not isinstance(node, tree.File):
            continue
        if len(parts) == 2 and parts[1].endswith(".py"):
            found.add(parts[1].removesuffix(".py"))
        elif len(parts) == 3 and parts[2] == "__init__.py":
            found.add(parts[1])
    return sorted(
        name
        for name in found
        if name.isidentifier() and not name.startswith("_") and name not in _UNMEANT
    )


#: What wheels have right in site-packages by mistake.
_UNMEANT = frozenset({"setup", "conftest", *environment.CLUTTER})


def _run(place: _Place, command: Sequence[str]) -> tuple[int, str]:
    """Runs a command in a trial's place: its exit code, and what it said."""
    with subprocess.Popen(
        command,
        cwd=place.folder,
        env=place.variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=functools.partial(child.settle, place.sealed, signal.SIGKILL),
    ) as running:
        try:
            said, _ = running.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise RunError(
                f"ComfyUI did not start within {_PATIENCE:.0f} s with these Python packages"
            ) from None
        finally:
            # With all that it started: the group is its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        return running.returncode, said.decode("utf-8", "replace")
