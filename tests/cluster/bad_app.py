"""Tasks that behave badly, each in its own way, and good ones beside them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from orchestrator import App, Cancelled, Retry, current_task

app = App()
HOME = Path.cwd()
UMASK = os.umask(0o22)
os.umask(UMASK)


@app.task
def good(number: int) -> int:
    """It must not notice what the others do."""
    assert Path.cwd() == HOME, Path.cwd()
    assert threading.active_count() == 1, threading.enumerate()
    assert os.umask(0o22) == UMASK
    print("good", number)
    return number * number


@app.task
async def good_async(number: int) -> int:
    await asyncio.sleep(0.01)
    return number * number


@app.task
def raises() -> None:
    raise LookupError("nothing here")


@app.task
async def raises_async() -> None:
    raise LookupError("nothing here")


@app.task
def calls_exit() -> None:
    sys.exit(3)


@app.task
async def calls_exit_async() -> None:
    async def deeper() -> None:
        sys.exit(3)

    await asyncio.create_task(deeper())


@app.task(max_attempts=1)
def ends_the_process() -> None:
    os._exit(7)


@app.task(max_attempts=1)
async def ends_the_process_async() -> None:
    await asyncio.sleep(0)
    os._exit(7)


@app.task(max_attempts=1)
def segfaults() -> None:
    ctypes.string_at(0)


@app.task(max_attempts=1)
async def segfaults_async() -> None:
    await asyncio.sleep(0)
    ctypes.string_at(0)


@app.task(max_attempts=2)
def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def forks() -> int:
    """Both processes return from here."""
    os.fork()
    return 1


@app.task
def leaves_a_child() -> int:
    """Which would outlive it."""
    return subprocess.Popen(["sleep", "3600"]).pid


@app.task
def leaves_a_fork() -> int:
    child = os.fork()
    if not child:
        time.sleep(3600)
    return child


@app.task
def prints() -> str:
    for _ in range(1000):
        print("x" * 100_000)
    return "printed"


@app.task
def leaks() -> None:
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


@app.task
def returns_no_json() -> object:
    return object()


@app.task
def returns_another_type() -> int:
    result: Any = "seven"
    return result


@app.task
def returns_much() -> str:
    return "x" * 100_000_000


@app.task(execution_timeout_s=0.3, max_attempts=1)
def oversleeps() -> None:
    time.sleep(3600)


@app.task(execution_timeout_s=0.3, max_attempts=1)
async def oversleeps_async() -> None:
    await asyncio.sleep(3600)


@app.task(execution_timeout_s=0.3, max_attempts=1)
def ignores_its_end() -> None:
    while True:
        with contextlib.suppress(Cancelled):
            time.sleep(3600)


@app.task(execution_timeout_s=0.3, max_attempts=1)
async def ignores_its_end_async() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@app.task(execution_timeout_s=0.3, max_attempts=1)
async def blocks_the_loop() -> None:
    await asyncio.sleep(0)
    time.sleep(3600)


@app.task(max_attempts=1)
async def blocks_others() -> None:
    """It has no timeout."""
    await asyncio.sleep(0)
    time.sleep(3600)


@app.task
def closes_the_output() -> str:
    sys.stdout.close()
    return "closed"


@app.task
def leaves_an_alarm() -> str:
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    os.umask(0o777)
    return "set"


@app.task
def returns_what_is_no_number() -> list[float]:
    return [float("inf"), -float("inf")]


@app.task
async def stops_the_loop() -> str:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return "stopped"


@app.task
async def cancels_the_others() -> str:
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    return "cancelled"


@app.task
def changes_directory() -> str:
    os.chdir("/")
    return os.getcwd()


@app.task
def starts_threads() -> int:
    def end_the_process() -> None:
        time.sleep(0.5)
        os._exit(9)

    threading.Thread(target=end_the_process).start()
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return threading.active_count()


@app.task
async def leaves_tasks() -> int:
    async def end_the_process() -> None:
        await asyncio.sleep(0.3)
        os._exit(9)

    leaves_tasks.kept = asyncio.create_task(end_the_process())  # type: ignore[attr-defined]
    return 1


@app.task
def closes_everything() -> None:
    os.closerange(3, 1024)


@app.task
def raises_what_has_no_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Mute


@app.task
def recurses(depth: int = 0) -> int:
    return recurses.function(depth + 1)  # type: ignore[misc]


@app.task(max_attempts=3)
def wants_another_try() -> int:
    if current_task().attempt < 3:
        raise Retry("not yet", after_s=0.01)
    return current_task().attempt


@app.task(max_attempts=2)
def never_succeeds() -> None:
    raise Retry("not yet")


@app.task
def lives_until(path: str) -> None:
    """Says in a file when it is cancelled."""
    Path(path).write_text("begun")
    try:
        time.sleep(3600)
    finally:
        Path(path).write_text("cleaned up")


@app.task
def process() -> int:
    return os.getpid()
