"""Calibration finds what the simulator was told, and a scenario takes it up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.analysis.calibration import Unfit, calibrate, fit
from orchestrator.analysis.comparison import compare
from orchestrator.scenario.distributions import Constant, Distribution
from orchestrator.scenario.schema import Scenario, ScenarioError
from tests.sim.conftest import MakeScenario

DELAY = {"kind": "lognormal", "mean_s": 0.001, "cv": 0.5}
KNOWN: dict[str, Any] = {
    "duration_s": 40,
    "warmup_s": 2,
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_s": 100},
        "service": {"kind": "exponential", "mean_s": 0.04},
    },
    "cluster": {"workers": 4, "capacity": 2, "overhead": {"kind": "constant", "value_s": 0.002}},
    "network": {"delay": DELAY},
    "faults": [
        {"kind": "pause", "at_s": 10, "workers": ["w1"], "for_s": 2},
        {"kind": "crash", "at_s": 20, "workers": ["w2"], "restart_after_s": 5},
    ],
}


def close(distribution: Distribution, mean_s: float, cv: float) -> bool:
    return distribution.mean() == pytest.approx(mean_s, rel=0.1) and distribution.cv2() ** 0.5 == pytest.approx(
        cv, rel=0.1
    )


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("cost_s", [0.0, 0.0001])
def test_known_delays_are_found(make: MakeScenario, cost_s: float, prefetch: int):
    """Each leg, the overhead and the cost within a tenth, although tasks queue, a worker pauses and one dies."""
    cluster = {**KNOWN["cluster"], "prefetch": prefetch}
    found = calibrate([sim.run(make(**{**KNOWN, "cluster": cluster, "coordinator": {"cost_s": cost_s}}))])
    for message_kind in (found.submit, found.assign, found.result):
        assert close(message_kind.distribution, 0.001, 0.5)
        assert message_kind.samples > 2000
        assert message_kind.ks is not None
        assert message_kind.ks < 0.03
    assert found.overhead.distribution.mean() == pytest.approx(0.002)
    assert found.cost_s == pytest.approx(cost_s, rel=0.1)
    assert not found.halved


def test_legs_are_told_apart(make: MakeScenario):
    """Each leg has its own delay, and a worker's speed is no overhead."""
    message_kinds = {
        "submit": {"kind": "constant", "value_s": 0.003},
        "assign": {"kind": "lognormal", "mean_s": 0.002, "cv": 1.0},
        "result": {"kind": "lognormal", "mean_s": 0.0005, "cv": 0.3},
    }
    groups = [{"name": "slow", "workers": 2, "speed": 0.5}, {"name": "fast", "workers": 4, "speed": 2}]
    cluster = {"groups": groups, "overhead": {"kind": "lognormal", "mean_s": 0.003, "cv": 0.8}}
    found = calibrate(
        [sim.run(make(**{**KNOWN, "cluster": cluster, "network": {"message_kinds": message_kinds}, "faults": []}))]
    )
    assert close(found.submit.distribution, 0.003, 0)
    assert close(found.assign.distribution, 0.002, 1.0)
    assert close(found.result.distribution, 0.0005, 0.3)
    assert close(found.overhead.distribution, 0.003, 0.8)


def test_a_halved_round_trip_gives_legs_whose_sum_is_right(make: MakeScenario):
    """Where a start was only placed amid the round trip, its variance is that of two independent legs."""
    run = sim.run(make(**KNOWN))
    attempts = run.tables.attempts.to_pandas()
    middle = attempts.assigned_s + (attempts.ended_s - attempts.assigned_s - attempts.ran_s) / 2
    place = run.tables.attempts.schema.get_field_index("started_s")
    halved = run.tables.attempts.set_column(place, run.tables.attempts.schema.field(place), [middle.to_numpy()])
    found = calibrate(
        [type(run)(run.summary, type(run.tables)(run.tables.tasks, halved, run.tables.events), run.scenario)]
    )
    assert found.halved
    assert close(found.assign.distribution, 0.001, 0.5)
    assert found.assign == found.result


def test_a_model_is_taken_up_by_a_scenario(make: MakeScenario, tmp_path: Path):
    """What was written is what is simulated; the resolved scenario holds it and needs the file no more."""
    found = calibrate([sim.run(make(**KNOWN))])
    (tmp_path / "model.yaml").write_text(found.yaml())
    scenario = make(**{**KNOWN, "model": "model.yaml", "cluster": {"workers": 4, "capacity": 2}, "network": {}})
    assert scenario.model is None
    assert scenario.network.message_kinds.submit == scenario.network.delay_of("submit") != scenario.network.delay
    assert scenario.network.message_kinds.heartbeat == scenario.network.message_kinds.result
    assert close(scenario.network.delay_of("assign"), 0.001, 0.5)
    assert scenario.cluster.overhead == Constant(kind="constant", value_s=0.002)
    (tmp_path / "model.yaml").unlink()
    (tmp_path / "resolved.yaml").write_text(scenario.dump())
    assert Scenario.load(tmp_path / "resolved.yaml") == scenario
    again = calibrate([sim.run(scenario)])
    assert close(again.result.distribution, 0.001, 0.5)


