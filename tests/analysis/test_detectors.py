"""Detectors judged on heartbeat traces: by theory, by what runs themselves say, and by small examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sim
from orchestrator.analysis.detector_replay import follow
from orchestrator.analysis.detectors import (
    Budget,
    Judgement,
    Point,
    candidates,
    front,
    judge,
)
from orchestrator.analysis.traces import Alarm
from orchestrator.cli.app import app
from orchestrator.core.ports import Verdict
from orchestrator.pictures import draw
from orchestrator.policies import catalogue
from orchestrator.policies.detection import Timeout, TimeoutConfig
from orchestrator.rehearsal import heartbeats
from orchestrator.rehearsal import runs as live
from orchestrator.results import folders
from orchestrator.results.detection import DetectionRecord
from orchestrator.results.folders import RunFolderError
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import Scenario
from sim.world import World
from tests.analysis.judging import DAY_S, judged, point, scenario, trace
from tests.results.synthetic import NAN, attempt, run, tables, task

# ---- what runs say


TROUBLED: dict[str, Any] = {
    "network": {"delay": {"kind": "exponential", "mean_s": 0.05}, "loss": 0.1, "duplicate": 0.05},
    "faults": [
        {"kind": "crash", "mtbf_s": 150, "all": True, "mttr_s": 8},
        {"kind": "pause", "mtbf_s": 300, "all": True, "for_s": {"kind": "exponential", "mean_s": 6}},
    ],
}


@pytest.mark.parametrize("check_every_s", [None, 1.5])
def test_the_judge_agrees_with_the_coordinator(check_every_s: float | None):
    """On the trace, the scenario's own setting makes the mistakes and detections that it made in the run."""
    own = {"kind": "timeout", "timeout_s": 4.5, "check_every_s": check_every_s}
    chosen = scenario(**TROUBLED, policies={"detection": own}, duration_s=1500, drain_s=0)
    finished = sim.run(chosen)
    (found,) = judged([sim.heartbeats(chosen)], chosen.policies.detection, policies={"detection": own})
    told = finished.summary["detection"]
    assert found.mistakes == told["mistakes"] == told["false_positives"] > 10
    assert np.sort(found.own_detection_s) == pytest.approx(np.sort(DetectionRecord.of(finished.tables).time_s))
    assert found.missed == told["missed"] > 0
    assert found.judged_s == pytest.approx(told["judged_s"])
    assert found.accuracy == pytest.approx(told["query_accuracy"])
    assert np.mean(found.mistake_s) == pytest.approx(told["mistake_s"]["mean"])


@pytest.mark.parametrize("name", [None, "partition", "message-loss", "rolling-restart", "coordinator-pause"])
def test_a_trace_is_that_of_the_whole_run(name: str | None):
    """Leaving out tasks that change no heartbeat does not change the trace."""
    file = Path(__file__).parents[2] / "scenarios" / f"{name}.yaml"
    chosen = scenario(**TROUBLED) if name is None else Scenario.load(file, ["sweep={}"])
    world = World(chosen, draw_plan(chosen))
    heard: dict[str, list[float]] = {}
    world.listen(lambda worker, _, now: heard.setdefault(worker, []).append(now))
    world.run()
    made = sim.heartbeats(chosen)
    until_s = chosen.duration_s  # what comes later lasts as long as there are tasks
    for worker in chosen.worker_names():
        mine = [at for life in made.lives if life.worker == worker for at in life.beats_s.tolist() if at <= until_s]
        left = {at for at in heard[worker] if at <= until_s} - set(mine)
        assert set(mine) <= set(heard[worker])
        assert len(left) <= 1, "heard of one that had left"


@pytest.fixture(scope="module")
def live_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    small = scenario(
        duration_s=4,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": 20},
            "service": {"kind": "exponential", "mean_s": 0.02},
        },
        cluster={"workers": 3},
        policies={"detection": {"kind": "timeout", "heartbeat_s": 0.2, "timeout_s": 0.7}},
        faults=[{"kind": "crash", "at_s": 1.5, "workers": ["w2"], "restart_after_s": 1.5}],
    )
    live.run(small, folder)
    return folder


