"""Checking a prompt before it is queued. The shape of every message is what clients parse."""

import inspect
import logging
import sys
import traceback
from collections.abc import Iterable
from typing import Any

import nodes
from comfy_execution.graph import Prompt, input_info

Problem = dict[str, Any]


def full_type_name(kind: type) -> str:
    """The name of an exception as the API tells it."""
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def types_match(received: Any, wanted: Any) -> bool:
    """Whether an output fits an input; types are strings that may list several with commas."""
    # Deliberately `not (a != b)`: nodes accept anything by a string whose != is always false.
    if not received != wanted:  # noqa: SIM202
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return bool(
        {part.strip() for part in received.split(",")}
        & {part.strip() for part in wanted.split(",")}
    )


def _problem(kind: str, message: str, details: str, **extra: Any) -> Problem:
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _raised(kind: str, message: str, error: Exception, **extra: Any) -> Problem:
    """A problem that is an exception."""
    frames = traceback.format_tb(sys.exc_info()[2])
    name = full_type_name(type(error))
    return _problem(kind, message, str(error), **extra, exception_type=name, traceback=frames)


_CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


class Validator:
    """One pass over a prompt. `results` has (valid, problems) of every node it came to."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.results: dict[str, tuple[bool, list[Problem]]] = {}
        self.open: set[str] = set()

    def check(self, node_id: str) -> bool:
        """Check a node and everything it is linked to."""
        if node_id in self.results:
            return self.results[node_id][0]
        if node_id in self.open:  # a cycle: invalid, with no node to blame
            return False
        self.open.add(node_id)
        try:
            inputs = self.prompt[node_id]["inputs"]
            class_def = nodes.NODE_CLASS_MAPPINGS[self.prompt[node_id]["class_type"]]
            problems, sound = self._check_inputs(node_id, class_def, inputs)
        finally:
            self.open.discard(node_id)
        self.results[node_id] = sound and not problems, problems
        return self.results[node_id][0]

    def _check_inputs(
        self, node_id: str, class_def: Any, inputs: dict[str, Any]
    ) -> tuple[list[Problem], bool]:
        """The problems of a node's own inputs, and whether the nodes before it are valid."""
        declared = class_def.INPUT_TYPES()
        function = getattr(class_def, "VALIDATE_INPUTS", None)
        spec = inspect.getfullargspec(function) if function is not None else None
        own_checks = set(spec.args) if spec else set()
        checks_all = spec is not None and spec.varkw is not None
        problems: list[Problem] = []
        received: dict[str, Any] = {}
        sound = True
        for name in [*declared.get("required", {}), *declared.get("optional", {})]:
            kind, category, options = input_info(class_def, name, declared)
            if name not in inputs:
                if category == "required":
                    problems.append(
                        _problem(
                            "required_input_missing",
                            "Required input is missing",
                            name,
                            input_name=name,
                        )
                    )
                continue
            config = (kind, options)
            if isinstance(inputs[name], list):
                any_type = "input_types" in own_checks
                problem, good = self._check_link(inputs[name], name, config, any_type, received)
                sound = sound and good
            else:
                left_to_node = checks_all or name in own_checks
                problem = self._check_value(inputs, name, config, left_to_node)
            if problem is not None:
                problems.append(problem)
        if own_checks or checks_all:
            problems += self._own_check(
                node_id, class_def, inputs, own_checks, checks_all, received
            )
        return problems, sound

    def _check_link(
        self,
        link: list[Any],
        name: str,
        config: tuple[Any, dict[str, Any]],
        any_type: bool,
        received: dict[str, Any],
    ) -> tuple[Problem | None, bool]:
        """A problem of the link itself, and whether the node it comes from is valid.

        A link to a node or an output that is not there raises: so the node that has it is
        reported as one that failed to be checked.
        """
        extra: dict[str, Any] = {"input_name": name, "input_config": config}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _problem("bad_linked_input", message, name, **extra, received_value=link), True
        source, output = link
        class_def = nodes.NODE_CLASS_MAPPINGS[self.prompt[source]["class_type"]]
        kind = received[name] = class_def.RETURN_TYPES[output]
        if not any_type and not types_match(kind, config[0]):
            details = f"{name}, received_type({kind}) mismatch input_type({config[0]})"
            problem = _problem(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                details,
                **extra,
                received_type=kind,
                linked_node=link,
            )
            return problem, True
        try:
            return None, self.check(source)
        except Exception as error:
            extra["exception_message"] = str(error)
            problem = _raised(
                "exception_during_inner_validation",
                "Exception when validating inner node",
                error,
                **extra,
                linked_node=link,
            )
            self.results[source] = False, [problem]
            return None, False

    def _check_value(
        self, inputs: dict[str, Any], name: str, config: tuple[Any, Any], left_to_node: bool
    ) -> Problem | None:
        """Convert a value in place to its declared type, and check its range or list."""
        kind, options = config
        value = inputs[name]
        try:
            if isinstance(value, dict) and "__value__" in value:  # a list that is no link
                value = inputs[name] = value["__value__"]
            if isinstance(kind, str) and kind in _CONVERSIONS:
                value = inputs[name] = _CONVERSIONS[kind](value)
        except Exception as error:
            return _problem(
                "invalid_input_type",
                f"Failed to convert an input value to a {kind} value",
                f"{name}, {value}, {error}",
                input_name=name,
                input_config=config,
                received_value=value,
                exception_message=str(error),
            )
        if left_to_node:
            return None
        extra = {"input_name": name, "input_config": config, "received_value": value}
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return _problem("value_smaller_than_min", message, name, **extra)
        if "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return _problem("value_bigger_than_max", message, name, **extra)
        if isinstance(kind, list) and value not in kind:
            shown = str(kind)
            if len(kind) > 20:  # such as all models of a large collection
                shown, extra["input_config"] = f"(list of length {len(kind)})", None
            details = f"{name}: '{value}' not in {shown}"
            return _problem("value_not_in_list", "Value not in list", details, **extra)
        return None

    def _own_check(
        self,
        node_id: str,
        class_def: Any,
        inputs: dict[str, Any],
        own_checks: set[str],
        checks_all: bool,
        received: dict[str, Any],
    ) -> list[Problem]:
        """What the node's VALIDATE_INPUTS says of the inputs that it asks for."""
        from comfy_execution.calls import call_for_each, gather_inputs

        values = {
            name: values
            for name, values in gather_inputs(inputs, class_def, node_id)[0].items()
            if checks_all or name in own_checks
        }
        if "input_types" in own_checks:
            values["input_types"] = [received]
        answers = call_for_each(class_def, values, "VALIDATE_INPUTS")
        return [
            _problem(
                "custom_validation_failed",
                "Custom validation failed for node",
                name if answer is False else f"{name} - {answer}",
                input_name=name,
            )
            for name in values
            for answer in answers
            if answer is not True
        ]


