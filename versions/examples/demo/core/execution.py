"""Running prompts: the queue, and the executor that works through one prompt at a time."""

import copy
import heapq
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import nodes
from comfy.model_management import InterruptProcessingException
from comfy_execution.caching import ClassicCache, LRUCache, NoCache, signatures
from comfy_execution.calls import call_for_each, gather_inputs, split_answers
from comfy_execution.graph import DependencyCycleError, Prompt, Schedule
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.progress import current_node, get_progress_state, reset_progress_state
from comfy_execution.validation import full_type_name, validate_prompt

__all__ = ["PromptExecutor", "PromptQueue", "make_cache", "validate_prompt"]

SENSITIVE_EXTRA_DATA_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")
MAXIMUM_HISTORY_SIZE = 10000

# number, prompt id, prompt, extra data, output nodes
QueueItem = tuple[float, str, Prompt, dict[str, Any], list[str]]


def make_cache(lru: int, none: bool) -> Callable[[], ClassicCache]:
    """The kind of cache that the command line asks for."""
    if lru > 0:
        logging.info("Using LRU cache")
        return lambda: LRUCache(lru)
    if none:
        logging.info("Disabling intermediate node cache.")
        return NoCache
    return ClassicCache


class NodeError(Exception):
    """A node failed: what clients are told about it."""

    def __init__(self, node_id: str, cause: Exception, details: dict[str, Any]) -> None:
        super().__init__(str(cause))
        self.node_id = node_id
        self.cause = cause
        self.details = details


def _shown(value: Any) -> Any:
    """An input of a failed node, as far as a message can carry it."""
    return value if value is None or isinstance(value, int | float | str) else str(value)


