"""Random scenarios: from every seed a cluster, its work, its policies and its faults.

Every fault that is drawn ends, and afterwards there is time enough for every task to settle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, TypeVar, get_args

from orchestrator.policies.streams import python_random
from orchestrator.scenario.faults import FaultKind
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.workload import PRIORITIES

T = TypeVar("T")
Tree = dict[str, Any]

HEALED_S = 2_000.0
"""Seconds after the last arrival in which everything must settle: many times what the longest task takes."""


@dataclass(frozen=True)
class Options:
    """What a seed may draw: bounds (least, most) of the numbers, and the kinds of faults."""

    groups: tuple[int, int] = (1, 3)
    workers: tuple[int, int] = (2, 12)
    capacity: tuple[int, int] = (1, 4)
    speeds: tuple[float, ...] = (1.0, 1.0, 1.0, 0.5, 2.0)
    tasks: tuple[int, int] = (20, 200)
    duration_s: tuple[float, float] = (5.0, 40.0)
    load: tuple[float, float] = (0.2, 1.1)
    """The offered load of all slots, without faults."""
    closed: bool = True
    """Whether closed clients, which wait for their results, may be drawn."""
    network: bool = True
    """Whether messages may be delayed, lost and duplicated during the whole run."""
    faults: tuple[int, int] = (1, 8)
    kinds: tuple[FaultKind, ...] = get_args(FaultKind)
    always: tuple[FaultKind, ...] = ()
    """Kinds of faults that every scenario has, at fixed times."""
    drain_s: float = HEALED_S
    plain: bool = False
    """Tasks without limits, keys, kinds and refusals, and the plainest routing and queues only."""


DEFAULT = Options()


def live_options(seconds: float) -> Options:
    """Options for a live run that takes about so long, with at least a crash, a pause and a partition."""
    duration_s = _short(0.75 * seconds)
    return Options(
        groups=(1, 2),
        workers=(3, 6),
        tasks=(int(4 * seconds), int(12 * seconds)),
        duration_s=(duration_s, duration_s),
        load=(0.2, 0.7),
        closed=False,
        network=False,
        faults=(4, 8),
        always=("crash", "pause", "partition"),
        drain_s=max(60.0, seconds),
    )


def draw(seed: int, options: Options = DEFAULT, base: Scenario | None = None) -> Scenario:
    """The scenario of a seed. With `base`, that scenario with other faults and time for everything to settle."""

    def dice(what: str) -> Dice:
        return Dice(python_random(seed, 0, "chaos", what))

    if base is not None:
        tree = base.model_dump(exclude={"sweep", "faults"}) | {"replications": 1, "seed": seed}
        groups = {group.name: group.workers for group in base.cluster.groups}
        if base.coordinator.commit is None:  # it could not crash
            options = replace(options, kinds=tuple(kind for kind in options.kinds if kind != "coordinator_crash"))
        tree |= {"faults": _faults(dice("faults"), options, groups, base.duration_s)}
        tree["drain_s"] = max(base.drain_s or 0.0, options.drain_s)
        return Scenario.model_validate(tree)
    cluster = _cluster(dice("cluster"), options)
    duration_s = dice("duration").between(*options.duration_s)
    groups = {group["name"]: group["workers"] for group in cluster["groups"]}
    slots = sum(group["workers"] * group["capacity"] * group["speed"] for group in cluster["groups"])
    faults = _faults(dice("faults"), options, groups, duration_s)
    return Scenario.model_validate(
        {
            "name": f"chaos-{seed}",
            "seed": seed,
            "duration_s": duration_s,
            "drain_s": options.drain_s,
            "cluster": cluster,
            "workload": _workload(dice("workload"), options, slots, duration_s)
            | ({} if options.plain else _more_work(dice("more work"), groups, duration_s)),
            "coordinator": _coordinator(dice("coordinator"), options)
            | _store(dice("store"), faults)
            | {"max_waiting": dice("max waiting").maybe(0.0 if options.plain else 0.1, lambda: options.tasks[0])},
            "network": _network(dice("network"), options),
            "policies": _policies(dice("policies"), duration_s)
            | ({} if options.plain else _more_policies(dice("more policies"), duration_s)),
            "faults": faults,
        }
    )


class Dice:
    """Random choices. Numbers have three digits, so that a person can read the scenario."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self._rng.randrange(len(choices))]

    def some(self, choices: Sequence[T], most: int) -> list[T]:
        """One to `most` of the choices, in their order."""
        places = self._rng.sample(range(len(choices)), self._rng.randint(1, max(1, min(most, len(choices)))))
        return [choices[place] for place in sorted(places)]

    def whole(self, least: int, most: int) -> int:
        return self._rng.randint(least, most)

    def between(self, least: float, most: float) -> float:
        """Uniform, or uniform in the logarithm if the bounds differ by more than a factor of 5."""
        if least > 0 and most / least > 5:
            return _short(least * (most / least) ** self._rng.random())
        return _short(least + (most - least) * self._rng.random())

    def maybe(self, probability: float, value: Callable[[], T]) -> T | None:
        return value() if self.chance(probability) else None


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _cluster(dice: Dice, options: Options) -> Tree:
    total = dice.whole(*options.workers)
    count = min(total, dice.whole(*options.groups))
    cuts = sorted(dice.whole(0, total - count) for _ in range(count - 1))
    sizes = [high - low + 1 for low, high in zip([0, *cuts], [*cuts, total - count], strict=True)]
    return {
        "groups": [
            {
                "name": f"g{number}",
                "workers": size,
                "capacity": dice.whole(*options.capacity),
                "prefetch": dice.pick([0, 0, 0, 1, 4, "unlimited"]),
                "speed": dice.pick(options.speeds),
                "labels": {"zone": f"g{number}"},
            }
            for number, size in enumerate(sizes, 1)
        ],
        "overhead": dice.maybe(0.1, lambda: _seconds(dice, 0.01)) if options.network else None,
    }


