"""Work in parallel processes that an interrupt ends at once."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def unordered(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[Result]:
    """The function's results as they arrive, from `jobs` processes; with one job, from this process.

    Processes are spawned, not forked, because forking a parent that has threads can leave locks held in the child.
    """
    jobs = min(jobs, len(items))
    if jobs <= 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin_process, (list(sys.path),))
    try:
        with _no_interrupts():
            futures = [pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block Ctrl-C for the duration of the block. Processes that start meanwhile inherit the mask and keep it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_process(path: list[str]) -> None:
    """Take the parent's import path, so that the user's own policies are found."""
    sys.path[:] = path
