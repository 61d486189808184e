"""Calling the functions of a node: every input is a list, and they run over all of its values."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from comfy_execution.graph import Prompt, input_info
from comfy_execution.graph_utils import ExecutionBlocker, is_link

Values = dict[str, Any]


def gather_inputs(
    inputs: dict[str, Any],
    class_def: Any,
    node_id: str,
    results: Callable[[str], list[Any] | None] | None = None,
    prompt: Prompt | None = None,
    extra_data: dict[str, Any] | None = None,
) -> tuple[Values, set[str]]:
    """The values of each input, and the names of those whose node has not run (they are None).

    Inputs that the node does not declare are dropped, unless they are links.
    """
    declared = class_def.INPUT_TYPES()
    values: Values = {}
    missing: set[str] = set()
    for name, value in inputs.items():
        _, category, options = input_info(class_def, name, declared)
        if is_link(value) and not (options or {}).get("rawLink"):
            outputs = results(value[0]) if results is not None else None
            if outputs is None or value[1] >= len(outputs):
                missing.add(name)
                values[name] = (None,)
            else:
                values[name] = outputs[value[1]]
        elif category is not None:
            values[name] = [value]
    extra = extra_data or {}
    hidden = {
        "PROMPT": prompt if prompt is not None else {},
        "EXTRA_PNGINFO": extra.get("extra_pnginfo"),
        "UNIQUE_ID": node_id,
        "AUTH_TOKEN_COMFY_ORG": extra.get("auth_token_comfy_org"),
        "API_KEY_COMFY_ORG": extra.get("api_key_comfy_org"),
    }
    for name, kind in declared.get("hidden", {}).items():
        if kind in hidden:
            values[name] = [hidden[kind]]
    return values, missing


def _blocker(arguments: dict[str, Any], is_list: bool) -> ExecutionBlocker | None:
    for value in arguments.values():
        for item in value if is_list else [value]:
            if isinstance(item, ExecutionBlocker):
                return item
    return None


def call_for_each(
    target: Any,
    values: Values,
    function: str,
    before: Callable[[], None] = lambda: None,
    on_block: Callable[[ExecutionBlocker], ExecutionBlocker] = lambda blocker: blocker,
) -> list[Any]:
    """Call a node's function once for every value; the last of a shorter list is used again."""
    is_list = bool(getattr(target, "INPUT_IS_LIST", False))
    method = getattr(target, function)
    if is_list:
        calls = [values]
    else:
        count = max((len(items) for items in values.values()), default=0)
        calls = [
            {name: items[min(index, len(items) - 1)] for name, items in values.items()}
            for index in range(count)
        ] or [{}]
    answers = []
    for arguments in calls:
        before()
        blocker = _blocker(arguments, is_list)
        if blocker is not None:
            answers.append(on_block(blocker))
            continue
        answer = method(**arguments)
        answers.append(asyncio.run(_wait(answer)) if inspect.isawaitable(answer) else answer)
    return answers


async def _wait(awaitable: Any) -> Any:
    return await awaitable


def _columns(class_def: Any, rows: list[Any]) -> list[list[Any]]:
    """Turn one tuple per call into one list per output."""
    if not rows:
        return []
    as_list = getattr(class_def, "OUTPUT_IS_LIST", [False] * len(rows[0]))
    columns: list[list[Any]] = []
    for index, spread in zip(range(len(rows[0])), as_list, strict=False):
        column: list[Any] = []
        for row in rows:
            if spread and not isinstance(row[index], ExecutionBlocker):
                column.extend(row[index])
            else:
                column.append(row[index])
        columns.append(column)
    return columns


def split_answers(class_def: Any, answers: list[Any]) -> tuple[list[list[Any]], dict[str, Any]]:
    """What the calls of a node returned: its outputs, and what clients are shown."""
    rows: list[Any] = []
    shown: list[dict[str, Any]] = []
    for answer in answers:
        row = answer
        if isinstance(answer, dict):
            if "expand" in answer:
                raise NotImplementedError("nodes that expand to a graph do not run in this core")
            if "ui" in answer:
                shown.append(answer["ui"])
            if "result" not in answer:
                continue
            row = answer["result"]
        if isinstance(row, ExecutionBlocker):
            row = (row,) * len(class_def.RETURN_TYPES)
        rows.append(row)
    ui = {key: [item for part in shown for item in part[key]] for key in shown[0]} if shown else {}
    return _columns(class_def, rows), ui
