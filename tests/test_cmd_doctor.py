"""`cvs doctor`: the report and the exit code."""

import os

import pytest
from moosefs import MooseFS, unavailable
from world import World

pytest_plugins = ["world_fixtures"]


def test_report(realized: World) -> None:
    """A line for each finding, as text and as JSON; nothing is changed."""
    before = realized.listing(forgive=("cache/tmp",))
    text = realized.cvs("doctor")
    found = realized.cvs("doctor", "--json").json

    assert before == realized.listing(forgive=("cache/tmp",))
    assert (text.code, text.err) == (0, "")
    lines = [line for line in text.out.splitlines() if not line.startswith(" ")]
    states = [one["state"] for one in found["findings"]]
    assert [line.split()[0] for line in lines[:-1]] == states
    assert found["state"] == ("degraded" if "degraded" in states else "fine")
    expected = f"{states.count('degraded')} degraded" if "degraded" in states else "all is fine"
    assert lines[-1] == expected
    assert f"{realized.cache}, layout 1" in text.out


def test_broken(realized: World) -> None:
    """Something broken ends with 1, with what to do below it; it is no error of the command."""
    (realized.cache / "damaged" / ("a" * 64)).mkdir(parents=True)
    done = realized.cvs("doctor")

    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("broken "))
    assert "aaaaaaaaaaaaaaaa" in lines[at]
    assert lines[at + 1].strip().startswith("→ ")
    assert lines[-1].endswith("1 broken")
    found = realized.cvs("doctor", "--json")
    assert (found.code, found.json["state"]) == (1, "broken")


def test_before_the_first_realize(world: World) -> None:
    """A volume that does not exist yet is told, exit 0, and not made."""
    done = world.ok("doctor")

    assert f"{world.cache} is not set up yet" in done.out
    assert not world.cache.exists()


def test_newer_layout(realized: World) -> None:
    """A volume of a newer cvs is a finding like others, and is left alone."""
    (realized.cache / "format").write_text("cvs-layout 3\n")
    before = realized.listing()
    done = realized.cvs("doctor")

    assert (done.code, done.err) == (1, "")
    assert "has layout 3, this cvs knows up to 2" in done.out
    assert before == realized.listing()


@pytest.mark.nightly
def test_on_moosefs(realized: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a real network file system nothing is broken, and what is special there is said."""
    if why := unavailable():
        pytest.skip(why)
    with MooseFS(tmp_path_factory.mktemp("moosefs")) as moosefs:
        root = os.fspath(moosefs.mounts[0] / "cache")
        realized.ok("realize", "demo", *realized.local, COMFY_CACHE_ROOT=root)
        done = realized.cvs("doctor", COMFY_CACHE_ROOT=root)

    assert "broken" not in done.out
    assert (done.code, done.err) == (0, "")
    assert "taken for a network file system" in done.out
    assert "not what a quota leaves" in done.out or "does not say how much" in done.out