def _workload(dice: Dice, options: Options, slots: float, duration_s: float) -> Tree:
    tasks = dice.whole(*options.tasks)
    rate_per_s = _short(tasks / duration_s)
    mean_s = min(dice.between(*options.load) * slots / rate_per_s, duration_s / 5)
    arrivals: Tree = dice.pick(
        [
            {"kind": "poisson", "rate_per_s": rate_per_s},
            {"kind": "poisson", "rate_per_s": rate_per_s},
            {"kind": "constant", "rate_per_s": rate_per_s},
            {
                "kind": "on_off",
                "rate_on_per_s": 2 * rate_per_s,
                "rate_off_per_s": 0.0,
                "mean_on_s": _short(duration_s / 8),
                "mean_off_s": _short(duration_s / 8),
            },
            {"kind": "closed", "clients": dice.whole(1, 20), "think": _seconds(dice, mean_s)},
        ][: None if options.closed else -1]
    )
    shares = {name: dice.between(0.05, 1.0) for name in dice.some(PRIORITIES, 4)}
    total = sum(shares.values())
    return {
        "arrivals": arrivals,
        "service": _seconds(dice, mean_s),
        "priorities": {name: share / total for name, share in shares.items()},
        "tasks": 2 * options.tasks[1],
        "resubmit": dice.maybe(0.2, lambda: _resubmit(dice, duration_s)),
    }


def _more_work(dice: Dice, groups: Mapping[str, int], duration_s: float) -> Tree:
    """Limits of tasks, their keys, and kinds of which some can run in one group alone."""
    limit_s = partial(dice.between, duration_s / 20, 2 * duration_s)
    kinds = {
        f"k{number}": {
            "share": 0.5,
            "requires": {"zone": dice.pick(list(groups))} if dice.chance(0.5) else {},
            "deadline_s": dice.maybe(0.2, limit_s),
        }
        for number in (1, 2)
    }
    return {
        "kinds": kinds if dice.chance(0.25) else {},
        "queue_timeout_s": dice.maybe(0.15, limit_s),
        "deadline_s": dice.maybe(0.15, limit_s),
        "affinity": dice.maybe(
            0.2,
            lambda: {
                "keys": dice.whole(1, 50),
                "zipf": dice.between(0.0, 2.0),
                "hit_factor": dice.between(0.1, 1.0),
                "remembers": dice.whole(1, 10),
            },
        ),
    }


