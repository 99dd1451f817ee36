"""The life of one task: why it went where it went, and what became of its attempts."""

from pathlib import Path

import pytest

import sim
from orchestrator.analysis.choices import Choice, reason, reconstructed
from orchestrator.analysis.task_lives import UnknownTask, find, life, slowest
from orchestrator.cluster.decision_record import NAME, DecisionRecord
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.jobs import Job
from orchestrator.core.inputs import Registration
from orchestrator.policies.settings import Policies
from orchestrator.rehearsal.choices import choices as recorded
from sim.choices import choices
from tests.results.synthetic import attempt, run, scenario, tables, task

ROUTINGS = ("least_loaded", "random", "round_robin", "power_of_d")


def simulated(routing: str):
    """Workers with prefetch, one of which crashes: tasks have several attempts, and loads differ."""
    return sim.run(
        scenario(
            duration_s=30,
            warmup_s=0,
            workload={
                "arrivals": {"kind": "poisson", "rate_per_s": 6},
                "service": {"kind": "exponential", "mean_s": 1},
            },
            cluster={"workers": 4, "capacity": 2, "prefetch": 2},
            policies={"routing": {"kind": routing}},
            faults=[{"kind": "crash", "at_s": 10, "workers": ["w2"], "restart_after_s": 8}],
        )
    )


@pytest.mark.parametrize("routing", ROUTINGS)
def test_choices_are_those_of_the_run(routing: str):
    """Watched again, every attempt has its choice: the same worker, from candidates that had room."""
    result = simulated(routing)
    rows = result.attempts
    retried = int(rows[rows.attempt > 1].task.iloc[0])
    for number in (0, 40, retried):
        found = choices(result.scenario, number)
        mine = rows[rows.task == number]
        assert [(one.attempt, one.worker) for one in found] == list(zip(mine.attempt, mine.worker, strict=True))
        for one in found:
            assert max(one.loads.values()) < 4
            candidates = one.drawn if one.drawn is not None else one.loads
            if routing in ("least_loaded", "power_of_d"):
                assert one.loads[one.worker] == min(one.loads[name] for name in candidates)
            assert (one.drawn is not None) == (routing == "power_of_d")


def test_choices_of_a_live_run_are_decided_again_from_its_record(tmp_path: Path):
    """The loads are those that the coordinator had, the ties those that it drew."""
    book = DecisionRecord(tmp_path / NAME, Policies(), 0)
    log = EffectLog()
    core = book.open(log)
    for name in ("w1", "w2"):
        core.register(Registration(name, "", 3, 0, False), 0.0)
    for number in range(1, 6):
        core.submit(f"client-{number}", 1, Job("sleep", "1", "client", number), None, float(number))
    assigned = [effect[3] for effect in log.take() if effect[0] == "assign"]
    book.close()
    for row in (2, 4):
        (found,) = recorded(tmp_path, row)
        assert found.worker == assigned[row]
        assert found.loads == {name: assigned[:row].count(name) for name in ("w1", "w2")}


def test_reasons_are_those_of_the_policy():
    """Each policy's own rule, with the loads that it went by."""
    loads = {"w1": 1, "w2": 0, "w3": 0}
    told = reason(Choice(1, "w2", loads, None), "least_loaded")
    assert told == "load 0, the least of 3 with room, one of 2 alike, by chance"
    told = reason(Choice(1, "w2", loads, ["w1", "w2"]), "power_of_d")
    assert told == "load 0, against w1 with load 1: the least loaded of 2 drawn out of 3 with room"
    told = reason(Choice(1, "w1", loads, None), "round_robin")
    assert told == "load 1, next in turn of 3 with room, whose loads are 0 (2 workers), 1 (1 worker)"
    assert reason(Choice(1, "w1", {"w1": 1}, None), "random") == "load 1, the only one with room"


def test_loads_are_counted_in_the_tables_where_nothing_can_be_decided_again():
    """Attempts that have not ended count, and the reason says that it is a count."""
    rows = [attempt(0, 1.0, ended_s=5.0), attempt(1, 2.0, ended_s=3.0), attempt(2, 4.0, worker=1)]
    made = tables([task(1.0, 5.0), task(2.0, 3.0), task(4.0)], rows)
    found = reconstructed(made, ["w1", "w2"], 2)
    assert (found.worker, found.loads, found.exact) == ("w2", {"w1": 1, "w2": 0}, False)
    assert reason(found, "least_loaded").endswith("by the tables")


def one_of_each():
    """Task 0 times out at w1, is given to w2, which settles it; its late result comes back from w1."""
    rows = [
        attempt(0, 10.0, started_s=11.0, given_up_s=14.0, ended_s=18.0, ran_s=7.0, outcome="timed_out"),
        attempt(0, 15.0, attempt=2, worker=1, ended_s=17.0, outcome="completed", settled=True),
        attempt(1, 20.0, ended_s=21.0, outcome="completed", settled=True),
    ]
    tasks = [task(10.0, 17.0, attempts=2, worker=1), task(20.0, 21.0), task(30.0), task(40.0, 49.0)]
    events = [(12.0, "pause", 0, None), (13.0, "crash", 1, None), (14.0, "dead", 0, "detector")]
    return run(tables(tasks, rows, events))


def test_a_life_tells_everything_in_order_since_the_arrival():
    """Of the faults, those of workers that had the task; late results say that they are late."""
    told = [(step.after_s, step.what) for step in life(one_of_each(), 0).steps]
    assert told == [
        (0.0, "arrives with priority normal; it needs 1.00 s on a worker of speed 1"),
        (0.0, "the coordinator accepts it; none waits"),
        (0.0, "attempt 1 is assigned to w1"),
        (1.0, "attempt 1 begins at w1"),
        (2.0, "w1: pause"),
        (4.0, "w1: declared dead (detector)"),
        (4.0, "attempt 1 is given up: it took longer than the execution timeout"),
        (5.0, "attempt 2 is assigned to w2"),
        (5.0, "attempt 2 begins at w2"),
        (7.0, "attempt 2 ends: the worker reported a result"),
        (7.0, "completed by w2: 7.00 s after its arrival"),
        (8.0, "attempt 1 ends: a late result, counted and dropped"),
    ]


def test_tasks_are_named_by_number_or_by_rank():
    """What never completed is slower than anything that did."""
    result = one_of_each()
    named = {name: find(result, name) for name in ("3", "slowest", "slowest:2", "slowest:3", "first-failed")}
    assert named == {"3": 3, "slowest": 2, "slowest:2": 3, "slowest:3": 0, "first-failed": 2}
    assert slowest(result, 2, lost=0) == [3, 0]


@pytest.mark.parametrize("name", ["4", "slowest:5", "slowest:0", "x", "-1"])
def test_an_unknown_task_is_told_the_range(name: str):
    """One sentence, with what there is."""
    with pytest.raises(UnknownTask, match=r"there is no (task )?\S+, expected .*[013]"):
        find(one_of_each(), name)
