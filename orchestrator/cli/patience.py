"""Runs that would take long are refused, unless the user says that they are meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.cli.terminal import Refusal, number

if TYPE_CHECKING:
    from orchestrator.scenario.run_settings import RunSettings

LONG_S = 300.0
"""From so many seconds on a simulation has to be meant."""
LONG_LIVE_S = 3600.0
"""The same of live runs: they take as long as their scenario says."""
MOSTLY = 0.9
_UNITS = (("years", 365 * 86400.0), ("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


def require_patience(runs: Iterable[RunSettings], replications: int, jobs: int, yes: bool) -> None:
    """Refusal with the estimate if simulating them takes long."""
    from orchestrator.scenario.effort import together

    runs = list(runs)
    total = together(runs, replications)
    takes_s = total.simulated_s / max(1, min(jobs, len(runs) * replications))
    if yes or takes_s <= LONG_S:
        return
    idle = total.idle_events / total.events
    what, instead = "", "a shorter duration_s takes less"
    if idle > MOSTLY:
        what = f", {idle:.0%} of them heartbeats and checks"
        instead = "a shorter duration_s or a longer policies.detection.heartbeat_s takes less"
    raise Refusal(
        f"this would process about {number(total.events / 1e6)} million events{what}, and take about "
        f"{roughly(takes_s)}: say --yes if that is meant; {instead}"
    )


def require_live_patience(runs: Iterable[RunSettings], replications: int, yes: bool) -> None:
    """The same of live runs, which follow each other."""
    from orchestrator.scenario.effort import together

    takes_s = together(runs, replications).live_s
    if not yes and takes_s > LONG_LIVE_S:
        raise Refusal(
            f"live runs take as long as their scenarios, about {roughly(takes_s)} together: say --yes if that is meant"
        )


def roughly(seconds: float) -> str:
    """To two digits, in the largest unit of which there is more than one and a half: `21 min`, `365 days`; no less than
    a tenth of a second."""
    name, unit = next(((name, unit) for name, unit in _UNITS if seconds >= 1.5 * unit), _UNITS[-1])
    amount = max(seconds, 0.1) / unit
    return f"{amount:,.0f} {name}" if amount >= 99.5 else f"{amount:.2g} {name}"
