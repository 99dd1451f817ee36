"""Shrinking: find a small scenario that still breaks the same promise.

The faults come first. They are made explicit, one fault for each injection, and then reduced by ddmin (Zeller and
Hildebrandt, "Simplifying and isolating failure-inducing input", 2002). Then everything else is simplified: fewer
tasks, default policies, a network without impairments, fewer and simpler workers, round numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from orchestrator.scenario.plan import FaultAction, draw_plan
from orchestrator.scenario.schema import Scenario

Fails = Callable[[Scenario], bool]
Tree = dict[str, Any]

_TIMING = ("at_s", "every_s", "mtbf_s", "together", "stagger_s")
_AIM = ("workers", "count", "all", "group")
_LENGTH = ("for_s", "mttr_s", "restart_after_s", "grace_s")


def shrink(scenario: Scenario, fails: Fails, most: int = 400) -> Scenario:
    """A small scenario for which `fails` is still true, found with at most `most` calls of it.

    `fails` must be true for the given scenario.
    """
    search = _Search(scenario, fails, most)
    search.propose({"faults": []})
    search.propose({"faults": explicit(scenario)})
    any(search.propose(changes) for changes in _single_faults(search.tree))
    while search.left:
        before = search.tree
        search.fewer_faults()
        for simpler in (_tasks, _policies, _surroundings, _workload, _faults, _cluster, _times):
            search.exhaust(simpler)
        if search.tree == before:
            break
    return search.scenario


def explicit(scenario: Scenario) -> list[Tree]:
    """One fault for each injection of the scenario, with the time, the worker and the length that chance decided."""
    injections: list[tuple[FaultAction, float]] = []
    open_: dict[tuple[int, str | None], int] = {}
    for action in draw_plan(scenario).faults:
        key = action.index, action.worker
        if action.heals:
            place = open_.pop(key)
            begin, _ = injections[place]
            injections[place] = begin, action.time_s - begin.time_s
        else:
            open_[key] = len(injections)
            injections.append((action, math.inf))
    return [_explicit_fault(scenario, action, length_s) for action, length_s in injections]


def _explicit_fault(scenario: Scenario, action: FaultAction, length_s: float) -> Tree:
    fault = scenario.faults[action.index].model_dump()
    what = {key: value for key, value in fault.items() if key not in (*_TIMING, *_AIM, *_LENGTH)}
    whom = {} if action.worker is None else {"workers": [action.worker]}
    length = {_length_of(action.kind): length_s} if math.isfinite(length_s) else {}
    return {**what, "at_s": action.time_s, **whom, **length}


def _length_of(kind: str) -> str:
    return {"crash": "restart_after_s", "coordinator_crash": "restart_after_s", "restart": "grace_s"}.get(kind, "for_s")


class _Search:
    """The smallest failing scenario so far, as a tree."""

    def __init__(self, scenario: Scenario, fails: Fails, most: int) -> None:
        self.scenario = scenario
        self.tree = scenario.model_dump(exclude={"sweep"})
        self.left = most
        self._fails = fails
        self._seen: set[str] = set()

    def propose(self, changes: Tree) -> bool:
        """Adopt these values of top-level keys if the scenario is valid with them and still fails."""
        tree = {**self.tree, **copy.deepcopy(changes)}
        if tree == self.tree or not self.left:
            return False
        try:
            scenario = Scenario.model_validate(tree)
        except ValidationError:
            return False
        written = scenario.dump()
        if written in self._seen:
            return False
        self._seen.add(written)
        self.left -= 1
        if not self._fails(scenario):
            return False
        self.scenario, self.tree = scenario, scenario.model_dump(exclude={"sweep"})
        return True

    def exhaust(self, simpler: Callable[[Tree], Iterator[Tree]]) -> None:
        """Propose the simpler values, the boldest first; start again after each one that was adopted."""
        while any(self.propose(changes) for changes in simpler(copy.deepcopy(self.tree))):
            pass

    def fewer_faults(self) -> None:
        """Apply ddmin to the list of faults."""
        parts = 2
        while self.left and (faults := self.tree["faults"]):
            size = math.ceil(len(faults) / parts)
            without = (faults[:low] + faults[low + size :] for low in range(0, len(faults), size))
            if any(self.propose({"faults": rest}) for rest in without):
                parts = max(parts - 1, 2)
            elif size == 1:
                return
            else:
                parts = min(2 * parts, len(faults))


# ---- simpler values of top-level keys, the boldest change first


def _tasks(tree: Tree) -> Iterator[Tree]:
    workload = tree["workload"]
    most = workload["tasks"] or 10**6
    for count in _fewer(most):
        yield {"workload": {**workload, "tasks": count}}


def _fewer(most: int) -> Iterator[int]:
    """1, 2, 4, ..., then three quarters of `most`, then `most` - 1."""
    count = 1
    while count < most * 0.6:
        yield count
        count *= 2
    yield from (less for less in (3 * most // 4, most - 1) if 0 < less < most)


def _policies(tree: Tree) -> Iterator[Tree]:
    plain = Scenario.model_fields["policies"].get_default().model_dump()
    yield {"policies": plain}
    for key, value in plain.items():
        yield {"policies": {**tree["policies"], key: value}}
    for key in ("detection", "retry"):
        for name, value in plain[key].items():
            if name in tree["policies"][key]:
                yield {"policies": {**tree["policies"], key: {**tree["policies"][key], name: value}}}


def _surroundings(tree: Tree) -> Iterator[Tree]:
    network = Scenario.model_fields["network"].get_default().model_dump()
    yield {"network": network, "coordinator": {}}
    for coordinator in ({}, {"commit": {"kind": "constant", "value_s": 0.01}}):
        yield {"coordinator": coordinator}
    for key, value in network.items():
        yield {"network": {**tree["network"], key: value}}


def _workload(tree: Tree) -> Iterator[Tree]:
    workload = tree["workload"]
    yield {"workload": {**workload, "priorities": {"normal": 1.0}}}
    scenario = Scenario.model_validate(tree)
    mean_s = scenario.workload.service.mean() if scenario.workload.service else 1.0
    for value_s in (1.0, _rounded(mean_s, 1)):
        yield {"workload": {**workload, "service": {"kind": "constant", "value_s": value_s}}}
    arrivals = scenario.workload.arrivals
    expected = getattr(arrivals, "expected", lambda duration_s: duration_s)(scenario.duration_s)
    for rate in (1.0, _rounded(expected / scenario.duration_s, 1)):
        if rate:
            yield {"workload": {**workload, "arrivals": {"kind": "constant", "rate_per_s": rate}}}
    last_s = max((fault.get("at_s") or 0.0 for fault in tree["faults"]), default=0.0)
    for duration_s in (math.ceil(last_s) + 1.0, math.ceil(tree["duration_s"])):
        if duration_s < tree["duration_s"]:
            yield {"duration_s": float(duration_s), "warmup_s": 0.0}


def _cluster(tree: Tree) -> Iterator[Tree]:
    cluster = tree["cluster"]
    groups = cluster.get("groups") or [{key: cluster[key] for key in ("workers", "capacity", "prefetch", "speed")}]
    named = [int(name[1:]) for fault in tree["faults"] for name in fault.get("workers") or ()]
    for workers in sorted({max(named, default=1), max([2, *named]), sum(group["workers"] for group in groups)}):
        if len(groups) > 1 or workers < groups[0]["workers"]:
            for capacity, prefetch in ((1, 0), (groups[0]["capacity"], groups[0]["prefetch"])):
                yield {"cluster": {"workers": workers, "capacity": capacity, "prefetch": prefetch}}
    if len(groups) == 1:
        flat = {key: value for key, value in groups[0].items() if key != "name"}
        yield {"cluster": flat}
        for key, value in (("speed", 1.0), ("prefetch", 0), ("prefetch", 1), ("capacity", 1)):
            yield {"cluster": {**flat, key: value}}


def _single_faults(tree: Tree) -> Iterator[Tree]:
    """One plain fault instead of all faults, at the time and on the worker of one of the first two."""
    for fault in [fault for fault in tree["faults"] if "workers" in fault and "at_s" in fault][:2]:
        for plain in _PLAIN:
            yield {"faults": [plain | {key: fault[key] for key in ("at_s", "workers")}]}


_PLAIN: Sequence[Tree] = (
    {"kind": "crash", "restart_after_s": 10.0},
    {"kind": "pause", "for_s": 10.0},
    {"kind": "partition", "for_s": 10.0},
)


def _faults(tree: Tree) -> Iterator[Tree]:
    """The same faults with less chance in them."""
    for certain in (_certain, _constant):
        yield {"faults": [certain(fault) for fault in tree["faults"]]}
        for place, fault in enumerate(tree["faults"]):
            yield {"faults": [*tree["faults"][:place], certain(fault), *tree["faults"][place + 1 :]]}


def _certain(fault: Tree) -> Tree:
    return fault | {"probability": 1.0} if "probability" in fault else fault


def _constant(fault: Tree) -> Tree:
    return fault | {"delay": {"kind": "constant", "value_s": 1.0}} if "delay" in fault else fault


def _times(tree: Tree) -> Iterator[Tree]:
    """The same faults with rounder times."""
    for digits in (0, 1, 2, 3):
        yield {"faults": [_rounder(fault, digits) for fault in tree["faults"]]}
        for place, fault in enumerate(tree["faults"]):
            faults = [*tree["faults"]]
            faults[place] = _rounder(fault, digits)
            yield {"faults": faults}


def _rounder(fault: Tree, digits: int) -> Tree:
    rounder = dict(fault)
    for key in ("at_s", *_LENGTH):
        if isinstance(rounder.get(key), float):
            rounder[key] = round(rounder[key], digits)
        elif isinstance(rounder.get(key), dict) and "value_s" in rounder[key]:
            rounder[key] = round(rounder[key]["value_s"], digits)
    return rounder


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
