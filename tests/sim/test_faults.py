"""What each kind of fault does in the modelled world, alone and on top of others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pytest

from orchestrator.results.tables import Tables
from orchestrator.scenario.schema import Scenario
from sim.world import World
from tests.sim.conftest import MakeScenario, assert_same_run, world_of

DELAY_S = 0.01
RPC_TIMEOUT_S = 2.0


class Played:
    """A run's tables as frames."""

    def __init__(self, scenario: Scenario) -> None:
        self.world: World = world_of(scenario)
        self.counters: Counter[str] = self.world.coordinator.counters
        self.tables: Tables = self.world.tables()
        self.tasks: pd.DataFrame = self.tables.tasks.to_pandas()
        self.attempts: pd.DataFrame = self.tables.attempts.to_pandas()
        self.events: pd.DataFrame = self.tables.events.to_pandas()

    def on(self, worker: str, *outcomes: str) -> pd.DataFrame:
        chosen = self.attempts[self.attempts.worker == worker]
        return chosen[chosen.outcome.isin(outcomes)] if outcomes else chosen

    def story(self, worker: str | None) -> list[str]:
        """Its events in words, such as `heal partition`."""
        events = [event for event in self.tables.events.to_pylist() if event["worker"] == worker]
        return [f"{event['kind']} {event['detail'] or ''}".rstrip() for event in events]

    def all_completed(self) -> bool:
        settled = self.attempts[self.attempts.settled]
        return set(self.tasks.state) == {"completed"} and settled.task.is_unique and len(settled) == len(self.tasks)


@pytest.fixture
def play(make: MakeScenario):
    """Thirty seconds of a task of 0.2 s every quarter of a second, for two workers in turn, with these faults."""

    def played(*faults: dict[str, Any], overrides: tuple[str, ...] = (), **tree: Any) -> Played:
        scenario = {
            "duration_s": 30,
            "drain_s": 60,
            "workload": {
                "arrivals": {"kind": "constant", "rate_per_s": 4},
                "service": {"kind": "constant", "value_s": 0.2},
            },
            "cluster": {"workers": 2, "capacity": 2},
            "network": {"delay": {"kind": "constant", "value_s": DELAY_S}, "rpc_timeout_s": RPC_TIMEOUT_S},
            "policies": {
                "routing": {"kind": "round_robin"},
                "detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 3.5},
            },
            "faults": list(faults),
        }
        return Played(make(*overrides, **{**scenario, **tree}))

    return played


# ---- the work


def test_the_tasks_of_a_slow_worker_take_so_much_longer(play):
    """At a quarter of the speed four times as long, and what is being executed meanwhile goes on at the new one."""
    run = play({"kind": "slow", "at_s": 10.37, "for_s": 10, "workers": ["w1"], "factor": 0.25})
    own = run.on("w1")
    within = own[(own.started_s > 10.37) & (own.started_s + own.ran_s < 20.37)]
    outside = own[(own.started_s + own.ran_s < 10.37) | (own.started_s > 20.37)]
    assert len(within) > 10
    assert within.ran_s.to_numpy() == pytest.approx(0.8)
    assert outside.ran_s.to_numpy() == pytest.approx(0.2)
    for at_s, factor in ((10.37, 4.0), (20.37, 0.25)):
        across = own[(own.started_s < at_s) & (own.started_s + own.ran_s > at_s)].iloc[0]
        before = at_s - across.started_s
        after = (0.2 - before) * 4 if factor == 4 else 0.2 - before / 4
        assert across.ran_s == pytest.approx(before + after)
    assert run.on("w2").ran_s.to_numpy() == pytest.approx(0.2)
    assert run.story("w1") == ["up registered", "slow", "heal slow"]


def test_a_hung_worker_beats_and_stays_alive(play):
    """Its tasks time out, and are done by the other one; what it is given later goes on when it does."""
    run = play(
        {"kind": "hang", "at_s": 10.1, "for_s": 10, "workers": ["w1"]},
        overrides=("policies.execution_timeout_s=1.5",),
    )
    timed_out = run.on("w1", "timed_out")
    assert len(timed_out) > 0
    assert (timed_out.given_up_s - timed_out.assigned_s).to_numpy() == pytest.approx(1.5)
    assert timed_out.assigned_s.between(9.8, 20.1).all()
    assert run.story("w1") == ["up registered", "hang", "heal hang"]
    assert run.all_completed()