def _refusal(kind: str, message: str, details: str) -> tuple[bool, Problem, list[str], Any]:
    return False, _problem(kind, message, details), [], {}


def _log(problems: list[Problem]) -> None:
    for problem in problems:
        logging.error(f"  - {problem['message']}: {problem['details']}")


def validate_prompt(
    prompt: Prompt, wanted: Iterable[str] | None = None
) -> tuple[bool, Problem | None, list[str], dict[str, Any]]:
    """Whether it can run at all, why not, its sound outputs, and the problems by node.

    One sound output is enough: the others are left out, and said so in the log.
    """
    outputs = []
    for node_id, node in prompt.items():
        where = f"Node ID '#{node_id}'"
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return _refusal("invalid_prompt", message, where)
        class_def = nodes.NODE_CLASS_MAPPINGS.get(node["class_type"])
        if class_def is None:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return _refusal("invalid_prompt", message, where)
        is_output = getattr(class_def, "OUTPUT_NODE", False) is True
        if is_output and (wanted is None or node_id in wanted):
            outputs.append(node_id)
    if not outputs:
        return _refusal("prompt_no_outputs", "Prompt has no outputs", "")

    validator = Validator(prompt)
    good: list[str] = []
    summary: list[str] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        try:
            valid = validator.check(output)
        except Exception as error:
            message = "Exception when validating node"
            problem = _raised("exception_during_validation", message, error)
            validator.results[output] = False, [problem]
            valid = False
        if valid:
            good.append(output)
            continue
        problems = validator.results.get(output, (False, []))[1]
        summary += [f"{problem['message']}: {problem['details']}" for problem in problems]
        logging.error(f"Failed to validate prompt for output {output}:")
        if problems:
            logging.error("* (prompt):")
            _log(problems)
        # Every invalid node that has problems of its own; those after it have none.
        for node_id, (node_valid, reasons) in validator.results.items():
            if node_valid or not reasons:
                continue
            class_type = prompt[node_id]["class_type"]
            if node_id not in node_errors:
                node_errors[node_id] = {
                    "errors": reasons,
                    "dependent_outputs": [],
                    "class_type": class_type,
                }
                logging.error(f"* {class_type} {node_id}:")
                _log(reasons)
            node_errors[node_id]["dependent_outputs"].append(output)
        logging.error("Output will be ignored")
    if good:
        return True, None, good, node_errors
    message = "Prompt outputs failed validation"
    failure = _problem("prompt_outputs_failed_validation", message, "\n".join(summary))
    return False, failure, good, node_errors
