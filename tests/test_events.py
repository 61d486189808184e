"""Progress as JSON lines on standard error."""

import json
from typing import Any

import pytest
from world import World

from cvs import counts
from cvs.events import Events

pytest_plugins = ["world_fixtures"]


def events(text: str) -> list[dict[str, Any]]:
    """The lines of standard error."""
    return [json.loads(line) for line in text.splitlines()]


def test_events(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each task begins and ends with an event, and has at most one a second meanwhile."""
    time = [0.0]
    monkeypatch.setattr(counts, "clock", lambda: time[0])
    board = Events()
    with board.task("fetching a", 100_000) as a, pytest.raises(ValueError, match="broken"):
        with board.task("storing b", 7, "items") as b:
            for _ in range(20):
                time[0] += 0.25
                a.advance(1000)
            b.advance(3)
            raise ValueError("broken")
    board.note("took\x1b it\nfrom there")
    board.warn("careful")

    out, err = capsys.readouterr()
    found = events(err)
    assert out == ""
    assert found[0] == {
        "event": "start",
        "id": 1,
        "task": "fetching a",
        "done": 0,
        "total": 100_000,
        "unit": "bytes",
    }
    progress = [one for one in found if one["event"] == "progress" and one["id"] == 1]
    assert [one["done"] for one in progress] == [4000, 8000, 12000, 16000, 20000]
    assert progress[-1]["rate"] == 4000
    assert progress[-1]["eta"] == 20.0
    ends = [one for one in found if one["event"] in ("done", "failed")]
    assert [(one["event"], one["task"], one["done"]) for one in ends] == [
        ("failed", "storing b", 3),
        ("done", "fetching a", 20000),
    ]
    assert (ends[1]["seconds"], ends[1]["rate"]) == (5.0, 4000)
    assert found[-2:] == [
        {"event": "note", "text": "took\x1b it\nfrom there"},
        {"event": "warning", "text": "careful"},
    ]


def test_a_total_where_several_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One event for all of them, at most once a second."""
    time = [0.0]
    monkeypatch.setattr(counts, "clock", lambda: time[0])
    board = Events()
    with board.task("a", 4000) as a, board.task("b", 6000) as b:
        for _ in range(8):
            time[0] += 0.5
            a.advance(250)
            b.advance(250)

    totals = [one for one in events(capsys.readouterr().err) if one["event"] == "total"]
    assert [one["done"] for one in totals] == [750, 1750, 2750, 3750]
    assert totals[-1]["total"] == 10_000
    assert totals[-1]["eta"] == pytest.approx(6.25, rel=0.2)


def test_a_command(world: World) -> None:
    """With --json standard output has the result alone, and all of standard error is events."""
    done = world.ok("realize", "demo", "--json", *world.local)

    assert done.json["version"] == "demo"
    found = events(done.err)
    assert {one["event"] for one in found} >= {"start", "done"}
    assert any("demo.safetensors" in one.get("task", "") for one in found)
    assert world.ok("realize", "demo", "--json", "--quiet", *world.local).err == ""