def test_a_hang_without_a_timeout_is_a_pause_of_the_work(play):
    """What it executed takes as much longer as it hung."""
    run = play({"kind": "hang", "at_s": 10.37, "for_s": 5, "workers": ["w1"]})
    own = run.on("w1")
    injection = own[(own.started_s < 10.37) & (own.started_s + own.ran_s > 10.37)]
    assert injection.ran_s.item() == pytest.approx(5.2)
    assert run.all_completed()


def test_a_pause_in_a_slow_time_stops_the_rest_of_the_work(play):
    """2 s of a pause within a task at a tenth of the speed: 2 s for 0.2 s of work, and the 2 s of the pause."""
    run = play(
        {"kind": "slow", "at_s": 10, "for_s": 10, "workers": ["w1"], "factor": 0.1},
        {"kind": "pause", "at_s": 11, "for_s": 2, "workers": ["w1"]},
    )
    own = run.on("w1")
    injection = own[own.started_s.between(10, 11) & (own.started_s + own.ran_s > 11)]
    assert len(injection) > 0
    assert injection.ran_s.to_numpy() == pytest.approx(4.0)
    assert "dead detector" not in run.story("w1")


def test_a_slow_worker_that_crashes_comes_back_slow(play):
    """The host is slow, whichever process lives on it."""
    run = play(
        {"kind": "slow", "at_s": 5, "workers": ["w1"], "factor": 0.5},
        {"kind": "crash", "at_s": 10, "restart_after_s": 5, "workers": ["w1"]},
    )
    own = run.on("w1", "completed")
    assert own[own.started_s > 15].ran_s.to_numpy() == pytest.approx(0.4)
    assert own[own.started_s < 4.8].ran_s.to_numpy() == pytest.approx(0.2)
    assert run.all_completed()


# ---- the network


def test_a_worker_behind_a_partition_is_declared_dead_and_revived(play):
    """Dead after the detector's timeout, revived by the next heartbeat, its late result dropped."""
    run = play({"kind": "partition", "at_s": 10.37, "for_s": 8, "workers": ["w1"]})
    dead = run.events[run.events.kind == "dead"].time_s.item()
    assert 10.37 - 1 + 3.5 <= dead - DELAY_S <= 10.37 + 3.5
    revived = run.events[run.events.detail == "revived"].time_s.item()
    assert 18.37 < revived <= 18.37 + 1 + DELAY_S
    details = ["up registered", "partition", "dead detector", "heal partition", "up revived"]
    assert run.story("w1") == details
    # Its result was ready soon, and repeated until it passed: another attempt's was earlier.
    lost = run.on("w1", "worker_died")
    assert lost.started_s.item() < 10.37
    assert lost.ended_s.item() > 18.37
    assert not lost.settled.item()
    assert run.counters["late_results"] == 1
    assert run.all_completed()


def test_nothing_reaches_a_worker_behind_a_one_way_partition(play):
    """Calls fail after the timeout, and it beats on: quarantined for a while, never declared dead."""
    run = play({"kind": "partition", "at_s": 10.05, "for_s": 8, "workers": ["w1"], "direction": "to_workers"})
    failed = run.on("w1", "call_failed")
    assert len(failed) > 0
    assert (failed.given_up_s - failed.assigned_s).to_numpy() == pytest.approx(RPC_TIMEOUT_S)
    assert failed.started_s.isna().all()
    assert run.story("w1") == ["up registered", "partition", "heal partition"]
    assert run.all_completed()


def test_a_report_whose_acknowledgement_is_blocked_is_repeated(play):
    """It arrived and settled its task; the worker cannot know, and tells again every few seconds."""
    run = play({"kind": "partition", "at_s": 10.37, "for_s": 8, "workers": ["w1"], "direction": "to_workers"})
    own = run.on("w1", "completed")
    in_hand = own[(own.started_s < 10.37) & (own.ended_s > 10.37)]
    assert in_hand.ended_s.item() == pytest.approx(10.48)
    assert run.counters["late_results"] >= 3
    assert run.on("w1").task.value_counts().max() == 1


