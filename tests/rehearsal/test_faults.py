"""Every kind of fault on real processes. Each run is short, and proves its invariants: see `tests.rehearsal.runs`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from orchestrator.cluster import decision_record
from orchestrator.cluster.wire.proto import stream_pb2
from orchestrator.rehearsal.drive import beginning, common_multiple
from orchestrator.rehearsal.local_cluster import LocalCluster
from orchestrator.rehearsal.relay import FATES
from orchestrator.rehearsal.runs import hosts, warn
from orchestrator.results.runs import Run
from orchestrator.results.tables import event_rows
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import ScenarioError
from sim.world import World
from tests.rehearsal.runs import TIMEOUT_S, executed, scenario, story
from tests.rehearsal.test_runs import wait_until

RPC_TIMEOUT_S = 0.4


def network(**keys: Any) -> dict[str, Any]:
    return {"rpc_timeout_s": RPC_TIMEOUT_S} | keys


def moments(run: Run, worker: str | None, kind: str) -> list[float]:
    return [at_s for at_s, name, whom, _ in event_rows(run.tables.events) if name == kind and whom == worker]


def assert_all_completed(run: Run) -> None:
    counts = run.summary["tasks"]
    assert counts["completed"] == counts["submitted"] > 0


def stopped(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if child.status() == psutil.STATUS_STOPPED]


# ---- the network


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """For 1.6 seconds w1 is cut off, w2 hears nothing, w3 is not heard, and w4 is cut off, dies and returns."""
    cut = {"kind": "partition", "at_s": 0.6, "for_s": 1.6}
    faults = [
        {**cut, "workers": ["w1", "w4"]},
        {**cut, "workers": ["w2"], "direction": "to_workers"},
        {**cut, "workers": ["w3"], "direction": "to_coordinator"},
        {"kind": "crash", "at_s": 0.9, "workers": ["w4"], "restart_after_s": 0.4},
    ]
    folder = tmp_path_factory.mktemp("partitioned")
    return executed(folder, faults=faults, network=network(), duration_s=5, cluster={"workers": 6, "capacity": 2})


def test_a_partition_loses_nothing(partitioned: Run):
    """Calls fail, workers are declared dead, and every task is completed once."""
    assert_all_completed(partitioned)
    assert "call_failed" in set(partitioned.attempts["outcome"])


def test_a_worker_that_is_cut_off_is_declared_dead_and_comes_back(partitioned: Run):
    """The process lives on: its next heartbeat after the partition revives it."""
    assert story(partitioned, "w1") == ["up registered", "partition", "dead detector", "heal partition", "up revived"]
    (dead_s,) = moments(partitioned, "w1", "dead")
    assert dead_s - 0.6 < TIMEOUT_S + 0.1


def test_a_worker_that_is_not_heard_is_declared_dead_and_one_that_hears_nothing_is_not(partitioned: Run):
    """Heartbeats are all that counts, in the one direction in which they go."""
    assert "dead detector" in story(partitioned, "w3")
    assert story(partitioned, "w2") == ["up registered", "partition", "heal partition"]


def test_calls_to_a_worker_that_hears_nothing_fail(partitioned: Run):
    """Each after the timeout of a call; after the partition it works again."""
    attempts = partitioned.attempts[partitioned.attempts["worker"] == "w2"]
    failed = attempts[attempts["outcome"] == "call_failed"]
    assert len(failed) > 0
    assert (failed["assigned_s"] > 0.5).all()
    assert (failed["ended_s"] - failed["assigned_s"] >= RPC_TIMEOUT_S).all()
    assert (attempts[attempts["outcome"] == "completed"]["ended_s"] > 2.2).any()


def test_nobody_hears_of_a_death_behind_a_partition(partitioned: Run):
    """Its stream does not break, and the process that follows is registered when the partition is over."""
    told = story(partitioned, "w4")
    assert told[:5] == ["up registered", "partition", "crash", "heal restart", "dead detector"]
    assert told[5:] == ["heal partition", "up reregistered"]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All messages may be lost or come twice; some of w1 more, and those of w2 take long."""
    faults = [
        {"kind": "loss", "at_s": 0.2, "for_s": 1.5, "workers": ["w1"], "probability": 0.4, "direction": "to_workers"},
        {"kind": "duplicate", "at_s": 0.2, "for_s": 1.5, "workers": ["w1"], "probability": 0.5},
        {"kind": "delay", "at_s": 0.2, "for_s": 1.5, "workers": ["w2"], "delay": 0.1},
        {"kind": "crash", "at_s": 0.4, "workers": ["w3"], "restart_after_s": 0.6},
        {"kind": "drain", "at_s": 4.5, "workers": ["w3"]},  # a busy machine takes seconds to start a process
    ]
    folder = tmp_path_factory.mktemp("noisy")
    return executed(folder, faults=faults, network=network(loss=0.1, duplicate=0.1), duration_s=5)


