"""Policies against failures, in a simulated cluster: what they are there for, and what they cost."""

from __future__ import annotations

import math

import pytest

import sim
from orchestrator.core.model import Task
from orchestrator.policies.settings import build_coordinator
from tests.core.recording import Recorder

LOGNORMAL = {"kind": "lognormal", "mean_s": 0.05, "cv": 0.5}


def cluster(make, *, workers=8, rate_per_s=100, duration_s=40, faults=(), **policies):
    return make(
        duration_s=duration_s,
        warmup_s=5,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": rate_per_s}, "service": LOGNORMAL},
        cluster={"workers": workers, "capacity": 2},
        network={"delay": {"kind": "exponential", "mean_s": 0.001}},
        policies={"routing": {"kind": "random"}, **policies},
        faults=list(faults),
    )


@pytest.mark.parametrize(("limit_s", "effective_s"), [(None, 4.0), (9.0, 4.0), (3.0, 3.0)])
def test_the_smaller_of_two_limits_on_execution_counts(make, limit_s, effective_s):
    """That of the two-level detector, and that of the policies."""
    detection = {"kind": "two_level", "start_to_close_s": 4}
    scenario = cluster(make, detection=detection, execution_timeout_s=limit_s)
    assert scenario.policies.attempt_timeout_s == effective_s
    core = build_coordinator(scenario.policies, Recorder())
    assert core._timeouts.limit_s(Task("t1", 0, 1, None, 0.0)) == effective_s


@pytest.mark.parametrize(("own_pause_s", "seconds"), [(None, math.inf), (0.25, 0.25)])
def test_the_guard_against_its_own_pauses_can_be_switched_off(make, own_pause_s, seconds):
    """Null means never."""
    scenario = cluster(make, detection={"kind": "timeout", "own_pause_s": own_pause_s})
    assert build_coordinator(scenario.policies, Recorder())._own_pause_s == seconds


def test_two_levels_see_work_that_is_stuck_behind_beats(make):
    """A worker hangs from 5 s on: with a timeout on silence alone its tasks wait for ever, with both none does."""
    fault = {"kind": "hang", "at_s": 5, "workers": ["w3"], "for_s": 30}
    settings = {"workers": 4, "rate_per_s": 20, "faults": [fault]}
    waits, ends = (
        sim.run(cluster(make, detection=detection, **settings)).summary["latency_s"]["max"]
        for detection in (
            {"kind": "timeout", "timeout_s": 6.5},
            {"kind": "two_level", "start_to_close_s": 2, "detector": {"kind": "timeout", "timeout_s": 6.5}},
        )
    )
    assert waits > 25
    assert ends < 6


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "timeout", "timeout_s": 3.5},
        {"kind": "phi_accrual"},
        {"kind": "chen", "alpha_s": 0.5},
        {"kind": "bertier"},
        {"kind": "two_level", "start_to_close_s": 1, "detector": {"kind": "phi_accrual"}},
    ],
    ids=lambda rule: rule["kind"],
)
def test_a_coordinator_that_slept_declares_nobody_dead_and_gives_nothing_up(make, rule):
    """20 s, with suspicion, an execution timeout, and every detector; afterwards a crash is found all the same."""
    faults = [
        {"kind": "coordinator_pause", "at_s": 15, "for_s": 20},
        {"kind": "crash", "at_s": 50, "workers": ["w2"]},
    ]
    detection = {"heartbeat_s": 1, "suspect_after": 0.9, "on_suspect": "hedge", **rule}
    run = sim.run(
        cluster(make, duration_s=60, rate_per_s=40, faults=faults, detection=detection, execution_timeout_s=3)
    )
    dead = run.events[run.events.kind == "dead"]
    during = dead[(dead.time_s > 15) & (dead.time_s < 40)]
    assert list(during.worker) == []
    assert list(run.attempts[run.attempts.given_up_s < 40].outcome.unique()) in ([], ["cancelled"])
    found = dead[(dead.worker == "w2") & (dead.time_s >= 50)]
    assert found.time_s.min() < 55


def test_hedging_halves_the_tail_of_a_gray_cluster(make):
    """One of sixteen workers at a tenth of its speed: p99 falls to less than a half, by hedges for under 5 %."""
    fault = {"kind": "slow", "at_s": 5, "workers": ["w3"], "factor": 0.1}

    def summary(hedging):
        run = sim.run(cluster(make, workers=16, rate_per_s=200, duration_s=60, faults=[fault], hedging=hedging))
        return run.summary

    plain, hedged = summary(None), summary({"budget": 0.05})
    assert hedged["latency_s"]["p99"] < plain["latency_s"]["p99"] / 2
    assert 0 < hedged["tasks"]["attempts"] - plain["tasks"]["attempts"] <= 0.05 * plain["tasks"]["attempts"]


def test_ejection_takes_the_gray_worker_out(make):
    """After the first look that can tell it is gone for 30 s, and nobody else ever is."""
    fault = {"kind": "slow", "at_s": 0.1, "workers": ["w3"], "factor": 0.1}
    run = sim.run(cluster(make, ejection={}, faults=[fault]))
    ejected = run.events[run.events.kind.isin(["ejected", "readmitted"])]
    assert list(zip(ejected.kind, ejected.worker, strict=True)) == [("ejected", "w3"), ("readmitted", "w3")]
    out, back = ejected.time_s
    assert out <= 10.1
    assert back == pytest.approx(out + 30)
    during = run.attempts[(run.attempts.assigned_s > out) & (run.attempts.assigned_s < back)]
    assert "w3" not in set(during.worker)
