"""Compare what another server answers with what the real ComfyUI was recorded to answer.

Pure functions: playing is `client.Player`'s part. A difference is a line of text; none is the law.
Exact are status codes, members, JSON types, and every value that does not depend on the machine,
the run or the server's own version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .scenarios import Scenario

OPTIONAL = frozenset(
    {"required_frontend_version", "installed_templates_version", "required_templates_version"}
)
"""Members that are null where a server has no such part."""

TYPE_ONLY = frozenset(
    {
        # what the server is
        "comfyui_version",
        *OPTIONAL,
        "python_version",
        "pytorch_version",
        "body",
        # what a library said
        "exception_message",
        "exception_type",
        # prose for the user
        "description",
    }
)
"""Members of which only the JSON type is compared."""

SAMPLING = frozenset({"sampler_name", "scheduler"})
"""Inputs of which a server may offer fewer choices: they are algorithms, not files."""

IGNORED = frozenset({"bytes", "is_changed", "tooltip", "output_tooltips"})
"""Members that tell nothing which another server must repeat."""

PROGRESS = frozenset({"status", "progress", "progress_state"})
"""Messages that come as often as there is something to tell."""


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Every recorded scenario by its name."""
    documents = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return {document["scenario"]: document for document in documents if "scenario" in document}


def scenario_of(document: Mapping[str, Any]) -> Scenario:
    """The script that was recorded, to be played again."""
    steps = tuple(exchange["step"] for exchange in document["exchanges"])
    return Scenario(document["scenario"], document["why"], steps)


def compare(document: Mapping[str, Any], answers: Sequence[Any]) -> list[str]:
    """How `answers`, played from the document's own script, differ from what was recorded."""
    differences: list[str] = []
    for number, (exchange, answer) in enumerate(zip(document["exchanges"], answers, strict=True)):
        step, recorded = exchange["step"], exchange.get("answer")
        request = step.get("request", {})
        where = " ".join((f"[{number}]", request.get("method", "WS"), request.get("path", "")))
        found = (
            _message_differences(recorded["messages"], answer["messages"], "any_order" in step)
            if "read" in step
            else _answer_differences(step, recorded, answer)
        )
        differences += (f"{document['scenario']} {where.strip()}: {line}" for line in found)
    return differences


def _answer_differences(step: Mapping[str, Any], recorded: Any, live: Any) -> Iterator[str]:
    if "keep" in step and recorded and live and "keys" in live:
        # Another server need not have all nodes, only none under a name that means another.
        strangers = set(live["keys"]) - set(recorded["keys"])
        if strangers:
            yield f"keys: {sorted(strangers)} are not there"
        recorded = {**recorded, "keys": None}
        live = {**live, "keys": None}
    if recorded and live and "" == recorded.get("body") == live.get("body"):
        # What kind of content an empty answer has depends on the HTTP library alone.
        recorded = {**recorded, "content_type": None}
        live = {**live, "content_type": None}
    yield from value_differences(recorded, live)


def value_differences(recorded: Any, live: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ."""
    member = path.rsplit(".", 1)[-1]
    if member in TYPE_ONLY and _json_type(recorded) == _json_type(live):
        return
    if member in OPTIONAL and live is None:
        return
    if isinstance(recorded, dict) and isinstance(live, dict):
        for key in recorded.keys() - live.keys() - IGNORED:
            yield f"{path}.{key}: is missing; recorded {_short(recorded[key])}"
        for key in live.keys() - recorded.keys() - IGNORED:
            yield f"{path}.{key}: is not in the recording; live {_short(live[key])}"
        for key in recorded:
            if key in live and key not in IGNORED:
                yield from value_differences(recorded[key], live[key], f"{path}.{key}")
    elif isinstance(recorded, list) and isinstance(live, list):
        recorded, live = _without_empty_options(recorded), _without_empty_options(live)
        if member in SAMPLING:
            recorded = [[one for one in recorded[0] if one in live[0]], *recorded[1:]]
        if len(recorded) != len(live):
            yield f"{path}: recorded {_short(recorded)}, live {_short(live)}"
            return
        for index, (one, other) in enumerate(zip(recorded, live, strict=True)):
            yield from value_differences(one, other, f"{path}[{index}]")
    elif _json_type(recorded) != _json_type(live) or recorded != live:
        yield f"{path}: recorded {_short(recorded)}, live {_short(live)}"


def _without_empty_options(values: list[Any]) -> list[Any]:
    """An input `["MODEL", {"tooltip": ...}]` says no more than `["MODEL"]`."""
    if len(values) == 2 and isinstance(values[1], dict) and values[1].keys() <= IGNORED:
        return values[:1]
    return values


def _json_type(value: Any) -> str:
    """The type as JSON knows it: no two kinds of number, but booleans apart."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return type(value).__name__


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _message_differences(
    recorded: Sequence[Any], live: Sequence[Any], any_order: bool
) -> Iterator[str]:
    """Compare two listenings: the milestones one by one, of the rest that and how it is told."""
    milestones, theirs = _milestones(recorded, any_order), _milestones(live, any_order)
    names, their_names = _names(milestones), _names(theirs)
    if names != their_names:
        yield f"messages: recorded {' '.join(names)}, live {' '.join(their_names)}"
    else:
        for index, (one, other) in enumerate(zip(milestones, theirs, strict=True)):
            yield from value_differences(one, other, f"message {index}")
    if recorded and live:
        yield from value_differences(recorded[0], live[0], "first message")
    for kind in sorted(PROGRESS):
        shape, their_shape = _shapes(recorded, kind), _shapes(live, kind)
        if shape != their_shape:
            yield f"{kind} messages: recorded {sorted(shape)}, live {sorted(their_shape)}"


def _milestones(messages: Sequence[Any], any_order: bool) -> list[Any]:
    found = [message for message in messages if message["type"] not in PROGRESS]
    return sorted(found, key=lambda one: json.dumps(one, sort_keys=True)) if any_order else found


def _names(messages: Sequence[Any]) -> list[str]:
    names = []
    for message in messages:
        data = message.get("data") or {}
        node = data["node"] if "node" in data else data.get("node_id", "")
        names.append(f"{message.get('type', 'binary')}({'null' if node is None else node})")
    return names


def _shapes(messages: Sequence[Any], kind: str) -> set[str]:
    """The different forms in which messages of a kind come: members and types, not values.

    Of the names of nodes only that they are names: how many were seen is a matter of time.
    """
    return {
        json.dumps(_shape(message["data"]), sort_keys=True)
        for message in messages
        if message["type"] == kind
    }


def _shape(value: Any, member: str = "") -> Any:
    if isinstance(value, dict):
        if member == "nodes":
            shapes = [_shape(item) for item in value.values()]
            return {"<node>": shapes[0]} if shapes else {}
        return {key: _shape(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return _json_type(value)


ESSENTIAL = (
    r"(?m)^Import times for custom nodes:$",
    r"(?m)^ +\d+\.\d seconds: \S.*$",
    r"(?m)^ +\d+\.\d seconds \(IMPORT FAILED\): \S.*$",
    r"(?m)^Traceback \(most recent call last\):$",
    r"(?m)^Cannot import \S.* module for custom nodes: .*$",
    r"(?m)^Starting server$",
    r"(?m)^To see the GUI go to: http://127\.0\.0\.1:\d+$",
)
"""What cvs, or a person, reads in the log of a start with one node that can not be imported."""


def log_differences(log: str) -> list[str]:
    """What a start's log lacks of what ComfyUI's has."""
    return [f"the log has no {pattern}" for pattern in ESSENTIAL if not re.search(pattern, log)]
