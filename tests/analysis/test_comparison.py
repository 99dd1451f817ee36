"""Comparison: what two results have in common, how far they are apart, and how sure that is."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.comparison import (
    AROUND,
    DETECTION_TIME,
    JUDGED,
    WHOLE,
    Comparison,
    Incomparable,
    compare,
)
from orchestrator.analysis.intervals import BLOCKS, Spread, error_intervals
from orchestrator.analysis.measures import LATENCY, METRICS, Clock, Observed, Ordered, Together, around_faults
from orchestrator.analysis.outages import OUTAGES
from orchestrator.pictures import draw
from orchestrator.results import folders
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.results.statistics import flatten
from tests.results.synthetic import attempt, mm1, run, scenario, sweep, tables, task

CRASH = [(20.0, "crash", 0, None), (22.0, "dead", 0, "detector"), (30.0, "heal", 0, "restart"), (31.0, "up", 0, "up")]


def by_hand(latencies_s: list[float], world: str, detected_s: float = 22.0) -> Run:
    """Tasks at 15, 16, ... with the given latencies and 1 s of service each; w1 is out from 20 to 31."""
    tasks = [
        task(15.0 + n, 15.0 + n + latency_s, started_s=14.0 + n + latency_s) for n, latency_s in enumerate(latencies_s)
    ]
    attempts = [
        attempt(n, 14.0 + n + latency_s, ended_s=15.0 + n + latency_s, ran_s=1.0, outcome="completed", settled=True)
        for n, latency_s in enumerate(latencies_s)
    ]
    events = [(detected_s if kind == "dead" else at, kind, w, detail) for at, kind, w, detail in CRASH]
    return run(tables(tasks, attempts, events), world=world)


def test_the_statistics_are_those_of_the_tables():
    """Every statistic of five tasks, and every relative error, is the one computed by hand."""
    (cell,) = compare(by_hand([1, 2, 3, 4, 5], "sim"), by_hand([2, 4, 6, 8, 10], "live", detected_s=24.0)).cells
    expected = {
        "latency_s.p50": (3, 6),
        "latency_s.p90": (4.6, 9.2),
        "wait_s.mean": (2, 5),
        "wait_s.p99": (3.96, 8.92),
        "excess_s.p50": (2, 5),
        "excess_s.p99": (3.96, 8.92),
        "throughput_per_s": (5 / 90, 5 / 90),
        "utilization": (5 / 180, 5 / 180),
        DETECTION_TIME: (2, 4),
    }
    for metric, (value, reference) in expected.items():
        row = cell.row(metric)
        assert row.value == pytest.approx(value)
        assert row.reference == pytest.approx(reference)
        assert row.error == pytest.approx((value - reference) / reference)


def test_the_window_holds_the_tasks_around_the_fault():
    """It lasts from the crash until 5 s after the return: of 30 tasks it has those from 20 to 36."""
    ours, theirs = by_hand([float(n) for n in range(1, 31)], "sim"), by_hand([1.0] * 30, "live")
    assert around_faults([ours]) == [(20.0, 36.0)]
    (cell,) = compare(ours, theirs).cells
    assert cell.row("latency_s.p50", AROUND).value == np.median(range(6, 23))
    assert cell.row("throughput_per_s", AROUND).reference == 17 / 16  # both ends included


def test_the_whole_run_is_measured_as_its_summary_is():
    """On the clock of the whole run, the statistics equal those of `summary.json`."""
    done = mm1(3000, offered_load=0.8)
    measured = Together([Observed.of(done, Clock.of([(10.0, done.scenario.duration_s)]))]).measure()
    told = flatten(done.summary)
    assert {m: measured[m] for m in METRICS if m in told} == {m: pytest.approx(told[m]) for m in METRICS if m in told}
    assert len([metric for metric in METRICS if metric in told]) == 9


def test_pieces_put_together_are_the_whole():
    """Blocks that cover a run without a gap give the statistics of the run."""
    observed = Observed.of(mm1(3000, offered_load=0.8), Clock.of([(10.0, 1000.0)]))
    whole = Together([observed]).measure()
    blocks = Together(observed.blocks(20))
    assert blocks.measure() == {metric: pytest.approx(value) for metric, value in whole.items()}
    without = Together(observed.blocks(20)[1:])
    assert blocks.measure(without=0) == {metric: pytest.approx(value) for metric, value in without.measure().items()}
    assert blocks.measure(without=0)["latency_s.p99"] != whole["latency_s.p99"]


def test_replications_are_pooled_not_averaged():
    """Percentiles of several runs are those of all their tasks together."""
    clock = Clock.of([(10.0, 500.0)])
    parts = [
        Observed.of(mm1(1000, offered_load=offered_load, seed=seed), clock)
        for offered_load, seed in ((0.3, 1), (0.9, 2))
    ]
    together = np.concatenate([part.latency_s for part in parts])
    assert Together(parts).measure()["latency_s.p99"] == pytest.approx(np.quantile(together, 0.99))


def test_a_clock_stands_still_outside_its_stretches():
    """A clock reads the seconds for which it has run."""
    clock = Clock.of([(10.0, 20.0), (50.0, 55.0)])
    times_s = np.array([0.0, 10.0, 15.0, 20.0, 30.0, 52.0, 55.0, 90.0])
    assert clock.read(times_s).tolist() == [0, 0, 5, 10, 10, 12, 15, 15]
    assert clock.runs_at(times_s).tolist() == [False, True, True, True, False, True, True, False]
    assert clock.length_s == 15


@pytest.mark.parametrize(
    ("events", "stretches"),
    [
        ([(40.0, "pause", 0, None), (41.0, "heal", 0, "resume")], [(40.0, 46.0)]),
        (
            [(40.0, "pause", 0, None), (45.0, "dead", 0, "detector"), (50.0, "heal", 0, "resume"),
             (52.0, "up", 0, "revived")],
            [(40.0, 57.0)],
        ),
        ([(40.0, "crash", 0, None), (46.0, "dead", 0, "detector")], [(40.0, 51.0)]),
        ([(40.0, "crash", 0, None), (44.0, "crash", 1, None)], [(40.0, 49.0)]),
        ([(40.0, "crash", 0, None), (60.0, "crash", 1, None)], [(40.0, 45.0), (60.0, 65.0)]),
        ([(97.0, "crash", 0, None)], [(97.0, 100.0)]),
        ([(1.0, "pause", 0, None), (2.0, "heal", 0, "resume")], []),
        ([(40.0, "dead", 0, "detector"), (41.0, "up", 0, "revived")], []),
    ],
    ids=["pause", "declared dead", "for good", "overlap", "apart", "cut at the end", "in the warm-up", "no fault"],
)  # fmt: skip
def test_faults_have_their_stretches(events, stretches):
    """A stretch lasts from the fault until five seconds after the worker is back or declared dead."""
    assert around_faults([run(tables(events=events))]) == stretches


def test_the_live_result_is_the_reference():
    """A live result is the reference in either order; of two results of one world the second is."""
    simulated, lived = mm1(200, world="sim"), mm1(200, seed=2, world="live")
    for one, other in ((simulated, lived), (lived, simulated)):
        found = compare(one, other, ("a", "b"))
        assert (found.label, found.reference_label) == ("sim", "live")
        assert found.cells[0].references == [lived]
    again = compare(simulated, mm1(200), ("a", "b"))
    assert (again.label, again.reference_label) == ("a", "b")


def test_equal_runs_have_no_error_and_are_sure_of_it():
    """Common chance cancels, but for the ranks of percentiles; blocks too few for one are so for its error."""
    (cell,) = compare(mm1(2000), mm1(2000, world="live")).cells
    assert all(row.error == 0 for row in cell.rows)
    told = {row.metric for row in cell.rows if row.where == WHOLE and row.error_ci95 is not None}
    assert {"latency_s.p50", "wait_s.mean", "throughput_per_s", "utilization"} <= told
    assert all(cell.row(metric).error_ci95 == pytest.approx((0, 0), abs=0.01) for metric in told)
    assert cell.row("wait_s.mean").error_ci95 == pytest.approx((0, 0))
    row = cell.row("latency_s.p99")
    assert (row.too_few, row.error_ci95) == (True, None)
    assert row.ci95 is not None
    assert row.value is not None
    assert row.ci95[0] < row.value
    assert row.ci95[1] is None


def test_blocks_know_that_tasks_are_not_independent():
    """At a load of 0.9 the interval is far wider than that of as many independent waits."""
    (cell,) = compare(mm1(20_000, offered_load=0.9, seed=3), mm1(20_000, offered_load=0.9, seed=4)).cells
    row = cell.row("wait_s.mean")
    waits_s = mm1(20_000, offered_load=0.9, seed=3).tasks.wait_s
    assert row.ci95 is not None
    assert row.ci95[1] is not None
    assert row.ci95[1] - row.ci95[0] > 3 * 2 * 1.96 * waits_s.std() / math.sqrt(len(waits_s))
    assert cell.intervals == f"{BLOCKS} blocks of the run"


def test_a_short_correlated_run_says_too_few():
    """At a load of 0.9, 1,000 tasks are a handful of independent ones: no tail has an interval, and no error of one."""
    (cell,) = compare(mm1(1000, offered_load=0.9, seed=3), mm1(1000, offered_load=0.9, seed=4)).cells
    for metric in LATENCY[1:]:
        row = cell.row(metric)
        assert row.ci95 is not None
        assert (row.ci95[1], row.error_ci95, row.too_few) == (None, None, True)


def test_the_intervals_cover_about_as_often_as_they_say():
    """Most intervals of single E2/M/1 runs cover the true mean wait, by sigma = (2 rho / (2 rho + 1 - sigma))^2."""
    offered_load, sigma = 0.6, 0.5
    for _ in range(100):
        sigma = (2 * offered_load / (2 * offered_load + 1 - sigma)) ** 2
    covered = 0
    for seed in range(40):
        observed = Observed.of(mm1(3000, offered_load, seed), Clock.of([(100.0, 2400.0)]))
        low, high, _ = Spread.over_blocks(observed, observed).values["wait_s.mean"]
        covered += low <= sigma / (1 - sigma) <= (math.inf if high is None else high)
    assert covered >= 35


def of_cell(runs: list[Run], name: str = "base") -> Sweep:
    return Sweep(scenario(), [CellRuns.of(name, {}, dict(enumerate(runs)))])


def test_the_error_of_replications_is_that_of_the_pooled_numbers():
    """Ten pairs with ratios 2 and 1/2 in turn: the error is 0 in the middle, although the mean error is +25 %."""
    ours = [by_hand([x] * 4, "sim") for x in (4.0, 2.0) * 5]
    theirs = [by_hand([x] * 4, "live") for x in (2.0, 4.0) * 5]
    (cell,) = compare(of_cell(ours), of_cell(theirs)).cells
    row = cell.row("wait_s.mean")
    assert row.error == pytest.approx(0)
    assert row.error_ci95 is not None
    low, high = row.error_ci95
    assert (1 + low) * (1 + high) == pytest.approx(1, rel=0.01)
    assert low < -0.3
    assert cell.intervals == "10 replications"
    assert cell.row(DETECTION_TIME).error_ci95 == pytest.approx((0, 0))


def test_an_error_lies_within_its_interval_and_above_minus_100_percent():
    """Whatever the replications are, as long as both sides are positive."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        ours, theirs = (
            [by_hand(rng.lognormal(1, 1, 5).clip(1.01).tolist(), world) for _ in range(3)] for world in ("sim", "live")
        )
        (cell,) = compare(of_cell(ours), of_cell(theirs)).cells
        for row in cell.rows:
            if row.error_ci95 is not None:
                assert row.error is not None
                assert -1 < row.error_ci95[0] <= row.error + 1e-9
                assert row.error - 1e-9 <= row.error_ci95[1]


