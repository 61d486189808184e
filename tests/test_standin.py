"""The stand-in for ComfyUI answers as the real one was recorded to answer.

Everything else is tested against the stand-in, so what it gets wrong no other test would notice.
"""

import copy
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real import client, replay
from real.server import Server, plain_environment

ROOT = Path(__file__).parents[1]
CORE = ROOT / "versions" / "examples" / "demo" / "core"
DATA = ROOT / "tests" / "data" / "comfyui-0.3.64-a125cd84b054"
RECORDED = replay.load(DATA)
PROCESS = json.loads((DATA / "process.json").read_text())


def start(folder: Path) -> Server:
    """The stand-in from a copy of its files, with the files that the recording was made with."""
    shutil.copytree(CORE, folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "input" / "example.png").unlink(missing_ok=True)
    client.lay_files(folder)
    command = [sys.executable, "main.py", *PROCESS["flags"]]
    return Server(command, folder, folder.with_suffix(".log"), plain_environment())


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A running stand-in and its folder."""
    folder = tmp_path_factory.mktemp("standin") / "ComfyUI"
    with start(folder) as server:
        server.wait_until_ready(60)
        yield server, folder


@pytest.mark.parametrize("name", RECORDED)
def test_answers_as_recorded(standin: tuple[Server, Path], name: str) -> None:
    """Every exchange of a scenario has the recorded status, members, types and values."""
    server, folder = standin
    document = RECORDED[name]
    player = client.Player(server.url, {str(folder): "<folder>"})

    answers = player.play(replay.scenario_of(document))

    assert replay.compare(document, answers) == []


def test_start_log(standin: tuple[Server, Path]) -> None:
    """A node that can not be imported is told of in ComfyUI's words, and the server is up."""
    server, _ = standin

    assert replay.log_differences(server.log_text()) == []
    assert replay.log_differences("\n".join(PROCESS["start_log"])) != [], "the times are gone there"


@pytest.mark.parametrize("name", ["sigint", "sigterm"])
def test_signal(tmp_path: Path, name: str) -> None:
    """A signal ends it with the recorded exit code, in no more time than the real one takes."""
    with start(tmp_path / "ComfyUI") as server:
        server.wait_until_ready(60)

        ending = server.end(signal.Signals[name.upper()])

    assert ending.exit_code == PROCESS[name]["exit_code"]
    assert ending.seconds < 10


def test_flags() -> None:
    """It knows no flag that the real one does not know."""
    shown = subprocess.run(
        [sys.executable, str(CORE / "main.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        # Wide enough that no flag is broken in two at one of its hyphens.
        env=plain_environment() | {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
    ).stdout
    real = (DATA / "help-a125cd84b054.txt").read_text()

    assert flags(shown) <= flags(real)
    assert {"--listen", "--port", "--base-directory", "--quick-test-for-ci"} <= flags(shown)


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


# The comparison itself --------------------------------------------------------------------------


def recorded_answers(name: str) -> list[Any]:
    return [copy.deepcopy(exchange.get("answer")) for exchange in RECORDED[name]["exchanges"]]


@pytest.mark.parametrize("name", RECORDED)
def test_recording_agrees_with_itself(name: str) -> None:
    """No difference is found where there is none."""
    assert replay.compare(RECORDED[name], recorded_answers(name)) == []


def drop_member(answers: list[Any]) -> None:
    del answers[3]["json"]["<prompt_id>"]["meta"]


def add_member(answers: list[Any]) -> None:
    answers[1]["json"]["more"] = 1


def change_type(answers: list[Any]) -> None:
    answers[1]["json"]["number"] = "1"


def change_status(answers: list[Any]) -> None:
    answers[1]["status"] = 201


def change_color(answers: list[Any]) -> None:
    answers[4]["picture"]["colors"] = ["#000000"]


def drop_executed(answers: list[Any]) -> None:
    messages = answers[2]["messages"]
    messages[:] = [message for message in messages if message["type"] != "executed"]


def swap_nodes(answers: list[Any]) -> None:
    messages = answers[2]["messages"]
    first, second = [index for index, one in enumerate(messages) if one["type"] == "executing"][:2]
    messages[first], messages[second] = messages[second], messages[first]


def drop_progress(answers: list[Any]) -> None:
    messages = answers[2]["messages"]
    messages[:] = [message for message in messages if message["type"] != "progress_state"]


def drop_first_sid(answers: list[Any]) -> None:
    del answers[2]["messages"][0]["data"]["sid"]


@pytest.mark.parametrize(
    "change",
    [
        drop_member,
        add_member,
        change_type,
        change_status,
        change_color,
        drop_executed,
        swap_nodes,
        drop_progress,
        drop_first_sid,
    ],
)
def test_difference_is_found(change: Callable[[list[Any]], None]) -> None:
    """Each kind of difference is told: a comparison that finds nothing proves nothing."""
    answers = recorded_answers("prompt")
    change(answers)

    assert replay.compare(RECORDED["prompt"], answers) != []


def test_repeated_progress_is_no_difference() -> None:
    """How often progress and the queue's length are told is a matter of time."""
    answers = recorded_answers("prompt")
    messages = answers[2]["messages"]
    messages[:] = [
        copy.deepcopy(message)
        for message in messages
        for _ in range(1 + (message["type"] in replay.PROGRESS))
    ]

    assert replay.compare(RECORDED["prompt"], answers) == []
