"""The modelled world: messages, faults, both paths, the end of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

import sim
from orchestrator.core.ports import PolicyError
from orchestrator.results.tables import FAULTS, Tables
from orchestrator.scenario.schema import Scenario
from sim.world import World
from tests.sim import family
from tests.sim.conftest import REPOSITORY, TRACE, MakeScenario, assert_same_run, world_of

MESSY: dict[str, Any] = {
    "duration_s": 60,
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_s": 60},
        "service": {"kind": "lognormal", "mean_s": 0.2, "cv": 1.5},
        "priorities": {"low": 0.3, "normal": 0.4, "high": 0.2, "urgent": 0.1},
    },
    "cluster": {
        "groups": [
            {"name": "slow", "workers": 6, "capacity": 2, "speed": 0.5},
            {"name": "fast", "workers": 4, "capacity": 3, "speed": 2},
        ],
        "overhead": {"kind": "exponential", "mean_s": 0.01},
    },
    "network": {
        "delay": {"kind": "exponential", "mean_s": 0.05},
        "message_kinds": {
            "assign": {"kind": "lognormal", "mean_s": 0.04, "cv": 1},
            "result": {"kind": "constant", "value_s": 0.06},
        },
    },
    "policies": {
        # Heartbeats that are often late: healthy workers are declared dead while they work, and revived.
        "detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 1.1, "check_every_s": 0.5},
        "execution_timeout_s": 1,
        "retry": {"max_attempts": 4},
    },
    "faults": [
        {"kind": "crash", "mtbf_s": 40, "all": True, "mttr_s": 5},
        {"kind": "pause", "mtbf_s": 30, "count": 5, "for_s": {"kind": "exponential", "mean_s": 2}},
    ],
}  # fmt: skip


def settled_once(tables: Tables) -> None:
    """Every task has one outcome, and at most one attempt that gave it."""
    tasks, attempts = tables.tasks.to_pandas(), tables.attempts.to_pandas()
    assert (tasks.state != "unfinished").all()
    assert attempts[attempts.settled].task.is_unique
    assert set(attempts.task) == set(tasks.task)
    counted = attempts.groupby("task").attempt.max()
    assert (counted == tasks.set_index("task").attempts).all()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("routing", ["least_loaded", "power_of_d", "round_robin", "random"])
def test_the_fused_path_changes_nothing(make: MakeScenario, routing: str, seed: int):
    """Task by task and attempt by attempt the same, amid crashes, pauses, timeouts and false positives."""
    scenario = make(f"policies.routing.kind={routing}", f"seed={seed}", **MESSY)
    fused, unfused = world_of(scenario), world_of(scenario, fuse=False)
    tables = assert_same_run(fused, unfused)
    assert fused.env.processed < unfused.env.processed
    outcomes = set(tables.attempts.column("outcome").to_pylist())
    assert {"completed", "timed_out", "worker_died", "call_failed", "cancelled"} <= outcomes


def test_the_fused_path_keeps_the_order_of_simultaneous_events(make: MakeScenario):
    """Everything on one grid of time: no delay, constant arrivals and service."""
    scenario = make(
        duration_s=50,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 4},
            "service": {"kind": "constant", "value_s": 0.5},
            "priorities": {"low": 0.5, "high": 0.5},
        },
        cluster={"workers": 2, "capacity": 1},
        policies={"detection": {"kind": "timeout", "heartbeat_s": 0.5, "timeout_s": 0.5}},
    )
    assert_same_run(world_of(scenario), world_of(scenario, fuse=False))


@pytest.mark.parametrize("network", [{"loss": 0.02}, {"duplicate": 0.03}, {"loss": 0.05, "duplicate": 0.05}])
def test_the_fused_path_changes_nothing_where_messages_are_lost_or_repeated(
    make: MakeScenario, network: dict[str, float]
):
    """An attempt whose own messages all arrive once is fused, whatever becomes of the others."""
    scenario = make(**{**MESSY, "network": {**MESSY["network"], **network}})
    fused, unfused = world_of(scenario), world_of(scenario, fuse=False)
    assert_same_run(fused, unfused)
    assert fused.env.processed < unfused.env.processed


@pytest.mark.parametrize("lossy", [False, True], ids=["", "lossy network"])
@pytest.mark.parametrize("seed", [*range(25), 195])
def test_the_fused_path_changes_nothing_amid_all_kinds_of_faults(seed: int, lossy: bool):
    """A family of small scenarios, with up to nine faults of any kind in each, that overlap. In the last one a worker
    is given a task before the answer to its registration arrives."""
    scenario = family.scenario(seed)
    if lossy:
        network = scenario.network.model_copy(update={"loss": 0.05, "duplicate": 0.05})
        scenario = scenario.model_copy(update={"network": network})
    assert_same_run(world_of(scenario), world_of(scenario, fuse=False))


def test_the_family_has_every_kind_of_fault():
    """And every way in which an attempt can end. Where a coordinator may crash, nothing is fused."""
    kinds: set[str] = set()
    outcomes: set[str] = set()
    for seed in range(30):
        tables = world_of(family.scenario(seed)).tables()
        kinds |= set(tables.events.column("kind").to_pylist())
        outcomes |= set(tables.attempts.column("outcome").to_pylist())
    assert kinds >= {*FAULTS, "up", "dead", "drain", "left"} - {"coordinator_crash"}
    assert outcomes >= {"completed", "timed_out", "worker_died", "rejected", "call_failed", "cancelled"}


@pytest.mark.parametrize("prefetch", [0, 3, "unlimited"])
@pytest.mark.parametrize("on_failed_call", ["hold", "dead"])
def test_loss_and_duplication_lose_and_settle_nothing_twice(make: MakeScenario, prefetch, on_failed_call: str):
    """A tenth of all messages lost and a tenth doubled, with crashes: every task is settled once."""
    scenario = make(
        f"policies.detection.on_failed_call={on_failed_call}",
        "policies.detection.timeout_s=4",
        **{
            **MESSY,
            "network": {"delay": {"kind": "exponential", "mean_s": 0.02}, "loss": 0.1, "duplicate": 0.1},
            "cluster": {"workers": 12, "capacity": 2, "prefetch": prefetch},
        },
    )
    world = world_of(scenario)
    settled_once(world.tables())
    assert world.coordinator.counters["late_results"] > 0


def test_closed_clients_survive_faults(make: MakeScenario):
    """Each client has one task out, whatever happens to it."""
    workload = {
        **MESSY["workload"],
        "arrivals": {"kind": "closed", "clients": 20, "think": {"kind": "exponential", "mean_s": 0.1}},
    }
    world = world_of(make(**{**MESSY, "workload": workload}))
    tables = world.tables()
    settled_once(tables)
    tasks = tables.tasks.to_pandas()
    out = [("arrival", at) for at in tasks.arrival_s] + [("settled", at) for at in tasks.settled_s]
    level = peak = 0
    for kind, _ in sorted(out, key=lambda event: (event[1], event[0] == "arrival")):
        level += 1 if kind == "arrival" else -1
        peak = max(peak, level)
    assert peak <= 20


def test_a_crash_loses_the_work_and_the_detector_brings_it_back(make: MakeScenario):
    """One worker of two dies with a task in hand: the other one gets it at the verdict."""
    scenario = make(
        duration_s=10,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 0.5},
            "service": {"kind": "constant", "value_s": 3},
        },
        cluster={"workers": 2, "capacity": 1},
        policies={
            "routing": {"kind": "round_robin"},
            "detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 2.5},
        },
        faults=[{"kind": "crash", "at_s": 4, "workers": ["w1"]}],
    )
    run = sim.run(scenario)
    lost = run.attempts[run.attempts.outcome == "worker_died"]
    dead_at = run.events[run.events.kind == "dead"].time_s.item()
    assert list(lost.worker) == ["w1"]
    assert 5.5 <= dead_at <= 6.5
    again = run.attempts[(run.attempts.task == lost.task.item()) & (run.attempts.attempt == 2)]
    assert again.worker.item() == "w2"
    assert again.assigned_s.item() >= dead_at
    assert run.summary["tasks"]["unfinished"] == 0
    # Wait runs to the first start, on the worker that then died.
    assert run.tasks.set_index("task").wait_s[lost.task.item()] < dead_at - 4


def test_a_call_to_a_crashed_worker_fails_and_is_nobodys_try(make: MakeScenario):
    """`hold`: the task goes elsewhere at once, the worker gets nothing more, and the detector has the verdict."""
    scenario = make(
        duration_s=20,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": 5}, "service": {"kind": "constant", "value_s": 0.1}},
        cluster={"workers": 2, "capacity": 4},
        network={"delay": {"kind": "constant", "value_s": 0.01}},
        policies={"retry": {"max_attempts": 1}, "detection": {"kind": "timeout", "heartbeat_s": 2, "timeout_s": 5}},
        faults=[{"kind": "crash", "at_s": 5, "workers": ["w1"]}],
    )
    run = sim.run(scenario)
    failed_calls = run.attempts[run.attempts.outcome == "call_failed"]
    assert len(failed_calls) == 1
    assert (failed_calls.given_up_s - failed_calls.assigned_s).item() == pytest.approx(0.02)
    expected = {"crashes": 1, "detected": 1, "missed": 0, "false_positives": 0, "by_failed_call": 0}
    assert expected.items() <= run.summary["detection"].items()


def test_a_failed_call_can_mean_death(make: MakeScenario):
    """`dead`, as in the reference: this death is counted beside the detector's."""
    scenario = make(
        duration_s=20,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": 5}, "service": {"kind": "constant", "value_s": 0.1}},
        cluster={"workers": 2, "capacity": 1},
        policies={"detection": {"kind": "timeout", "heartbeat_s": 2, "timeout_s": 5, "on_failed_call": "dead"}},
        faults=[{"kind": "crash", "at_s": 5, "workers": ["w1"]}],
    )
    detection = sim.run(scenario).summary["detection"]
    assert (detection["crashes"], detection["detected"], detection["by_failed_call"]) == (1, 0, 1)