def test_a_network_that_loses_and_repeats_settles_everything_once(noisy: Run):
    """Lost assignments are failed calls, and reports that come again are counted and dropped."""
    assert_all_completed(noisy)
    assert set(noisy.attempts["outcome"]) >= {"completed", "call_failed"}
    assert noisy.summary["tasks"]["late_results"] > 0


def test_messages_that_take_long_add_to_both_ways(noisy: Run):
    """A tenth of a second to the worker, and as much back."""
    attempts = noisy.attempts[noisy.attempts["outcome"] == "completed"]
    during = attempts[(attempts["worker"] == "w2") & (attempts["assigned_s"] > 0.3) & (attempts["assigned_s"] < 1.3)]
    assert len(during) > 0
    assert (during["ended_s"] - during["assigned_s"] - during["ran_s"]).min() >= 0.2


def test_what_is_repeated_in_the_end_arrives(noisy: Run):
    """A registration and a leave, whatever was lost before. Where the drain is lost, the leave may come before the next
    message that says it."""
    told = story(noisy, "w3")
    assert told[:2] == ["up registered", "crash"]
    ends = [change for change in told if change in ("up reregistered", "drain", "left")]
    assert ends in (["up reregistered", "drain", "left"], ["up reregistered", "left"])


def test_a_lost_report_is_no_failed_call(tmp_path: Path):
    """That its assignment arrived is an answer, and answers are not lost: only the report comes again."""
    faults = [{"kind": "loss", "at_s": 0.01, "all": True, "probability": 0.3, "direction": "to_coordinator"}]
    detection = {"kind": "timeout", "heartbeat_s": 0.2, "timeout_s": 30}
    finished = executed(tmp_path, faults=faults, network=network(), duration_s=1, policies={"detection": detection})
    assert_all_completed(finished)
    assert set(finished.attempts["outcome"]) == {"completed"}
    took_s = (finished.attempts["ended_s"] - finished.attempts["started_s"] - finished.attempts["ran_s"]).to_numpy()
    assert (took_s > RPC_TIMEOUT_S - 0.05).any(), "a report came again"


def test_every_part_of_a_message_has_its_fate():
    """Of both directions, so that a field that is new to the protocol is not forgotten here."""
    messages = (stream_pb2.FromWorker, stream_pb2.ToWorker)
    assert FATES.keys() == {name for message in messages for name in message.DESCRIPTOR.fields_by_name}


# ---- processes, and the work in them


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """For a second w1 works at a tenth of its speed and w2 not at all; w3 stands still while it is slow."""
    faults = [
        {"kind": "slow", "at_s": 0.5, "for_s": 1, "workers": ["w1"], "factor": 0.1},
        {"kind": "hang", "at_s": 0.5, "for_s": 1, "workers": ["w2"]},
        {"kind": "slow", "at_s": 0.5, "for_s": 1.2, "workers": ["w3"], "factor": 0.2},
        {"kind": "pause", "at_s": 0.8, "for_s": 0.5, "workers": ["w3"]},
    ]
    service = {"kind": "constant", "value_s": 0.05}
    workload = {"arrivals": {"kind": "constant", "rate_per_s": 60}, "service": service}
    folder = tmp_path_factory.mktemp("gray")
    # No call fails while w3 stands still, nor while this machine does.
    return executed(folder, faults=faults, network=network(rpc_timeout_s=10), workload=workload, duration_s=2)


def test_a_gray_failure_means_nobodys_death(gray: Run):
    """Heartbeats come as ever, and assignments are confirmed: nothing is taken away."""
    assert_all_completed(gray)
    assert story(gray, "w1") == ["up registered", "slow", "heal slow"]
    assert story(gray, "w2") == ["up registered", "hang", "heal hang"]
    assert set(gray.attempts["outcome"]) == {"completed"}