def _more_policies(dice: Dice, duration_s: float) -> Tree:
    """In half of the scenarios other routing, queues and stealing than the plain ones."""
    routing: list[Tree] = [
        {"kind": "weighted"},
        {"kind": "join_idle_queue"},
        {"kind": "peak_ewma", "d": dice.whole(1, 3), "tau_s": dice.between(0.1, duration_s)},
        {"kind": "prequal", "pool": dice.whole(1, 16), "probes": dice.whole(1, 4), "hot_quantile": dice.between(0, 1)},
        {"kind": "consistent_hash", "virtual_nodes": dice.whole(1, 200), "bound": dice.between(0.0, 2.0)},
        {"kind": "rendezvous"},
    ]
    queues: list[Tree] = [
        {"kind": "aging", "tau_s": dice.between(0.1, duration_s)},
        {"kind": "weighted_fair"},
        {"kind": "edf"},
        {"kind": "sjf"},
    ]
    stealing: list[Tree] = [{"kind": "loaded"}, {"kind": "random", "tries": dice.whole(1, 3)}]
    drawn = {
        "routing": dice.maybe(0.4, lambda: dice.pick(routing)),
        "queue": dice.maybe(0.3, lambda: dice.pick(queues)),
        "stealing": dice.maybe(0.3, lambda: dice.pick(stealing)),
    }
    return {name: one for name, one in drawn.items() if one is not None}


def _resubmit(dice: Dice, duration_s: float) -> Tree:
    patience = {"after_s": dice.between(duration_s / 50, duration_s), "most": dice.whole(1, 3)}
    return patience | {"keys": dice.chance(0.5)}


def _seconds(dice: Dice, mean_s: float) -> Tree:
    mean_s = _short(mean_s)
    return dice.pick(
        [
            {"kind": "constant", "value_s": mean_s},
            {"kind": "uniform", "low_s": 0.0, "high_s": _short(2 * mean_s)},
            {"kind": "exponential", "mean_s": mean_s},
            {"kind": "lognormal", "mean_s": mean_s, "cv": dice.between(0.2, 2.0)},
            {"kind": "pareto", "mean_s": mean_s, "alpha": dice.between(1.5, 3.0)},
        ]
    )


def _coordinator(dice: Dice, options: Options) -> Tree:
    return {"cost_s": dice.between(1e-5, 1e-3)} if options.network and dice.chance(0.2) else {}


def _store(dice: Dice, faults: Sequence[Tree]) -> Tree:
    needed = any(fault["kind"] == "coordinator_crash" for fault in faults)
    return {"commit": _seconds(dice, dice.between(1e-4, 0.1))} if dice.chance(0.2) or needed else {}


def _network(dice: Dice, options: Options) -> Tree:
    network: Tree = {"rpc_timeout_s": dice.between(0.2, 2.0)}
    if options.network:
        if dice.chance(0.8):
            network["delay"] = _seconds(dice, dice.between(1e-4, 0.05))
        for name in ("loss", "duplicate"):
            if dice.chance(0.3):
                network[name] = dice.between(0.005, 0.1)
    return network


