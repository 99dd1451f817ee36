"""Cells that cannot keep up, told from those that only have a long queue for a while."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.analysis.answer_tables import table_of
from orchestrator.analysis.answers import answer, between
from orchestrator.analysis.contenders import Contender
from orchestrator.analysis.saturation import overrun
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.scenario.schema import Scenario
from tests.results.synthetic import attempt, mm1, run, scenario, tables, task
from tests.scenario.ten_slots import ten_slots

LENGTH_S = 100


def given(**changes: Any) -> Scenario:
    short: dict[str, Any] = {"duration_s": 10, "network": {"delay": {"kind": "constant", "value_s": 0.002}}}
    return ten_slots(**short | changes)


def cell(*runs: Run, name: str = "a") -> Contender:
    return Contender(name, name, "", {}, dict(enumerate(runs)))


def one_server(arrival_s: np.ndarray, service_s: float) -> Run:
    """A run of LENGTH_S, on whose one slot the tasks follow each other."""
    number = np.arange(len(arrival_s))
    started_s = np.maximum.accumulate(arrival_s - number * service_s) + number * service_s
    rows = [
        task(at, start + service_s, started_s=start, service_s=service_s)
        for at, start in zip(arrival_s.tolist(), started_s.tolist(), strict=True)
    ]
    attempts = [
        attempt(k, start, ended_s=start + service_s, ran_s=service_s, outcome="completed", settled=True)
        for k, start in enumerate(started_s.tolist())
    ]
    return run(tables(rows, attempts), scenario(duration_s=LENGTH_S, warmup_s=0))


def test_a_queue_that_grows_for_as_long_as_tasks_arrive_is_an_overrun():
    """Ten tasks a second, of which eight are done; of two such runs the numbers are those of one."""
    regular = one_server(np.arange(1, 10 * LENGTH_S) / 10, 0.125)
    for runs in ([regular], [regular, regular]):
        found = overrun(cell(*runs))
        assert found is not None
        assert found.arrivals_per_s == pytest.approx(10, rel=0.01)
        assert found.completed_per_s == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize(
    ("arrival_s", "service_s"),
    [
        pytest.param(np.arange(1, 10 * LENGTH_S) / 10, 0.099, id="nearly all of it busy"),
        pytest.param(np.sort(np.r_[np.arange(1, LENGTH_S), np.full(300, 20.0)]), 0.2, id="a burst that passes"),
        pytest.param(np.sort(np.r_[np.arange(1, LENGTH_S), np.full(300, 99.0)]), 0.2, id="a burst at the end"),
        pytest.param(np.linspace(1, 50, 600), 0.125, id="arrivals that end early"),
    ],
)
def test_a_long_queue_is_none(arrival_s: np.ndarray, service_s: float):
    """It is there for a while, however long."""
    assert overrun(cell(one_server(arrival_s, service_s))) is None


def test_a_busy_queue_is_seldom_taken_for_an_overrun():
    """Not one of 60 M/M/1 runs of 1,000 tasks at a load of 95 %, which all begin empty."""
    assert [seed for seed in range(60) if overrun(cell(mm1(1000, offered_load=0.95, seed=seed))) is not None] == []


def test_what_cannot_keep_up_is_said_first_of_all():
    """A slot of a worker without prefetch is held for 9 ms, and 5 of them are work: 1,111 tasks a second, not 1,200."""
    grid = given(sweep={"cluster.prefetch": [0, 4]})
    cells = [CellRuns.of(one.name, one.values, {0: sim.run(one.scenario)}) for one in grid.cells()]
    told = answer(Sweep(grid, cells))
    assert told is not None
    assert re.fullmatch(
        r"prefetch=0 cannot keep up \(1,(0|1)\d\d/s of 1,2\d\d/s\): its latencies depend on how long it runs\.",
        told.sentences[0],
    )
    assert not any("cannot keep up" in sentence for sentence in told.sentences[1:])
    assert told.assumptions[-1] == (
        "with prefetch=0, the load is 60 %, and 108 % of the slots' time with messages on their way (0.004 s a task, "
        "which more prefetch would hide): more than it can do, so that the queue grows"
    )


def test_a_table_heads_its_conditions_with_what_holds_the_slots():
    """Two sweeps of the same cells are compared cell by cell: a load of 60 % is not all that is to be said of one."""
    grid = given(duration_s=2, sweep={"cluster.prefetch": [0, 4]})
    sweeps = []
    for seed in (1, 2):
        seeded = grid.model_copy(update={"seed": seed})
        cells = [CellRuns.of(one.name, one.values, {0: sim.run(one.scenario)}) for one in seeded.cells()]
        sweeps.append((f"seed {seed}", Sweep(seeded, cells)))
    told = between(sweeps)
    table = table_of(told.groups, told.runs)
    assert table is not None
    heads = [row[0] for row in table.rows if not any(row[1:])]
    assert heads == ["prefetch=0, load 60%, occupancy 108%", "prefetch=4, load 60%"]


def test_several_that_cannot_keep_up_share_a_sentence():
    """The worst ones by name; and the assumptions give the range of their loads."""
    grid = given(duration_s=4, network={}, sweep={"workload.service.mean_s": [0.012, 0.02, 0.016, 0.001]})
    cells = [CellRuns.of(one.name, one.values, {0: sim.run(one.scenario)}) for one in grid.cells()]
    told = answer(Sweep(grid, cells))
    assert told is not None
    first = told.sentences[0]
    assert first.startswith("mean_s=0.02 (")
    assert " and 1 more cannot keep up: their latencies depend on how long they run." in first
    assert told.assumptions[-1] == (
        "with mean_s=0.012 and mean_s=0.02 and 1 more, the load is 144 to 240 %: more than it can do, so that the "
        "queue grows"
    )


def test_closed_clients_always_keep_up():
    """They wait for their results: what they cannot do does not arrive."""
    arrivals = {"kind": "closed", "clients": 50, "think": {"kind": "constant", "value_s": 0}}
    workload = {"arrivals": arrivals, "service": {"kind": "constant", "value_s": 0.05}}
    assert overrun(cell(sim.run(given(workload=workload, duration_s=4)))) is None
