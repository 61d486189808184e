"""Record what a real ComfyUI answers, as test data.

    python -m tests.real.record --python ENV/bin/python --folder COMFYUI --out DATA [-- FLAGS]

The folder is a ComfyUI checkout that may be written into: `scenarios.FILES` are laid in it.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .client import Player, lay_files
from .scenarios import SCENARIOS, Scenario
from .server import Server, plain_environment


def document(scenario: Scenario, answers: Sequence[Any]) -> dict[str, Any]:
    """What is stored of a scenario: every step beside its answer."""
    return {
        "scenario": scenario.name,
        "why": scenario.why,
        "exchanges": [
            {"step": step, **({} if answer is None else {"answer": answer})}
            for step, answer in zip(scenario.steps, answers, strict=True)
        ],
    }


def record(server: Server, places: dict[str, str], out: Path, only: Sequence[str] = ()) -> None:
    """Play every scenario and write one file for each."""
    for scenario in SCENARIOS:
        if only and scenario.name not in only:
            continue
        print(scenario.name, file=sys.stderr, flush=True)
        write(
            out / f"{scenario.name}.json",
            document(scenario, Player(server.url, places).play(scenario)),
        )


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def log_lines(text: str, places: dict[str, str]) -> list[str]:
    """The start's log with times and places taken out; tracebacks keep only their ends."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    text = re.sub(r"(?m)^ *\d+\.\d+ seconds", "   <seconds> seconds", text)
    text = re.sub(r"\d+\.\d+ seconds", "<seconds> seconds", text)
    text = re.sub(r"(?<=127\.0\.0\.1:)\d+", "<port>", text)
    text = re.sub(r"\d+ MB", "<megabytes> MB", text)
    return [line.rstrip() for line in text.splitlines()]


def help_text(python: Path, repository: str, commit: str) -> str:
    """What `main.py --help` of a commit prints: an old commit need not run for that.

    Its flags are parsed by two files which need nothing but each other.
    """
    ask = "import comfy.options as options; options.enable_args_parsing(); import comfy.cli_args"
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "comfy").mkdir()
        for path in ("comfy/options.py", "comfy/cli_args.py"):
            shown = ["git", "--git-dir", repository, "show", f"{commit}:{path}"]
            source = subprocess.run(shown, check=True, capture_output=True).stdout
            (Path(scratch) / path).write_bytes(source)
        main = Path(scratch) / "main.py"  # argparse prints the name of the script
        main.write_text(ask)
        return subprocess.run(
            [str(python), str(main), "--help"],
            env=plain_environment() | {"COLUMNS": "100"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout


def main() -> int:
    """Record all that is asked for on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append", default=[], help="the name of a scenario")
    parser.add_argument("--help-of", metavar="COMMIT", help="record only the flags of this commit")
    parser.add_argument("--repository", metavar="GIT_DIR", help="where --help-of is found")
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    python, folder = arguments.python.absolute(), arguments.folder.resolve()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if arguments.help_of:
        text = help_text(python, arguments.repository, arguments.help_of)
        (out / f"help-{arguments.help_of[:12]}.txt").write_text(text)
        return 0
    lay_files(folder)
    places = {
        str(folder): "<folder>",
        str(python.parent.parent): "<env>",
        str(Path(sys.base_prefix)): "<python>",
    }
    command = [str(python), "main.py", "--cpu", *arguments.flags]
    # Sets keep one order from recording to recording.
    environment = plain_environment() | {"PYTHONHASHSEED": "0"}

    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with Server(command, folder, log, environment) as server:
            server.wait_until_ready()
            started = server.log_text()
            record(server, places, out, arguments.only)
            interrupted = server.end(signal.SIGINT)
            tail = server.log_text()[len(started) :]
        if arguments.only:
            return 0
        with Server(command, folder, log, environment) as server:
            server.wait_until_ready()
            terminated = server.end(signal.SIGTERM)
            ready_after = server.ready_after
    write(
        out / "process.json",
        {
            "why": "what the log says, and how signals end it",
            "flags": ["--cpu", *arguments.flags],
            "ready_after_seconds": round(ready_after, 1),
            "start_log": log_lines(started, places),
            "last_lines": log_lines(tail, places)[-2:],
            "sigint": asdict(interrupted) | {"seconds": round(interrupted.seconds, 1)},
            "sigterm": asdict(terminated) | {"seconds": round(terminated.seconds, 1)},
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
