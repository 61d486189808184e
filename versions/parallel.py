"""Work in several threads that ends as one: the first error, or a Ctrl-C, stops the rest."""

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from cvs.store import apart
from cvs.store.errors import CvsError, OfflineError

T = TypeVar("T")


class Stopped(CvsError):
    """Raised by work that was told to stop; what stopped it is reported in its place."""


def check(stop: threading.Event) -> None:
    """Raises Stopped if the work is to end: asked between two pieces of it."""
    if stop.is_set():
        raise Stopped("stopped")


def gather(jobs: Sequence[Callable[[], T]], *, workers: int, stop: threading.Event) -> list[T]:
    """Runs jobs in threads and returns their results in order.

    Args:
        stop: set when one fails, so that running ones can end soon; a job asks with `check`.

    Raises:
        OfflineError: every job that cannot do without a connection, in one sentence.
        Whatever else a job raised first.
    """
    return apart.run(lambda: _gather(jobs, workers, stop), stop.set)


def _gather(jobs: Sequence[Callable[[], T]], workers: int, stop: threading.Event) -> list[T]:
    def run(job: Callable[[], T]) -> T:
        check(stop)
        return job()

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            stopped = None
            for future in concurrent.futures.as_completed(futures):
                error = future.exception()
                if isinstance(error, Stopped):
                    # Some job set `stop` for an error of its own, and will raise that.
                    stopped = error
                elif error is not None and not isinstance(error, OfflineError):
                    raise error
            if stopped is not None:
                raise stopped
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    missing = [error for job in futures if isinstance(error := job.exception(), OfflineError)]
    if len(missing) == 1:
        raise missing[0]
    if missing:
        raise OfflineError(
            f"{len(missing)} things are missing and no connection may be made: "
            + "; ".join(error.message for error in missing),
            hint=next((error.hint for error in missing if error.hint), None),
        )
    return [future.result() for future in futures]
