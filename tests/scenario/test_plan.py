"""Plans: what chance decides before a run, and what it does not depend on."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.scenario.loading import ScenarioError
from orchestrator.scenario.plan import ClosedArrivals, FaultAction, OpenArrivals, draw_plan
from orchestrator.scenario.schema import Scenario

POISSON = {"kind": "poisson", "rate_per_s": 50}
EXPONENTIAL = {"kind": "exponential", "mean_s": 0.1}
REAL_TRACE = Path(__file__).parents[2].parent / "shared" / "data" / "azure-llm-code-2023.csv"


def scenario(arrivals=POISSON, service=EXPONENTIAL, duration_s=100, workers=4, faults=(), **rest) -> Scenario:
    workload = {"arrivals": arrivals, "service": service} | rest.pop("workload", {})
    tree = {"name": "t", "seed": 5, "duration_s": duration_s, "workload": workload, "cluster": {"workers": workers}}
    return Scenario.model_validate(tree | {"faults": list(faults)} | rest)


def tasks_of(given: Scenario, replication: int = 0) -> OpenArrivals:
    arrivals = draw_plan(given, replication).arrivals
    assert isinstance(arrivals, OpenArrivals)
    return arrivals


def same_tasks(one: OpenArrivals, other: OpenArrivals) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("arrival_s", "service_s", "priority")
    )


def script(given: Scenario) -> list[str]:
    """The plan's faults, a line each."""
    return [
        f"{action.time_s:g} {action.kind} {action.worker or 'coordinator'}{' heals' if action.heals else ''}"
        for action in draw_plan(given).faults
    ]


def test_tasks_are_the_same_whatever_the_policies_the_cluster_and_the_faults_are():
    """Common random numbers."""
    one = tasks_of(scenario())
    other = tasks_of(
        scenario(
            workers=9,
            faults=[{"kind": "crash", "all": True, "mtbf_s": 10}],
            policies={"routing": {"kind": "random"}, "queue": {"kind": "fifo"}},
            network={"delay": {"kind": "exponential", "mean_s": 1}, "loss": 0.5},
        )
    )
    assert same_tasks(one, other)


def test_replications_and_seeds_differ():
    """Each has streams of its own, and the same streams again."""
    assert same_tasks(tasks_of(scenario(), 1), tasks_of(scenario(), 1))
    assert not same_tasks(tasks_of(scenario(), 0), tasks_of(scenario(), 1))
    assert not same_tasks(tasks_of(scenario()), tasks_of(scenario(seed=6)))


def test_a_demand_belongs_to_its_tasks_index():
    """A longer run, or one that is not limited, begins with the same tasks."""
    short, longer = tasks_of(scenario(duration_s=20)), tasks_of(scenario(duration_s=100))
    limited = tasks_of(scenario(workload={"tasks": 300}))
    for part in (short, limited):
        assert np.array_equal(part.arrival_s, longer.arrival_s[: len(part)])
        assert np.array_equal(part.service_s, longer.service_s[: len(part)])
        assert np.array_equal(part.priority, longer.priority[: len(part)])
    assert len(limited) == 300


def test_another_rate_keeps_the_pattern_of_the_arrivals():
    """Twice the rate is the same process, run twice as fast."""
    slow, fast = tasks_of(scenario()), tasks_of(scenario({"kind": "poisson", "rate_per_s": 100}))
    assert fast.arrival_s[: len(slow)] * 2 == pytest.approx(slow.arrival_s)


def test_poisson_arrivals_have_their_rate_and_exponential_gaps():
    """Within four standard errors; a variation of 1."""
    arrival_s = tasks_of(scenario(duration_s=2000)).arrival_s
    gaps = np.diff(arrival_s)
    assert len(arrival_s) == pytest.approx(100_000, abs=4 * 100_000**0.5)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.02)
    assert gaps.min() > 0
    assert arrival_s[-1] <= 2000


def test_constant_arrivals_are_one_every_gap():
    """From the first gap's end up to and including duration_s."""
    arrivals = {"kind": "constant", "rate_per_s": 10}
    assert tasks_of(scenario(arrivals, duration_s=0.3)).arrival_s.tolist() == [0.1, 0.2, 0.3]


