"""The answer to a scenario's question, by clusters of constants that can be counted by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.analysis.answer_tables import meanings_in, table_of
from orchestrator.analysis.answers import Answer, answer, between
from orchestrator.analysis.comparison import Incomparable
from orchestrator.analysis.deltas import Verdict
from orchestrator.analysis.victims import hit_tasks, outages
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.scenario.schema import Scenario
from tests.results.synthetic import attempt, mm1, run, scenario, tables, task

RACK = """\
name: rack
question: After 3 s or after 8 s?
duration_s: 40
workload:
  arrivals: {kind: trace, file: FILE}
  service: {kind: constant, value_s: 1}
cluster:
  groups:
    - {name: rest, workers: 4, capacity: 2}
    - {name: rack, workers: 2, capacity: 2}
policies:
  detection: {kind: timeout, heartbeat_s: 1, timeout_s: 3}
faults:
  - {kind: crash, at_s: 10.5, group: rack, restart_after_s: 20}
"""


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Twelve slots. Twelve tasks of 1 s arrive at each of 1 s, ..., 10 s, and four at each of 11 s, ..., 30 s."""
    here = tmp_path_factory.mktemp("rack")
    arrivals = [float(at) for at in range(1, 31) for _ in range(12 if at <= 10 else 4)]
    (here / "arrivals.csv").write_text("arrival_s\n" + "\n".join(map(str, arrivals)) + "\n")
    (here / "rack.yaml").write_text(RACK.replace("FILE", "arrivals.csv"))
    return Scenario.load(here / "rack.yaml")


def swept(base: Scenario, key: str, values: list[Any]) -> Sweep:
    """A run of each value of one key, without folders."""
    grid = base.model_copy(update={"sweep": {key: values}})
    cells = grid.cells()
    return Sweep(grid, [CellRuns.of(cell.name, cell.values, {0: sim.run(cell.scenario)}) for cell in cells])


def found(sweep: Sweep, baseline: str | None = None) -> Answer:
    told = answer(sweep, baseline)
    assert told is not None
    return told


def test_the_few_victims_of_a_rack_are_told_one_by_one(rack: Scenario):
    """At 10.5 s the rack's four slots are in use; their tasks wait for a verdict, 5 s longer with 8 s than with 3 s."""
    told = found(swept(rack, "policies.detection.timeout_s", [3, 8]))
    (other,) = told.groups[0].others
    assert other.shifts is not None
    assert other.shifts.hit_later.tasks == 4
    assert other.shifts.hit_later.median_s == pytest.approx(5.0)
    assert other.shifts.delayed == [4]
    assert other.delta("latency_s.p50").verdict is Verdict.EQUAL
    assert other.delta("latency_s.max").difference == pytest.approx(5.0)
    of = other.shifts.hit
    assert told.sentences[0] == (
        f"With timeout_s=8, 4 tasks wait 5.00 s longer each than with timeout_s=3, of the {of} tasks hit by a fault."
    )
    assert told.question == "After 3 s or after 8 s?"


def test_the_baseline_is_the_one_that_is_named(rack: Scenario):
    """Against 8 s, the same four tasks wait 5 s less; a name that no cell has is an error."""
    sweep = swept(rack, "policies.detection.timeout_s", [3, 8])
    assert (
        found(sweep, "timeout_s=8")
        .sentences[0]
        .startswith("With timeout_s=3, 4 tasks wait 5.00 s less each than with timeout_s=8")
    )
    with pytest.raises(Incomparable, match="there is no cell timeout_s=9, expected one of timeout_s=3, timeout_s=8"):
        answer(sweep, "timeout_s=9")


def test_what_is_assumed_is_told_with_it(rack: Scenario):
    """Free messages and decisions; and that eight slots carry the load of twelve while the rack is away."""
    told = found(swept(rack, "policies.detection.timeout_s", [3, 8])).assumptions
    assert told[:2] == ["messages take no time", "the coordinator decides at no cost"]
    # 200 tasks of 1 s in 30 s on 12 slots: 56 %, and 12/8 of that without the rack
    assert told[2] == "the load is 56 %, and 83 % of what the fault leaves (crash of rack at 10.5 s)"


