"""Which submissions are refused when many tasks wait.

By thresholds for each priority, as in partial buffer sharing (Kroener, Hebuterne, Boyer, Gravey, "Priority Management in
ATM Switching Nodes", IEEE JSAC 1991): each priority leaves half of the remaining room to those above it. What was
accepted stays: nothing is taken back to make room for others.
"""

from __future__ import annotations

from orchestrator.core.model import Priority

SHARES = {Priority.LOW: 1 / 2, Priority.NORMAL: 3 / 4, Priority.HIGH: 7 / 8, Priority.URGENT: 1.0}
"""Of `max_waiting`: a task of that priority is refused while so many tasks wait."""


def room_for(max_waiting: int) -> tuple[float, ...]:
    """How many tasks may wait where one of each priority is accepted: so many or more, and it is refused."""
    return tuple(SHARES[priority] * max_waiting for priority in Priority)


def refusal(waiting: int, priority: int) -> str:
    wait = "task waits" if waiting == 1 else "tasks wait"
    return f"{waiting} {wait}: no more of {Priority(priority).name.lower()} priority are taken at present"