def test_a_live_run_leaves_its_heartbeats(live_run: Path):
    """The run's own detector finds the crash on the recorded trace when it did in the run."""
    finished = folders.load_run(live_run)
    (recorded,) = heartbeats.recorded(live_run)
    assert (recorded.world, recorded.workers, len(recorded.lives)) == ("live", 3, 4)
    during = sum(np.count_nonzero(life.beats_s >= 0) for life in recorded.lives)
    assert during == pytest.approx(recorded.judged_s / 0.2, abs=8)
    (found,) = (p for p in judge(finished.scenario, [recorded]).points if p.candidate.own)
    told = finished.summary["detection"]
    assert len(found.own_detection_s) == told["detected"] == 1
    # In the run the alarm rings when the process gets its turn.
    assert found.own_detection_s[0] == pytest.approx(told["time_s"]["mean"], abs=0.05)
    assert found.mistakes == told["mistakes"]


def test_the_command_judges_a_recorded_run(live_run: Path, tmp_path: Path):
    """The command judges a recorded run with its own heartbeat, and refuses another one."""
    arguments = ["detectors", str(live_run / "scenario.yaml"), "--trace", str(live_run), "--out", str(tmp_path)]
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json", "--no-plots"]).stdout)
    assert (told["world"], told["trace"]["workers"], told["trace"]["crashes"]) == ("live", 3, 1)
    refused = CliRunner().invoke(app, [*arguments, "policies.detection.heartbeat_s=1"])
    assert refused.exit_code == 2
    assert "policies.detection.heartbeat_s=0.2" in refused.stderr


def test_a_simulated_run_leaves_no_heartbeats(tmp_path: Path):
    """The error says what to do instead."""
    sim.run(scenario(duration_s=5), out=tmp_path)
    with pytest.raises(RunFolderError, match="give the scenario instead"):
        heartbeats.recorded(tmp_path)


# ---- lives


def test_a_life_ends_with_the_next_registration():
    """A life has the beats up to the next registration, without those of the process that registers."""
    beats = {"w1": [1.0, 3.0, 9.0, 11.0]}
    first, second = trace(
        beats, 20.0, (4.0, "crash", "w1", None), (7.0, "heal", "w1", "restart"), (9.0, "up", "w1", "reregistered")
    ).lives
    assert (first.beats_s.tolist(), first.up_until_s, first.watched_until_s, first.crash_s) == ([1, 3], 4, 9, 4)
    assert (second.beats_s.tolist(), second.judged_s, second.crash_s) == ([11], 11, None)


def test_a_registration_that_its_crash_overtook_begins_nothing():
    """There is no time to judge, but there is still a crash to be found."""
    events = ((4.0, "crash", "w1", None), (4.1, "up", "w1", "reregistered"))
    first, second = trace({"w1": [1.0, 3.0]}, 20.0, *events).lives
    assert (first.judged_s, first.crash_s) == (4, None)
    assert (second.judged_s, second.crash_s) == (0, 4)
    assert follow(TimeoutConfig().build(), second, Alarm(None, []), np.empty(0)).own_detection_s == pytest.approx([6.1])


def test_whoever_left_is_no_longer_judged():
    """The silence of a worker that left is no mistake."""
    (found,) = judged([trace({"w1": [1.0]}, 100.0, (2.0, "left", "w1", None))], TimeoutConfig())
    assert (found.mistakes, found.judged_s) == (0, 2)


def test_a_mistake_is_over_when_the_worker_crashes():
    """After the crash the verdict is true, and the crash is found at once."""
    (found,) = judged([trace({"w1": [1.0]}, 100.0, (10.0, "crash", "w1", None))], TimeoutConfig(timeout_s=6))
    assert found.mistake_s == pytest.approx([3])
    assert found.own_detection_s == pytest.approx([0])


def test_a_beat_that_outlives_its_process_postpones_the_verdict():
    """The last verdict is the detection, not one that a late beat revokes (Chen's T_D)."""
    (found,) = judged([trace({"w1": [1.0, 9.0]}, 100.0, (5.0, "crash", "w1", None))], TimeoutConfig(timeout_s=6))
    assert found.mistakes == 0
    assert found.own_detection_s == pytest.approx([10])