def test_work_on_a_bad_host_takes_its_time(gray: Run):
    """Ten times as long at a tenth of the speed, and as long as the host hangs."""
    started, ended = gray.attempts["started_s"], gray.attempts["ended_s"]
    for worker, least_s in (("w1", 0.5), ("w2", 0.05)):
        inside = gray.attempts[(gray.attempts["worker"] == worker) & (started > 0.52) & (started < 0.9)]
        assert (inside["ran_s"] >= least_s - 1e-3).all()
    assert not ((gray.attempts["worker"] == "w2") & (ended > 0.55) & (ended < 1.45)).any()


def test_time_in_which_a_process_stood_still_is_no_work(gray: Run):
    """A fifth of the speed, and half a second of nothing, before the host is well again."""
    mine = gray.attempts[gray.attempts["worker"] == "w3"]
    across = mine[(mine["started_s"] > 0.6) & (mine["started_s"] < 0.79)]
    assert (across["ran_s"] >= 0.25 + 0.5 - 0.03).all()


def test_a_coordinator_that_stood_still_declares_nobody_dead(tmp_path: Path):
    """Longer than its own timeouts: the silence was its own."""
    faults = [{"kind": "coordinator_pause", "at_s": 0.5, "for_s": TIMEOUT_S + 0.5}]
    finished = executed(tmp_path, faults=faults, network=network(), duration_s=2.5)
    assert_all_completed(finished)
    assert "dead" not in set(finished.events["kind"])
    told = [(kind, detail) for _, kind, worker, detail in event_rows(finished.tables.events) if worker is None]
    assert told == [("coordinator_pause", None), ("heal", "coordinator_pause")]
    assert "call_failed" not in set(finished.attempts["outcome"])


def test_workers_come_and_go(tmp_path: Path):
    """One leaves for good, one leaves and is back, one comes late, and two are replaced in turn, of which the second
    does not leave in time."""
    faults = [
        {"kind": "drain", "at_s": 0.4, "workers": ["w1", "w2"]},
        {"kind": "join", "at_s": 1.2, "workers": ["w2", "w3"]},
        {"kind": "restart", "at_s": 0.5, "workers": ["w4", "w5"], "stagger_s": 0.8, "grace_s": 0.7},
        {"kind": "hang", "at_s": 1.2, "workers": ["w5"], "for_s": 1.9},
    ]
    cluster = {"workers": 6, "capacity": 2}
    finished = executed(tmp_path, faults=faults, network=network(), cluster=cluster, duration_s=3.5)
    assert_all_completed(finished)
    assert story(finished, "w1") == ["up registered", "drain", "left"]
    assert story(finished, "w2") == ["up registered", "drain", "left", "heal restart", "up reregistered"]
    assert story(finished, "w3") == ["heal restart", "up registered"]
    left_in_time = ["restart", "drain", "left", "heal restart", "up reregistered"]
    assert story(finished, "w4") == ["up registered", *left_in_time]
    killed = ["hang", "restart", "drain", "crash", "heal restart", "up reregistered", "heal hang"]
    assert story(finished, "w5") == ["up registered", *killed]
    assert set(finished.attempts[finished.attempts["worker"] == "w1"]["outcome"]) == {"completed"}


def test_a_crash_is_detected_when_the_simulator_detects_it(tmp_path: Path):
    """Both worlds share the phases of all heartbeats and of the coordinator's own checks."""
    faults = [
        {"kind": "crash", "at_s": 0.7, "workers": ["w1", "w2", "w3"], "stagger_s": 0.33},
        {"kind": "crash", "at_s": 1.1, "workers": ["w5", "w6"], "stagger_s": 0.21, "restart_after_s": 1.9},
    ]
    detection = {"kind": "timeout", "heartbeat_s": 0.5, "timeout_s": 1.5}
    cluster = {"workers": 8, "capacity": 2}
    live = executed(tmp_path, faults=faults, policies={"detection": detection}, cluster=cluster, duration_s=3)
    world = World(live.scenario, draw_plan(live.scenario))
    world.run()
    simulated = Run({}, world.tables(), live.scenario)
    workers = ["w1", "w2", "w3", "w5", "w6"]
    late_s = np.array([moments(live, name, "dead") for name in workers]) - np.array(
        [moments(simulated, name, "dead") for name in workers]
    )
    assert np.median(np.abs(late_s)) < 0.02


# ---- before and after a run