def _policies(dice: Dice, duration_s: float) -> Tree:
    limit_s = partial(dice.between, duration_s / 4, duration_s)
    on_return = dice.pick(["first_result", "first_result", "keep_original", "keep_replacement"])
    # If a returning worker's attempt is stopped, a hasty detector may move a long task for ever. Then the number of
    # tries must be limited, and there must be no hedges, because a hedge costs no try.
    restless = on_return == "keep_replacement"
    detection = _detection(dice, limit_s, hedges=not restless)
    timeout_s = dice.maybe(0.3, limit_s)
    # An attempt that times out is stopped: a task that takes longer than its limit never ends by itself.
    # Hedges of suspects would replace it for ever, if the detector is hasty: they cost no try either.
    hopeless = timeout_s is not None or detection["kind"] == "two_level"
    if hopeless:
        detection["on_suspect"] = "hold"
    return {
        "routing": dice.pick(
            [
                {"kind": "least_loaded"},
                {"kind": "random"},
                {"kind": "round_robin"},
                {"kind": "power_of_d", "d": dice.whole(1, 3)},
            ]
        ),
        "queue": dice.pick([{"kind": "priority"}, {"kind": "priority"}, {"kind": "fifo"}]),
        "detection": detection,
        "execution_timeout_s": timeout_s,
        "execution_check_every_s": dice.maybe(0.2, lambda: dice.between(0.1, 2.0)),
        "retry": _retry(dice, limited=restless or hopeless),
        "on_return": on_return,
        "hedging": dice.maybe(0.3, lambda: _hedging(dice)),
        "ejection": dice.maybe(0.3, lambda: _ejection(dice, duration_s)),
    }


def _detection(dice: Dice, limit_s: Callable[[], float], hedges: bool) -> Tree:
    beat_s = dice.between(0.3, 2.0)
    rules: list[Tree] = [
        {"kind": "timeout", "timeout_s": _short(beat_s * dice.between(1.2, 5.0))},
        {
            "kind": "phi_accrual",
            "threshold": dice.between(1.0, 12.0),
            "window": dice.whole(5, 100),
            "min_std_s": _short(beat_s * dice.between(0.05, 0.5)),
            "acceptable_pause_s": _short(beat_s * dice.between(0.0, 2.0)),
        },
        {"kind": "chen", "alpha_s": _short(beat_s * dice.between(0.1, 3.0)), "window": dice.whole(2, 50)},
        {
            "kind": "bertier",
            "gamma": dice.between(0.05, 0.5),
            "beta": dice.between(0.5, 2.0),
            "phi": dice.between(1.0, 6.0),
            "window": dice.whole(2, 100),
        },
    ]
    rule = dice.pick([*rules, None])
    if rule is None:
        rule = {"kind": "two_level", "detector": dice.pick(rules), "start_to_close_s": limit_s()}
    return {
        **rule,
        "heartbeat_s": beat_s,
        "check_every_s": dice.maybe(0.2, lambda: dice.between(0.2, 2.0)),
        "on_failed_call": dice.pick(["hold", "hold", "dead"]),
        "suspect_after": dice.maybe(0.4, lambda: dice.between(0.3, 0.9)),
        "on_suspect": dice.pick(["hold", "hedge"] if hedges else ["hold"]),
        "max_dead_share": dice.maybe(0.3, lambda: dice.between(0.1, 1.0)),
        "own_pause_s": dice.maybe(0.7, lambda: dice.between(0.1, 1.0)),
    }


def _hedging(dice: Dice) -> Tree:
    return {
        "quantile": dice.between(0.5, 0.99),
        "budget": dice.between(0.02, 0.5),
        "window": dice.whole(10, 200),
        "min_samples": dice.whole(5, 30),
    }


def _ejection(dice: Dice, duration_s: float) -> Tree:
    return {
        "interval_s": dice.between(duration_s / 20, duration_s / 4),
        "min_samples": dice.whole(1, 10),
        "factor": dice.between(1.2, 4.0),
        "consecutive_errors": dice.maybe(0.8, lambda: dice.whole(1, 5)),
        "base_s": dice.between(duration_s / 20, duration_s / 4),
        "max_share": dice.between(0.1, 1.0),
    }


