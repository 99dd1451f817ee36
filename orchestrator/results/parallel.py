"""Work in parallel processes that an interrupt ends at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SAFE_PATH = "PYTHONSAFEPATH"
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def unordered(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[Result]:
    """The function's results as they arrive, from `jobs` processes; with one job, from this process.

    Processes are spawned, not forked, because forking a parent that has threads can leave locks held in the child. They
    do not run the caller's script, which therefore needs no `if __name__ == "__main__"`; function and items come from
    modules.
    """
    jobs = min(jobs, len(items))
    if jobs <= 1:
        yield from map(function, items)
        return
    others = set(multiprocessing.active_children())
    with _safe_path():  # it starts a process too
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin_process, (list(sys.path),))
    try:
        with _no_interrupts(), _safe_path(), _no_script():
            futures = [pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM to the end of the block: amid a start, nobody would know of the process, or end it.

    Processes that start meanwhile never get them: their parent decides what is kept, and ends them.
    """
    came: list[int] = []
    former = {}
    if threading.current_thread() is threading.main_thread():  # others have no handlers
        former = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _INTERRUPTS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in former.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


@contextmanager
def _safe_path() -> Iterator[None]:
    """Processes that start meanwhile do not look for the standard library in the current directory first."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


@contextmanager
def _no_script() -> Iterator[None]:
    """Processes that start meanwhile do not run the main script again, as multiprocessing would have them do."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _begin_process(path: list[str]) -> None:
    """Take the parent's import path, so that the user's own policies are found, and end when the parent does."""
    sys.path[:] = path
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