def test_a_coordinator_that_sleeps_looks_at_nothing():
    """A coordinator that wakes hears what has arrived before it looks at verdicts."""
    pause = ((3.0, "coordinator_pause", None, None), (40.0, "heal", None, "coordinator_pause"))
    healthy, gone = {"w1": [1.0, 40.0, 41.0]}, {"w1": [1.0]}
    assert judged([trace(healthy, 45.0, *pause)], TimeoutConfig())[0].mistakes == 0
    (found,) = judged([trace(gone, 60.0, (5.0, "crash", "w1", None), *pause)], TimeoutConfig())
    assert found.own_detection_s == pytest.approx([35])


class Reluctant(Timeout):
    """Suspects for a second before it declares dead."""

    def verdict(self, now: float) -> Verdict:
        late_s = now - super().review_at()
        self.asked = late_s >= 0
        return Verdict.DEAD if late_s >= 1 else Verdict.SUSPECT if late_s >= 0 else Verdict.ALIVE

    def review_at(self) -> float:
        return super().review_at() + getattr(self, "asked", False)


def test_a_suspect_is_not_declared_dead_yet():
    """A detector is asked again until it says dead, for mistakes as for crashes."""
    (life,) = trace({"w1": [1.0, 2.0, 9.0]}, 10.0).lives
    tally = follow(lambda now: Reluctant(3, now), life, Alarm(None, []), np.array([1.5, 9.5]))
    assert tally.mistake_s == pytest.approx([3])
    assert tally.detection_s == pytest.approx([3.5, 3.5])


# ---- the grid, the front, the recommendation


def test_every_kind_of_the_catalogue_is_tried():
    """Every kind is tried, and so is the scenario's setting with its own other parameters."""
    own = scenario(policies={"detection": {"kind": "phi_accrual", "threshold": 5, "window": 50}}).policies.detection
    found = candidates(own)
    kinds = {
        kind["const"]
        for c in catalogue()["detection"]
        if "const" in (kind := c.model_json_schema()["properties"]["kind"])
    }
    assert {candidate.detector for candidate in found} == kinds
    assert [(c.detector, c.value) for c in found if c.own] == [("phi_accrual", 5)]
    assert {c.config.window for c in found if c.detector == "phi_accrual"} == {50}  # type: ignore[attr-defined]
    assert {c.config.heartbeat_s for c in found} == {2.0}


def test_a_detector_inside_another_is_varied_by_its_own_parameter():
    """`two_level` with phi inside is tried over thresholds."""
    inside = {"kind": "two_level", "start_to_close_s": 5, "detector": {"kind": "phi_accrual"}}
    found = [
        c for c in candidates(scenario(policies={"detection": inside}).policies.detection) if c.detector == "two_level"
    ]
    assert {c.parameter for c in found} == {"threshold"}
    assert len({c.value for c in found}) > 5
    assert sum(c.own for c in found) == 1


def test_the_front_is_what_nothing_beats():
    """A point that is slower and more often wrong is beaten, and equal points both stay."""
    fast, slow, beaten, equal = point(2, 9), point(5, 0), point(5, 3), point(2, 9, value=1)
    assert front([beaten, slow, fast, equal]) == [fast, equal, slow]
    assert front([slow, point(6, 0)]) == [slow]


def test_no_mistake_bounds_the_rate_by_three_over_the_time():
    """At 95 % the bound is 3 mistakes without a mistake (the rule of three), and 4.74 with one."""
    assert point(1, 0, days=2).rate_upper_per_s == pytest.approx(3.0 / (2 * DAY_S), rel=2e-3)
    assert point(1, 1).rate_upper_per_s == pytest.approx(4.744 / DAY_S, rel=1e-3)