def test_only_what_both_sides_have_is_compared():
    """Replications are paired by number and cells by name; having nothing in common is an error."""
    (cell,) = compare(of_cell([mm1(100, seed=s) for s in (1, 2, 3)]), of_cell([mm1(100), mm1(100)])).cells
    assert len(cell.runs) == len(cell.references) == 2
    grid = sweep({"seed": [1, 2]}, replications=1, n=60)
    assert [cell.name for cell in compare(grid, sweep({"seed": [2, 3]}, replications=1, n=60)).cells] == ["seed=2"]
    with pytest.raises(Incomparable, match=r"no cell .* on both sides \(seed=1, seed=2 and seed=3, seed=4\)"):
        compare(grid, sweep({"seed": [3, 4]}, replications=1, n=60))


def grids(ours: list[float], theirs: list[float]) -> Comparison:
    """Two sweeps; all tasks of a cell take equally long."""

    def side(latencies_s: list[float], world: str) -> Sweep:
        runs = [by_hand([latency_s] * 4, world) for latency_s in latencies_s]
        return Sweep(scenario(), [CellRuns.of(f"c{n}", {"seed": n}, {0: one}) for n, one in enumerate(runs)])

    return compare(side(ours, "sim"), side(theirs, "live"))


@pytest.mark.parametrize(
    ("ours", "theirs", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),
        ([1, 2], [5, 5], None),
    ],
)
def test_kendalls_tau_says_whether_both_rank_alike(ours, theirs, tau):
    """Tau is concordant minus discordant pairs over all pairs, and None if all cells are alike."""
    found = {rank.metric: rank for rank in grids(ours, theirs).ranking}
    assert found["latency_s.p95"].tau == (None if tau is None else pytest.approx(tau))
    assert found["latency_s.p95"].best == "c0"
    assert found["latency_s.p95"].reference_best == f"c{int(np.argmin(theirs))}"