def test_a_short_pause_is_only_a_delay(make: MakeScenario):
    """The work of a paused worker takes as much longer as the pause; nobody is declared dead."""
    scenario = make(
        duration_s=10,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 0.25},
            "service": {"kind": "constant", "value_s": 2},
        },
        policies={"detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 4}},
        faults=[{"kind": "pause", "at_s": 5, "workers": ["w1"], "for_s": 2}],
    )
    run = sim.run(scenario)
    injection = run.attempts[(run.attempts.started_s < 5) & (run.attempts.ended_s > 5)]
    assert injection.ran_s.item() == pytest.approx(4)
    assert run.summary["detection"]["false_positives"] == 0
    assert run.summary["tasks"]["attempts"] == run.summary["tasks"]["submitted"]


def test_a_long_pause_is_a_false_positive_and_its_late_result_is_dropped(make: MakeScenario):
    """A paused worker is declared dead by mistake; its next heartbeat revives it, and the other result counts."""
    scenario = make(
        duration_s=30,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 0.25},
            "service": {"kind": "constant", "value_s": 3},
        },
        cluster={"workers": 2, "capacity": 1},
        policies={
            "routing": {"kind": "round_robin"},
            "detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 2},
        },
        faults=[{"kind": "pause", "at_s": 5, "workers": ["w1"], "for_s": 10}],
    )
    run = sim.run(scenario)
    assert run.summary["detection"]["false_positives"] == 1
    details = list(run.events[(run.events.worker == "w1") & (run.events.kind == "up")].detail)
    assert details == ["registered", "revived"]
    assert run.summary["tasks"]["completed"] == run.summary["tasks"]["submitted"]
    assert run.summary["tasks"]["wasted_s"] > 0