def test_on_off_arrivals_have_their_mean_rate():
    """(100 * 1 + 10 * 3) / 4 per second, averaged over independent runs: within four standard errors."""
    arrivals = {"kind": "on_off", "rate_on_per_s": 100, "rate_off_per_s": 10, "mean_on_s": 1, "mean_off_s": 3}
    given = scenario(arrivals, duration_s=500)
    rates = np.array([len(tasks_of(given, replication)) / 500 for replication in range(60)])
    assert rates.mean() == pytest.approx(32.5, abs=4 * rates.std() / 60**0.5)
    # The index of dispersion of an MMPP-2 over long times, 1 + 2 p (1-p) (a-b)^2 / (mean rate (1/on + 1/off)).
    dispersion = 1 + 2 * 0.25 * 0.75 * 90**2 / (32.5 * (1 + 1 / 3))
    assert rates.var() * 500 / 32.5 == pytest.approx(dispersion, rel=0.6)


def test_on_off_starts_in_its_steady_state():
    """On with the share of time that it is on, so the first second is like any other."""
    arrivals = {"kind": "on_off", "rate_on_per_s": 100, "rate_off_per_s": 0, "mean_on_s": 1, "mean_off_s": 3}
    given = scenario(arrivals, duration_s=1)
    counts = np.array([len(tasks_of(given, replication)) for replication in range(800)])
    assert counts.mean() == pytest.approx(25, abs=4 * counts.std() / 800**0.5)


def test_on_off_is_silent_while_off_at_rate_zero():
    """Gaps as long as the off periods are."""
    arrivals = {"kind": "on_off", "rate_on_per_s": 1000, "rate_off_per_s": 0, "mean_on_s": 1, "mean_off_s": 10}
    arrival_s = tasks_of(scenario(arrivals, duration_s=2000)).arrival_s
    silences = np.diff(arrival_s)
    assert silences[silences > 0.1].mean() == pytest.approx(10, rel=0.3)
    assert np.all(silences >= 0)


def test_priorities_come_in_their_shares():
    """By code: low 0, normal 1, high 2, urgent 3."""
    shares = {"low": 0.1, "normal": 0.6, "high": 0, "urgent": 0.3}
    codes = tasks_of(scenario(duration_s=2000, workload={"priorities": shares})).priority
    assert codes.dtype == np.uint8
    assert np.bincount(codes, minlength=4) / len(codes) == pytest.approx([0.1, 0.6, 0, 0.3], abs=0.01)


def test_a_trace_brings_arrivals_demands_and_priorities(tmp_path):
    """Arrivals are divided by the speedup, demands are not; names and codes of priorities mean the same."""
    (tmp_path / "t.csv").write_text("\ufeffservice_s, arrival_s,priority,x\n0.5,2,high,\n0.25,4,0,\n1,30,Urgent,\n")
    trace = {"kind": "trace", "file": str(tmp_path / "t.csv"), "speedup": 2}
    tasks = tasks_of(scenario(trace, service=None, duration_s=10))
    assert tasks.arrival_s.tolist() == [1, 2]
    assert tasks.service_s.tolist() == [0.5, 0.25]
    assert tasks.priority.tolist() == [2, 0]


def test_a_trace_without_demands_draws_them(tmp_path):
    """From workload.service and workload.priorities, as other arrivals do."""
    (tmp_path / "t.csv").write_text("arrival_s\n0\n0\n3\n")
    trace = {"kind": "trace", "file": str(tmp_path / "t.csv")}
    tasks = tasks_of(scenario(trace, duration_s=3))
    assert tasks.arrival_s.tolist() == [0, 0, 3]
    assert tasks.service_s.tolist() == tasks_of(scenario()).service_s[:3].tolist()