def by_hand(latencies_s: list[float], **changes: Any) -> Run:
    """A task at each of 15 s, 15.1 s, ... with these latencies."""
    rows = [task(15 + 0.1 * n, 15 + 0.1 * n + latency_s, **changes) for n, latency_s in enumerate(latencies_s)]
    return run(tables(rows))


def of_cells(cells: Mapping[str, list[Run]]) -> Sweep:
    made = [CellRuns.of(name, {"policies.queue": name}, dict(enumerate(runs))) for name, runs in cells.items()]
    return Sweep(scenario(), made)


@pytest.mark.parametrize("runs", [1, 3])
def test_identical_systems_show_no_difference(runs: int):
    """Of one run or of several: nothing is lower or higher, nothing costs more, and the sentences say so."""
    told = found(of_cells({name: [mm1(2000, seed=seed) for seed in range(runs)] for name in ("a", "b")}))
    assert {one.verdict for one in told.groups[0].others[0].deltas} == {Verdict.EQUAL}
    first = next(one for one in told.sentences if "all tasks" in one)
    assert "p50, p95, p99 and p99.9 are the same" in first
    assert any(one.startswith("It costs the same") for one in told.sentences)
    assert not any("lower" in one or "higher" in one for one in told.sentences)


def test_replications_say_how_sure_a_difference_is():
    """Demands of another seed are no difference; half the latencies are one, and its interval stays above -100 %."""
    base = [mm1(1000, offered_load=0.5, seed=seed) for seed in range(5)]
    other = found(of_cells({"a": base, "b": [mm1(1000, offered_load=0.5, seed=9 + seed) for seed in range(5)]}))
    assert other.groups[0].others[0].delta("latency_s.p50").verdict is Verdict.NOT_SHOWN
    rng = np.random.default_rng(1)
    slow = [rng.exponential(1.0, 200).tolist() for _ in range(5)]
    pairs = {"a": [by_hand(each) for each in slow], "b": [by_hand([s / 2 for s in each]) for each in slow]}
    told = found(of_cells(pairs))
    delta = told.groups[0].others[0].delta("latency_s.p50")
    assert delta.verdict is Verdict.LOWER
    assert delta.change == pytest.approx(-0.5)
    assert delta.ci95 is not None
    assert -1 < delta.ci95[0] <= -0.5 <= delta.ci95[1] < 0
    assert "p50 50 % lower" in told.sentences[0]


def test_counts_are_those_of_a_run_with_the_interval_of_their_differences():
    """Of ten tasks one more fails in each of four runs, and two more in the last: 1.2 on average, 0.6 to 1.8."""
    lost = {name: [by_hand([1.0] * 9) for _ in range(5)] for name in ("a", "b")}
    for place, failures in enumerate([1, 1, 1, 1, 2]):
        rows = [task(20.0, 21.0)] * (9 - failures) + [task(20.0, 25.0, state="failed")] * failures
        lost["b"][place] = run(tables(rows))
    delta = found(of_cells(lost)).groups[0].others[0].delta("failed")
    assert delta.baseline == 0.0
    assert delta.value == delta.difference == pytest.approx(1.2)
    # the standard error of 1, 1, 1, 1, 2 is 0.2, and Student's t of four degrees of freedom 2.776
    assert delta.ci95 is not None
    assert delta.ci95[0] <= 1.2 - 2.776 * 0.2 + 1e-3
    assert delta.ci95[1] >= 1.2 + 2.776 * 0.2 - 1e-3
    assert delta.verdict is Verdict.HIGHER


def test_cells_that_lose_tasks_say_so():
    """Percentiles that fall on a failed task are not known, and the failures are counted."""
    lossy = run(tables([task(20.0, 21.0), *[task(20.0, 25.0, state="failed")] * 3]))
    told = found(of_cells({"a": [by_hand([1.0] * 4)], "b": [lossy]}))
    delta = told.groups[0].others[0].delta("latency_s.p99")
    assert (delta.value, delta.verdict) == (None, Verdict.COUNTED)
    assert delta.at_least == pytest.approx(5.0)
    assert told.sentences[0] == "With queue=b, 3 of 4 tasks (75 %) fail; with queue=a, none."
    unknown = "p50 over 5.00 s instead of 1.00 s (p95, p99 and p99.9 not known either), because too many tasks are lost"
    assert unknown in told.sentences[1]


