"""`cvs --help` and its kin: what people see first."""

import os
import subprocess
import sys

import pytest
from world import World

from cvs.main import COMMANDS, VERSION

pytest_plugins = ["world_fixtures"]


def test_help(world: World) -> None:
    """The help names every command; without any argument it is shown too, as an error."""
    done = world.ok("--help")

    for name, text in COMMANDS.items():
        assert f"  {name:<12} {text}\n" in done.out
    assert (2, done.out, "") == world.cvs()
    assert done == world.ok("help") == world.ok("-h")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(world: World, name: str) -> None:
    """Every command has a description, its options and examples; nothing is made."""
    before = world.listing()
    done = world.ok(name, "--help")

    assert done.out.startswith(f"usage: cvs {name} ")
    assert f"examples:\n  cvs {name}" in done.out
    assert "--json" in done.out
    assert done == world.ok("help", name)
    assert before == world.listing()


def test_version(world: World) -> None:
    """The version, in both spellings."""
    assert (0, f"cvs {VERSION}\n", "") == world.cvs("--version") == world.cvs("-V")


def test_reader_that_has_seen_enough(realized: World) -> None:
    """A pipe that is closed early is no error."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cvs", "store", "ls"],
            env=realized.environment,
            cwd=realized.folder,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")
