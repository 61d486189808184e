"""Results of nodes that need not run again, by what they were made from."""

import hashlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import nodes
from comfy_execution.graph import Prompt, links
from comfy_execution.graph_utils import is_link

_unique = itertools.count()


def _plain(value: Any) -> Any:
    """A value as JSON can tell it; what is equal to nothing (NaN, objects) gets a number."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value == value:
        return value
    if isinstance(value, dict):
        return {"dict": sorted([str(key), _plain(item)] for key, item in value.items())}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {"unlike anything": next(_unique)}


def signatures(prompt: Prompt, is_changed: Callable[[str], Any]) -> dict[str, str]:
    """A digest of every node: its class, its inputs, IS_CHANGED, and all of that before it."""
    known: dict[str, str] = {}

    def nothing() -> str:
        return f"none {next(_unique)}"

    def sign(node_id: str, path: frozenset[str]) -> str:
        if node_id in known:
            return known[node_id]
        if node_id not in prompt or node_id in path:
            return nothing()
        node = prompt[node_id]
        class_def = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
        parts: list[Any] = [node["class_type"], _plain(is_changed(node_id))]
        hidden = class_def.INPUT_TYPES().get("hidden", {}).values()
        if getattr(class_def, "NOT_IDEMPOTENT", False) or "UNIQUE_ID" in hidden:
            parts.append(node_id)
        for name in sorted(node["inputs"]):
            value = node["inputs"][name]
            if is_link(value):
                source = sign(value[0], path | {node_id})
                parts.append([name, {"from": source, "output": value[1]}])
            else:
                parts.append([name, _plain(value)])
        known[node_id] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return known[node_id]

    return {node_id: sign(node_id, frozenset()) for node_id in prompt}


class ClassicCache:
    """Keeps what the last prompt used, and forgets the rest when the next one starts."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def begin(self, prompt: Prompt, keys: dict[str, str]) -> None:
        """A prompt starts, in which nodes have these keys."""
        self.keys = keys
        used = set(keys.values())
        self.values = {key: value for key, value in self.values.items() if key in used}

    def get(self, node_id: str) -> Any:
        """The result of a node of this prompt, or None."""
        return self.values.get(self.keys.get(node_id, ""))

    def set(self, node_id: str, value: Any) -> None:
        """Keep it."""
        self.values[self.keys[node_id]] = value


class LRUCache(ClassicCache):
    """Keeps the results of about `size` nodes, forgetting those of the oldest prompts."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.used: dict[str, int] = {}
        self.prompts = 0

    def begin(self, prompt: Prompt, keys: dict[str, str]) -> None:
        """As above, but older results stay while there is room."""
        self.keys = keys
        self.prompts += 1
        self.used.update(dict.fromkeys(keys.values(), self.prompts))
        for age in sorted(set(self.used.values())):
            if len(self.values) <= self.size or age == self.prompts:
                break
            for key in [key for key in self.values if self.used[key] == age]:
                del self.values[key]
        self.used = {
            key: age for key, age in self.used.items() if key in self.values or age == self.prompts
        }


class NoCache(ClassicCache):
    """Keeps a result while a node of the same prompt still needs it.

    What is kept for the history goes the same way: the ui of a node in the middle is gone as
    soon as every node after it has a ui of its own. That is how the real one behaves too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, set[str]] = {}
        self.after: dict[str, set[str]] = {}
        self.done: set[str] = set()

    def begin(self, prompt: Prompt, keys: dict[str, str]) -> None:
        """Forget everything."""
        self.keys, self.values, self.done = keys, {}, set()
        self.before = {name: {source for _, source, _ in links(prompt[name])} for name in prompt}
        self.after = {name: set() for name in prompt}
        for node_id, sources in self.before.items():
            for source in sources & set(prompt):
                self.after[source].add(node_id)

    def set(self, node_id: str, value: Any) -> None:
        """Keep it, and drop what nobody needs now."""
        super().set(node_id, value)
        self.done.add(node_id)
        for source in self.before[node_id] & self.done:
            if self.after[source] <= self.done:
                self.values.pop(self.keys[source], None)
