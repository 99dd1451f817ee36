"""What an answer rests on, where a reader might take it for granted that it is otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.analysis.contenders import Group
from orchestrator.scenario.faults import Slow, WorkerFault
from orchestrator.scenario.run_settings import RunSettings
from orchestrator.scenario.sections import Network

MOST_NAMED = 2
"""Cells that are named beside a load that they share."""
TAKES_AWAY = ("crash", "pause", "hang", "partition", "drain", "slow")
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
    loads: dict[str, list[str]] = {}
    for cell in cells:
        for load in _load_left(cell.scenario):
            loads.setdefault(load, []).append(cell.title or cell.name)
    return told + [
        load if len(names) == len(cells) else f"with {' and '.join(names[:MOST_NAMED])}{_more(names)}, {load}"
        for load, names in loads.items()
    ]


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""


def _instant(network: Network) -> bool:
    kinds = ("submit", "assign", "result", "heartbeat")
    return not any(network.delay_of(kind).mean() for kind in kinds)


def _load_left(scenario: RunSettings) -> Iterator[str]:
    """The load while each planned fault lasts, on what is left of the cluster."""
    load = scenario.offered_load()
    if load is None:
        return
    for fault in scenario.faults:
        if not isinstance(fault, WorkerFault) or fault.mtbf_s is not None or fault.stagger_s:
            continue  # one worker at a time
        left = 1 - _share(scenario, fault)
        if left <= 0:
            yield f"the fault leaves nothing that works ({fault})"
        elif left < 1:
            grows = ": more than it can do, so that the queue grows" if load / left > 1 else ""
            share = f"{100 * load / left:.0f} % of what the fault leaves ({fault})"
            yield f"the load is {100 * load:.0f} %, and {share}{grows}"


def _share(scenario: RunSettings, fault: WorkerFault) -> float:
    """The share of all work that a fault takes away."""
    if fault.kind not in TAKES_AWAY:
        return 0.0
    groups = scenario.cluster.groups
    speeds = [group.capacity * group.speed for group in groups for _ in range(group.workers)]
    names = scenario.worker_names()
    hit = set(scenario.victims(fault))
    taken = sum(speed for name, speed in zip(names, speeds, strict=True) if name in hit)
    share = taken / sum(speeds) * (fault.count / len(hit) if fault.count else 1.0)
    return share * (1 - fault.factor if isinstance(fault, Slow) else 1.0)
