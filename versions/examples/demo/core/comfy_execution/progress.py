"""How far the nodes of the running prompt are, told to clients after every change."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

current_node: ContextVar[str | None] = ContextVar("current_node", default=None)


class ProgressRegistry:
    """Sends `progress_state` with every node that has started."""

    def __init__(self, prompt_id: str, send: Callable[[str, dict[str, Any]], None]) -> None:
        self.prompt_id = prompt_id
        self.send = send
        self.nodes: dict[str, dict[str, Any]] = {}

    def _set(self, node_id: str, state: str, value: float, maximum: float) -> None:
        self.nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        message = {"prompt_id": self.prompt_id, "nodes": dict(self.nodes)}
        self.send("progress_state", message)

    def start(self, node_id: str) -> None:
        """A node begins."""
        self._set(node_id, "running", 0.0, 1.0)

    def update(self, node_id: str, value: float, maximum: float) -> None:
        """A node tells how far it is."""
        self._set(node_id, "running", value, maximum)

    def finish(self, node_id: str) -> None:
        """A node is through, or its result was there."""
        maximum = self.nodes.get(node_id, {"max": 1})["max"]
        self._set(node_id, "finished", maximum, maximum)


_registry = ProgressRegistry("", lambda event, data: None)


def reset_progress_state(prompt_id: str, send: Callable[[str, dict[str, Any]], None]) -> None:
    """A new prompt starts."""
    global _registry
    _registry = ProgressRegistry(prompt_id, send)


def get_progress_state() -> ProgressRegistry:
    """The nodes of the running prompt."""
    return _registry
