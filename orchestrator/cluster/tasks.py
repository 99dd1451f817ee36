"""The built-in kinds of work: an app like any other, whose tasks take a text and return one."""

from __future__ import annotations

import math
import re
import time

from orchestrator.cluster.app import App
from orchestrator.cluster.invalid import InvalidPayload

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")

app = App()


@app.task(text=True, max_attempts=None, background=True)
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


@app.task(text=True, max_attempts=None, background=True)
def sleep(payload: str) -> str:
    """Wait for so many seconds."""
    wanted_s = seconds(payload)
    if wanted_s:  # even no time at all costs a call to the system, which gives the processor away
        time.sleep(wanted_s)
    return ""


@app.task(text=True, max_attempts=None, background=True)
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


def named_kind(work: str, name: str) -> str:
    """The kind of the tasks that do this work and are alike under that name, for hedging: `sleep:chat`."""
    return f"{work}:{name}"
