"""Partial entries: found again by whoever goes on, never shared with whoever still writes."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from cvs.store import fs, history, partial, scratch
from cvs.store.copying import of
from cvs.store.entries import Store
from cvs.store.history import MARK
from cvs.store.partial import Partial
from cvs.store.spans import Spans
from cvs.store.stage import file_entry
from cvs.store.volume import Volume

KEY = partial.key("digest", "1")


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    return memory_volume


def never(_: float) -> bool:
    raise AssertionError("nobody else is at work")


def take(volume: Volume, key: str = KEY) -> Partial:
    held = partial.hold(volume, key, never)
    assert held is not None
    return held


def homes(volume: Volume) -> list[str]:
    return sorted(os.listdir(volume.partial))


def test_what_was_written_is_found_again(volume: Volume) -> None:
    with take(volume) as held, held.content() as file:
        file.is_version(100, '"1"')
        file.write(b"abc", 10)
        file.wrote(10, 13)
    with take(volume) as again, again.content() as file:
        found = file.history()
        assert os.pread(file.descriptor, 3, 10) == b"abc"

    assert again.home == held.home
    assert (found.size, found.validator, found.there) == (100, '"1"', Spans([(10, 13)]))


def test_other_keys_are_other_files(volume: Volume) -> None:
    with take(volume) as one, take(volume, partial.key("digest", "2")) as other:
        assert one.home != other.home


def test_what_is_published_leaves_nothing(volume: Volume) -> None:
    store = Store(volume)
    with take(volume) as held:
        with held.content() as file:
            file.write(b"abc", 0)
            file.finish()
        (entry,) = store.publish(file_entry(held, of(b"abc", True), origin="o", name="m"))

    assert Path(store.get(entry)).read_bytes() == b"abc"
    assert not homes(volume)


def test_a_process_that_ended_right_before_the_last_step_loses_nothing(volume: Volume) -> None:
    """The file has its last name and mode already, and a manifest lies beside it."""
    store = Store(volume)
    with take(volume) as held:
        with held.content() as file:
            file.write(b"GGUFabc", 0)
            file.wrote(0, 7)
            file.finish()
        store.settle(file_entry(held, of(b"GGUFabc", True), origin="o", name="m"))
    with take(volume) as again:
        with again.content() as file:
            assert file.history().there == Spans([(0, 7)])
            file.finish()
        (entry,) = store.publish(file_entry(again, of(b"GGUFabc", True), origin="o", name="m"))

    assert again.home == held.home
    assert store.get(entry).endswith("content.gguf")
    assert not store.verify(entry)
    assert not homes(volume)


def test_two_of_one_process_take_turns(volume: Volume) -> None:
    waits = threading.Event()

    def wait(_: float) -> bool:
        waits.set()
        return True

    found: list[Partial | None] = []
    with take(volume) as held:
        thread = threading.Thread(target=lambda: found.append(partial.hold(volume, KEY, wait)))
        thread.start()
        assert waits.wait(30)
        assert not found
    thread.join()
    (other,) = found

    assert other is not None and other.home == held.home
    os.close(other.descriptor)


def test_who_need_not_wait_any_longer_gets_nothing(volume: Volume) -> None:
    with take(volume):
        assert partial.hold(volume, KEY, lambda _: False) is None


def test_of_two_that_begin_at_once_one_goes_on(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither has seen the other when it makes its folder; the smaller name goes on."""
    names = iter(["b" * 32, "a" * 32])
    monkeypatch.setattr(fs, "unique", lambda: next(names))
    found: list[Partial | None] = []
    real = partial._make
    first: list[Partial] = []

    def make(*arguments: object) -> Partial:
        made = real(*arguments)  # type: ignore[arg-type]
        if not first:
            first.append(made)
            monkeypatch.setattr(fs, "unique", lambda: "a" * 32)
            found.append(real(volume, KEY, []))
        return made

    monkeypatch.setattr(partial, "_make", make)
    monkeypatch.setattr(scratch, "replace_file", lambda *_: None)
    waited = []
    assert partial.hold(volume, KEY, lambda _: bool(waited.append(1))) is None

    (other,) = found
    assert waited and other is not None
    assert homes(volume) == [os.path.basename(other.home)]
    os.close(other.descriptor)