def test_a_mean_of_those_that_started_ranks_no_cells_that_lost_tasks():
    """One that starves half of its tasks has the shortest mean wait, and is not the best by it."""
    good = run(tables([task(15.0, 17.0, started_s=16.0)] * 2))
    starving = run(tables([task(15.0, 16.0), task(15.0, started_s=math.nan)]))

    def ranked(*runs: Run) -> set[str]:
        grid = Sweep(scenario(), [CellRuns.of(f"c{n}", {"seed": n}, {0: one}) for n, one in enumerate(runs)])
        return {rank.metric for rank in compare(grid, grid).ranking}

    assert "wait_s.mean" in ranked(good, good)
    assert "wait_s.mean" not in ranked(good, starving)
    assert "latency_s.p50" in ranked(good, starving)


def test_a_miss_names_the_worst():
    """A miss is a sentence with both values; a metric that is not judged is never named."""
    found = compare(by_hand([1, 2, 3, 4, 5], "sim"), by_hand([2, 4, 6, 8, 10], "live"))
    assert found.miss(0.6) is None
    assert found.miss(0.1) == "wait_s.mean is off by -60.0% (sim 2, live 5); at most 10.0% is allowed"
    assert {row.metric for row in found.cells[0].rows if row.where == WHOLE} > set(JUDGED) - set(OUTAGES)