class PromptExecutor:
    """Runs the nodes of a prompt in one thread and keeps their results for the next one."""

    def __init__(self, server: Any, new_cache: Callable[[], ClassicCache] = ClassicCache) -> None:
        self.server = server
        self.new_cache = new_cache
        self.reset()

    def reset(self) -> None:
        """Forget every result."""
        self.outputs = self.new_cache()
        self.ui = self.new_cache()
        self.objects: dict[tuple[str, str], Any] = {}
        self.status_messages: list[tuple[str, dict[str, Any]]] = []
        self.success = True
        self.history_result: dict[str, Any] = {}

    # The prompt

    def execute(
        self, prompt: Prompt, prompt_id: str, extra_data: dict[str, Any], wanted: list[str]
    ) -> None:
        """Run what the wanted outputs need; `success` and `history_result` tell how it went."""
        nodes.interrupt_processing(False)
        self.server.client_id = extra_data.get("client_id")
        self.status_messages = []
        self.success = True
        self._message("execution_start", {"prompt_id": prompt_id})
        reset_progress_state(prompt_id, self._send)
        self._begin(prompt)
        cached = [node_id for node_id in prompt if self.outputs.get(node_id) is not None]
        self._message("execution_cached", {"nodes": cached, "prompt_id": prompt_id})
        executed: set[str] = set()
        try:
            self._run(prompt, prompt_id, extra_data, wanted, executed)
            self._message("execution_success", {"prompt_id": prompt_id})
        except NodeError as error:
            self.success = False
            self._failed(prompt, prompt_id, executed, error)
        shown = {node_id: self.ui.get(node_id) for node_id in prompt}
        shown = {node_id: entry for node_id, entry in shown.items() if entry is not None}
        self.history_result = {
            "outputs": {node_id: entry["output"] for node_id, entry in shown.items()},
            "meta": {node_id: entry["meta"] for node_id, entry in shown.items()},
        }
        self.server.last_node_id = None

    def _begin(self, prompt: Prompt) -> None:
        """Find out which of the kept results this prompt can use."""
        known: dict[str, Any] = {}

        def is_changed(node_id: str) -> Any:
            if node_id not in known:
                known[node_id] = self._is_changed(prompt, node_id)
            return known[node_id]

        keys = signatures(prompt, is_changed)
        for cache in (self.outputs, self.ui):
            cache.begin(prompt, keys)
        if isinstance(self.outputs, NoCache):
            self.objects = {}
        places = {(node_id, node["class_type"]) for node_id, node in prompt.items()}
        self.objects = {place: obj for place, obj in self.objects.items() if place in places}

    def _is_changed(self, prompt: Prompt, node_id: str) -> Any:
        """What IS_CHANGED says; it is kept in the prompt, and so in the images that hold it."""
        node = prompt[node_id]
        class_def = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
        if not hasattr(class_def, "IS_CHANGED"):
            return False
        if "is_changed" not in node:
            try:
                values, _ = gather_inputs(node["inputs"], class_def, node_id)
                answers = call_for_each(class_def, values, "IS_CHANGED")
                node["is_changed"] = [
                    None if isinstance(answer, ExecutionBlocker) else answer for answer in answers
                ]
            except Exception as error:
                logging.warning(f"WARNING: {error}")
                node["is_changed"] = float("nan")
        return node["is_changed"]

    def _run(
        self,
        prompt: Prompt,
        prompt_id: str,
        extra_data: dict[str, Any],
        wanted: list[str],
        executed: set[str],
    ) -> None:
        schedule = Schedule(prompt, lambda node_id: self.outputs.get(node_id) is not None)
        for node_id in wanted:
            schedule.add(node_id)
        while schedule:
            try:
                node_id = schedule.pick()
            except DependencyCycleError as error:
                details = {
                    "exception_message": str(error),
                    "exception_type": "graph.DependencyCycleError",
                    "traceback": [],
                    "current_inputs": [],
                }
                raise NodeError(next(iter(schedule.waiting)), error, details) from error
            token = current_node.set(node_id)
            try:
                finished = self._node(prompt, prompt_id, extra_data, node_id, schedule, executed)
            finally:
                current_node.reset(token)
            if finished:
                schedule.complete(node_id)

    # One node

    def _node(
        self,
        prompt: Prompt,
        prompt_id: str,
        extra_data: dict[str, Any],
        node_id: str,
        schedule: Schedule,
        executed: set[str],
    ) -> bool:
        """Run a node; False if it has to wait for more of its inputs first."""
        node = prompt[node_id]
        class_def = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
        place = {"node": node_id, "display_node": node_id}
        if self.outputs.get(node_id) is not None:  # an output that is there already
            output = (self.ui.get(node_id) or {}).get("output")
            self._to_client("executed", {**place, "output": output, "prompt_id": prompt_id})
            get_progress_state().finish(node_id)
            return True
        values: dict[str, Any] | None = None
        try:
            get_progress_state().start(node_id)
            values, missing = gather_inputs(
                node["inputs"], class_def, node_id, self.outputs.get, prompt, extra_data
            )
            if self.server.client_id is not None:
                self.server.last_node_id = node_id
            self._to_client("executing", {**place, "prompt_id": prompt_id})
            obj = self.objects.get((node_id, node["class_type"]))
            if obj is None:
                obj = self.objects[node_id, node["class_type"]] = class_def()
            lazy = self._lazy_inputs(obj, values, missing)
            if lazy:
                schedule.require(node_id, lazy)
                return False
            answers = call_for_each(
                obj,
                values,
                obj.FUNCTION,
                nodes.before_node_execution,
                lambda blocker: self._blocked(blocker, node_id, node, prompt_id, executed),
            )
            outputs, ui = split_answers(class_def, answers)
            if ui:
                meta = {
                    "node_id": node_id,
                    "display_node": node_id,
                    "parent_node": None,
                    "real_node_id": node_id,
                }
                self.ui.set(node_id, {"meta": meta, "output": ui})
                self._to_client("executed", {**place, "output": ui, "prompt_id": prompt_id})
            self.outputs.set(node_id, outputs)
        except InterruptProcessingException as error:
            logging.info("Processing interrupted")
            raise NodeError(node_id, error, {}) from error
        except Exception as error:
            logging.error(f"!!! Exception during processing !!! {error}")
            logging.error(traceback.format_exc())
            details = {
                "exception_message": f"{error}\n",
                "exception_type": full_type_name(type(error)),
                "traceback": traceback.format_tb(sys.exc_info()[2]),
                "current_inputs": {
                    name: [_shown(item) for item in items] for name, items in (values or {}).items()
                },
            }
            raise NodeError(node_id, error, details) from error
        get_progress_state().finish(node_id)
        executed.add(node_id)
        return True

    def _lazy_inputs(self, obj: Any, values: dict[str, Any], missing: set[str]) -> list[str]:
        """Inputs that the node now wants and that have not been computed."""
        if getattr(obj, "check_lazy_status", None) is None:
            return []
        answers = call_for_each(obj, values, "check_lazy_status", nodes.before_node_execution)
        wanted = {name for answer in answers if isinstance(answer, list) for name in answer}
        return sorted(name for name in wanted if name not in values or name in missing)

    def _blocked(
        self,
        blocker: ExecutionBlocker,
        node_id: str,
        node: dict[str, Any],
        prompt_id: str,
        executed: set[str],
    ) -> ExecutionBlocker:
        """A node does not run because an input says so; its message is shown once."""
        if blocker.message is None:
            return blocker
        message = {
            "prompt_id": prompt_id,
            "node_id": node_id,
            "node_type": node["class_type"],
            "executed": list(executed),
            "exception_message": f"Execution Blocked: {blocker.message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        self._send("execution_error", message)
        return ExecutionBlocker(None)

    # Messages

    def _failed(self, prompt: Prompt, prompt_id: str, executed: set[str], error: NodeError) -> None:
        message: dict[str, Any] = {
            "prompt_id": prompt_id,
            "node_id": error.node_id,
            "node_type": prompt[error.node_id]["class_type"],
            "executed": list(executed),
        }
        if isinstance(error.cause, InterruptProcessingException):
            self._message("execution_interrupted", message, broadcast=True)
        else:
            message |= {**error.details, "current_outputs": list(prompt)}
            self._message("execution_error", message)

    def _message(self, event: str, data: dict[str, Any], broadcast: bool = False) -> None:
        """Send a message that the history keeps."""
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.status_messages.append((event, data))
        if self.server.client_id is not None or broadcast:
            self._send(event, data)

    def _to_client(self, event: str, data: dict[str, Any]) -> None:
        """Send a message to the client of this prompt, if it has one."""
        if self.server.client_id is not None:
            self._send(event, data)

    def _send(self, event: str, data: dict[str, Any]) -> None:
        """Send to the client of this prompt, to all if it has none."""
        self.server.send_sync(event, data, self.server.client_id)


class PromptQueue:
    """Prompts that wait, the one that runs, and those that are done."""

    class ExecutionStatus(NamedTuple):
        """How a prompt ended."""

        status_str: Literal["success", "error"]
        completed: bool
        messages: list[tuple[str, dict[str, Any]]]

    def __init__(self, server: Any) -> None:
        self.server = server
        self.mutex = threading.RLock()
        self.not_empty = threading.Condition(self.mutex)
        self.task_counter = 0
        self.queue: list[QueueItem] = []
        self.currently_running: dict[int, QueueItem] = {}
        self.history: dict[str, dict[str, Any]] = {}
        self.flags: dict[str, Any] = {}

    def put(self, item: QueueItem) -> None:
        """Add a prompt; those with a smaller number go first."""
        with self.mutex:
            heapq.heappush(self.queue, item)
            self.server.queue_updated()
            self.not_empty.notify()

    def get(self, timeout: float | None = None) -> tuple[QueueItem, int] | None:
        """The next prompt and the number of its run; None after `timeout` or at a flag."""
        with self.not_empty:
            if not self.queue:
                self.not_empty.wait(timeout)
                if not self.queue:
                    return None
            item = heapq.heappop(self.queue)
            number = self.task_counter
            self.currently_running[number] = copy.deepcopy(item)
            self.task_counter += 1
            self.server.queue_updated()
            return item, number

    def task_done(
        self, number: int, history_result: dict[str, Any], status: ExecutionStatus | None
    ) -> None:
        """Move a prompt to the history, without the keys of its user."""
        with self.mutex:
            item = self.currently_running.pop(number)
            if len(self.history) > MAXIMUM_HISTORY_SIZE:
                self.history.pop(next(iter(self.history)))
            for key in SENSITIVE_EXTRA_DATA_KEYS:
                item[3].pop(key, None)
            self.history[item[1]] = {
                "prompt": item,
                "outputs": {},
                "status": copy.deepcopy(status._asdict()) if status is not None else None,
                **history_result,
            }
            self.server.queue_updated()

    def get_current_queue(self) -> tuple[list[QueueItem], list[QueueItem]]:
        """What runs and what waits."""
        with self.mutex:
            return list(self.currently_running.values()), list(self.queue)

    def get_tasks_remaining(self) -> int:
        """How many run or wait."""
        with self.mutex:
            return len(self.queue) + len(self.currently_running)

    def wipe_queue(self) -> None:
        """Drop all that wait."""
        with self.mutex:
            self.queue = []
            self.server.queue_updated()

    def delete_queue_item(self, prompt_id: str) -> bool:
        """Drop one that waits."""
        with self.mutex:
            kept = [item for item in self.queue if item[1] != prompt_id]
            found = len(kept) < len(self.queue)
            if found:
                self.queue = kept
                heapq.heapify(self.queue)
                self.server.queue_updated()
            return found

    def get_history(
        self, prompt_id: str | None = None, max_items: int | None = None, offset: int = -1
    ) -> dict[str, Any]:
        """Prompts that are done, oldest first; `max_items` alone means the newest."""
        with self.mutex:
            if prompt_id is not None:
                found = self.history.get(prompt_id)
                return {prompt_id: copy.deepcopy(found)} if found is not None else {}
            if offset < 0 and max_items is not None:
                offset = len(self.history) - max_items
            start = max(offset, 0)
            end = None if max_items is None else start + max(max_items, 1)
            return dict(list(self.history.items())[start:end])

    def wipe_history(self) -> None:
        """Forget what is done."""
        with self.mutex:
            self.history = {}

    def delete_history_item(self, prompt_id: str) -> None:
        """Forget one."""
        with self.mutex:
            self.history.pop(prompt_id, None)

    def set_flag(self, name: str, data: Any) -> None:
        """Ask the worker for something between two prompts."""
        with self.mutex:
            self.flags[name] = data
            self.not_empty.notify()

    def get_flags(self) -> dict[str, Any]:
        """What was asked since the last call."""
        with self.mutex:
            flags, self.flags = self.flags, {}
            return flags