def test_the_recommendation_keeps_its_budget():
    """With one budget the recommendation is the best in the other respect, with both the one with most room."""
    days = 100.0
    fast, middle, slow = point(2, 1000, days), point(5, 100, days), point(9, 0, days)

    def best(mistakes_per_day: float | None, detection_s: float | None) -> tuple[Point, bool]:
        found = Budget(mistakes_per_day, detection_s).recommend([fast, middle, slow], workers=1)
        assert found is not None
        return found.point, found.qualifies

    assert best(2.0, None) == (middle, True)
    assert best(None, 6.0) == (middle, True)
    assert best(None, 100.0) == (slow, True)
    assert best(100.0, 2.5) == (fast, True)
    assert best(2.0, 10.0) == (middle, True)
    assert best(2.0, 4.0) == (middle, False)
    assert Budget().recommend([fast], workers=1) is None


def test_a_short_trace_shows_no_small_rate():
    """One day without a mistake does not show a rate under one per day, but three days do."""
    for days, shown in ((1.0, False), (3.1, True)):
        found = Budget(mistakes_per_day=1.0).recommend([point(5, 0, days)], workers=1)
        assert found is not None
        assert found.qualifies is shown


def test_the_budget_of_mistakes_is_that_of_all_workers():
    """Ten workers make ten times as many mistakes as one."""
    one = point(5, 10, days=100)
    assert [Budget(mistakes_per_day=1.0).ratios(one, workers)[0] for workers in (1, 10)] == pytest.approx(
        [0.1696, 1.696], rel=1e-3
    )


def test_processes_judge_as_one(monkeypatch: pytest.MonkeyPatch):
    """Several processes give the same result in whatever order they finish."""
    monkeypatch.setattr("orchestrator.analysis.detectors._ALONE_BEATS", 0)
    monkeypatch.setattr("orchestrator.analysis.detectors._CHUNK_BEATS", 1)
    chosen = scenario(**TROUBLED, cluster={"workers": 3}, duration_s=60)
    heard = [sim.heartbeats(chosen, k) for k in range(2)]
    alone, together = (judge(chosen, heard, jobs=jobs).summary() for jobs in (1, 2))
    assert together == alone


# ---- the command


def test_the_command_leaves_table_picture_and_points(tmp_path: Path):
    """The command recommends a setting within the budget, in words and as numbers."""
    path = tmp_path / "beating.yaml"
    path.write_text(scenario(**TROUBLED).dump())
    arguments = ["detectors", str(path), "--max-mistakes-per-day", "1000", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "recommended: " in told.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"detectors.json", "detectors.png", "detectors.svg"}
    kept = json.loads((tmp_path / "out" / "detectors.json").read_text())
    assert kept["recommendation"]["qualifies"]
    assert kept["recommendation"]["mistakes_per_day_upper"] <= 1000
    again = CliRunner().invoke(app, [*arguments, "--json", "--no-plots"])
    assert json.loads(again.stdout) == kept


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--max-detection-s", "0"], "--max-detection-s is 0, expected a number over 0"),
        (["sweep={cluster.workers: [1, 2]}"], "sweeps cluster.workers"),
    ],
)
def test_the_command_refuses_in_a_sentence(arguments: list[str], reason: str, tmp_path: Path):
    """A wrong budget and a sweep of other keys give exit code 2 and a sentence."""
    path = tmp_path / "beating.yaml"
    path.write_text(scenario().dump())
    refused = CliRunner().invoke(app, ["detectors", str(path), "--out", str(tmp_path / "out"), *arguments])
    assert refused.exit_code == 2
    assert reason in refused.stderr