@pytest.fixture
def network(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Iterator[Volume]:
    """A volume that other hosts use, too."""
    monkeypatch.setattr(Volume, "syncs_at_once", property(lambda _: False))
    return volume


DATA = os.urandom(MARK + 1000)


def leave(volume: Volume) -> Partial:
    """What another host has fetched."""
    with take(volume) as held, held.content() as file:
        file.is_version(len(DATA), '"1"')
        file.write(DATA, 0)
        file.wrote(0, len(DATA))
        file.is_good(MARK, blake3(DATA[:MARK]).digest())
    Path(held.home, "boot").write_text("another")
    return held


def test_a_file_of_another_host_is_copied(network: Volume) -> None:
    """Whoever wrote it may wake up and write once more, when it has become an entry."""
    left = leave(network)
    with take(network) as held, held.content() as file:
        found = file.history()
        assert not os.path.samefile(file.path, os.path.join(left.folder, "content"))
        assert os.pread(file.descriptor, 2 * MARK, 0) == DATA[:MARK]

    assert held.home != left.home
    assert (found.size, found.validator, found.there) == (len(DATA), '"1"', Spans([(0, MARK)]))
    assert found.digests == {MARK: blake3(DATA[:MARK]).digest()}


def test_a_copy_is_made_once(network: Volume) -> None:
    leave(network)
    with take(network) as held, held.content() as file:
        file.write(b"new", MARK)
        file.wrote(MARK, MARK + 3)
    with take(network) as again, again.content() as file:
        assert file.history().there == Spans([(0, MARK + 3)])

    assert again.home == held.home


def test_what_was_copied_is_removed_with_the_rest(network: Volume) -> None:
    leave(network)
    store = Store(network)
    with take(network) as held:
        with held.content() as file:
            file.finish()
        store.publish(file_entry(held, of(DATA[:MARK], True), origin="", name=""))

    assert not homes(network)


def test_on_a_disk_of_this_host_a_file_from_before_a_restart_is_gone_on_with(
    volume: Volume,
) -> None:
    """Every process that could write into it is gone; what a power cut did is not known."""
    left = leave(volume)
    log = Path(left.home, "log")
    log.write_bytes(log.read_bytes().replace(b"era ", b"era 0"))
    with take(volume) as held, held.content() as file:
        found = file.history()

    assert held.home == left.home
    assert found.there == Spans([(0, MARK)])


def test_a_log_that_says_more_than_there_is_is_not_believed(volume: Volume) -> None:
    with take(volume) as held, held.content() as file:
        file.is_version(100, "")
        file.write(b"12345", 0)
        file.wrote(0, 50)
        assert file.history().there == Spans([(0, 5)])
        file.reset()
        assert not file.history().there.total()
        assert os.fstat(file.descriptor).st_size == 0
    assert not held.has_bytes()


def test_what_nobody_wants_any_more_is_swept(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with take(volume) as old:
        pass
    with take(volume, partial.key("new")) as new:
        for name in ["", *os.listdir(old.home)]:
            os.utime(os.path.join(old.home, name), (1, 1))
            os.utime(os.path.join(new.home, name), (1, 1))
        Path(volume.partial, "something else").mkdir()
        partial.sweep(volume)

    assert homes(volume) == sorted(["something else", os.path.basename(new.home)])


def test_a_line_that_was_cut_off_ends_no_other(volume: Volume) -> None:
    with take(volume) as held, held.content() as file:
        file.is_version(100, "")
        file.write(bytes(100), 0)
        file.wrote(0, 10)
    with open(os.path.join(held.home, "log"), "ab") as log:
        log.write(history.have_line(10, 99)[:-3])
    with take(volume) as again, again.content() as file:
        file.wrote(50, 60)
        assert file.history().there == Spans([(0, 10), (50, 60)])