def test_the_end_when_no_worker_will_come_back(make: MakeScenario):
    """All dead for good: the run ends after the last arrival, and says what is unfinished."""
    scenario = make(
        duration_s=20, cluster={"workers": 2, "capacity": 1}, faults=[{"kind": "crash", "at_s": 5, "all": True}]
    )
    tasks = sim.run(scenario).summary["tasks"]
    assert tasks["unfinished"] > 0
    assert tasks["submitted"] == tasks["completed"] + tasks["failed"] + tasks["unfinished"]


def test_the_end_after_drain_s(make: MakeScenario):
    """What is not settled `drain_s` after the last arrival stays unfinished, with the attempts that were out."""
    scenario = make(
        duration_s=10,
        drain_s=1,
        workload={"arrivals": {"kind": "constant", "rate_per_s": 1}, "service": {"kind": "constant", "value_s": 30}},
    )
    run = sim.run(scenario)
    assert run.summary["tasks"]["unfinished"] == run.summary["tasks"]["submitted"]
    assert list(run.attempts.outcome) == ["unfinished"]


def test_max_attempts_ends_in_failed(make: MakeScenario):
    """A task whose every attempt times out is FAILED after so many tries, and counts as such."""
    scenario = make(
        duration_s=10,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 0.2},
            "service": {"kind": "constant", "value_s": 50},
        },
        cluster={"workers": 8, "capacity": 1},
        policies={"execution_timeout_s": 2, "retry": {"max_attempts": 3}},
    )
    summary = sim.run(scenario).summary
    assert summary["tasks"]["failed"] == summary["tasks"]["submitted"] > 0
    assert summary["tasks"]["attempts"] == 3 * summary["tasks"]["submitted"]


