"""The history checker knows of tasks' own limits, and of refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

import sim
from orchestrator.analysis import promises
from orchestrator.results.runs import Run
from tests.sim.conftest import MakeScenario, make  # noqa: F401  # a fixture
from tests.sim.test_limits import crowded


def broken(run: Run, **changes: Any) -> list[str]:
    """What the checker says of the run, if its scenario had been another one."""
    changed = run.scenario.with_({key.replace("__", "."): value for key, value in changes.items()})
    return [str(violation) for violation in promises.check(Run(run.summary, run.tables, changed))]


@pytest.mark.parametrize(
    "workload",
    [
        {"queue_timeout_s": 0.75},
        {"deadline_s": 1.25},
        {"queue_timeout_s": 0.75, "deadline_s": 1.25},
        {"kinds": {"a": {"share": 0.5, "deadline_s": 1.25}, "b": {"share": 0.5, "queue_timeout_s": 0.75}}},
        {"give_up_after_s": 0},
        {"give_up_after_s": 1},
    ],
    ids=str,
)
def test_an_honest_history_breaks_no_promise(make: MakeScenario, workload: dict[str, Any]):  # noqa: F811
    """Whatever was given up by a limit."""
    room = {"max_waiting": 1} if "give_up_after_s" in workload else {}
    run = sim.run(crowded(make, room, **workload))
    assert run.summary["tasks"]["failed"] > 0
    assert promises.check(run) == []


def test_what_comes_too_late_is_seen(make: MakeScenario):  # noqa: F811
    """A task that completes after its deadline, and one that begins after its queue timeout."""
    run = sim.run(crowded(make))
    late = broken(run, workload__deadline_s=1.25)
    assert late[0] == "limits: task 1 completed at 2.5 s, after its deadline of 1.25 s"
    began = broken(run, workload__queue_timeout_s=0.75)
    said = "was assigned 1 s after its task was accepted, which waits for 0.75 s"
    assert began[0] == f"limits: attempt 1 of task 2 on w1 {said}"


def test_what_outlives_its_deadline_is_seen(make: MakeScenario):  # noqa: F811
    """In a run that ended while tasks were waiting."""
    run = sim.run(crowded(make).with_({"drain_s": 1}))
    assert run.summary["tasks"]["unfinished"] > 0
    said = broken(run, workload__deadline_s=1)
    assert any(sentence.endswith("was never settled, although its deadline was 1 s") for sentence in said)


def test_what_is_given_up_too_soon_is_seen(make: MakeScenario):  # noqa: F811
    """By no limit that its scenario has, or before it; or refused where nothing is."""
    run = sim.run(crowded(make, queue_timeout_s=0.75))
    for changes in ({"workload__queue_timeout_s": None}, {"workload__queue_timeout_s": 0.8}):
        said = broken(run, **changes)
        assert any(sentence.startswith("result: task 2 was settled at 2.25 s by no worker") for sentence in said)
        assert any(sentence.startswith("tries: task 2 failed at 2.25 s after 0 tries") for sentence in said)
    refused = sim.run(crowded(make, {"max_waiting": 1}, give_up_after_s=0))
    assert any(sentence.startswith("result: task 3") for sentence in broken(refused, coordinator__max_waiting=None))


def test_a_refused_task_that_was_executed_is_seen(make: MakeScenario):  # noqa: F811
    """It has attempts, and nobody accepted it."""
    run = sim.run(crowded(make, {"max_waiting": 1}, give_up_after_s=0))
    column = run.tables.tasks.schema.get_field_index("attempts")
    field = run.tables.tasks.schema.field(column)
    counted = pa.array([1] * run.tables.tasks.num_rows, field.type)
    tables = replace(run.tables, tasks=run.tables.tasks.set_column(column, field, counted))
    said = [str(violation) for violation in promises.check(Run(run.summary, tables, run.scenario))]
    assert any(sentence.startswith("result: task 3 was settled") for sentence in said)