def test_what_one_side_alone_knows_is_a_miss():
    """A detection time that only one side knows is off by more than any allowed error."""
    undetected = run(tables([task(15.0, 16.0)], events=[CRASH[0]]), world="live")
    found = compare(run(tables([task(15.0, 16.0)], events=CRASH), world="sim"), undetected)
    assert (
        found.miss(1e9)
        == f"{DETECTION_TIME} is known to one side only (sim 2, live none); at most 100000000000.0% is allowed"
    )
    assert compare(undetected, undetected).miss(0.0) is None


def test_the_detection_of_a_single_crash_is_not_judged():
    """The detection time is judged over replications, not in one run, where it depends on phases."""
    early, late = (by_hand([1.0, 2.0], world, at) for world, at in (("sim", 22.0), ("live", 24.0)))
    assert compare(early, late).cells[0].row(DETECTION_TIME).error == -0.5
    assert compare(early, late).miss(0.1) is None
    assert (compare(of_cell([early] * 2), of_cell([late] * 2)).miss(0.1) or "").startswith(
        f"{DETECTION_TIME} is off by -50"
    )


def test_a_miss_names_its_cell():
    """If there are several cells, a miss names the worst one."""
    assert (grids([1, 2], [1, 4]).miss(0.1) or "").startswith("c1: wait_s.mean is off by -66.7%")