def test_a_retry_waits_for_its_backoff(make: MakeScenario):
    """Constant backoff: the second attempt is assigned so many seconds after the first was given up."""
    scenario = make(
        duration_s=5,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 0.2},
            "service": {"kind": "constant", "value_s": 50},
        },
        cluster={"workers": 8, "capacity": 1},
        policies={
            "execution_timeout_s": 2,
            "retry": {"max_attempts": 2, "backoff": {"kind": "constant", "delay_s": 1.5}},
        },
    )
    attempts = sim.run(scenario).attempts.set_index("attempt")
    assert attempts.assigned_s[2] - attempts.given_up_s[1] == pytest.approx(1.5)


def test_a_policy_of_the_users_own(make: MakeScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A class by dotted path, from the folder of the scenario, with parameters and a random stream."""
    (tmp_path / "my_policy.py").write_text(
        "from orchestrator.policies.routing import Routing\n"
        "class Highest(Routing):\n"
        "    def __init__(self, rng, least):\n"
        "        super().__init__(rng)\n"
        "        self.least = least\n"
        "    def choose(self, task):\n"
        "        return max((w for w in self.roomy if w.slot >= self.least), key=lambda w: w.slot, default=None)\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    routing = {"kind": "my_policy:Highest", "least": 2}
    run = sim.run(make(cluster={"workers": 4, "capacity": 4}, policies={"routing": routing}))
    assert set(run.tasks.worker.dropna()) <= {"w3", "w4"}
    assert run.summary["tasks"]["unfinished"] == 0


def test_a_faster_worker_takes_less_time(make: MakeScenario):
    """Service times are divided by a group's speed."""
    groups = [{"name": "slow", "workers": 1, "speed": 0.5}, {"name": "fast", "workers": 1, "speed": 4}]
    run = sim.run(make(cluster={"groups": groups}, policies={"routing": {"kind": "round_robin"}}))
    both = run.attempts.merge(run.tasks[["task", "service_s"]], on="task")
    speed = (both.service_s / both.ran_s).groupby(both.worker, observed=True).mean()
    assert speed["w1"] == pytest.approx(0.5)
    assert speed["w2"] == pytest.approx(4)


CODE = """
import sys
from orchestrator.scenario.schema import Scenario
import sim
if __name__ == "__main__":
    sim.sweep(Scenario.load(sys.argv[1]), sys.argv[2], jobs=int(sys.argv[3]))
"""


def test_the_same_seed_gives_the_same_bytes(make: MakeScenario, tmp_path: Path):
    """Under any PYTHONHASHSEED, in one process or two."""
    network = [
        {"mtbf_s": 20, "count": 3, "for_s": 5, **what}
        for what in (
            {"kind": "partition"},
            {"kind": "loss", "probability": 0.3},
            {"kind": "duplicate", "probability": 0.3},
            {"kind": "delay", "delay": {"kind": "exponential", "mean_s": 0.1}},
        )
    ]
    messy = {**MESSY, "faults": [*MESSY["faults"], *network]}
    make(sweep={"policies.routing.kind": ["random", "least_loaded"]}, replications=2, **messy)
    found = []
    for hash_seed, jobs in (("0", 1), ("1", 2), ("12345", 1)):
        out = tmp_path / f"out{hash_seed}"
        (tmp_path / "main.py").write_text(CODE)
        command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "test.yaml"), str(out), str(jobs)]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(REPOSITORY)}
        subprocess.run(command, check=True, env=environment)
        found.append({path.relative_to(out): path.read_bytes() for path in sorted(out.glob("*/r*/*.parquet"))})
    assert len(found[0]) == 12
    assert found[0] == found[1] == found[2]
    tasks = [content for path, content in found[0].items() if path.name == "tasks.parquet"]
    assert len(set(tasks)) == 4  # routing and replication do matter


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_policy_that_raises_ends_a_run_and_a_sweep(make: MakeScenario, tmp_path: Path, jobs: int):
    """Also in a process of its own, with a sentence that names the policy, its method and what it raised."""
    scenario = make("policies.routing={kind: 'tests.cluster.lame:Lame', after: 20}", replications=2)
    sentence = "the routing policy tests.cluster.lame:Lame raised in choose: ZeroDivisionError: by zero"
    with pytest.raises(PolicyError, match=f"^{sentence}$"):
        sim.run(scenario)
    with pytest.raises(PolicyError, match=f"^{sentence}$"):
        sim.sweep(scenario, tmp_path / "out", jobs)


