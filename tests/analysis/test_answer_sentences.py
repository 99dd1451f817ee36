"""What the sentences of an answer say where a reader was misled before: losses, doubts, gains, ties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import sim
from orchestrator.analysis.answers import Answer, answer, between
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.scenario.schema import Scenario
from tests.results.synthetic import attempt, run, scenario, tables, task

SAME = "p50, p95, p99 and p99.9 are the same"


def simulated(**tree: Any) -> Sweep:
    """A run of each cell of a sweep, without folders."""
    grid = Scenario.model_validate({"name": "small", "seed": 1, "duration_s": 10, **tree})
    return Sweep(grid, [CellRuns.of(cell.name, cell.values, {0: sim.run(cell.scenario)}) for cell in grid.cells()])


def by_hand(latencies_s: list[float], lost: int = 0, **changes: Any) -> Run:
    """A task at each of 15 s, 15.1 s, ... with these latencies; behind them, tasks that fail after 5 s."""
    rows = [task(15 + 0.1 * n, 15 + 0.1 * n + latency_s, **changes) for n, latency_s in enumerate(latencies_s)]
    return run(tables([*rows, *[task(40.0, 45.0, state="failed", **changes)] * lost]))


def cells(runs: Mapping[str, Run | list[Run]], key: str = "policies.queue") -> Sweep:
    each = {name: one if isinstance(one, list) else [one] for name, one in runs.items()}
    return Sweep(scenario(), [CellRuns.of(name, {key: name}, dict(enumerate(one))) for name, one in each.items()])


def found(sweep: Sweep) -> Answer:
    told = answer(sweep)
    assert told is not None
    assert 1 < len(told.sentences) <= 5
    return told


def told(sweep: Sweep) -> list[str]:
    return found(sweep).sentences


@pytest.fixture(scope="module")
def dead() -> list[str]:
    """All workers crash for good at 5 s, half of the tasks never end, and the timeout makes no difference."""
    return told(
        simulated(
            drain_s=5,
            workload={
                "arrivals": {"kind": "poisson", "rate_per_s": 10},
                "service": {"kind": "constant", "value_s": 0.1},
            },
            cluster={"workers": 2},
            faults=[{"kind": "crash", "at_s": 5, "all": True}],
            sweep={"policies.detection.timeout_s": [3, 6]},
        )
    )


def test_losses_that_are_equal_in_both_cells_come_first(dead: list[str]):
    """How many tasks stay unfinished is said before anything is called the same, and what it leaves unknown."""
    assert dead[0].startswith("With either, ")
    assert dead[0].endswith(" %) stay unfinished.")
    assert "p50, p95, p99 and p99.9 not known in either, because too many tasks are lost" in dead[1]
    assert not any("no difference shown" in one for one in dead)


def test_tasks_without_a_median_have_the_same_arrivals_all_the_same(dead: list[str]):
    """What is not known is how it is in other runs; that the arrivals differ would be untrue."""
    assert dead[-1] == "Not known: how the counts are in other runs than this one. --replications 10 tells."


def test_cells_with_other_arrivals_say_so():
    """The number of tasks is another, so chance does not cancel."""
    assert (
        "Not all have the same arrivals"
        in between([("A", by_hand([1.0] * 8)), ("B", by_hand([1.0] * 9))]).sentences[-1]
    )


def test_cells_that_lose_about_as_many_tasks_are_told_together():
    """Of 100 tasks 20 or 19 fail in each of three cells."""
    runs = {name: by_hand([1.0] * (100 - lost), lost) for name, lost in (("a", 20), ("b", 19), ("c", 20))}
    first = told(cells(runs))[0]
    assert first == "In every cell about as many tasks fail: 19 to 20 of 100 (20 %)."


def test_the_cell_that_loses_most_and_those_that_lose_nothing_are_named():
    """Thirty fail in one of three cells, ten in another."""
    runs = {name: by_hand([1.0] * (100 - lost), lost) for name, lost in (("a", 0), ("b", 30), ("c", 10))}
    assert told(cells(runs))[0] == (
        "With queue=b, 30 of 100 tasks (30 %) fail, the most of all, and in 1 other cell fewer; none with queue=a."
    )


def test_nothing_that_completes_is_all_that_is_told():
    """All tasks fail in each of three cells: no percentile is known in any of them."""
    lines = told(cells({name: by_hand([], 9) for name in "abc"}))
    assert lines[0] == "In every cell, all 9 tasks fail."
    assert lines[1] == "p50, p95, p99 and p99.9 are known in no cell, because too many tasks are lost."


def test_a_class_that_starves_is_no_class_without_a_difference():
    """Urgent tasks complete as before, no low one does: the classes and the losses name it."""
    urgent = [task(15 + 0.1 * n, 16 + 0.1 * n, priority="urgent") for n in range(50)]
    at_s = [15 + 0.1 * n for n in range(50)]
    fed = run(tables([*urgent, *[task(at, at + 2, priority="low") for at in at_s]]))
    starved = run(tables([*urgent, *[task(at, priority="low") for at in at_s]]))
    lines = told(cells({"fifo": fed, "priority": starved}))
    assert lines[0] == (
        "With queue=priority, 50 of 100 tasks (50 %) stay unfinished, all of them low; with queue=fifo, none."
    )
    (classes,) = [one for one in lines if one.startswith("By class")]
    assert "low p50 over " in classes
    assert classes.endswith("; the same for urgent.")


def wasting(seconds: float, dead: int = 0) -> Run:
    """Eighty tasks of 1 s; an attempt of so many seconds that settles nothing; verdicts on healthy workers."""
    rows = [task(15 + 0.1 * n, 16 + 0.1 * n) for n in range(80)]
    more = [attempt(0, 20.0, ended_s=20.0 + seconds, ran_s=seconds, outcome="worker_died")] if seconds else []
    events = [(30.0 + n, "dead", 0, "detector") for n in range(dead)]
    return run(tables(rows, more, events))


def test_what_is_less_is_no_price_but_saved():
    """An attempt fewer, and 4 s less of wasted slot time, are a gain; the other way round they are the price."""
    saves, costs = (told(cells(pair)) for pair in ({"a": wasting(4.0), "b": wasting(0.0)},
                                                  {"a": wasting(0.0), "b": wasting(4.0)}))  # fmt: skip
    assert "queue=b saves 1 attempt and 4.00 s of wasted slot time against queue=a." in saves
    assert "The price of queue=b: 1 more attempt; 4.00 s more wasted slot time than with queue=a." in costs
    assert not any("price" in one or "fewer" in one or "less" in one for one in saves)


def test_mistakes_that_are_equal_in_both_cells_are_told():
    """Two healthy workers are declared dead in either."""
    lines = told(cells({"a": wasting(1.0, dead=2), "b": wasting(1.0, dead=2)}))
    assert "It costs the same: as many workers, attempts and wasted slots; 2 mistaken deaths in both." in lines


def test_attempts_of_tasks_that_are_lost_are_not_saved():
    """A cell that loses half of its tasks makes fewer attempts, which nobody calls a gain."""
    few = run(tables([task(15.0, 16.0), task(15.0, attempts=0)]))
    lines = told(cells({"a": by_hand([1.0, 1.0]), "b": few}))
    assert lines[0] == "With queue=b, 1 of 2 tasks (50 %) stays unfinished; with queue=a, none."
    assert not any("saves" in one for one in lines)


def test_every_cell_beside_the_baseline_has_its_price():
    """Three cells: one wastes 4 s, one 9 s, more than the baseline."""
    lines = told(cells({"a": wasting(1.0), "b": wasting(5.0), "c": wasting(10.0)}))
    assert (
        "The price against queue=a: with queue=b, 4.00 s more wasted slot time; "
        "with queue=c, 9.00 s more wasted slot time."
    ) in lines


def test_of_many_cells_the_least_and_the_most_have_their_price():
    """Five cells that waste nothing to 8 s."""
    lines = told(cells({name: wasting(2.0 * place) for place, name in enumerate("abcde")}))
    assert any("wasted slot time from 0 s with queue=a to 8.00 s with queue=e" in one for one in lines)


def test_cells_that_are_all_alike_are_called_the_same_once():
    """A grid in which nothing moves: one sentence, and no effect of 0.0 %."""
    grid = scenario(sweep={"cluster.capacity": [1, 2], "policies.queue": [{"kind": "fifo"}, {"kind": "priority"}]})
    same = [CellRuns.of(cell.name, cell.values, {0: by_hand([1.0] * 400)}) for cell in grid.cells()]
    lines = told(Sweep(grid, same))
    assert lines[0] == f"{SAME} in all cells."
    assert not any("0.0 %" in one or "Next is" in one for one in lines)


def test_where_p99_tells_no_cell_from_another_the_next_percentile_does():
    """Five of 100 tasks fail in each cell: p99 is known in none, and p50 tells them apart."""
    runs = {name: by_hand([seconds] * 90, 10) for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 2.0))}
    lines = told(cells(runs))
    assert lines[1].startswith(
        "Lowest p50: queue=a, with 1.00 s. Next is queue=c: against queue=a its p50 is 100 % higher"
    )
    assert lines[1].endswith("p95, p99 and p99.9 are known in no cell, because too many tasks are lost.")
    assert lines[2].startswith("queue=b against queue=a, the latency of all tasks: p50 200 % higher")


def test_where_the_baseline_is_the_last_the_best_cell_is_described():
    """The others are faster by a half and by two thirds: the answer has all percentiles of the fastest."""
    lines = told(cells({"a": by_hand([3.0] * 400), "b": by_hand([1.5] * 400), "c": by_hand([1.0] * 400)}))
    assert lines[0].startswith("Lowest p99: queue=c, with 1.00 s, against queue=a 67 % lower")
    assert lines[1].startswith("queue=c against queue=a, the latency of all tasks: p50 67 % lower")
    assert lines[2].startswith("None is shown to cost more than another: in workers, attempts, wasted slots or ")


def test_where_the_baseline_is_the_best_the_last_cell_is_described():
    """The others are slower: the answer has all percentiles of the slowest, and how many of the tasks are slower."""
    lines = told(cells({"a": by_hand([1.0] * 400), "b": by_hand([1.5] * 400), "c": by_hand([3.0] * 400)}))
    assert lines[0].startswith(
        "Lowest p99: queue=a, with 1.00 s. Next is queue=b: against queue=a its p99 is 50 % higher"
    )
    assert lines[1].startswith("queue=c against queue=a, the latency of all tasks: p50 200 % higher")
    assert lines[1].endswith("400 tasks are slower by 2.00 s in the median.")


def test_cells_that_tie_for_the_best_are_named_together():
    """Two of three cells take 1 s, the third 2 s."""
    lines = told(cells({"a": by_hand([1.0] * 400), "b": by_hand([1.0] * 400), "c": by_hand([2.0] * 400)}))
    assert lines[0].startswith("Lowest p99: queue=a and queue=b, with 1.00 s each. Next is queue=c: against queue=a")


def test_the_largest_effect_is_told_first_with_its_doubt():
    """One task in a thousand is slow in the baseline: only p99.9 and the maximum see it, and nothing tells how sure."""
    slow = [1.0] * 398 + [9.0, 9.0]
    lines = told(cells({"a": by_hand(slow), "b": by_hand([1.0] * 398 + [3.0, 3.0])}))
    assert "the latency of all tasks: p99.9 67 % lower, 3.00 s instead of 9.00 s: in these runs, too short" in lines[0]
    assert "p50, p95 and p99 are the same" in lines[0]
    assert "the maximum is 3.00 s instead of 9.00 s in these runs" in lines[0]


def hit_by_a_crash(latencies_s: list[float], hit: list[int]) -> Run:
    """Tasks at w2, and those of these numbers at w1, which is down from 20 s on."""
    rows = [task(15 + 0.1 * n, 15 + 0.1 * n + seconds) for n, seconds in enumerate(latencies_s)]
    attempts = [
        attempt(n, 15 + 0.1 * n, worker=0 if n in hit else 1, ended_s=30.0, outcome="completed", settled=True)
        for n in range(len(rows))
    ]
    return run(tables(rows, attempts, [(20.0, "crash", 0, None)]))


def test_tasks_hit_in_one_cell_only_are_counted_as_such():
    """Two are hit in one run, two in the other, three in either; they wait so differently that a median is told."""
    base = hit_by_a_crash([1.0] * 80, [1, 2])
    other = hit_by_a_crash([1.0, 1.0, 9.0, 4.0] + [1.0] * 76, [2, 3])
    assert told(cells({"a": base, "b": other}))[0] == (
        "With queue=b, 2 tasks wait 5.50 s longer in the median (90 % of them 3.25 s to 7.75 s) than with queue=a, "
        "of the 3 tasks hit by a fault in one of the two or in both."
    )


def test_every_result_that_is_compared_is_named_under_each_condition():
    """B and C against A: at one value all are the same, which is not called a difference that is not shown."""

    def result(busy_s: float) -> Sweep:
        grid = scenario(sweep={"cluster.capacity": [1, 2]})
        seconds = {1: 4.0, 2: busy_s}
        made = [
            CellRuns.of(
                cell.name,
                cell.values,
                {k: by_hand([seconds[cell.values["cluster.capacity"]]] * 400) for k in range(3)},
            )
            for cell in grid.cells()
        ]
        return Sweep(grid, made)

    lines = between([("A", result(1.0)), ("B", result(2.0)), ("C", result(1.5))]).sentences
    b, c = lines[:2]
    assert b.startswith("B against A: p99 100 % higher")
    assert c.startswith("C against A: p99 50 % higher")
    assert "p99 and p50 are the same at capacity=1" in b
    assert not any("no difference is shown" in one for one in lines)
    assert "Lowest p99: all alike at capacity=1; A at capacity=2." in lines


def test_each_choice_has_its_price_under_the_condition_where_it_is_highest():
    """B wastes 4 s more at one rate and 9 s at the other; C costs as much as A."""

    def cell(rate: int, name: str, seconds: float) -> CellRuns:
        values = {"workload.arrivals.rate_per_s": rate, "policies.queue": name}
        return CellRuns.of(f"rate_per_s={rate},queue={name}", values, {0: wasting(seconds)})

    made = [
        cell(rate, name, seconds)
        for rate, b in ((1, 5.0), (2, 10.0))
        for name, seconds in (("a", 1.0), ("b", b), ("c", 1.0))
    ]
    lines = told(Sweep(scenario(), made))
    assert lines[0].endswith("; its price at rate_per_s=2: 9.00 s more wasted slot time.")
    assert "price" not in lines[1]


def test_one_choice_whose_p99_nobody_knows_under_any_condition_says_so():
    """All tasks that p99 falls on are lost; p95 and p50 are told instead."""

    def cell(rate: int, name: str, seconds: float) -> CellRuns:
        values = {"workload.arrivals.rate_per_s": rate, "policies.queue": name}
        return CellRuns.of(f"rate_per_s={rate},queue={name}", values, {0: by_hand([seconds] * 97, 3)})

    lines = told(Sweep(scenario(), [cell(rate, name, len(name)) for rate in (1, 2) for name in ("a", "bb")]))
    assert lines[0] == "In every cell, 3 of 100 tasks (3.0 %) fail."
    assert lines[1] == ("p99 of queue=bb and queue=a is not known in any condition, because too many tasks are lost.")
    assert "queue=bb has a p95 that is" in lines[2]


def test_where_p99_is_known_under_no_condition_another_percentile_is_told():
    """Three of 100 tasks fail everywhere: each choice is told by what p95 and p50 know."""

    def cell(rate: int, name: str, seconds: float) -> CellRuns:
        values = {"workload.arrivals.rate_per_s": rate, "policies.queue": name}
        return CellRuns.of(f"rate_per_s={rate},queue={name}", values, {0: by_hand([seconds] * 97, 3)})

    each = (("a", 2.0), ("b", 1.0), ("c", 3.0))
    lines = told(Sweep(scenario(), [cell(rate, name, seconds) for rate in (1, 2) for name, seconds in each]))
    assert lines[0] == "In every cell, 3 of 100 tasks (3.0 %) fail."
    assert lines[1].startswith("queue=b against queue=a: p95 ")
    assert lines[3] == (
        "Lowest p95: queue=b in every condition. p99 is known in no condition, because too many tasks are lost."
    )
