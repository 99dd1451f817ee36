"""Which submissions are refused when many tasks wait, and what becomes of them: their clients submit them again.

They are refused by thresholds for each priority, as in partial buffer sharing (Kroener, Hebuterne, Boyer, Gravey,
"Priority Management in ATM Switching Nodes", IEEE JSAC 1991): each priority leaves half of the remaining room to those
above it. What was accepted stays: nothing is taken back to make room for others.
"""

from __future__ import annotations

from orchestrator.core.model import Priority

SHARES = {Priority.LOW: 1 / 2, Priority.NORMAL: 3 / 4, Priority.HIGH: 7 / 8, Priority.URGENT: 1.0}
"""Of `max_waiting`: a task of that priority is refused while so many tasks wait."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0


def room_for(max_waiting: int) -> tuple[float, ...]:
    """How many tasks may wait where one of each priority is accepted: so many or more, and it is refused."""
    return tuple(SHARES[priority] * max_waiting for priority in Priority)


def refusal(waiting: int, priority: int) -> str:
    wait = "task waits" if waiting == 1 else "tasks wait"
    return f"{waiting} {wait}: no more of {Priority(priority).name.lower()} priority are taken at present"


def pause_s(refusals: int, waited_s: float, give_up_after_s: float | None, chance: float) -> float | None:
    """Before a submission is made again that was refused so many times (at least 1), the first time `waited_s` ago.

    Exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", 2015); `chance` is uniform in
    [0, 1). None where it would come too late for a client that gives up so long after the first refusal.
    """
    pause = chance * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(refusals - 1, 1000))
    return None if give_up_after_s is not None and waited_s + pause > give_up_after_s else pause