def test_a_parquet_trace_is_a_trace(tmp_path):
    """With typed columns."""
    columns = {
        "arrival_s": [0.5, 1.5],
        "service_s": [1, 2],
        "priority": pa.array(["low", "urgent"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    tasks = tasks_of(scenario({"kind": "trace", "file": str(tmp_path / "t.parquet")}, service=None))
    assert (tasks.arrival_s.tolist(), tasks.service_s.tolist(), tasks.priority.tolist()) == (
        [0.5, 1.5],
        [1, 2],
        [0, 3],
    )


@pytest.mark.skipif(not REAL_TRACE.exists(), reason=f"needs {REAL_TRACE.name} in ../shared/data, which is absent")
def test_the_real_trace_is_read_whole():
    """8,819 requests in 3,436 s, 0.967 s of work each: about 2.5 busy servers."""
    given = scenario({"kind": "trace", "file": str(REAL_TRACE)}, service=None, duration_s=3436, workers=1)
    tasks = tasks_of(given)
    assert len(tasks) == 8819
    assert tasks.service_s.mean() == pytest.approx(0.967, abs=0.001)
    assert given.offered_load() == pytest.approx(2.5 / 2, rel=0.02)


def test_a_client_draws_the_same_whoever_else_draws():
    """From (seed, replication, client), at its own pace."""
    closed = {"kind": "closed", "clients": 3, "think": EXPONENTIAL}
    given = scenario(closed, service={"kind": "uniform", "low_s": 1, "high_s": 2}, workload={"tasks": 9})
    arrivals = draw_plan(given).arrivals
    assert isinstance(arrivals, ClosedArrivals)
    assert (arrivals.clients, arrivals.tasks) == (3, 9)
    alone = [list(itertools.islice(arrivals.client(number), 200)) for number in range(3)]
    readers = [arrivals.client(number) for number in range(3)]
    mixed = defaultdict(list)
    for turn in range(600):
        number = turn * 7 % 3 if turn % 2 else turn * 5 % 3
        mixed[number].append(next(readers[number]))
    for number in range(3):
        assert mixed[number] == alone[number][: len(mixed[number])]
    assert alone[0] != alone[1]
    assert all(1 <= service_s <= 2 and priority == 1 for _, service_s, priority in alone[0])


def test_faults_at_a_time_hit_all_the_selected_at_once():
    """And heal after their own lengths."""
    faults = [
        {"kind": "crash", "at_s": 4, "workers": ["w3", "w1"], "restart_after_s": 2},
        {"kind": "pause", "at_s": 5, "workers": ["w2"], "for_s": 3},
        {"kind": "crash", "at_s": 5, "workers": ["w4"]},
    ]
    assert draw_plan(scenario(faults=faults)).faults == [
        FaultAction(4, "crash", "w1", 0),
        FaultAction(4, "crash", "w3", 0),
        FaultAction(5, "pause", "w2", 1),
        FaultAction(5, "crash", "w4", 2),
        FaultAction(6, "crash", "w1", 0, heals=True),
        FaultAction(6, "crash", "w3", 0, heals=True),
        FaultAction(8, "pause", "w2", 1, heals=True),
    ]


def test_a_fault_misses_a_worker_that_is_down():
    """A paused worker is not crashed, a crashed one is not paused; one that is just back can be hit."""
    faults = [
        {"kind": "pause", "at_s": 5, "workers": ["w1"], "for_s": 3},
        {"kind": "crash", "at_s": 7, "workers": ["w1"], "restart_after_s": 1},
        {"kind": "crash", "at_s": 8, "workers": ["w1"]},
        {"kind": "pause", "at_s": 9, "workers": ["w1"], "for_s": 1},
    ]
    assert script(scenario(faults=faults)) == ["5 pause w1", "8 pause w1 heals", "8 crash w1"]


def test_a_fault_without_length_begins_before_it_ends():
    """However short it is."""
    faults = [{"kind": "crash", "at_s": 5, "all": True, "restart_after_s": 0}]
    given = scenario(faults=faults, workers=2)
    assert script(given) == ["5 crash w1", "5 crash w1 heals", "5 crash w2", "5 crash w2 heals"]


def test_faults_of_different_layers_overlap_and_those_of_one_layer_do_not():
    """A slow worker can crash, and hang no sooner than it is well again; a partition does not hinder a loss."""
    faults = [
        {"kind": "slow", "at_s": 1, "workers": ["w1"], "factor": 0.5, "for_s": 9},
        {"kind": "hang", "at_s": 2, "workers": ["w1"], "for_s": 1},
        {"kind": "crash", "at_s": 3, "workers": ["w1"], "restart_after_s": 1},
        {"kind": "partition", "at_s": 4, "workers": ["w1"], "for_s": 3},
        {"kind": "loss", "at_s": 5, "workers": ["w1"], "probability": 0.5},
    ]
    assert script(scenario(faults=faults)) == [
        "1 slow w1", "3 crash w1", "4 partition w1", "4 crash w1 heals", "5 loss w1", "7 partition w1 heals",
        "10 slow w1 heals",
    ]  # fmt: skip


def test_periodic_faults_strike_until_the_end():
    """At every_s, twice that and so on; one that would strike during the last one misses."""
    faults = [{"kind": "pause", "every_s": 4, "workers": ["w1"], "for_s": 5}]
    assert [line for line in script(scenario(faults=faults, duration_s=20)) if "heals" not in line] == [
        "4 pause w1", "12 pause w1", "20 pause w1",
    ]  # fmt: skip


def test_a_fault_may_strike_at_the_very_beginning():
    """At 0 s, and be over at once."""
    faults = [{"kind": "crash", "at_s": 0, "workers": ["w1"], "restart_after_s": 0}]
    assert script(scenario(faults=faults)) == ["0 crash w1", "0 crash w1 heals"]


def test_staggered_faults_strike_one_worker_after_the_other():
    """As in a rolling restart."""
    faults = [{"kind": "restart", "at_s": 1, "all": True, "stagger_s": 3, "grace_s": 2}]
    assert script(scenario(faults=faults, workers=2)) == [
        "1 restart w1", "3 restart w1 heals", "4 restart w2", "6 restart w2 heals",
    ]  # fmt: skip


def test_a_group_fails_together():
    """A rack: one clock and one length for all of its workers, also when one of them is down already."""
    groups = {"groups": [{"name": "a", "workers": 2}, {"name": "b", "workers": 3}]}
    faults = [
        {"kind": "crash", "at_s": 10, "workers": ["w4"], "restart_after_s": 15},
        {"kind": "crash", "mtbf_s": 8, "group": "b", "together": True, "mttr_s": 4},
    ]
    actions = draw_plan(scenario(faults=faults, cluster=groups)).faults
    moments = {name: [a.time_s for a in actions if a.worker == name and a.index == 1] for name in ("w3", "w4", "w5")}
    assert not [a for a in actions if a.worker in ("w1", "w2")]
    assert len(moments["w3"]) > 10
    assert moments["w3"] == moments["w5"]
    assert set(moments["w4"]) < set(moments["w3"])


def test_workers_leave_and_join():
    """One whose first fault is a join is not there before; one that drained can join again; others miss it."""
    faults = [
        {"kind": "join", "at_s": 5, "workers": ["w1", "w2", "w3"]},
        {"kind": "drain", "at_s": 2, "workers": ["w2"]},
        {"kind": "crash", "at_s": 3, "workers": ["w2", "w3"], "restart_after_s": 1},
    ]
    given = scenario(faults=faults)
    assert draw_plan(given).absent == {"w1"}
    assert script(given) == ["2 drain w2", "3 crash w3", "4 crash w3 heals", "5 join w1", "5 join w2"]


def test_the_coordinator_is_struck_by_itself():
    """It is nobody's worker."""
    faults = [{"kind": "coordinator_pause", "at_s": 5, "for_s": 20}]
    assert script(scenario(faults=faults)) == [
        "5 coordinator_pause coordinator",
        "25 coordinator_pause coordinator heals",
    ]


def test_random_faults_alternate_never_overlap_and_stop():
    """Two clocks over one worker: each action ends what the last began; nothing begins after duration_s."""
    faults = [
        {"kind": "crash", "mtbf_s": 5, "all": True, "mttr_s": 3},
        {"kind": "pause", "mtbf_s": 4, "all": True, "for_s": {"kind": "exponential", "mean_s": 2}},
    ]
    actions = draw_plan(scenario(faults=faults)).faults
    assert [action.time_s for action in actions] == sorted(action.time_s for action in actions)
    assert {action.worker for action in actions} == {"w1", "w2", "w3", "w4"}
    for worker in ("w1", "w2", "w3", "w4"):
        own = [action for action in actions if action.worker == worker]
        for begin, end in zip(own[::2], own[1::2], strict=True):
            assert (begin.kind, begin.heals, end.heals) == (end.kind, False, True)
            assert begin.index == end.index
            assert begin.time_s <= 100


def test_random_faults_come_at_their_mean_time():
    """mtbf_s of health between faults, mttr_s of repair: 1,000 workers for 100 s, within four standard errors."""
    faults = [{"kind": "crash", "mtbf_s": 30, "all": True, "mttr_s": 20}]
    actions = draw_plan(scenario(faults=faults, workers=1000)).faults
    begins = [action for action in actions if not action.heals]
    # P(well at t) = 0.6 + 0.4 exp(-t / 12), integrated over 100 s: an alternating process that starts well.
    expected = 1000 / 30 * (0.6 * 100 + 0.4 * 12 * (1 - np.exp(-100 / 12)))
    assert len(begins) == pytest.approx(expected, abs=4 * expected**0.5)


def test_a_crash_for_good_is_the_last_of_its_worker():
    """No clock of another fault goes on."""
    faults = [
        {"kind": "crash", "mtbf_s": 1, "workers": ["w1"]},
        {"kind": "pause", "mtbf_s": 1, "workers": ["w1"], "for_s": 0.1},
    ]
    actions = draw_plan(scenario(faults=faults)).faults
    assert actions[-1].kind == "crash"
    assert sum(action.kind == "crash" for action in actions) == 1


def test_a_worker_has_the_same_failures_in_a_larger_cluster():
    """Its clock is its own."""
    faults = [{"kind": "crash", "mtbf_s": 20, "all": True, "restart_after_s": 1}]
    small = draw_plan(scenario(faults=faults, workers=2)).faults
    large = draw_plan(scenario(faults=faults, workers=50)).faults
    assert small == [action for action in large if action.worker in ("w1", "w2")]


def test_so_many_workers_are_chosen_at_random():
    """Distinct ones, others in other replications."""
    given = scenario(faults=[{"kind": "crash", "at_s": 1, "count": 3}], workers=100)
    choices = {tuple(action.worker for action in draw_plan(given, k).faults) for k in range(5)}
    assert len(choices) == 5
    assert all(len(set(choice)) == 3 for choice in choices)


PRINT_PLAN = """
import hashlib, sys
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import Scenario
plan = draw_plan(Scenario.load(sys.argv[1]))
print(hashlib.sha256(plan.arrivals.arrival_s.tobytes() + plan.arrivals.service_s.tobytes()
      + plan.arrivals.priority.tobytes() + repr(plan.faults).encode()).hexdigest())
"""


def test_a_plan_does_not_depend_on_the_hash_seed(tmp_path):
    """Three processes, three hash seeds, one plan."""
    faults = [
        {"kind": "crash", "mtbf_s": 20, "count": 3, "mttr_s": 2},
        {"kind": "pause", "at_s": 3, "all": True, "for_s": 1},
    ]
    path = tmp_path / "s.yaml"
    path.write_text(scenario(faults=faults, workload={"priorities": {"low": 0.5, "high": 0.5}}).dump())
    digests = {
        subprocess.run(
            [sys.executable, "-c", PRINT_PLAN, str(path)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "arrivals", ["{kind: constant, rate_per_s: 10}", "{kind: closed, clients: 2, think: {kind: constant, value_s: 1}}"]
)
@pytest.mark.parametrize(
    ("further", "ends"),
    [("", False), ("drain_s: 5", True), ("policies: {retry: {max_attempts: 2}}", True), ("policies: {}", True)],
)
def test_a_run_that_would_never_end_is_refused(tmp_path, arrivals, further, ends):
    """An attempt that times out is stopped: a task that takes longer, and may be tried for ever, is never settled."""
    file = tmp_path / "endless.yaml"
    file.write_text(
        f"name: endless\nseed: 1\nduration_s: 10\ncluster: {{workers: 2, capacity: 1, speed: 2}}\n"
        f"workload: {{arrivals: {arrivals}, service: {{kind: constant, value_s: 4}}}}\n{further}\n"
    )
    limit = [] if further == "policies: {}" else ["policies.execution_timeout_s=1.5"]
    scenario = Scenario.load(file, limit)

    def draw() -> None:
        drawn = draw_plan(scenario).arrivals
        if isinstance(drawn, ClosedArrivals):
            next(drawn.client(0))

    if ends:
        draw()
    else:
        with pytest.raises(ScenarioError, match=r"endless:1:1: policies.retry.max_attempts: is null, and .* never end"):
            draw()
