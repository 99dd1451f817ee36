"""Fidelity: errors of the simulated world beside those that live runs have between them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from orchestrator.analysis.comparison import AROUND, Incomparable
from orchestrator.analysis.fidelity import DIFFERENT, EQUIVALENT, NOT_SHOWN, fidelity
from orchestrator.pictures import draw
from orchestrator.results import folders
from orchestrator.results.runs import CellRuns, Run, Sweep
from tests.results.synthetic import mm1, run, scenario, tables, task

RNG = np.random.default_rng(3)
LATENCIES_S = RNG.exponential(1.0, 60)


def of(world: str, factor: float) -> Run:
    """The same 60 tasks, each so many times as slow."""
    return run(
        tables([task(15.0 + n, 15.0 + n + factor * latency_s) for n, latency_s in enumerate(LATENCIES_S)]), world=world
    )


def grid(world: str, factors: tuple[float, ...]) -> Sweep:
    """A cell for each factor."""
    tree = scenario(sweep={"cluster.workers": list(range(2, 2 + len(factors)))})
    runs = [of(world, factor) for factor in factors]
    return Sweep(tree, [CellRuns.of(c.name, c.values, {0: r}) for c, r in zip(tree.cells(), runs, strict=True)])


def test_several_live_runs_give_an_error_of_their_mean_and_its_interval():
    """Live runs at 1.00, 1.02 and 0.99 of the simulated times: geometric mean, and t with two degrees of freedom."""
    factors = (1.0, 1.02, 0.99)
    found = fidelity([of("live", factors[0]), of("sim", 1.0), *(of("live", one) for one in factors[1:])])
    row = found.cells[0].row("latency_s.p95")
    ratios = -np.log(factors)
    half = 4.302652729749 * np.std(ratios, ddof=1) / math.sqrt(3)
    assert row.row.error == pytest.approx(math.expm1(np.mean(ratios)))
    assert row.row.error_ci95 == pytest.approx((math.expm1(np.mean(ratios) - half), math.expm1(np.mean(ratios) + half)))
    assert row.row.reference == pytest.approx(row.row.value * np.exp(np.mean(np.log(factors))))
    assert sorted(row.floor) == pytest.approx(sorted([1 - 1 / 1.02, 1 / 0.99 - 1, 1.02 / 0.99 - 1]))
    assert row.verdict == EQUIVALENT
    assert found.summary()["cells"][0]["intervals"] == "3 live runs of the same plan"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, EQUIVALENT), (1.1, NOT_SHOWN), (1.3, DIFFERENT)])
def test_two_one_sided_tests_decide(factor: float, verdict: str):
    """The interval lies within the margin of 10 %, over its end, or beyond it; a wider margin forgives."""
    lived = [of("live", one) for one in (1.0, 1.01, 1.005, 1.002)]
    assert fidelity([of("sim", factor), *lived]).cells[0].row("latency_s.p50").verdict == verdict
    assert fidelity([of("sim", factor), *lived], margin=0.5).cells[0].row("latency_s.p50").verdict == EQUIVALENT


def excesses(world: str, factor: float, affinity: dict[str, float] | None) -> Run:
    """60 tasks that take less than their demand of 2 s, which is what remembered keys do."""
    rows = [task(15.0 + n, 15.0 + n + factor * (1 + n / 100), service_s=2.0) for n in range(60)]
    tree = scenario().with_({"workload.affinity": affinity})
    return run(tables(rows), tree, world=world)


@pytest.mark.parametrize("affinity", [None, {"keys": 5, "hit_factor": 0.25}])
def test_a_statistic_whose_sign_differs_breaks_nothing(affinity: dict[str, float] | None, tmp_path: Path):
    """Latency minus service is below 0 in one world and above 0 in the other; where keys make tasks shorter, it is
    not known at all. All of it can be saved."""
    found = fidelity([excesses("sim", 1.3, affinity), *(excesses("live", one, affinity) for one in (1.0, 2.0))])
    found.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    (cell,) = saved["cells"]
    known = {row["metric"] for row in cell["rows"] if row["sim"] is not None}
    assert "latency_s.p50" in known
    assert ("excess_s.p50" in known) == (affinity is None)


def test_one_live_run_has_no_floor_and_the_interval_of_the_blocks():
    """The interval is that of `compare`; where the tasks are too few for one, nothing is shown."""
    found = fidelity([mm1(400), mm1(400, world="live")])
    row = found.cells[0].row("throughput_per_s")
    assert (list(row.floor), found.live_runs, row.verdict) == ([], 1, EQUIVALENT)
    assert found.cells[0].row("latency_s.p50", AROUND).floor == []
    few = fidelity([run(tables([task(20.0, 21.0)])), run(tables([task(20.0, 21.0)]), world="live")])
    assert few.cells[0].row("latency_s.p50").verdict == NOT_SHOWN


def test_the_distance_is_the_largest_difference_of_shares():
    """Of latencies 1, 2, 3, 4 and 3, 4, 5, 6, half are under 3 on one side and none on the other."""
    one, other = (
        run(tables([task(20.0 + n, 20.0 + n + first + n) for n in range(4)]), world=world)
        for first, world in ((1.0, "sim"), (3.0, "live"))
    )
    cell = fidelity([one, other, other]).cells[0]
    assert (cell.ks, list(cell.ks_floor)) == (0.5, [0.0])


def test_a_task_that_never_ended_is_slower_than_all():
    """One of four unfinished on one side only is a distance of a quarter."""
    done = [task(20.0 + n, 21.0 + n) for n in range(4)]
    lived = run(tables([*done[:3], task(23.0)]), world="live")
    cell = fidelity([run(tables(done)), lived]).cells[0]
    assert cell.ks == 0.25
    assert cell.row("latency_s.p99").verdict is None


def test_cells_that_both_worlds_tell_apart_must_stand_in_the_same_order():
    """A cell twice as slow as another is apart in both worlds; one that is reversed counts, and is not alike."""

    order = {one.metric: one for one in fidelity([grid("sim", (1, 9, 60)), grid("live", (1, 9, 60))]).order}
    assert (order["latency_s.p50"].tau, order["latency_s.p50"].apart, order["latency_s.p50"].alike) == (1.0, 3, 3)
    order = {one.metric: one for one in fidelity([grid("sim", (1, 60)), grid("live", (60, 1))]).order}
    assert (order["latency_s.p50"].apart, order["latency_s.p50"].alike) == (1, 0)


def test_what_is_not_one_simulated_and_some_live_results_is_refused():
    """Two simulated ones, or none."""
    for worlds in (["sim", "sim"], ["live", "live"], ["sim"], ["sim", "sim", "live"]):
        with pytest.raises(Incomparable, match="expected one of the simulated world"):
            fidelity([of(world, 1.0) for world in worlds])


def test_another_plan_is_told():
    """The seed differs, so chance does."""
    other = run(tables([task(20.0, 21.0)]), scenario(seed=2), world="live")
    assert fidelity([of("sim", 1.0), other]).notes == [
        "seed differs: the worlds did not run the same plan, and the errors hold what chance decided for each"
    ]


def test_folders_do_as_well_and_the_numbers_are_saved(tmp_path: Path):
    """fidelity.json holds every number; there is one picture."""
    for name, one in (("sim", of("sim", 1.0)), ("live", of("live", 1.2))):
        folders.save(tmp_path / name, one)
    found = fidelity([tmp_path / "sim", tmp_path / "live"])
    found.save(tmp_path)
    assert json.loads((tmp_path / "fidelity.json").read_text()) == json.loads(json.dumps(found.summary()))
    assert list(draw(found)) == ["fidelity-percentiles"]
    assert found.miss(0.1) == "latency_s.p50 is off by -16.7%; at most 10.0% is allowed"
    assert found.miss(0.2) is None
    assert len(found.table()) == len(found.cells[0].rows)