def _retry(dice: Dice, limited: bool) -> Tree:
    backoff = dice.pick(
        [
            {"kind": "constant", "delay_s": 0.0},
            {"kind": "constant", "delay_s": 0.0},
            {"kind": "constant", "delay_s": dice.between(0.01, 2.0)},
            {"kind": "exponential", "base_s": dice.between(0.01, 1.0), "cap_s": dice.between(1.0, 5.0)},
        ]
    )
    return {
        "backoff": backoff,
        "max_attempts": dice.maybe(1.0 if limited else 0.4, lambda: dice.whole(1, 6)),
        "max_copies": dice.pick([1, 2, 2, 3]),
        "max_worker_kills": dice.maybe(0.7, lambda: dice.whole(1, 4)),
    }


# ---- faults


def _faults(dice: Dice, options: Options, groups: Mapping[str, int], duration_s: float) -> list[Tree]:
    """Faults that all end: those with fixed times and lengths before `duration_s`, others soon after it."""
    number = max(dice.whole(*options.faults), len(options.always))
    kinds = [*options.always, *(dice.pick(options.kinds) for _ in range(number - len(options.always)))]
    names = [f"w{number}" for number in range(1, sum(groups.values()) + 1)]
    certain = len(options.always)
    return [
        fault
        for place, kind in enumerate(kinds)
        for fault in _fault(dice, kind, groups, names, duration_s, place < certain)
    ]


def _fault(
    dice: Dice, kind: FaultKind, groups: Mapping[str, int], names: Sequence[str], duration_s: float, certain: bool
) -> Iterator[Tree]:
    length_s = partial(dice.between, duration_s / 100, duration_s / 4)
    if kind in ("drain", "join"):
        # A drained worker comes back by a join. A worker whose first fault is a join was absent before.
        workers = dice.some(names, len(names))
        at_s = dice.between(0.0, duration_s * 0.6)
        if kind == "drain":
            yield {"kind": "drain", "at_s": at_s, "workers": workers}
            at_s = _short(at_s + length_s())
        yield {"kind": "join", "at_s": at_s, "workers": workers}
        return
    fault: Tree = {"kind": kind, **_when(dice, duration_s, certain)}
    if kind not in ("coordinator_pause", "coordinator_crash"):
        fault |= _whom(dice, groups, names)
        if "mtbf_s" in fault:
            fault["together"] = dice.chance(0.3)
        elif dice.chance(0.3):
            fault["stagger_s"] = dice.between(0.0, duration_s / 10)
    fault |= _how(dice, kind)
    if kind == "restart":
        fault["grace_s"] = length_s()
    elif dice.chance(0.3):
        fault["mttr_s"] = _short(duration_s / 12)
    else:
        fault["restart_after_s" if kind in ("crash", "coordinator_crash") else "for_s"] = length_s()
    yield fault


def _when(dice: Dice, duration_s: float, certain: bool) -> Tree:
    at: Tree = {"at_s": dice.between(0.0, duration_s * 0.7)}
    often: Tree = {"every_s": dice.between(duration_s / 5, duration_s / 2)}
    sometimes: Tree = {"mtbf_s": dice.between(duration_s / 4, duration_s)}
    return at if certain else dice.pick([at, at, often, sometimes])


def _whom(dice: Dice, groups: Mapping[str, int], names: Sequence[str]) -> Tree:
    return dice.pick(
        [
            {"workers": dice.some(names, 3)},
            {"workers": dice.some(names, 3)},
            {"count": dice.whole(1, len(names))},
            {"group": dice.pick(list(groups))},
            {"all": True},
        ]
    )


def _how(dice: Dice, kind: FaultKind) -> Tree:
    """The parameters that only this kind has."""
    how: Tree = {}
    if kind in ("partition", "delay", "loss", "duplicate"):
        how["direction"] = dice.pick(["both", "to_workers", "to_coordinator"])
    if kind == "slow":
        how["factor"] = dice.between(0.05, 0.9)
    elif kind == "delay":
        how["delay"] = _seconds(dice, dice.between(0.01, 3.0))
    elif kind in ("loss", "duplicate"):
        how["probability"] = dice.between(0.1, 0.9)
    return how
