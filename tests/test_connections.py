"""One budget of connections for many files."""

import threading

from cvs.versions.connections import Connections


def test_every_file_gets_its_first_and_what_is_left() -> None:
    budget, stop = Connections(total=3), threading.Event()

    assert budget.first(stop)
    assert budget.another()
    assert budget.first(stop)
    assert not budget.another()
    budget.give()
    assert budget.another()


def test_who_waits_for_a_first_comes_before_who_wants_one_more() -> None:
    budget, stop = Connections(total=1), threading.Event()
    assert budget.first(stop)
    got = threading.Event()
    thread = threading.Thread(target=lambda: budget.first(stop) and got.set())
    thread.start()
    while not budget.crowded:
        pass

    assert not budget.another()
    budget.give()
    thread.join()
    assert got.is_set()
    assert not budget.crowded


def test_who_is_told_to_stop_waits_no_longer() -> None:
    budget, stop = Connections(total=1), threading.Event()
    assert budget.first(stop)
    stop.set()

    assert not budget.first(stop)


def test_a_number_for_each_is_no_less_for_all() -> None:
    budget, stop = Connections(each=20, total=2), threading.Event()

    assert all(budget.first(stop) for _ in range(20))
