"""The built-in kinds of work, and the subprocess that does them: this file is also run as a script, by its path.

It imports nothing but a few modules of the standard library, so that a subprocess is there in some ten milliseconds.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

DEFAULT = "prime"
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")

LISTENING = b"N"
"""A subprocess says that before anything else: None, as `marshal` writes it."""


class InvalidPayload(ValueError):
    """The payload means nothing to this kind of task."""


def prime(payload: str) -> str:
    """Trial division of a 64-bit decimal integer."""
    number = int(payload) if _INTEGER.fullmatch(payload) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise InvalidPayload(f"invalid payload: {payload[:80]!r} is not a decimal integer of 64 bits")
    factor = smallest_factor(number)
    is_prime = factor == number > 1
    return f"{number} is prime" if is_prime else f"{number} is not prime (smallest factor: {factor})"


def smallest_factor(number: int) -> int:
    """0 for every number below 2."""
    if number < 2:
        return 0
    if number % 2 == 0:
        return 2
    for factor in range(3, math.isqrt(number) + 1, 2):
        if number % factor == 0:
            return factor
    return number


def sleep(payload: str) -> str:
    """Wait for so many seconds."""
    time.sleep(seconds(payload))
    return ""


def spin(payload: str) -> str:
    """Keep a processor busy for so many seconds of its time."""
    end = time.thread_time() + seconds(payload)
    while time.thread_time() < end:
        pass
    return ""


def seconds(payload: str) -> float:
    try:
        value = float(payload)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InvalidPayload(f"invalid payload: {payload[:80]!r} is not a number of seconds")
    return value


def remembering(usual_s: float, hit_factor: float, most: int, key: str) -> str:
    """The payload of a `sleep` or `spin` that takes a share of its time at a worker that remembers the key, of which it
    remembers at most so many."""
    return f"{usual_s!r} {usual_s * hit_factor!r} {most} {key}"


KINDS: dict[str, Callable[[str], str]] = {"prime": prime, "sleep": sleep, "spin": spin}


def named_kind(work: str, name: str) -> str:
    """The kind of the tasks that do this work and are alike under that name, for hedging: `sleep:chat`."""
    return f"{work}:{name}"


def work_of(kind: str) -> str:
    """What tasks of a kind do: what stands before a colon and the name of the kind, if it has one."""
    return kind.partition(":")[0] or DEFAULT


def run(kind: str, payload: str) -> tuple[bool, str, str, float]:
    """Succeeded, result, error, seconds of execution."""
    begin = time.perf_counter()
    try:
        work = KINDS.get(work_of(kind))
        if work is None:
            return False, "", f"unknown kind of task: {kind[:80]!r}", 0.0
        return True, work(payload), "", time.perf_counter() - begin
    except InvalidPayload as error:
        return False, "", str(error), time.perf_counter() - begin
    except Exception as error:  # whatever goes wrong in a task is the task's outcome
        return False, "", f"{type(error).__name__}: {error}", time.perf_counter() - begin


def die_with(parent: int) -> None:
    """From now on this process is killed when its parent, of that id, ends in whatever way; at once if it has."""
    import ctypes
    import os
    import signal

    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _serve(descriptor: int, parent: int) -> None:
    """Take (kind, payload) from the socket, put back what `run` says, until its other end closes."""
    import marshal
    import signal
    import socket

    for number in (signal.SIGINT, signal.SIGTERM):  # they are the worker's to handle, and reach its whole group
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    connection = socket.socket(fileno=descriptor)
    requests = connection.makefile("rb")
    try:
        connection.sendall(LISTENING)
        while True:
            kind, payload = marshal.load(requests)
            connection.sendall(marshal.dumps(run(kind, payload)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody wants it any more


if __name__ == "__main__":
    import sys

    _serve(int(sys.argv[1]), int(sys.argv[2]))