def test_workers_of_different_speeds_differ_by_it(tmp_path: Path):
    """The fastest work at full speed, and the others against them."""
    groups = [
        {"name": "fast", "workers": 1, "capacity": 1, "speed": 2},
        {"name": "slow", "workers": 1, "capacity": 1, "speed": 0.5},
    ]
    service = {"kind": "constant", "value_s": 0.1}
    workload = {"arrivals": {"kind": "constant", "rate_per_s": 10}, "service": service}
    finished = executed(tmp_path, cluster={"groups": groups}, workload=workload, duration_s=0.8)
    ran_s = finished.attempts.groupby("worker", observed=True)["ran_s"].min()
    assert ran_s["w1"] == pytest.approx(0.05, abs=0.02)
    assert ran_s["w2"] >= 0.2


def test_only_those_whom_the_network_fails_have_a_relay(tmp_path: Path):
    """All of them where it fails everybody."""
    faults = [
        {"kind": "partition", "at_s": 1, "workers": ["w2"], "for_s": 1},
        {"kind": "pause", "at_s": 1, "workers": ["w3"], "for_s": 1},
    ]
    chosen = scenario(tmp_path, faults=faults)
    assert [host.names for host in hosts(chosen, draw_plan(chosen)) if host.relayed] == [("w2",)]
    chosen = scenario(tmp_path, faults=faults, network={"loss": 0.1})
    assert all(host.relayed for host in hosts(chosen, draw_plan(chosen)))


def test_relays_count_among_the_processes(tmp_path: Path):
    """They are refused with the workers where there would be too many."""
    with pytest.raises(ScenarioError, match=r"100,000 processes \(50,000 of workers and 50,000 for a bad network\)"):
        warn(scenario(tmp_path, cluster={"workers": 50_000}, live={"workers_per_process": 1}, network={"loss": 0.1}))


@pytest.mark.parametrize(
    ("rhythms", "common_s"),
    [([0.5], 0.5), ([0.5, 0.4], 2.0), ([2, 0.3], 2.0), ([0.3, 7, 0.2], 0.6), ([30.0, 2.0], 30.0)],
)
def test_rhythms_that_meet_soon_begin_together(rhythms: list[float], common_s: float):
    """What meets too late keeps a phase of its own."""
    assert common_multiple(rhythms) == pytest.approx(common_s)


def test_a_run_begins_with_the_rhythm_of_its_heartbeats(tmp_path: Path):
    """So that phases in the run are phases of the clock."""
    began = beginning(scenario(tmp_path), 1234.56)
    assert 1234.56 <= began < 1234.56 + 0.2
    assert began % 0.2 == pytest.approx(0, abs=1e-6) or began % 0.2 == pytest.approx(0.2, abs=1e-6)


def test_a_replaced_process_keeps_no_descriptor():
    """However many of them a run restarts."""
    with LocalCluster(1, executor="inline") as cluster:
        open_before: list[int] = []
        for _ in range(3):
            open_before.append(psutil.Process().num_fds())
            cluster.worker("w1").kill()
            cluster.start_worker("w1").ready()
        assert max(open_before[1:]) == open_before[1] == open_before[0]


def test_a_process_on_standby_waits_until_the_name_is_its_own():
    """It has loaded by then, and disturbs nobody before."""
    with LocalCluster(1, executor="inline") as cluster:
        before = cluster.worker("w1")
        standby = cluster.prepare_worker("w1")
        standby.loaded()
        assert before.status is None
        assert cluster.worker("w1") is before
        before.kill()
        cluster.begin_worker("w1", process=standby)
        assert standby.ready() == "ready"
        assert cluster.worker("w1") is standby


def test_a_process_on_standby_that_is_told_to_leave_has_nobody_to_part_from():
    """It ends as one that has left."""
    with LocalCluster(1, executor="inline") as cluster:
        standby = cluster.prepare_worker("w1")
        standby.loaded()
        standby.terminate()
        assert standby.wait(10) == 0
        assert cluster.worker("w1").status is None


def test_an_interrupt_ends_paused_processes_too(tmp_path: Path):
    """A coordinator and a worker that are stopped, and a relay: nothing is left, and the record is kept."""
    faults = [
        {"kind": "coordinator_pause", "at_s": 0.3, "for_s": 60},
        {"kind": "pause", "at_s": 0.2, "workers": ["w1"], "for_s": 60},
        {"kind": "partition", "at_s": 0.2, "workers": ["w2"], "for_s": 60},
    ]
    scenario(tmp_path, faults=faults, duration_s=60)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "orchestrator", "live", str(tmp_path / "small.yaml"), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: len(stopped(process.pid)) >= 2)
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(2)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, told
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    _, difference, _ = decision_record.replay(out / decision_record.NAME)
    assert difference is None, str(difference)