def rows_of(told: Answer) -> dict[str, list[str]]:
    """The table by the names of its measures."""
    table = table_of(told.groups, told.runs)
    assert table is not None
    return {row[0]: list(row[1:]) for row in table.rows}


def test_healthy_workers_declared_dead_are_mistakes_whatever_the_rule(rack: Scenario):
    """The rack is cut off for 10 s while it is idle, and called at 9 s. Both rules declare its two workers dead, though
    their processes are up; a detector that waits for 30 s does not."""
    fault = {"kind": "partition", "at_s": 8.7, "group": "rack", "for_s": 10}
    cut = rack.with_({"faults": [fault], "policies.detection.timeout_s": 5, "workload.service.value_s": 0.5})
    sweep = swept(cut, "policies.detection.on_failed_call", ["hold", "dead"])
    for cell in sweep.cells:
        assert sorted(cell.runs[0].events.query("kind == 'dead'").worker) == ["w5", "w6"]
    assert [cell.pooled["detection"]["false_positives"] for cell in sweep.cells] == [2, 0]
    told = found(sweep)
    delta = told.groups[0].others[0].delta("healthy_declared_dead")
    assert (delta.baseline, delta.value, delta.verdict) == (2, 2, Verdict.EQUAL)
    assert not any("fewer" in one or "no healthy" in one for one in told.sentences)
    patient = found(swept(cut, "policies.detection.timeout_s", [5, 30]))
    assert rows_of(patient)["mistakes"] == ["2", "0", "-2"]
    assert any("2 mistaken deaths" in one for one in patient.sentences)
    assert "mistakes: healthy workers declared dead, by the detector or after a failed call" in meanings_in(
        patient.groups
    )


def test_what_is_wasted_is_one_number(rack: Scenario):
    """The answer has the executed seconds of the summary; how long slots were taken, `slots` says."""
    cut = rack.with_({"faults": [{"kind": "partition", "at_s": 10.5, "group": "rack", "for_s": 10}]})
    one, other = sim.run(cut), sim.run(rack)
    assert one.summary["tasks"]["wasted_s"] != other.summary["tasks"]["wasted_s"]
    delta = between([("one", one), ("other", other)]).groups[0].others[0].delta("wasted_s")
    assert (delta.baseline, delta.value) == tuple(run.summary["tasks"]["wasted_s"] for run in (one, other))


def lossy(given_up_after_s: float) -> Run:
    """Three tasks take a second; one is given up after so many."""
    return run(tables([*[task(20.0, 21.0)] * 3, task(20.0, 20.0 + given_up_after_s, state="failed")]))


def test_a_longest_latency_that_is_not_known_is_a_bound():
    """It falls on a task that failed: it is longer than its age, and than every latency that is known."""
    told = between([("A", lossy(4.0)), ("B", lossy(15.5))])
    delta = told.groups[0].others[0].delta("latency_s.max")
    assert (delta.value, delta.baseline, delta.difference, delta.verdict) == (None, None, None, Verdict.COUNTED)
    assert rows_of(told)["max"] == ["> 4.00 s", "> 15.5 s", "not known"]
    assert rows_of(between([("A", lossy(0.5)), ("B", by_hand([2.0] * 4))]))["max"] == [
        "> 1.00 s",
        "2.00 s",
        "not known",
    ]


def test_what_is_not_known_is_not_the_same():
    """Two bounds that are alike say nothing of what they are bounds of."""
    first, second = meanings_in(between([("A", lossy(4.0)), ("B", lossy(4.0))]).groups)
    assert first.startswith("the same in all cells: p50, hit,")
    assert second == "alike, but not known, because tasks failed or did not end: p95, p99, p99.9, max"


def test_runs_without_tasks_have_an_answer_too():
    """Nothing differs, and nothing breaks."""
    told = between([("A", run(tables())), ("B", run(tables()))])
    assert {one.verdict for one in told.groups[0].others[0].deltas} == {Verdict.EQUAL}
    assert told.summary()["sentences"]