def test_the_scenario_has_the_last_word(make: MakeScenario, tmp_path: Path):
    """A model stands below the scenario's own values; a distribution is one value, never a mixture of two."""
    (tmp_path / "model.yaml").write_text(
        "coordinator: {cost_s: 0.5}\n"
        "network:\n  delay: {kind: lognormal, mean_s: 3, cv: 2}\n"
        "  message_kinds: {submit: {kind: lognormal, mean_s: 1, cv: 2}}\n"
        "cluster: {overhead: {kind: constant, value_s: 7}}\n"
    )
    own = {
        "delay": {"kind": "exponential", "mean_s": 2},
        "message_kinds": {"assign": {"kind": "constant", "value_s": 4}},
    }
    scenario = make("coordinator.cost_s=0.25", model="model.yaml", network=own)
    assert scenario.coordinator.cost_s == 0.25
    assert scenario.network.delay.model_dump() == own["delay"]
    assert scenario.network.delay_of("assign").mean() == 4
    assert scenario.network.delay_of("submit").model_dump() == {"kind": "lognormal", "mean_s": 1.0, "cv": 2.0}
    assert scenario.cluster.overhead is not None
    assert scenario.cluster.overhead.mean() == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "network: {message_kinds: {sumbit: 1}}",
            ":1:27: network.message_kinds.sumbit: unknown key, did you mean submit?",
        ),
        ("coordinator:\n  cost_s: -1", ":2:11: coordinator.cost_s: is -1, expected at least 0"),
        ("network: {loss: 0.1}", ":1:11: network.loss: unknown key"),
        ("duration_s: 5", ":1:1: duration_s: unknown key"),
        ("network: {", ":1:11: model: "),
        ("", ":1:1: model: is nothing"),
    ],
)
def test_a_broken_model_is_told_at_its_own_place(make: MakeScenario, tmp_path: Path, text: str, told: str):
    """File, line and column are those of the model."""
    model = tmp_path / "model.yaml"
    model.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        make(model="model.yaml")
    assert str(caught.value.problems[0]).startswith(f"{model}{told}")


def test_a_model_is_not_swept(make: MakeScenario):
    """A model's values can be, the file cannot."""
    with pytest.raises(ScenarioError, match=r"model: cannot be swept"):
        make(sweep={"model": ["a.yaml"]})


def test_a_run_without_a_completed_task_teaches_nothing(make: MakeScenario):
    """It is said, instead of a model made of nothing."""
    with pytest.raises(Unfit, match=r"no task of test \(sim\) was completed"):
        calibrate([sim.run(make("duration_s=5", "workload.tasks=1", "drain_s=0", "workload.service.mean_s=1000000"))])


def test_samples_that_tell_no_spread_are_a_constant():
    """Few of them, or all alike; and nothing is nothing."""
    assert fit(np.linspace(1, 3, 5)).distribution == Constant(kind="constant", value_s=2.0)
    assert fit(np.full(100, 0.5)).distribution == Constant(kind="constant", value_s=0.5)
    assert fit(np.full(100, -1e-9)).distribution == Constant(kind="constant", value_s=0.0)


def test_a_few_strays_hardly_move_a_fit():
    """One in a thousand a hundred times too long, which would move a mean by a tenth."""
    values_s = np.random.default_rng(1).lognormal(-7, 0.5, 10_000)
    strayed = values_s.copy()
    strayed[::1000] *= 100
    assert fit(strayed).distribution.mean() == pytest.approx(fit(values_s).distribution.mean(), rel=0.02)


def test_two_seeds_agree_within_their_intervals(make: MakeScenario):
    """Runs that differ by chance alone: what is between them lies within what the intervals allow."""
    scenario = make(**KNOWN)
    (cell,) = compare(sim.run(scenario), sim.run(scenario, replication=1), ("one", "other")).cells
    told = [row for row in cell.rows if row.value is not None and row.ci95 is not None]
    assert len(told) > 20
    for row in told:
        assert row.ci95 is not None
        assert row.reference_ci95 is not None
        assert row.reference is not None
        assert row.reference_ci95[1] is None or row.ci95[0] <= row.reference_ci95[1]
        assert row.ci95[1] is None or row.reference_ci95[0] <= row.ci95[1]
    assert abs(cell.row("throughput_per_s").error or 0) < 0.1


def test_common_chance_makes_errors_small(make: MakeScenario):
    """The same plan on both sides: a slower network is told within a tenth of what chance alone would hide."""
    slower = {**KNOWN, "network": {"delay": {"kind": "lognormal", "mean_s": 0.003, "cv": 0.5}}}
    (cell,) = compare(sim.run(make(**slower)), sim.run(make(**KNOWN)), ("slower", "as it was")).cells
    row = cell.row("latency_s.p50")
    assert row.error_ci95 is not None
    assert row.error_ci95[0] > 0


def test_commits_are_taken_from_what_the_coordinator_tells(make: MakeScenario):
    """Two of their percentiles give their distribution; what assignments wait for the store is no delay of theirs; and
    a scenario takes the store up from the model."""
    commit = {"kind": "lognormal", "mean_s": 0.002, "cv": 0.5}
    sigma = np.sqrt(np.log(1 + 0.5**2))
    median_s = 0.002 / np.exp(sigma**2 / 2)
    run = sim.run(
        make(
            **{**KNOWN, "network": {"delay": {"kind": "constant", "value_s": 0.01}}, "coordinator": {"commit": commit}}
        )
    )
    without = calibrate([run])
    assert without.commit is None
    run.summary["commits"] = {"per_s": 150.0, "p50_s": median_s, "p95_s": median_s * np.exp(1.6449 * sigma)}
    found = calibrate([run])
    assert found.commit is not None
    assert close(found.commit, 0.002, 0.5)
    assert found.assign.distribution.mean() == pytest.approx(0.01, rel=0.05)
    assert without.assign.distribution.mean() > 0.0115
    assert found.model()["coordinator"]["commit"]["mean_s"] == pytest.approx(0.002, rel=0.01)
