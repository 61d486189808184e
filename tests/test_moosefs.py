"""What the design relies upon, and what users have: a real MooseFS that two hosts have mounted."""

import errno
import functools
import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import modelmaker
import pytest
from faults import assert_whole, leftovers
from moosefs import MooseFS, unavailable
from promises import Promises
from world import Material, World

from cvs.profiles.generations import Profile
from cvs.profiles.state import link_target
from cvs.store.entries import Store
from cvs.store.errors import StoreError
from cvs.store.relink import Outcome
from cvs.store.volume import Volume
from cvs.versions import adoption
from cvs.versions.access import Access

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]
pytest_plugins = ["world_fixtures"]


@pytest.fixture(scope="module")
def moosefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooseFS]:
    """A MooseFS that two hosts have mounted."""
    if why := unavailable():
        pytest.skip(why)
    with MooseFS(tmp_path_factory.mktemp("moosefs")) as running:
        yield running


@pytest.fixture
def seen(moosefs: MooseFS, request: pytest.FixtureRequest) -> tuple[Volume, Volume]:
    """A prepared volume as the two hosts see it."""
    one, other = (Volume(str(mount / request.node.name)) for mount in moosefs.mounts)
    one.prepare()
    return one, other


def test_a_host_dies(
    moosefs: MooseFS, seen: tuple[Volume, Volume], tmp_path: Path, nightly: bool
) -> None:
    """A host dies while it writes: what it was told to be stored is there, seen by the other host
    at once and by itself after its start; nothing is half there, and work goes on."""
    here, there = seen
    chance = random.Random(0)
    with Promises(here, tmp_path) as made:
        for _ in range(30 if nightly else 2):
            process = made.start()
            for _ in range(chance.randrange(2, 12)):
                assert process.hear()
            process.last(chance.random() / 20)
            moosefs.crash(0)
            process.kill()
            made.keep(process)
            made.check(there)
            made.check()
            made.go_on()


def _read(link: str, started: Callable[[], object], orders: Connection) -> None:
    """Follows a link until it is told to stop, and says what it saw."""
    saw: set[str] = set()
    failures: list[str] = []
    started()
    count = 0
    while not orders.poll():
        count += 1
        try:
            saw.add(os.readlink(link))
            os.stat(os.path.join(link, "main.py"))
        except OSError as error:
            failures.append(str(error))
    orders.send((count, saw, failures))


def test_flipping(seen: tuple[Volume, Volume], nightly: bool) -> None:
    """While one host flips `current`, the other finds one generation or the other, always."""
    flipped, read = (Profile(volume, "demo") for volume in seen)
    for number in (1, 2):
        os.makedirs(flipped.view(number))
        Path(flipped.view(number), "main.py").write_bytes(b"")
        flipped.flip(number)
    context = multiprocessing.get_context("spawn")
    started = context.Barrier(2)
    ours, theirs = context.Pipe()
    reader = context.Process(target=_read, args=(read.current_link, started.wait, theirs))
    reader.start()
    started.wait()
    for turn in range(5000 if nightly else 300):
        assert flipped.flip(1 + turn % 2)
    ours.send("stop")
    count, saw, failures = ours.recv()
    reader.join()

    assert count > 100
    assert saw == {"1", "2"}
    assert failures == []


def test_realizing_on_two_hosts(
    seen: tuple[Volume, Volume], tmp_path: Path, the_material: Material, nightly: bool
) -> None:
    """Two hosts realize one update at once: both have it, from entries that are there once."""
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world", the_material)
    world.cache = Path(seen[0].root)
    world.environment["COMFY_CACHE_ROOT"] = str(world.cache)
    elsewhere = {
        "COMFY_CACHE_ROOT": seen[1].root,
        "COMFY_HOME": str(tmp_path / "ComfyUI"),
        "CVS_LOCAL_ROOT": str(tmp_path / "local"),
    }
    world.spec()
    world.realize()
    models = json.loads((world.versions / "demo.json").read_text())["models"]
    for number in range(10 if nightly else 1):
        other = world.folder / "sources" / f"other-{number}"
        other.write_bytes(os.urandom(100_000))
        models.append({"source": str(other), "target_path": f"vae/other-{number}"})
        world.spec(models=models)
        arguments = ["realize", "demo", *world.local]
        running = [world.start(*arguments), world.start(*arguments, **elsewhere)]
        for process in running:
            out, err = process.communicate()
            assert (process.returncode, err) == (0, ""), out

        current = {Profile(volume, "demo").current() for volume in seen}
        assert len(current) == 1
        for home in (world.home, tmp_path / "ComfyUI"):
            assert (home / "models/vae" / other.name).read_bytes() == other.read_bytes()
        for volume in seen:
            assert len(list(Store(volume).ids())) == 6 + number
            assert_whole(Store(volume))
            assert leftovers(volume) == []
            assert os.listdir(volume.leases) == []