def test_classes_are_told_by_themselves():
    """Urgent tasks take half as long and low ones twice as long, while all together take as long as before."""

    def mixed(urgent_s: float, low_s: float) -> Run:
        rows = [
            task(15 + 0.1 * n, 15 + 0.1 * n + (low_s if n % 2 else urgent_s), priority="low" if n % 2 else "urgent")
            for n in range(200)
        ]
        return run(tables(rows))

    told = found(of_cells({"fifo": [mixed(2.0, 2.0)] * 2, "priority": [mixed(1.0, 4.0)] * 2}))
    (classes,) = [one for one in told.sentences if one.startswith("By class")]
    assert "low p50 100 % higher" in classes
    assert "urgent p50 50 % lower" in classes


def test_conditions_are_compared_each_with_its_own_baseline():
    """A rate is no choice: the two queues are compared at each rate, and not one rate with the other."""
    grid = scenario(
        sweep={"workload.arrivals.rate_per_s": [1, 2], "policies.queue": [{"kind": "fifo"}, {"kind": "priority"}]}
    )
    cells = [
        CellRuns.of(
            cell.name, cell.values, {0: by_hand([3.0 - (cell.values["policies.queue"]["kind"] == "priority")] * 80)}
        )
        for cell in grid.cells()
    ]
    told = found(Sweep(grid, cells))
    assert [(group.condition, group.baseline.choice) for group in told.groups] == [
        ("rate_per_s=1", "queue=fifo"),
        ("rate_per_s=2", "queue=fifo"),
    ]
    assert [other.delta("latency_s.p50").change for group in told.groups for other in group.others] == [
        pytest.approx(-1 / 3),
        pytest.approx(-1 / 3),
    ]


def test_a_grid_of_choices_has_a_best_cell_and_main_effects():
    """Twice the workers halve the latency, the other queue saves a tenth; both together are best."""
    grid = scenario(sweep={"cluster.workers": [2, 4], "policies.queue": [{"kind": "fifo"}, {"kind": "priority"}]})

    def seconds(values: Mapping[str, Any]) -> float:
        return 8.0 / values["cluster.workers"] * (0.9 if values["policies.queue"]["kind"] == "priority" else 1.0)

    cells = [
        CellRuns.of(cell.name, cell.values, {k: by_hand([seconds(cell.values)] * 400) for k in range(3)})
        for cell in grid.cells()
    ]
    told = found(Sweep(grid, cells)).sentences
    assert told[0].startswith(
        'Lowest p99: "workers=4, queue=priority", with 1.80 s, against "workers=2, queue=fifo" 55 % lower'
    )
    assert any("cluster.workers from 2 to 4 lowers p99 by 50 %" in one for one in told)
    assert any("policies.queue from fifo to priority lowers p99 by 10 %" in one for one in told)
    assert len(told) <= 5


def test_results_of_any_folders_are_compared_with_the_first():
    """By what they are called; runs that have not the same tasks are not paired, and the answer says so."""
    told = between([("A", by_hand([2.0] * 80)), ("B", by_hand([1.0] * 80)), ("C", by_hand([1.0] * 90))])
    assert told.baseline == "A"
    assert [other.cell.choice for other in told.groups[0].others] == ["B", "C"]
    assert [other.shifts is None for other in told.groups[0].others] == [False, True]
    assert "Not all have the same arrivals" in told.sentences[-1]


@pytest.mark.parametrize(
    ("row", "hit"),
    [
        (attempt(0, 18.0, ended_s=19.9, outcome="completed"), False),
        (attempt(0, 18.0, ended_s=20.5, outcome="worker_died"), True),
        (attempt(0, 25.0, given_up_s=25.0, ended_s=25.0, outcome="call_failed"), True),
        (attempt(0, 25.0, given_up_s=25.0, ended_s=25.0, outcome="rejected"), False),
        (attempt(0, 18.0, worker=1, ended_s=25.0, outcome="completed"), False),
        (attempt(0, 31.0, ended_s=32.0, outcome="completed"), False),
    ],
    ids=["before", "during", "call failed", "rejected", "another worker", "after"],
)
def test_a_task_is_hit_if_a_faulty_worker_has_it(row: dict[str, Any], hit: bool):
    """The worker w1 is down from 20 s to 30 s."""
    events = [(20.0, "crash", 0, None), (30.0, "heal", 0, "restart")]
    made = tables([task(18.0, 33.0)], [row], events)
    assert outages(made, 40.0) == [("w1", 20.0, 30.0)]
    assert hit_tasks(made, scenario()).tolist() == [hit]
