"""The order in which the nodes of a prompt run."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import nodes
from comfy_execution.graph_utils import is_link

Prompt = dict[str, Any]


class DependencyCycleError(Exception):
    """Some nodes wait for one another."""


class NodeInputError(Exception):
    """A node asks for an input that is no link."""


def links(node: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """The linked inputs of a node: name, the node it comes from and that one's output number."""
    for name, value in node["inputs"].items():
        if is_link(value):
            yield name, value[0], value[1]


def input_info(class_def: Any, name: str, inputs: dict[str, Any] | None = None) -> Any:
    """Type, category and options of an input; three times None for an unknown one."""
    inputs = inputs or class_def.INPUT_TYPES()
    for category in ("required", "optional", "hidden"):
        if name in inputs.get(category, {}):
            info = inputs[category][name]
            return info[0], category, info[1] if len(info) > 1 else {}
    return None, None, None


class Schedule:
    """Nodes still to run, each with those it waits for.

    Only what the wanted outputs need is in it; a lazy input joins when its node asks for it.
    """

    def __init__(self, prompt: Prompt, is_done: Callable[[str], bool]) -> None:
        self.prompt = prompt
        self.is_done = is_done
        self.waiting: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def add(self, node_id: str) -> None:
        """Run a node, and before it whatever it needs that is not there yet."""
        stack = [node_id]
        while stack:
            current = stack.pop()
            if current in self.waiting:
                continue
            needs = self.waiting[current] = set()
            node = self.prompt[current]
            class_def = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
            for name, source, _ in links(node):
                options = input_info(class_def, name)[2] or {}
                if not options.get("lazy") and not self.is_done(source):
                    needs.add(source)
                    stack.append(source)

    def require(self, node_id: str, names: Iterable[str]) -> None:
        """Let a node wait for inputs that it left to be decided."""
        node = self.prompt[node_id]
        for name in names:
            value = node["inputs"].get(name)
            if not is_link(value):
                raise NodeInputError(f"Node {node_id} needs input {name}, which is not a link")
            if not self.is_done(value[0]):
                self.add(value[0])
                self.waiting[node_id].add(value[0])

    def complete(self, node_id: str) -> None:
        """A node has run: nobody waits for it any more."""
        del self.waiting[node_id]
        for needs in self.waiting.values():
            needs.discard(node_id)

    def pick(self) -> str:
        """A node that can run, preferably one whose result somebody sees soon."""
        ready = [node_id for node_id, needs in self.waiting.items() if not needs]
        if not ready:
            raise DependencyCycleError("Dependency cycle detected")
        for distance in range(3):
            for node_id in ready:
                if self._leads_to_output(node_id, distance):
                    return node_id
        return ready[0]

    def _leads_to_output(self, node_id: str, distance: int) -> bool:
        """Whether an output node is this many links away."""
        if distance == 0:
            class_def = nodes.NODE_CLASS_MAPPINGS[self.prompt[node_id]["class_type"]]
            return bool(getattr(class_def, "OUTPUT_NODE", False))
        followers = [other for other, needs in self.waiting.items() if node_id in needs]
        return any(self._leads_to_output(other, distance - 1) for other in followers)
