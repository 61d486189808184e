"""Every operation is killed, refused or interrupted by the file system at any of its calls.

Whatever happens: no half entry lies under a valid name, every version that was in use still is, an
error is one sentence, and the next run succeeds without hand work, stores nothing again and leaves
no scrap. Each operation is tried on a local disk and as on a network volume.
"""

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from crash_operations import OPERATIONS
from crashing import NETWORK, Crashes, Operation, count_calls, go_wrong
from world import Material

pytest_plugins = ["world_fixtures"]
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

Record = Callable[[str, object], None]

KILLS = ("SIGKILL", "half SIGKILL")
ERRORS = (
    *("EIO", "ENOSPC", "EDQUOT", "EINTR", "EMFILE", "ENOENT"),
    *("after EIO", "after EEXIST", "after ENOENT"),
    *("half", "half ENOSPC", "half EDQUOT", "from ENOSPC", "from EDQUOT"),
)


class Amount(NamedTuple):
    """How many runs of an operation go wrong: in a usual run of the tests, and in a nightly one."""

    kills: tuple[int, int]
    errors: tuple[int, int]


#: Nightly these are all calls, but for those of which there are too many; fewer calls than now are
#: an operation that became cheaper.
AMOUNTS = {
    "first": Amount((6, 400), (20, 500)),
    "update": Amount((20, 400), (60, 1000)),
    "build": Amount((6, 250), (20, 800)),
    "install": Amount((6, 250), (20, 800)),
    "switch": Amount((8, 50), (40, 300)),
    "replace": Amount((6, 25), (30, 180)),
    "rollback": Amount((20, 150), (150, 1300)),
    "delete": Amount((20, 110), (80, 700)),
    "add small.gguf": Amount((10, 30), (60, 250)),
    "add large.gguf": Amount((10, 40), (60, 350)),
    "add folder": Amount((20, 220), (150, 1600)),
    "add folder --workers": Amount((20, 220), (80, 1200)),
    "add small.gguf --move": Amount((8, 20), (40, 130)),
    "add folder --move": Amount((20, 100), (80, 700)),
    "add folder --move, shared": Amount((10, 200), (40, 1200)),
    "adopt": Amount((20, 160), (60, 1000)),
    "fetch": Amount((20, 120), (60, 900)),
    "publish": Amount((20, 150), (120, 1200)),
    "repair": Amount((20, 180), (100, 1000)),
    "clone": Amount((12, 14), (40, 90)),
}

WORKERS = "add folder --workers"

EVERY = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda found: found.name)


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory, the_material: Material) -> Iterator[Crashes]:
    """A world in memory where the machine has one, for all tests of a process."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path_factory.mktemp("crashes")
    with (
        tempfile.TemporaryDirectory(dir=memory, prefix="cvs-test-") as folder,
        Crashes(Path(folder), the_material) as made,
    ):
        yield made


def let_go_wrong(
    crashes: Crashes, operation: Operation, faults: Sequence[str], amount: int
) -> None:
    """Lets so many runs go wrong, each at another call or in another way."""
    cases = [
        (fault, number, filesystem)
        for filesystem in ("", NETWORK)
        for calls in [count_calls(crashes, operation, filesystem)]
        for fault in faults
        for number in range(1, calls(fault) + 1)
    ]
    # Some of all kinds, and the same ones every time.
    random.Random(operation.name).shuffle(cases)
    met = 0
    for case in cases:
        if met < amount:
            met += go_wrong(crashes, operation, *case)
    assert met == amount, f"there are only {len(cases)}"


def test_amounts() -> None:
    """What is counted is as much as was meant, and every operation is tried."""
    assert [operation.name for operation in OPERATIONS] == list(AMOUNTS)
    for nightly, kills, errors in ((False, 200, 1000), (True, 2000, 10000)):
        assert sum(amount.kills[nightly] for amount in AMOUNTS.values()) >= kills
        assert sum(amount.errors[nightly] for amount in AMOUNTS.values()) >= errors


@EVERY
def test_killed(
    crashes: Crashes, operation: Operation, nightly: bool, record_property: Record
) -> None:
    """Killed before any call, or amid a write."""
    amount = AMOUNTS[operation.name].kills[nightly]
    let_go_wrong(crashes, operation, KILLS, amount)
    record_property("kills", amount)


@EVERY
def test_refused(
    crashes: Crashes, operation: Operation, nightly: bool, record_property: Record
) -> None:
    """An error at any call, or after it was done; a write that is short; space that is used up."""
    amount = AMOUNTS[operation.name].errors[nightly]
    let_go_wrong(crashes, operation, ERRORS, amount)
    record_property("errors", amount)


@EVERY
def test_interrupted(crashes: Crashes, operation: Operation, nightly: bool) -> None:
    """Ctrl-C at any call is one sentence and leaves nothing unfinished."""
    let_go_wrong(crashes, operation, ["SIGINT"], 14 if nightly else 5)


def test_a_process_of_several_is_killed(crashes: Crashes, nightly: bool) -> None:
    """A worker that is killed is an error; workers whose parent is killed end as well."""
    (operation,) = [one for one in OPERATIONS if one.name == WORKERS]
    let_go_wrong(crashes, operation, ["alone SIGKILL"], 200 if nightly else 12)
