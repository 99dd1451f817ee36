"""What an answer rests on, where a reader might take it for granted that it is otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.scenario.faults import Fault, Slow, WorkerFault
from orchestrator.scenario.loads import beyond_work, occupancy
from orchestrator.scenario.sections import Network
from orchestrator.scenario.workload import Closed

if TYPE_CHECKING:
    from orchestrator.analysis.contenders import Group
    from orchestrator.scenario.run_settings import RunSettings

MOST_NAMED = 2
"""Cells that are named beside a load that they share."""
GROWS = ": more than it can do, so that the queue grows"
ROUNDING = 1e-9
WORTH = 0.05
"""Of the slots' time: a smaller share beyond the work is not told."""
TAKES_AWAY = ("crash", "restart", "pause", "hang", "partition", "drain", "slow")
"""The faults that leave less of the cluster to work."""


def assumptions(groups: Sequence[Group]) -> list[str]:
    """What the answer rests on: messages and decisions that are free, and the load on what faults leave."""
    cells = [cell for group in groups for cell in group.cells]
    told = []
    simulated = all(run.summary["world"] == "sim" for cell in cells for run in cell.runs.values())
    networks = [cell.scenario.network for cell in cells]
    if simulated and all(_instant(network) for network in networks):
        told.append("messages take no time")
    if simulated and not any(cell.scenario.coordinator.cost_s for cell in cells):
        told.append("the coordinator decides at no cost")
    return told + _in_words({cell.title or cell.name: cell.scenario for cell in cells})


def loads_under_faults(scenarios: Mapping[str, RunSettings]) -> list[str]:
    """The load beside that on what is left while a planned fault lasts, of those that have faults, by their names."""
    return _in_words({name: one for name, one in scenarios.items() if any(_share(one, fault) for fault in one.faults)})


def _in_words(scenarios: Mapping[str, RunSettings]) -> list[str]:
    """Loads that differ in their number only are told together."""
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for name, scenario in scenarios.items():
        for before, share, after in _loads(scenario):
            found.setdefault((before, after), {})[name] = share
    told = []
    for (before, after), shares in found.items():
        names = list(shares)
        where = "" if len(names) == len(scenarios) else f"with {' and '.join(names[:MOST_NAMED])}{_more(names)}, "
        told.append(f"{where}{before}{_range(shares.values())}{after}")
    return told


def _range(shares: Iterable[float | None]) -> str:
    percents = dict.fromkeys(f"{100 * share:.0f}" for share in sorted(share for share in shares if share is not None))
    ends = list(percents)[:: max(len(percents) - 1, 1)]
    return f"{' to '.join(ends)} %" if ends else ""


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""


def _instant(network: Network) -> bool:
    kinds = ("submit", "assign", "result", "heartbeat")
    return not any(network.delay_of(kind).mean() for kind in kinds)


def _loads(scenario: RunSettings) -> Iterator[tuple[str, float | None, str]]:
    """The load while each planned fault lasts, on what is left of the cluster; without faults the load alone, where it
    is not the work alone, or more than there is. Each is a share, if there is one, and the words around it."""
    load, held = scenario.offered_load(), occupancy(scenario)
    if load is None or held is None:
        return
    told, more = f"the load is {100 * load:.0f} %, and ", abs(held - load) >= WORTH
    beyond = f" of the slots' time with {' and '.join(beyond_work(scenario))}"
    shares = [_share(scenario, fault) for fault in scenario.faults]
    if not any(shares) and not isinstance(scenario.workload.arrivals, Closed) and (more or held >= 1):
        yield told if more else "the load is ", held, f"{beyond if more else ''}{GROWS if held >= 1 else ''}"
    for fault, share in zip(scenario.faults, shares, strict=True):
        left = 1 - share
        if left <= 0:
            yield f"the fault leaves nothing that works ({fault})", None, ""
        elif left < 1:
            before = f"{told}{100 * held:.0f} %{beyond}, and " if more else told
            staggered = ", staggered" if isinstance(fault, WorkerFault) and fault.stagger_s else ""
            more_than_left = GROWS if held > left * (1 + ROUNDING) else ""
            yield before, held / left, f" of what the fault leaves ({fault}{staggered}){more_than_left}"


def _share(scenario: RunSettings, fault: Fault) -> float:
    """The share of all work that a planned fault takes away at once, at most."""
    if not isinstance(fault, WorkerFault) or fault.kind not in TAKES_AWAY:
        return 0.0
    if fault.mtbf_s is not None:
        return 0.0  # one worker at a time
    groups = scenario.cluster.groups
    speeds = [group.capacity * group.speed for group in groups for _ in range(group.workers)]
    names = scenario.worker_names()
    speed_of = dict(zip(names, speeds, strict=True))
    hit = [speed_of[name] for name in scenario.victims(fault)]
    at_once = _at_once(fault, fault.count or len(hit))
    if fault.count:
        taken = at_once * sum(hit) / len(hit)
    else:
        taken = max(sum(hit[first : first + at_once]) for first in range(len(hit) - at_once + 1))
    return taken / sum(speeds) * (1 - fault.factor if isinstance(fault, Slow) else 1.0)


def _at_once(fault: WorkerFault, victims: int) -> int:
    """How many of its victims it holds at the same time: the next is hit before the one before is back."""
    length = fault.length()
    if not fault.stagger_s or length is None:
        return victims
    return min(victims, max(1, math.ceil(length.mean() / fault.stagger_s * (1 - ROUNDING))))
