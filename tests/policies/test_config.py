"""Configurations: each builds its policy, comes back from its own dump, and refuses what makes no sense."""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.core.ports import Verdict
from orchestrator.policies import (
    BackoffConfig,
    DetectionConfig,
    EjectionConfig,
    HedgingConfig,
    QueueConfig,
    RetryConfig,
    RoutingConfig,
    StealingConfig,
    catalogue,
)
from orchestrator.policies.detection import CustomDetection, TimeoutConfig
from orchestrator.policies.queueing import Fifo
from orchestrator.policies.routing import LeastLoaded, Routing

HERE = __name__


class FirstFit(Routing):
    """A user's own routing: the first with room, by name."""

    def __init__(self, rng=None, *, backwards=False):
        super().__init__(rng or random.Random(0))
        self.backwards = backwards

    def choose(self, task):
        return sorted(self.roomy, key=lambda worker: worker.id, reverse=self.backwards)[0]


class Needy(FirstFit):
    """One that can't be made without a parameter."""

    def __init__(self, rng, needed):
        super().__init__(rng)
        self.needed = needed


class Patient:
    """A user's own detector."""

    def __init__(self, now, patience_s):
        self.now, self.patience_s = now, patience_s

    def heard(self, now):
        self.now = now

    def verdict(self, now):
        return Verdict.DEAD if now >= self.review_at() else Verdict.ALIVE

    def review_at(self):
        return self.now + self.patience_s


class NeverHedge:
    """A user's own hedging, that does nothing."""

    def began(self, kind, hedge): ...

    def finished(self, kind, seconds): ...

    def due_s(self, kind):
        return math.inf

    def may_begin(self):
        return False


class NeverEject:
    """A user's own ejection, that does nothing."""

    def ended(self, attempt, now): ...

    def review_at(self):
        return math.inf

    def review(self, workers, now):
        return ()


class Square:
    """A user's own backoff."""

    def __call__(self, tries):
        return float(tries**2)


class Lifo(list):
    """A user's own queue."""

    push = list.append


FAMILIES: dict[str, Any] = {
    "routing": RoutingConfig,
    "queue": QueueConfig,
    "detection": DetectionConfig,
    "hedging": HedgingConfig,
    "ejection": EjectionConfig,
    "stealing": StealingConfig,
    "backoff": BackoffConfig,
}
ROUTING: TypeAdapter[Any] = TypeAdapter(RoutingConfig)

GOOD = [
    ("routing", {"kind": "least_loaded"}),
    ("routing", {"kind": "random"}),
    ("routing", {"kind": "round_robin"}),
    ("routing", {"kind": "power_of_d", "d": 3}),
    ("routing", {"kind": "weighted"}),
    ("routing", {"kind": "join_idle_queue"}),
    ("routing", {"kind": "peak_ewma", "d": 3, "tau_s": 5}),
    ("routing", {"kind": "prequal", "pool": 8, "probes": 2, "hot_quantile": 0}),
    ("routing", {"kind": "consistent_hash", "virtual_nodes": 50, "bound": 0.5}),
    ("routing", {"kind": "rendezvous"}),
    ("routing", {"kind": f"{HERE}:FirstFit", "backwards": True}),
    ("queue", {"kind": "fifo"}),
    ("queue", {"kind": "priority"}),
    ("queue", {"kind": "aging", "tau_s": 5}),
    ("queue", {"kind": "weighted_fair", "weights": {"urgent": 10}}),
    ("queue", {"kind": "weighted_fair", "by": "kind", "weights": {"report": 3}}),
    ("queue", {"kind": "edf"}),
    ("queue", {"kind": "sjf"}),
    ("queue", {"kind": f"{HERE}:Lifo"}),
    (
        "detection",
        {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 2.5, "check_every_s": 2, "on_failed_call": "dead"},
    ),
    ("detection", {"kind": "phi_accrual", "threshold": 3, "window": 10}),
    ("detection", {"kind": "chen", "alpha_s": 0.5, "suspect_after": 0.5, "on_suspect": "hedge", "max_dead_share": 0.5}),
    ("detection", {"kind": "bertier", "gamma": 0.2, "own_pause_s": None}),
    ("detection", {"kind": "two_level", "start_to_close_s": 3}),
    ("detection", {"kind": "two_level", "start_to_close_s": 3, "detector": {"kind": "chen", "window": 5}}),
    (
        "detection",
        {"kind": "two_level", "start_to_close_s": 3, "detector": {"kind": f"{HERE}:Patient", "patience_s": 3}},
    ),
    ("detection", {"kind": f"{HERE}:Patient", "patience_s": 3, "heartbeat_s": 1.0}),
    ("hedging", {"kind": "quantile", "quantile": 0.9, "budget": 0.1}),
    ("hedging", {"kind": f"{HERE}:NeverHedge"}),
    ("ejection", {"kind": "outlier", "factor": 2, "consecutive_errors": None}),
    ("ejection", {"kind": f"{HERE}:NeverEject"}),
    ("stealing", {"kind": "loaded"}),
    ("stealing", {"kind": "random", "tries": 3}),
    ("backoff", {"kind": "constant", "delay_s": 1}),
    ("backoff", {"kind": "exponential", "base_s": 0.5}),
    ("backoff", {"kind": f"{HERE}:Square"}),
]