def test_a_quota(moosefs: MooseFS, seen: tuple[Volume, Volume], tmp_path: Path) -> None:
    """A quota that is used up is an error and leaves nothing; what was stored before is whole, and
    what is smaller still finds room."""
    here, there = (Store(volume) for volume in seen)
    # A file is refused where 64 MiB, a chunk, would be too much.
    moosefs.run("mfssetquota", "-S", "100MiB", here.volume.root)
    try:
        stored = []
        big = tmp_path / "big"
        big.write_bytes(bytes(128 << 20))
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            here.add(str(big))
        assert leftovers(here.volume) == []
        assert list(here.ids()) == []
        for number in range(100):
            small = tmp_path / "small"
            small.write_bytes(number.to_bytes(4, "big") * (1 << 18))
            try:
                stored.append(here.add(str(small)))
            except OSError as error:
                assert error.errno == errno.EDQUOT
                break
        assert 5 < len(stored) < 90
        for store in (here, there):
            assert sorted(store.ids()) == sorted(stored)
            assert_whole(store)
            assert leftovers(store.volume) == []
    finally:
        moosefs.run("mfssetquota", "-S", "1GiB", here.volume.root)
    assert here.add(str(big)) in there.ids()


def _read_all(
    folder: str, wanted: dict[str, bytes], started: Callable[[], object], orders: Connection
) -> None:
    """Reads files until it is told to stop, and says what was not as it should be."""
    failures: list[str] = []
    started()
    count = 0
    while not orders.poll():
        for name, data in wanted.items():
            count += 1
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    if file.read() != data:
                        failures.append(f"{name} has other bytes")
            except OSError as error:
                failures.append(str(error))
    orders.send((count, failures))


def _adopt(store: Store, folder: str) -> list[Outcome]:
    found = adoption.find(store, folder).groups
    target = functools.partial(link_target, volume=store.volume)
    return adoption.adopt(store, found, Access(), copy=False, link_target=target)


def test_adopting_while_another_host_reads(seen: tuple[Volume, Volume], nightly: bool) -> None:
    """While one host makes links of models, the other reads the same bytes, always."""
    here, there = seen
    wanted = {
        f"{number}.safetensors": modelmaker.safetensors(b"%04d" % (number // 2) * 1000)
        for number in range(600 if nightly else 60)
    }
    for name, data in wanted.items():
        Path(here.models, name).write_bytes(data)
    context = multiprocessing.get_context("spawn")
    started = context.Barrier(2)
    ours, theirs = context.Pipe()
    arguments = (there.models, wanted, started.wait, theirs)
    reader = context.Process(target=_read_all, args=arguments)
    reader.start()
    started.wait()
    outcomes = _adopt(Store(here), here.models)
    ours.send("stop")
    count, failures = ours.recv()
    reader.join()

    assert {one.state for one in outcomes} == {"adopted", "duplicate"}
    assert all(path.is_symlink() for path in Path(there.models).iterdir())
    assert count > 100
    assert failures == []
    assert_whole(Store(there))


def test_adopting_without_room(moosefs: MooseFS, seen: tuple[Volume, Volume]) -> None:
    """A hard link is charged in full: without room for it a model stays, and it is said why."""
    here, _ = seen
    models = [Path(here.models, f"{number}.ckpt") for number in range(2)]
    for number, model in enumerate(models):
        model.write_bytes(bytes([number]) * (48 << 20))
    # What there is fits, and no further of this size.
    moosefs.run("mfssetquota", "-S", "130MiB", here.root)
    try:
        with pytest.raises(StoreError, match="hard link counts as much as the file") as caught:
            _adopt(Store(here), here.models)
        assert str(here.models) in caught.value.message
        assert leftovers(here) == []
        for number, model in enumerate(models):
            assert model.read_bytes() == bytes([number]) * (48 << 20)
    finally:
        moosefs.run("mfssetquota", "-S", "1GiB", here.root)
    assert all(one.entry for one in _adopt(Store(here), here.models))
    assert all(model.is_symlink() for model in models)