def test_a_detector_without_mistakes_is_drawn_at_its_bound():
    """A setting without mistakes is a hollow mark where three mistakes would be."""
    judgement = Judgement(scenario(), [trace({"w1": [1.0]}, 3.0)], [point(2, 9), point(5, 0)], Budget(5, 6))
    axes, accuracy = draw(judgement)["detectors"].axes
    hollow = [np.asarray(line.get_xydata()) for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [xy.tolist() for xy in hollow if xy.size] == [[pytest.approx([5, 3.0], rel=2e-3)]]
    for panel in (axes, accuracy):
        assert panel.get_xlabel()
        assert panel.get_ylabel()


# ---- a run's own account


def test_a_run_tells_the_quality_of_its_detector():
    """w2 is declared dead for 3 of the 100 s in which it is up, of 140 s of both workers."""
    made = tables(
        events=[
            (0.0, "up", 0, "registered"),
            (0.0, "up", 1, "registered"),
            (20.0, "dead", 1, "detector"),
            (23.0, "up", 1, "revived"),
            (40.0, "crash", 0, None),
        ]
    )
    told = run(made).summary["detection"]
    assert (told["judged_s"], told["mistakes"], told["mistake_s"]["mean"]) == (140, 1, 3)
    assert told["mistake_rate_per_s"] == pytest.approx(1 / 140)
    assert told["query_accuracy"] == pytest.approx(1 - 3 / 140)
    assert told["heartbeats_per_s"] == pytest.approx(1.4 / 2)


def test_a_pause_is_silent_but_no_crash():
    """A paused worker sends no heartbeats, and a verdict on it is a mistake because its process is up."""
    made = tables(
        events=[
            (0.0, "up", 0, "registered"),
            (10.0, "pause", 0, None),
            (16.0, "dead", 0, "detector"),
            (20.0, "heal", 0, "resume"),
            (20.5, "up", 0, "revived"),
        ]
    )
    told = run(made).summary["detection"]
    assert (told["mistakes"], told["mistake_s"]["max"], told["judged_s"]) == (1, 4.5, 100)
    assert told["heartbeats_per_s"] == pytest.approx(90 / 2 / 100)


def test_a_failed_call_is_not_the_detectors_mistake():
    """After a failed call the detector is not judged until the worker is trusted again."""
    made = tables(events=[(0.0, "up", 0, "registered"), (30.0, "dead", 0, "failed_call"), (50.0, "up", 0, "revived")])
    told = run(made).summary["detection"]
    assert (told["mistakes"], told["judged_s"], told["query_accuracy"]) == (0, 80, 1)


def test_a_mistake_wastes_what_its_worker_does_in_vain():
    """Only execution that was given up and did not settle its task is wasted."""
    lost = {"worker": 1, "given_up_s": 20.0, "outcome": "worker_died"}
    made = tables(
        tasks=[task(15.0, 30.0, attempts=2), task(15.0, 24.0)],
        attempts=[
            attempt(0, 15.0, **lost, ended_s=26.0, ran_s=11.0),
            attempt(0, 20.0, attempt=2, ended_s=30.0, ran_s=10.0, outcome="completed", settled=True),
            attempt(1, 15.0, **lost, ended_s=24.0, ran_s=9.0, settled=True),
        ],
        events=[(0.0, "up", 1, "registered"), (20.0, "dead", 1, "detector"), (23.0, "up", 1, "revived")],
    )
    assert run(made).summary["detection"]["mistake_wasted_s"] == 11


def test_a_task_on_a_crashed_worker_waits_for_the_verdict():
    """A task without a result on its way is delayed from the crash, or a later assignment, until it is given up."""
    made = tables(
        tasks=[task(38.0, 60.0, attempts=2), task(39.0, 40.1), task(41.0, 60.0, attempts=2)],
        attempts=[
            attempt(0, 38.0, given_up_s=46.0, outcome="worker_died"),
            attempt(1, 39.0, ended_s=40.1, ran_s=1.0, outcome="completed", settled=True),
            attempt(2, 41.0, started_s=NAN, given_up_s=41.5, ended_s=41.5, outcome="call_failed"),
            attempt(2, 50.0, attempt=2, worker=1, ended_s=60.0, outcome="completed", settled=True),
        ],
        events=[
            (0.0, "up", 0, "registered"),
            (40.0, "crash", 0, None),
            (46.0, "dead", 0, "detector"),
            (70.0, "heal", 0, "restart"),
            (70.0, "up", 0, "reregistered"),
        ],
    )
    told = run(made).summary["detection"]
    assert told["tasks_delayed"] == 2
    assert told["delayed_s"]["max"] == 6
    assert told["delayed_s"]["mean"] == 3.25