def test_the_result_is_saved_and_the_same_again(tmp_path: Path):
    """Equal comparisons give the same bytes in comparison.json and in every picture."""
    for folder in ("a", "b"):
        found = compare(mm1(500), mm1(500, seed=2, world="live"))
        found.save(tmp_path / folder)
        draw(found, tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    names = [f"comparison-{what}.{kind}" for what in ("percentiles", "qq", "timeline") for kind in ("png", "svg")]
    assert files == sorted([*names, "comparison.json", "manifest.json"])
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    told = json.loads((tmp_path / "a/comparison.json").read_text())
    assert (told["of"], told["against"], told["scenario"]) == ("sim", "live", "synthetic")
    assert {row["metric"] for row in told["cells"][0]["rows"]} == {*METRICS, DETECTION_TIME}


def test_saved_runs_compare_as_fresh_ones(tmp_path: Path):
    """Saved and loaded runs give the same numbers."""
    ours, theirs = mm1(500), mm1(500, seed=2, world="live")
    for name, one in (("a", ours), ("b", theirs)):
        folders.save(tmp_path / name, one)
    again = compare(folders.load(tmp_path / "a"), folders.load(tmp_path / "b"))
    assert again.summary() == compare(ours, theirs).summary()


def test_the_pictures_show_both_sides_and_the_faults():
    """The pictures show a curve and the verdicts of each side, a mark for each fault, and the setting."""
    figures = draw(compare(mm1(500), mm1(500, seed=2, world="live")))
    (legend,) = figures["comparison-timeline"].legends
    labels = {text.get_text() for text in legend.get_texts()}
    assert labels == {"sim", "live", "crash: w2", "recovery", "sim: declared dead", "live: declared dead"}
    every = [str(line.get_label()) for line in figures["comparison-percentiles"].axes[1].get_lines()]
    curves = [label for label in every if not label.startswith("_")]  # the rest are dots at their ends
    assert [str(label).partition(" (n = ")[0] for label in curves] == [
        f"{w}: {what}" for w in ("live", "sim") for what in ("latency", "latency minus service")
    ]
    assert "faults: none" in figures["comparison-qq"].get_supxlabel()


def test_a_grid_is_drawn_by_its_errors_and_ranks():
    """The pictures of a grid show its errors, and its ranks with their tau."""
    figures = draw(grids([1, 2, 3], [1, 2, 4]))
    assert list(figures) == ["comparison-errors", "comparison-ranks", "comparison-percentiles"]
    assert [axes.get_title(loc="left") for axes in figures["comparison-ranks"].axes] == [
        f"{p} of latency:  τ = 1.00" for p in ("p50", "p95", "p99")
    ]


def test_each_side_is_measured_over_its_own_window():
    """One task of 1 s in 10 s, and the same in 90 s: rates are those that each run says of itself."""
    made = tables([task(20.0, 21.0)], [attempt(0, 20.0, ended_s=21.0, ran_s=1.0, outcome="completed", settled=True)])
    short, long = run(made, scenario(warmup_s=15, duration_s=25)), run(made)
    (cell,) = compare(short, long).cells
    for metric, own in (("throughput_per_s", (1 / 10, 1 / 90)), ("utilization", (1 / 20, 1 / 180))):
        row = cell.row(metric)
        assert (row.value, row.reference) == pytest.approx(own)
        assert (short.summary[metric], long.summary[metric]) == pytest.approx(own)


def test_a_side_that_fails_its_slow_tasks_is_not_the_faster_one():
    """One side completes 1 s and fails the rest, the other completes 1 to 4 s: p50 of the first one is not known."""
    hasty = run(tables([task(20.0, 21.0), *[task(20.0, 21.5, state="failed")] * 3]))
    patient = run(tables([task(20.0, 20.0 + k) for k in range(1, 5)]), world="live")
    found = compare(hasty, patient)
    (cell,) = found.cells
    row = cell.row("latency_s.p50")
    assert (row.value, row.at_least, row.reference, row.error) == (None, 1.5, 2.5, None)
    assert "is known to one side only" in str(found.miss(0.5))
    assert cell.tasks["value"] == {"submitted": 4, "completed": 1, "failed": 3, "unfinished": 0}
    assert found.summary()["cells"][0]["tasks"]["reference"]["completed"] == 4
    for figure in draw(found).values():
        figure.draw_without_rendering()


def test_an_error_needs_every_cluster_to_know():
    """Without one of three clusters the statistic is not known: its ratio has no interval, that of the other has."""
    sides = {"known": [2.0, 2.0, 2.0, 2.0], "lost": [2.0, 2.0, math.inf, 2.0], "none": [0.0] * 4}

    def left(without: int | None) -> dict[str, float]:
        return {metric: values[0 if without is None else without + 1] for metric, values in sides.items()}

    found = error_intervals(left, lambda _: dict.fromkeys(sides, 1.0), 3)
    assert found == {"known": pytest.approx((1.0, 1.0))}


def test_runs_without_a_completed_task_can_be_compared():
    """A statistic that neither side knows can be drawn and is no miss."""
    empty = run(tables([task(15.0)]))
    found = compare(empty, empty)
    assert found.cells[0].row("latency_s.p50").value is None
    assert found.miss(0.0) is None
    assert len(draw(found)) == 3


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 3)), min_size=1), st.floats(0, 1))
def test_resampled_statistics_are_those_of_the_repeated_values(drawn, point):
    """A value that counts three times counts as three values."""
    values, times = (np.array(column) for column in zip(*drawn, strict=True))
    repeated = np.repeat(values, times)
    ordered = Ordered.of(np.where(values > 8.5, np.nan, values))
    known = repeated[repeated <= 8.5]
    expected = (np.mean(known), np.quantile(known, point)) if len(known) else (math.nan, math.nan)
    found = ordered.mean(times), *ordered.quantiles(times, [point])
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_table_has_a_row_for_each_statistic():
    """The data frame has a row per statistic, with the name of the cell."""
    table = compare(mm1(300), mm1(300, world="live")).table()
    assert len(table) == 2 * len(METRICS) + 1
    assert list(table.columns[:4]) == ["cell", "metric", "where", "value"]


def test_rows_stand_in_one_order():
    """The rows of the whole run come first, then those around the faults, with rising percentiles."""
    (cell,) = compare(mm1(300), mm1(300, world="live")).cells
    assert [row.where for row in cell.rows] == sorted((row.where for row in cell.rows), reverse=True)
    percentiles = [cell.row(f"latency_s.{p}").value or 0 for p in ("p50", "p90", "p95", "p99")]
    assert all(low <= high for low, high in pairwise(percentiles))
