"""Small scenarios by the number, with every kind of fault, for claims that must hold whatever happens."""

from __future__ import annotations

from random import Random
from typing import Any

from orchestrator.scenario.schema import Scenario

DURATION_S = 30.0
KINDS = (
    *("crash", "restart", "pause", "slow", "hang", "partition", "delay", "loss", "duplicate"),
    *("coordinator_pause", "drain", "join"),
)


ROUTINGS = (
    *("least_loaded", "random", "round_robin", "power_of_d", "weighted", "join_idle_queue"),
    *("peak_ewma", "prequal", "consistent_hash", "rendezvous"),
)


def scenario(seed: int) -> Scenario:
    """A handful of workers under some load, slow messages, hasty detectors, and up to nine faults that overlap."""
    chance = Random(seed)
    workers, capacity = chance.randint(2, 7), chance.randint(1, 3)
    service_s = chance.choice([0.05, 0.3, 1.0])
    delay = {"kind": "exponential", "mean_s": chance.choice([0.002, 0.05, 0.3])}
    heartbeat_s = chance.choice([0.5, 1.0])
    tree: dict[str, Any] = {
        "name": "one of a family",
        "seed": seed,
        "duration_s": DURATION_S,
        "drain_s": 30,
        "workload": {
            "arrivals": {"kind": "poisson", "rate_per_s": chance.uniform(0.3, 1.1) * workers * capacity / service_s},
            "service": {"kind": "lognormal", "mean_s": service_s, "cv": 1},
            "priorities": {"low": 0.5, "high": 0.5},
            "tasks": 800,
        },
        "cluster": {
            "groups": [
                {"name": "first", "workers": workers, "capacity": capacity, "speed": chance.choice([0.5, 1, 2])},
                {"name": "rack", "workers": chance.randint(1, 3), "prefetch": chance.choice([0, 0, 2, "unlimited"])},
            ]
        },
        "coordinator": {"cost_s": chance.choice([0, 0, 0.002])},
        "network": {"delay": delay, "rpc_timeout_s": chance.choice([0.5, 2])},
        "policies": {
            "routing": {"kind": chance.choice(["least_loaded", "random", "round_robin", "power_of_d"])},
            "detection": {
                **_detector(chance, heartbeat_s),
                "heartbeat_s": heartbeat_s,
                "check_every_s": chance.choice([None, 0.5]),
                "on_failed_call": chance.choice(["hold", "dead"]),
                "suspect_after": chance.choice([None, 0.5]),
                "on_suspect": chance.choice(["hold", "hedge"]),
                "max_dead_share": chance.choice([None, 0.5]),
            },
            "execution_timeout_s": chance.choice([None, 2 * service_s, 10 * service_s]),
            "retry": {"max_attempts": chance.choice([None, 4])},
            "on_return": chance.choice(["first_result", "keep_original", "keep_replacement"]),
            "hedging": chance.choice([None, {"quantile": 0.7, "budget": 0.3, "min_samples": 20}]),
            "ejection": chance.choice([None, {"kind": "outlier"}]),
        },
        "faults": [fault(chance) for _ in range(chance.randint(2, 9))],
    }
    _choose_others(Random(f"{seed} others"), tree)
    return Scenario.model_validate(tree)


def _choose_others(chance: Random, tree: dict[str, Any]) -> None:
    """Half of the scenarios have policies, and keys, of chance of their own, so that the other half stays as it is."""
    if chance.random() < 0.5:
        return
    tree["policies"] |= {
        "routing": {"kind": chance.choice(ROUTINGS)},
        "queue": {"kind": chance.choice(["priority", "fifo", "aging", "weighted_fair", "edf", "sjf"])},
        "stealing": chance.choice([None, {"kind": "loaded"}, {"kind": "random", "tries": 2}]),
    }
    affinity = chance.choice([None, {"keys": 20}, {"keys": 20, "hit_factor": 0.5, "remembers": 5}])
    tree["workload"]["affinity"] = affinity


def _detector(chance: Random, heartbeat_s: float) -> dict[str, Any]:
    timeout = {"kind": "timeout", "timeout_s": heartbeat_s * chance.choice([1.1, 2.5])}
    other = {"kind": "two_level", "detector": timeout, "start_to_close_s": chance.choice([0.5, 3])}
    return chance.choice([timeout, timeout, {"kind": "phi_accrual", "threshold": 3}, other])


def fault(chance: Random) -> dict[str, Any]:
    kind = chance.choice(KINDS)
    tree: dict[str, Any] = {"kind": kind, **_when(chance)}
    if kind != "coordinator_pause":
        tree |= _whom(chance, tree)
    length: dict[str, Any] = chance.choice([{"for_s": chance.uniform(0.1, 8)}, {"mttr_s": 2}])
    if kind == "crash":
        tree |= chance.choice([{"restart_after_s": chance.choice([0, 0.05, 3])}, {"mttr_s": 2}, {}])
    elif kind == "restart":
        tree["grace_s"] = chance.choice([0, 0.3, 5])
    elif kind in ("pause", "coordinator_pause"):
        tree |= length
    elif kind not in ("drain", "join"):
        tree |= length if chance.random() < 0.9 else {}
    if kind in ("partition", "delay", "loss", "duplicate"):
        tree["direction"] = chance.choice(["both", "to_workers", "to_coordinator"])
    if kind in ("loss", "duplicate"):
        tree["probability"] = chance.choice([0.1, 0.5, 1.0])
    elif kind == "slow":
        tree["factor"] = chance.choice([0.1, 0.5, 1.0])
    elif kind == "delay":
        tree["delay"] = chance.choice(
            [0.2, {"kind": "exponential", "mean_s": 0.5}, {"kind": "uniform", "low_s": 0, "high_s": 4}]
        )
    return tree


def _when(chance: Random) -> dict[str, Any]:
    # Full seconds, too: what happens at one moment must have an order.
    at_s = chance.choice([chance.uniform(0, DURATION_S), float(chance.randint(1, int(DURATION_S)))])
    return chance.choice([{"at_s": at_s}, {"every_s": chance.uniform(4, 12)}, {"mtbf_s": chance.uniform(5, 20)}])


def _whom(chance: Random, when: dict[str, Any]) -> dict[str, Any]:
    whom: dict[str, Any] = chance.choice(
        [{"workers": ["w1"]}, {"workers": ["w2", "w1"]}, {"count": 2}, {"all": True}, {"group": "rack"}]
    )
    if "mtbf_s" in when:
        whom |= chance.choice([{}, {"together": True}])
    else:
        whom |= chance.choice([{}, {"stagger_s": 1.5}])
    return whom