def build(family, config):
    if family == "queue":
        return config.build()()
    return config.build() if family == "detection" else config.build(random.Random(1))


@pytest.mark.parametrize(("family", "tree"), GOOD, ids=lambda value: value if isinstance(value, str) else value["kind"])
def test_a_configuration_survives_its_own_dump(family, tree):
    """What is saved with a run loads again as the same, and builds a policy."""
    adapter: TypeAdapter[Any] = TypeAdapter(FAMILIES[family])
    config = adapter.validate_python(tree)
    assert adapter.validate_python(config.model_dump()) == config
    assert adapter.validate_json(config.model_dump_json()) == config
    assert build(family, config) is not None


def test_the_catalogue_names_every_kind_once():
    """Every family with its kinds in the order of the schema, the user's own last."""
    names = {family: [config.__name__ for config in configs] for family, configs in catalogue().items()}
    assert names == {
        "routing": [
            "LeastLoadedConfig",
            "RandomConfig",
            "RoundRobinConfig",
            "PowerOfDConfig",
            "WeightedConfig",
            "JoinIdleQueueConfig",
            "PeakEwmaConfig",
            "PrequalConfig",
            "ConsistentHashConfig",
            "RendezvousConfig",
            "CustomRouting",
        ],
        "queue": [
            "FifoConfig",
            "PriorityConfig",
            "AgingConfig",
            "WeightedFairConfig",
            "EarliestDeadlineConfig",
            "ShortestFirstConfig",
            "CustomQueue",
        ],
        "detection": [
            "TimeoutConfig",
            "PhiAccrualConfig",
            "ChenConfig",
            "BertierConfig",
            "TwoLevelConfig",
            "CustomDetection",
        ],
        "hedging": ["QuantileHedging", "CustomHedging"],
        "ejection": ["OutlierEjection", "CustomEjection"],
        "stealing": ["LoadedVictimConfig", "RandomVictimConfig", "CustomStealing"],
        "backoff": ["ConstantBackoff", "ExponentialBackoff", "CustomBackoff"],
        "retry": ["RetryConfig"],
    }


@pytest.mark.parametrize(("family", "tree"), [
    ("routing", {"kind": "power_of_d", "d": 0}),
    ("routing", {"kind": "power_of_d", "d": 2.5}),
    ("routing", {"kind": "power_of_d", "d": "2"}),
    ("routing", {"kind": "random", "d": 2}),
    ("routing", {"kind": "peak_ewma", "tau_s": 0}),
    ("routing", {"kind": "prequal", "hot_quantile": 1.1}),
    ("routing", {"kind": "fastest"}),
    ("routing", {"kind": 3}),
    ("routing", "random"),
    ("queue", {"kind": "lifo"}),
    ("queue", {"kind": "aging", "tau_s": 0}),
    ("queue", {"kind": "weighted_fair", "weights": {"urgent": 0}}),
    ("queue", {"kind": "weighted_fair", "weights": {"reports": 1}}),
    ("detection", {"kind": "timeout", "timeout_s": 0}),
    ("detection", {"kind": "timeout", "timeout_s": math.inf}),
    ("detection", {"kind": "timeout", "timeout_s": math.nan}),
    ("detection", {"kind": "timeout", "on_failed_call": "shrug"}),
    ("detection", {"kind": "phi_accrual", "threshold": 301}),
    ("detection", {"kind": "phi_accrual", "window": 0}),
    ("detection", {"kind": "chen", "alpha_s": -1}),
    ("detection", {"kind": "bertier", "gamma": 0}),
    ("detection", {"kind": "two_level"}),
    ("detection", {"kind": "two_level", "start_to_close_s": 3, "detector": {"kind": "two_level"}}),
    ("detection", {"kind": "two_level", "start_to_close_s": 3, "detector": {"kind": "chen", "heartbeat_s": 1}}),
    ("detection", {"kind": "timeout", "suspect_after": 1}),
    ("detection", {"kind": "timeout", "suspect_after": 0}),
    ("detection", {"kind": "timeout", "on_suspect": "panic"}),
    ("detection", {"kind": "timeout", "max_dead_share": 1.5}),
    ("detection", {"kind": "timeout", "own_pause_s": 0}),
    ("detection", {"kind": f"{HERE}:Patient", "patience_s": 1, "heartbeat_s": -1}),
    ("hedging", {"kind": "quantile", "quantile": 1.0}),
    ("hedging", {"kind": "quantile", "budget": -0.1}),
    ("ejection", {"kind": "outlier", "factor": 1}),
    ("ejection", {"kind": "outlier", "interval_s": 0}),
    ("backoff", {"kind": "constant", "delay_s": -1}),
    ("backoff", {"kind": "exponential", "base_s": 0}),
])  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused(family, tree):
    """Unknown kinds and keys, wrong types, numbers out of range or not finite."""
    with pytest.raises(ValidationError):
        TypeAdapter[Any](FAMILIES[family]).validate_python(tree)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True])
