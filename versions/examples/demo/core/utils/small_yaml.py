"""As much YAML as an extra_model_paths.yaml holds, read without a YAML library.

Two levels of `key: value`, comments, quotes, `|` blocks; a file that is one JSON object too,
since JSON is YAML. Anything else is an error that names its line, never a guess.
"""

import json
import re
from typing import Any

_KEY = re.compile(
    r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#'"\[\]{},&*!|>%@`-][^#]*?)\s*:(?=\s|$)"""
)
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class YamlError(ValueError):
    """The text is not YAML, or more of it than this reader knows."""


def scalar(text: str) -> Any:
    """The value of a plain or quoted word, with a trailing comment taken off."""
    text = text.strip()
    if text.startswith('"'):
        value, end = json.JSONDecoder().raw_decode(text)
        rest = text[end:]
    elif text.startswith("'"):
        match = re.match(r"'((?:[^']|'')*)'", text)
        if match is None:
            raise YamlError(f"unfinished quote: {text}")
        value, rest = match[1].replace("''", "'"), text[match.end() :]
    else:
        word = re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()
        if word[:1] in tuple("[]{}&*!|>%@`"):
            raise YamlError(f"not supported here: {text}")
        if word.lower() in _BOOLEANS and word in (word.lower(), word.title(), word.upper()):
            return _BOOLEANS[word.lower()]
        if word in ("", "~", "null", "Null", "NULL"):
            return None
        return int(word) if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", word) else word
    if rest.strip() and not rest.strip().startswith("#"):
        raise YamlError(f"text after a quoted value: {text}")
    return value


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _blank(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _block(lines: list[str], start: int, parent: int, chomp: str) -> tuple[str, int]:
    """The text of a `|` block that begins at line `start`, and the line after it."""
    end = start
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > parent):
        end += 1
    body = lines[start:end]
    margin = min((_indent(line) for line in body[:1]), default=0)
    text = "\n".join(line[margin:] for line in body).rstrip("\n")
    return (text if chomp == "-" or not text else text + "\n"), end


def load(text: str) -> Any:
    """The document as dicts and scalars; None for one that holds only comments."""
    if text.lstrip().startswith("{"):
        return json.loads(text)
    lines = text.splitlines()
    document: dict[str, Any] = {}
    inner: dict[str, Any] | None = None
    opened: str | None = None
    depth: int | None = None
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if _blank(line) or (line.strip() == "---" and not document):
            continue
        where = f"line {number}: {line.strip()}"
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise YamlError(f"a tab in the indentation, {where}")
        match = _KEY.match(line.lstrip(" "))
        if match is None:
            raise YamlError(f"not `key: value`, {where}")
        key = str(scalar(match[1]) if match[1][0] in "\"'" else match[1])
        rest = line.lstrip(" ")[match.end() :].strip()
        column = _indent(line)
        if column == 0:
            target, inner, opened, depth = document, None, None, None
        else:
            if opened is None or depth not in (None, column):
                raise YamlError(f"indented deeper than two levels, {where}")
            if inner is None:
                inner, depth = {}, column
                document[opened] = inner
            target = inner
        block = re.fullmatch(r"\|([-+]?)\s*(?:#.*)?", rest)
        try:
            if block:
                target[key], number = _block(lines, number, column, block[1])
            else:
                target[key] = scalar(rest)
        except ValueError as error:
            raise YamlError(f"{error}, {where}") from error
        if column == 0 and target[key] is None:
            opened = key
    return document or None