def test_an_assignment_whose_confirmation_is_blocked_is_executed_all_the_same(play):
    """For the coordinator a failed call; its result comes when the network heals, and is late."""
    run = play(
        {"kind": "partition", "at_s": 10.05, "for_s": 2.9, "workers": ["w1"], "direction": "to_coordinator"},
        overrides=("policies.detection.timeout_s=10",),
    )
    failed = run.on("w1", "call_failed")
    assert len(failed) > 0
    assert (failed.given_up_s - failed.assigned_s).to_numpy() == pytest.approx(RPC_TIMEOUT_S)
    assert (failed.started_s - failed.assigned_s).to_numpy() == pytest.approx(DELAY_S)
    assert (failed.ended_s > 12.95).all()
    assert run.counters["late_results"] >= len(failed)
    assert "dead detector" not in run.story("w1")
    assert run.all_completed()


def test_lost_messages_of_one_worker_are_noticed_as_the_contract_says(play):
    """All are lost for a while: each call fails after its timeout, reports are repeated, beats are simply missed."""
    run = play({"kind": "loss", "at_s": 10.05, "for_s": 6, "workers": ["w1"], "probability": 1.0})
    failed = run.on("w1", "call_failed")
    assert (failed.given_up_s - failed.assigned_s).to_numpy() == pytest.approx(RPC_TIMEOUT_S)
    assert failed.assigned_s.between(10.05, 16.05).all()
    assert "dead detector" in run.story("w1")
    assert "up revived" in run.story("w1")
    assert not len(run.on("w2", "call_failed", "worker_died"))
    assert run.all_completed()


def test_half_of_the_messages_lost_lose_no_task(play):
    """With prefetch, so that starts are lost too."""
    run = play(
        {"kind": "loss", "at_s": 5, "for_s": 15, "all": True, "probability": 0.5},
        overrides=("cluster.prefetch=2", "policies.detection.timeout_s=10", "network.rpc_timeout_s=0.5"),
    )
    assert len(run.attempts[run.attempts.outcome == "call_failed"]) > 5
    assert run.all_completed()


def test_messages_that_all_arrive_twice_change_nothing(play):
    """Copies that come beside their originals are known for what they are."""
    plain, doubled = play(), play({"kind": "duplicate", "every_s": 9, "for_s": 5, "all": True, "probability": 1.0})
    assert doubled.tables.tasks.equals(plain.tables.tasks)
    assert doubled.tables.attempts.equals(plain.tables.attempts)
    assert plain.counters["late_results"] == 0
    reported_s = doubled.attempts.started_s + doubled.attempts.ran_s
    assert doubled.counters["late_results"] == sum(reported_s.between(at_s, at_s + 5).sum() for at_s in (9, 18, 27))


def test_delayed_messages_take_so_much_longer(play):
    """0.3 s each way, for the messages of one worker sent in that time."""
    run = play({"kind": "delay", "at_s": 10.05, "for_s": 10, "workers": ["w1"], "delay": 0.3})
    own = run.on("w1")
    way_out = own.started_s - own.assigned_s
    slow = own.assigned_s.between(10.05, 20.05)
    assert way_out[slow].to_numpy() == pytest.approx(0.31)
    assert way_out[~slow].to_numpy() == pytest.approx(DELAY_S)
    way_back = own.ended_s - own.started_s - own.ran_s
    assert way_back[slow & (own.started_s + 0.2 < 20.05)].to_numpy() == pytest.approx(0.31)
    assert run.all_completed()


def test_an_answer_that_is_delayed_beyond_the_timeout_is_a_failed_call(play):
    """Although the assignment is executed."""
    run = play(
        {"kind": "delay", "at_s": 10.05, "for_s": 5, "workers": ["w1"], "delay": 2.5, "direction": "to_coordinator"},
        overrides=("policies.detection.timeout_s=20",),
    )
    failed = run.on("w1", "call_failed")
    assert (failed.given_up_s - failed.assigned_s).to_numpy() == pytest.approx(RPC_TIMEOUT_S)
    assert (failed.started_s - failed.assigned_s).to_numpy() == pytest.approx(DELAY_S)
    assert run.all_completed()