def test_a_fault_of_the_simulator_itself_blames_no_policy(make: MakeScenario, monkeypatch: pytest.MonkeyPatch):
    """The exception passes as it is."""

    def settled(*_: object) -> None:
        raise ZeroDivisionError("of the simulator")

    monkeypatch.setattr(World, "settled", settled)
    with pytest.raises(ZeroDivisionError, match="of the simulator"):
        sim.run(make())


def test_invariants_are_proved_under_optimisation_too(make: MakeScenario, tmp_path: Path):
    """`python -O` drops bare asserts; a broken invariant is an error of its own."""
    make()
    code = (
        "import sys, sim\n"
        "from orchestrator.core.invariants import InvariantError\n"
        "from orchestrator.scenario.schema import Scenario\n"
        "from sim.world import World\n"
        "assert False\n"
        "run = World.run\n"
        "def leak(world):\n"
        "    run(world)\n"
        "    world.coordinator.pending += 1\n"
        "World.run = leak\n"
        "try:\n"
        "    sim.run(Scenario.load(sys.argv[1]), check=True)\n"
        "except InvariantError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-O", "-c", code, str(tmp_path / "test.yaml")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "0 tasks are pending, not 1\n"


def test_another_routing_meets_the_same_tasks(make: MakeScenario):
    """Common random numbers: arrivals, demands and priorities do not depend on the policies."""
    runs = [sim.run(make(f"policies.routing.kind={kind}", **MESSY)) for kind in ("random", "least_loaded")]
    for column in ("arrival_s", "service_s", "priority"):
        assert runs[0].tables.tasks.column(column).equals(runs[1].tables.tasks.column(column))


@pytest.mark.skipif(not TRACE.exists(), reason=f"the real trace is not at {TRACE}")
def test_every_request_of_a_real_trace_is_settled():
    """8,819 requests of a production service, on eight workers."""
    scenario = Scenario.load(
        REPOSITORY / "scenarios" / "trace-replay.yaml", [f"workload.arrivals.file={TRACE}", "sweep={}"]
    )
    run = sim.run(scenario)
    assert run.summary["tasks"] == run.summary["tasks"] | {"submitted": 8819, "completed": 8819, "unfinished": 0}
    assert pc.min(run.tables.tasks.column("latency_s")).as_py() > 0
