"""`cvs run-handler`: run one workflow on a headless ComfyUI and give its result."""

import argparse
import base64
import contextlib
import os
import sys
from typing import Any

from cvs import running
from cvs.cli import Parser, Session, size
from cvs.profiles import process
from cvs.profiles.client import Client, Event, Output
from cvs.store import document, fs, scratch
from cvs.store.errors import InputError, RunError

EXAMPLES = """\
  cvs run-handler wan-demo --workflow workflows/demo.json --output base64 --out-file out.b64
  cvs run-handler wan-demo --workflow demo.json --out-dir results --extra-args -- --cpu
  cvs run-handler wan-demo --workflow demo.json --json --timeout 300
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "run-handler",
        "Run one workflow, in ComfyUI's API format, and give its result: the first file that it "
        "made as base64 on standard output, in --out-file, or all files in --out-dir.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument("--workflow", required=True, metavar="FILE", help="the graph, JSON")
    found.add_argument("--output", choices=["base64", "gcs"], help="default: OUTPUT_MODE, base64")
    found.add_argument("--gcs-bucket", metavar="BUCKET", help="with --output gcs")
    found.add_argument("--gcs-prefix", metavar="PREFIX", help="with --output gcs")
    found.add_argument("--out-file", metavar="FILE", help="write the base64 text there")
    found.add_argument("--out-dir", metavar="DIR", help="write every output there, as it is")
    found.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for the workflow's run")
    found.add_argument("--verbose", action="store_true", help="show ComfyUI's log")
    running.options(found)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    own, extra = running.split(arguments)
    session = Session(parser().parse_args(own))
    options = session.options
    mode = options.output or session.settings.get("OUTPUT_MODE") or "base64"
    if mode != "base64":
        known = "gcs: results are not sent to Google Cloud Storage yet"
        raise InputError(
            known if mode == "gcs" else f"OUTPUT_MODE {mode!r} is not known",
            hint="--output base64, or OUTPUT_MODE=base64",
        )
    graph = read_graph(options.workflow)
    with (
        running.open_session(session) as opened,
        process.ComfyUI(
            python=opened.python,
            view=opened.view,
            variables=opened.variables,
            user=extra,
            host="127.0.0.1",
            port=process.free_port(),
            database=None,
            scratch=opened.scratch,
            seal=opened.seal,
            log=_show if options.verbose else _hide,
        ) as comfy,
    ):
        client = Client(comfy.url)
        comfy.wait_ready(client.answers, running.READY_TIMEOUT)
        running.warn_of_failed_imports(session, comfy)
        outputs = client.run(
            graph,
            timeout=options.timeout,
            alive=comfy.check_alive,
            on_event=_Reporter(session, graph).event,
        )
        if not outputs:
            raise RunError("the workflow made no file", hint="does it save anything?")
        if options.out_dir:
            files = [_save(client, output, options.out_dir) for output in outputs]
        else:
            files = []
        first = next((output for output in outputs if output.type == "output"), outputs[0])
        content = b"".join(client.download(first))
    encoded = base64.b64encode(content).decode()
    if options.out_file:
        scratch.replace_file(options.out_file, encoded.encode())
    answer: dict[str, Any] = {
        "version_id": opened.version,
        "output_mode": "base64",
        "base64": encoded,
        "size": len(content),
        "extension": os.path.splitext(first.filename)[1],
    }
    if files:
        answer["files"] = files
    where = options.out_file or (options.out_dir and f"{len(files)} files in {options.out_dir}")
    session.say(f"{first.filename}: {size(len(content))}" + (f" → {where}" if where else ""))
    if len(outputs) > 1 and not files:
        session.say(f"{len(outputs) - 1} more outputs are in state/: --out-dir copies them")
    session.result(answer, "" if where else encoded)
    return 0


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


def read_graph(path: str) -> dict[str, Any]:
    """Reads a workflow in API format.

    Raises:
        InputError: not JSON, or the format that ComfyUI's page saves by itself.
    """
    graph = document.load_json(document.read_bytes(path), path)
    if isinstance(graph, dict) and isinstance(graph.get("prompt"), dict):
        graph = graph["prompt"]
    if not isinstance(graph, dict) or not graph:
        raise InputError(f"{path} is not a workflow: an object of nodes is needed")
    if isinstance(graph.get("nodes"), list):
        raise InputError(
            f"{path} is a workflow as ComfyUI's page saves it, not one for the API",
            hint="in ComfyUI: Workflow → Export (API)",
        )
    for node, details in graph.items():
        if not isinstance(details, dict) or not isinstance(details.get("class_type"), str):
            raise InputError(f"{path}: node {node!r} has no class_type")
        if not isinstance(details.get("inputs", {}), dict):
            raise InputError(f"{path}: node {node!r}: inputs is not an object")
    return graph


class _Reporter:
    """Shows how far a workflow is."""

    def __init__(self, session: Session, graph: dict[str, Any]) -> None:
        self._session, self._graph = session, graph
        self._last = ""

    def event(self, event: Event) -> None:
        details = self._graph.get(event.node or "") or {}
        name = f"node {event.node} ({details.get('class_type', '?')})"
        if event.kind == "queued":
            self._say("the workflow runs")
        elif event.kind == "refused":
            self._session.progress.warn(f"{name} is not run: {event.text}")
        elif event.kind == "node":
            self._say(name)
        elif event.kind == "progress" and event.maximum:
            tenth = event.value * 10 // event.maximum
            self._say(f"{name}: {tenth * 10} %")

    def _say(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self._session.progress.note(text)


def _save(client: Client, output: Output, folder: str) -> dict[str, Any]:
    """Copies one output; ComfyUI's own stays, for an identical graph is answered with it."""
    fs.makedirs(folder)
    name = os.path.basename(output.filename)
    stem, suffix = os.path.splitext(name)
    path = os.path.join(folder, name)
    number = 1
    while True:
        try:
            descriptor = fs.create(path)
            break
        except FileExistsError:
            number += 1
            path = os.path.join(folder, f"{stem}-{number}{suffix}")
    total = 0
    try:
        for chunk in client.download(output):
            fs.write(descriptor, chunk)
            total += len(chunk)
    finally:
        fs.close(descriptor)
    return {"node": output.node, "file": path, "type": output.type, "size": total}


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _hide(_line: str) -> None:
    """The log's end is kept for messages all the same."""