def test_max_attempts_is_a_count(limit):
    """Or null."""
    with pytest.raises(ValidationError):
        RetryConfig(max_attempts=limit)


def test_configurations_are_frozen():
    """A scenario does not change while it runs."""
    with pytest.raises(ValidationError):
        TimeoutConfig().timeout_s = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(("family", "kind"), [("hedging", "quantile"), ("ejection", "outlier"), ("stealing", "loaded")])
def test_a_family_with_a_usual_kind_needs_no_name(family, kind):
    """The parameters alone say what is meant."""
    assert TypeAdapter[Any](FAMILIES[family]).validate_python({}).kind == kind


# ---- a policy of the user's own, by dotted path


def test_a_policy_by_dotted_path_gets_its_parameters_and_its_own_chance():
    """A parameter `rng` receives the stream; the other keys go to the constructor."""
    rng = random.Random(5)
    policy = ROUTING.validate_python({"kind": f"{HERE}:FirstFit", "backwards": True}).build(rng)
    assert (type(policy).__name__, policy.rng, policy.backwards) == ("FirstFit", rng, True)


def test_a_policy_of_the_house_can_be_named_by_path():
    """The dotted path reaches any class."""
    policy = ROUTING.validate_python({"kind": "orchestrator.policies.routing:LeastLoaded"}).build(random.Random(0))
    assert isinstance(policy, LeastLoaded)


def test_a_constructor_without_rng_gets_none():
    """Not every policy needs chance."""
    assert isinstance(
        TypeAdapter(QueueConfig).validate_python({"kind": "orchestrator.policies.queueing:Fifo"}).build()(), Fifo
    )


def test_a_detector_by_dotted_path_is_made_per_worker():
    """With the time of the first beat; the settings of the coordinator are not the detector's."""
    config = TypeAdapter(DetectionConfig).validate_python(
        {"kind": f"{HERE}:Patient", "patience_s": 3, "check_every_s": 2.0}
    )
    assert isinstance(config, CustomDetection)
    detector: Any = config.build()(7.0)
    assert (detector.now, detector.patience_s, config.check_every_s) == (7.0, 3, 2.0)


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"kind": "no.such.module:Thing"}, "cannot import no.such.module:Thing"),
        ({"kind": f"{HERE}:Missing"}, f"cannot import {HERE}:Missing"),
        ({"kind": f"{HERE}:FirstFit", "speed": 3}, "does not take these parameters: got an unexpected keyword"),
        ({"kind": f"{HERE}:Needy"}, "does not take these parameters: missing a required argument: 'needed'"),
        ({"kind": f"{HERE}:FirstFit", "rng": 3}, "does not take these parameters: .* multiple values"),
        ({"kind": f"{HERE}:HERE"}, "is a str, expected a class"),
    ],
)
def test_a_path_that_leads_nowhere_is_explained(tree, sentence):
    """When the configuration is read, not in the middle of a run."""
    with pytest.raises(ValidationError, match=sentence):
        ROUTING.validate_python(tree)


def test_a_module_that_breaks_on_import_is_explained(tmp_path, monkeypatch):
    """Whatever the user's module raises, the sentence names it."""
    (tmp_path / "broken_policy.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValidationError, match="cannot import broken_policy:Thing: ZeroDivisionError"):
        ROUTING.validate_python({"kind": "broken_policy:Thing"})
    assert "broken_policy" not in sys.modules