def test_a_worker_that_restarts_in_a_partition_is_back_when_it_heals(play):
    """Its registration is repeated until it passes; no heartbeat goes before."""
    run = play(
        {"kind": "partition", "at_s": 10, "for_s": 10, "workers": ["w1"]},
        {"kind": "crash", "at_s": 12, "restart_after_s": 2, "workers": ["w1"]},
    )
    details = ["up registered", "partition", "crash", "dead detector", "heal restart", "heal partition"]
    assert run.story("w1") == [*details, "up reregistered"]
    assert run.events[run.events.detail == "reregistered"].time_s.item() == pytest.approx(20, abs=RPC_TIMEOUT_S + 0.1)
    assert run.all_completed()


def test_a_paused_worker_in_a_partition_reports_when_both_are_over(play):
    """Its beats are heard again after the longer of the two."""
    run = play(
        {"kind": "pause", "at_s": 10.1, "for_s": 5, "workers": ["w1"]},
        {"kind": "partition", "at_s": 12, "for_s": 8, "workers": ["w1"]},
    )
    revived = run.events[run.events.detail == "revived"].time_s.item()
    assert 20 < revived <= 21 + DELAY_S
    assert run.all_completed()


def test_a_fault_more_shifts_no_other_fault(play):
    """The fates of one worker's messages are drawn for it alone."""
    loss = {"kind": "loss", "at_s": 5, "for_s": 20, "workers": ["w1"], "probability": 0.3, "direction": "to_workers"}
    more = {"kind": "duplicate", "at_s": 0.1, "workers": ["w2"], "probability": 0.5}
    assert play(loss).tables.attempts.equals(play(loss, more).tables.attempts)


# ---- processes


def test_a_rack_fails_at_once(play):
    """Every worker of the group, at the same moment; the others go on."""
    groups = [{"name": "near", "workers": 2}, {"name": "rack", "workers": 3}]
    run = play({"kind": "crash", "at_s": 10, "restart_after_s": 8, "group": "rack"}, cluster={"groups": groups})
    crashes = run.events[run.events.kind == "crash"]
    assert list(crashes.worker) == ["w3", "w4", "w5"]
    assert set(crashes.time_s) == {10.0}
    assert set(run.events[run.events.kind == "dead"].worker) == {"w3", "w4", "w5"}
    assert run.all_completed()


def test_a_drained_worker_leaves_and_one_that_joins_is_given_work(play):
    """Scaling out and in: the third is absent until it joins, the first gets nothing once it is told to leave."""
    run = play(
        {"kind": "join", "at_s": 10, "workers": ["w3"]},
        {"kind": "drain", "at_s": 20, "workers": ["w1"]},
        cluster={"workers": 3, "capacity": 2},
    )
    assert run.story("w3") == ["heal restart", "up registered"]
    assert run.on("w3").assigned_s.min() >= 10
    assert run.story("w1") == ["up registered", "drain", "left"]
    assert run.on("w1").assigned_s.max() <= 20 + DELAY_S
    assert set(run.attempts.outcome) <= {"completed", "rejected"}
    assert run.all_completed()


def test_workers_that_come_in_another_order_keep_their_names(play):
    """The coordinator counts them as they register; the tables name them as the scenario does."""
    run = play(
        {"kind": "join", "at_s": 10, "workers": ["w1"]},
        {"kind": "join", "at_s": 5, "workers": ["w2"]},
        cluster={
            "groups": [{"name": name, "workers": 1, "speed": speed} for name, speed in (("a", 4), ("b", 2), ("c", 1))]
        },
    )
    for worker, ran_s, since in (("w1", 0.05, 10), ("w2", 0.1, 5), ("w3", 0.2, 0)):
        assert run.on(worker).ran_s.to_numpy() == pytest.approx(ran_s)
        assert run.on(worker).assigned_s.min() >= since
    both = run.attempts.merge(run.tasks, on="task")
    assert (both.worker_x == both.worker_y).all()


