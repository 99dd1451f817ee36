"""What an answer says of a grid of cells: of each class of tasks, of cells that do not differ, of long names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from orchestrator.analysis.answer_tables import name_of
from orchestrator.results.runs import CellRuns, Run, Sweep
from tests.analysis.test_answer_sentences import by_hand, cells, found, simulated, told, wasting
from tests.results.synthetic import run, scenario, tables, task

GRID: dict[str, list[Any]] = {"cluster.workers": [2, 4], "policies.queue": [{"kind": "fifo"}, {"kind": "priority"}]}


def grid_of(made: Callable[[Mapping[str, Any]], Run], sweep: Mapping[str, list[Any]] = GRID, runs: int = 1) -> Sweep:
    grid = scenario(sweep=sweep)
    return Sweep(
        grid,
        [CellRuns.of(cell.name, cell.values, {k: made(cell.values) for k in range(runs)}) for cell in grid.cells()],
    )


def mixed(urgent_s: float, low_s: float) -> Run:
    """Nine urgent tasks for each low one."""
    rows = [
        task(15 + 0.1 * n, 15 + 0.1 * n + seconds, priority=priority)
        for n in range(400)
        for priority, seconds in [("urgent", urgent_s) if n % 10 else ("low", low_s)]
    ]
    return run(tables(rows))


def served(values: Mapping[str, Any]) -> Run:
    """The other queue lets urgent tasks take a quarter, and twice the workers a half; low ones take 20 s or more."""
    urgent_s = 8.0 / values["cluster.workers"] / (4 if values["policies.queue"]["kind"] == "priority" else 1)
    return mixed(urgent_s, 20.0 if values["cluster.workers"] == 2 else 19.0)


def test_each_class_is_told_for_each_cell_by_its_name():
    """Whose number it is stands beside it: a reader of four cells would not know it otherwise."""
    (classes,) = [one for one in told(grid_of(served)) if one.startswith("By class")]
    assert (
        'urgent 4.00 s with "workers=2, queue=fifo", 1.00 s with "workers=2, queue=priority", '
        '2.00 s with "workers=4, queue=fifo", 500 ms with "workers=4, queue=priority"' in classes
    )


def test_of_many_cells_a_class_has_its_lowest_and_its_highest():
    """Six cells would make a sentence that nobody reads."""
    runs = {name: mixed(1.0 + place, 20.0) for place, name in enumerate("abcdef")}
    (classes,) = [one for one in told(cells(runs)) if one.startswith("By class")]
    assert classes.startswith("By class, p99: urgent 1.00 s with queue=a to 6.00 s with queue=f")
    assert "low" not in classes


def test_a_class_that_hardly_differs_is_not_told_for_each_cell():
    """The p99 of low tasks is 20 s or 19.6 s, beside urgent ones whose p99 is divided by eight."""

    def made(values: Mapping[str, Any]) -> Run:
        urgent_s = 8.0 / values["cluster.workers"] / (4 if values["policies.queue"]["kind"] == "priority" else 1)
        return mixed(urgent_s, 20.0 if values["cluster.workers"] == 2 else 19.6)

    (classes,) = [one for one in told(grid_of(made)) if one.startswith("By class")]
    assert "; low within 5.0 % in all cells" in classes
    assert "20.0 s with" not in classes


def test_what_a_choice_does_to_a_class_is_told_where_all_tasks_do_not_show_it():
    """p99 is that of the low tasks, which hardly change: the queue divides that of the urgent ones by four."""
    (effects,) = [one for one in told(grid_of(served)) if one.startswith("On average")]
    assert "policies.queue from fifo to priority leaves p99 as it is, and lowers that of urgent by 75 %" in effects
    assert "cluster.workers from 2 to 4 lowers p99 by 5.0 %, and lowers that of urgent by 50 %" in effects


def test_a_priority_that_is_a_kind_by_another_name_is_told_once():
    """All reports are low and all others high: the kinds are the classes, in each table and each sentence."""
    kinds = {
        "lookup": {"share": 0.5, "service": {"kind": "constant", "value_s": 1}, "priority": "high"},
        "report": {"share": 0.5, "service": {"kind": "constant", "value_s": 1}, "priority": "low"},
    }
    workload = {"arrivals": {"kind": "poisson", "rate_per_s": 9}, "kinds": kinds}
    (group,) = found(simulated(workload=workload, cluster={"workers": 4}, sweep={"cluster.workers": [4, 5]})).groups
    names = {name_of(one.measure) for one in group.others[0].deltas}
    assert {"lookup p99", "report p99"} <= names
    assert not {"high p99", "low p99"} & names


def test_cells_of_which_none_is_shown_to_differ_have_no_lowest():
    """The percentiles of three cells lie apart by chance, and their intervals hold no difference: none is the best."""
    chance = np.random.default_rng(1)

    def by_chance() -> Run:
        return run(tables([task(15 + 0.02 * n, 16 + 0.02 * n + chance.uniform()) for n in range(4000)]))

    lines = told(cells({name: [by_chance() for _ in range(4)] for name in "abc"}))
    assert lines[0].startswith("No cell is shown to have another p95 than queue=a: 1.95 s")
    assert not any("Lowest" in one or "Next is" in one for one in lines)


def test_of_many_that_tie_for_the_best_the_first_in_the_order_of_the_sweep_is_named():
    """Workers from 2 to 9 do no more than 2 do, but 9 have a lower p50: the fewest that are enough is the answer."""
    base, best = by_hand([3.0] * 400), [by_hand([1.0 - 0.01 * place] * 300 + [2.0] * 100) for place in range(5)]
    lines = told(cells({"a": base, **dict(zip("bcdef", best, strict=True))}))
    assert lines[0].startswith("Lowest p99: queue=b and 4 other cells, with 2.00 s each, against queue=a 33 % lower")


def test_a_next_best_that_is_the_baseline_is_compared_once():
    """The best is told against the baseline; the same again, the other way round, says nothing."""
    lines = told(cells({"a": by_hand([2.0] * 400), "b": by_hand([1.0] * 400), "c": by_hand([3.0] * 400)}))
    assert lines[0].startswith("Lowest p99: queue=b, with 1.00 s, against queue=a 50 % lower")
    assert ". Next is queue=a." in lines[0]


def test_cells_that_cost_the_same_have_one_price():
    """Two of three cells waste 4 s more than the baseline."""
    lines = told(cells({"a": wasting(1.0), "b": wasting(5.0), "c": wasting(5.0)}))
    assert "The price against queue=a: with each of queue=b and queue=c, 4.00 s more wasted slot time." in lines


def test_tasks_that_are_faster_are_told_beside_those_that_are_slower():
    """Of 400 tasks a run, 40 are faster and 8 are slower, in each of two runs: counts are those of a run."""
    base = [by_hand([3.0] * 400), by_hand([3.0] * 400)]
    last = [by_hand([40.0] * 8 + [3.0] * 352 + [0.0] * 40), by_hand([40.0] * 8 + [3.0] * 352 + [0.0] * 40)]
    lines = told(cells({"a": base, "b": base, "c": last}))
    (far,) = [one for one in lines if one.startswith("queue=c against queue=a")]
    assert far.endswith("; 8 tasks a run are slower by 37.0 s in the median.")


def test_a_name_with_commas_of_its_own_stands_in_quotes():
    """`no hedging, no ejection` in a sentence reads as two things."""
    sweep: dict[str, list[Any]] = {
        "policies.hedging": [None, {"quantile": 0.9}],
        "policies.ejection": [None, {"kind": "outlier"}],
    }
    seconds = iter((4.0, 3.0, 2.0, 1.0))
    lines = told(grid_of(lambda _: by_hand([next(seconds)] * 400), sweep))
    assert 'against "no hedging, no ejection" 75 % lower' in lines[0]