def test_a_rolling_restart_loses_nothing(play):
    """Each in its turn leaves when it has finished, and a new process takes its place: nobody's attempt is lost."""
    run = play(
        {"kind": "restart", "at_s": 5, "all": True, "stagger_s": 6, "grace_s": 4},
        cluster={"workers": 4, "capacity": 2, "prefetch": 1},
    )
    for worker in ("w1", "w2", "w3", "w4"):
        assert run.story(worker) == ["up registered", "restart", "drain", "left", "heal restart", "up reregistered"]
    assert set(run.attempts.outcome) <= {"completed", "rejected"}
    assert run.all_completed()


def test_a_leave_does_not_overtake_what_was_handed_back(play):
    """However much messages vary: what had not begun is rejected, not lost with its worker."""
    run = play(
        {"kind": "restart", "every_s": 7, "all": True, "stagger_s": 1, "grace_s": 3},
        overrides=("network.delay={kind: exponential, mean_s: 0.1}", "workload.arrivals.rate_per_s=12"),
        cluster={"workers": 4, "capacity": 1, "prefetch": 3},
    )
    events = run.events.kind.value_counts()
    assert events["restart"] == events["drain"] == events["left"] > 8
    told_s = {name: own.time_s.to_numpy() for name, own in run.events[run.events.kind == "restart"].groupby("worker")}
    for worker in ("w1", "w2", "w3", "w4"):
        lost = run.on(worker, "worker_died", "call_failed")
        before = told_s[worker][:, None] - lost.assigned_s.to_numpy()
        assert not ((before > 0.5) & (before < 3)).any()  # those came after it had left
    assert (run.attempts.outcome == "rejected").sum() > 10
    assert run.all_completed()


def test_what_has_not_left_within_its_grace_is_killed(play):
    """With the work that it would not give up."""
    run = play(
        {"kind": "hang", "at_s": 9, "for_s": 8, "workers": ["w1"]},
        {"kind": "restart", "at_s": 10, "workers": ["w1"], "grace_s": 3},
    )
    assert run.story("w1") == [
        "up registered",
        "hang",
        "restart",
        "drain",
        "crash",
        "heal restart",
        "up reregistered",
        "heal hang",
    ]
    assert run.events[run.events.kind == "crash"].time_s.item() == 13
    assert len(run.on("w1", "worker_died")) > 0
    assert run.all_completed()


def test_a_leave_that_does_not_pass_is_repeated(play):
    """The process is there until its leave has passed."""
    run = play(
        {"kind": "partition", "at_s": 10, "for_s": 2, "workers": ["w1"]},
        {"kind": "drain", "at_s": 10.5, "workers": ["w1"]},
    )
    assert run.story("w1") == ["up registered", "partition", "heal partition", "drain", "left"]
    assert run.events[run.events.kind == "left"].time_s.item() < 12 + RPC_TIMEOUT_S + 3
    assert run.all_completed()


def test_the_run_waits_for_a_worker_that_will_come(play):
    """All are gone, one will join after the last arrival: what is left is its work."""
    run = play(
        {"kind": "crash", "at_s": 20, "all": True},
        {"kind": "join", "at_s": 40, "workers": ["w1"]},
    )
    assert run.tasks.settled_s.max() > 40
    assert run.all_completed()


def test_the_loser_of_a_hedge_frees_its_slot(play):
    """Hedged tasks of a slow worker are done elsewhere; it stops when it hears of that, and is given the next."""
    run = play(
        {"kind": "slow", "at_s": 10.05, "workers": ["w1"], "factor": 0.01},
        overrides=("policies.hedging={quantile: 0.9, budget: 1, min_samples: 10}",),
        cluster={"workers": 3, "capacity": 1},
    )
    lost = run.on("w1", "cancelled").dropna(subset=["ended_s"])
    assert len(lost) > 5
    assert (lost.ended_s - lost.given_up_s).to_numpy() == pytest.approx(2 * DELAY_S)
    following = run.on("w1").assigned_s.to_numpy()[:, None] >= lost.ended_s.to_numpy()
    assert following.any(axis=0).all()
    assert run.tasks.latency_s.max() < 1
    assert run.all_completed()


def test_the_loser_of_a_hedge_is_found_on_the_fused_path(make: MakeScenario):
    """Where every attempt is fused, the cancelled ones included."""
    scenario = make(
        duration_s=60,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": 12},
            "service": {"kind": "pareto", "mean_s": 0.3, "alpha": 1.5},
        },
        cluster={"groups": [{"name": "gray", "workers": 2, "speed": 0.2}, {"name": "well", "workers": 6}]},
        network={"delay": {"kind": "exponential", "mean_s": 0.02}},
        policies={"hedging": {"quantile": 0.9, "budget": 0.2, "min_samples": 20}},
    )
    fused, unfused = world_of(scenario), world_of(scenario, fuse=False)
    outcomes = assert_same_run(fused, unfused).attempts.column("outcome").to_pylist()
    assert outcomes.count("cancelled") > 10
    assert fused.env.processed < unfused.env.processed


# ---- the coordinator


def test_a_coordinator_that_slept_declares_nobody_dead(play):
    """Twenty seconds, five times the detector's patience: what came meanwhile is heard first."""
    run = play({"kind": "coordinator_pause", "at_s": 8.1, "for_s": 20})
    assert run.story(None) == ["coordinator_pause", "heal coordinator_pause"]
    assert run.story("w1") == run.story("w2") == ["up registered"]
    assert run.all_completed()


def test_what_arrives_at_a_coordinator_that_sleeps_waits_there(play):
    """Submissions are accepted, and results recorded, when it goes on; reports were repeated until then."""
    run = play({"kind": "coordinator_pause", "at_s": 10.1, "for_s": 5})
    meanwhile = run.tasks[run.tasks.arrival_s.between(10.1 - DELAY_S, 15.1 - DELAY_S)]
    assert len(meanwhile) == 20
    assert meanwhile.accepted_s.to_numpy() == pytest.approx(15.1)
    assert not run.attempts.assigned_s.between(10.1, 15.1, inclusive="left").any()
    injection = run.attempts[(run.attempts.assigned_s < 10.1) & (run.attempts.ended_s > 10.1)]
    assert len(injection) > 0
    assert injection.ended_s.to_numpy() == pytest.approx(15.1)
    assert run.counters["late_results"] >= len(injection)


def test_a_coordinator_with_a_cost_goes_on_where_it_stood(play):
    """Its queue waits as long as it sleeps, and is then served at its usual pace."""
    run = play({"kind": "coordinator_pause", "at_s": 10.1, "for_s": 5}, overrides=("coordinator.cost_s=0.01",))
    meanwhile = run.tasks[run.tasks.arrival_s.between(10.1, 15)]
    assert meanwhile.accepted_s.min() >= 15.1
    assert meanwhile.accepted_s.diff().dropna().min() >= 0.01 - 1e-9
    assert run.all_completed()


def test_an_assignment_reaches_no_other_process_than_the_one_it_was_sent_to(play):
    """It takes a second, and its worker is a new process by then: that one executes what it is given itself."""
    network = {"message_kinds": {"assign": {"kind": "constant", "value_s": 1.0}}, "rpc_timeout_s": RPC_TIMEOUT_S}
    workload = {
        "arrivals": {"kind": "constant", "rate_per_s": 1},  # the task comes after a second, and would be there at 2 s
        "service": {"kind": "constant", "value_s": 0.2},
        "tasks": 1,
    }
    crash = {"kind": "crash", "at_s": 1.4, "workers": ["w1"], "restart_after_s": 0.2}
    played = play(crash, network=network, workload=workload, cluster={"workers": 1, "capacity": 1})
    first, second = played.attempts.itertuples()
    assert (first.assigned_s, first.outcome, str(first.started_s)) == (1.0, "worker_died", "nan")
    assert (second.assigned_s, second.started_s, second.ran_s) == pytest.approx((1.6, 2.6, 0.2))
    assert played.all_completed()
