"""Detectors judged on heartbeat traces: by theory, by what runs themselves say, and by small examples."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sim
from orchestrator.analysis.detector_replay import follow
from orchestrator.analysis.detectors import (
    Budget,
    Point,
    candidates,
    front,
    judge,
)
from orchestrator.analysis.traces import Alarm
from orchestrator.cli.app import app
from orchestrator.cluster import decision_record
from orchestrator.core.ports import Verdict
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
    assert found.already_dead == told["already_dead"]
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
    """The run's own detector finds the crash on the recorded trace: a timeout after the last beat that was heard."""
    finished = folders.load_run(live_run)
    (recorded,) = heartbeats.recorded(live_run)
    assert (recorded.world, recorded.workers, len(recorded.lives)) == ("live", 3, 4)
    heard = list(decision_record.Recorded(live_run / decision_record.NAME).inputs(("heartbeat", "reconnected")))
    late = sum(beat.now - recorded.began_s > recorded.length_s for beat in heard)
    assert recorded.beats == len(heard) - late > 0
    (found,) = (p for p in judge(finished.scenario, [recorded]).points if p.candidate.own)
    told = finished.summary["detection"]
    assert len(found.own_detection_s) == told["detected"] == 1
    (crashed,) = (life for life in recorded.lives if life.crash_s is not None)
    assert found.own_detection_s[0] == pytest.approx(crashed.beats_s[-1] + 0.7 - crashed.crash_s)
    assert found.mistakes >= told["mistakes"], "in the run the alarm rings when the process gets its turn"


def test_the_command_judges_a_recorded_run(live_run: Path, tmp_path: Path):
    """The command judges a recorded run with its own heartbeat, and refuses another one."""
    arguments = ["detectors", str(live_run / "scenario.yaml"), "--trace", str(live_run), "--out", str(tmp_path)]
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json", "--no-plots"]).stdout)
    assert (told["world"], told["trace"]["workers"], told["trace"]["crashes"]) == ("live", 3, 1)
    refused = CliRunner().invoke(app, [*arguments, "--force", "policies.detection.heartbeat_s=1"])
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
    """After the crash the verdict is true; as in a run, this crash is neither detected nor missed."""
    (found,) = judged([trace({"w1": [1.0]}, 100.0, (10.0, "crash", "w1", None))], TimeoutConfig(timeout_s=6))
    assert found.mistake_s == pytest.approx([3])
    assert (found.own_detection_s.tolist(), found.missed, found.already_dead) == ([], 0, 1)


def test_a_process_that_dies_before_its_registration_is_a_crash_of_its_own():
    """The first crash is found at 7; the second process dies at 9, and registers at 9.5."""
    events = (
        (4.0, "crash", "w1", None),
        (8.0, "heal", "w1", "restart"),
        (9.0, "crash", "w1", None),
        (9.5, "up", "w1", "reregistered"),
    )
    made = trace({"w1": [1.0]}, 30.0, *events)
    assert [life.crash_s for life in made.lives] == [4, 9]
    (found,) = judged([made], TimeoutConfig(timeout_s=6))
    assert found.own_detection_s == pytest.approx([3, 6.5])


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


def test_the_bound_is_that_of_another_trace():
    """At 99 %: after none, 6 mistakes have a probability of 1/2^7 of being exceeded; 5 would have 1/2^6."""
    assert point(1, 0, days=2).rate_upper_per_s == 6 / (2 * DAY_S)
    # After one, P(more than m) = (m + 3) / 2^(m + 2): 0.0107 for 8, 0.0059 for 9.
    assert point(1, 1).rate_upper_per_s == 9 / DAY_S


def test_the_detection_time_told_is_that_of_another_trace():
    """Of 5,000 crashes another trace's 99th percentile is within the 99.46th of this one; 100 crashes tell none."""
    assert replace(point(1, 0), detection_s=np.arange(5_001.0)).p99_upper_s == 4_974
    assert replace(point(1, 0), crashes=100).p99_upper_s == math.inf


def test_the_recommendation_keeps_its_budget():
    """With one budget the recommendation is the best in the other respect, with both the one with most room."""
    days = 100.0
    fast, middle, slow = point(2, 1000, days), point(5, 100, days), point(9, 10, days)

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


def test_of_equals_the_slowest_withstands_most():
    """Where all make no mistakes, a limit of time is used to its end, and with both limits both have room."""
    points = [point(p99_s, 0, days=10.0) for p99_s in (1.0, 2.0, 5.0, 9.0)]

    def best(mistakes_per_day: float | None, detection_s: float) -> float:
        found = Budget(mistakes_per_day, detection_s).recommend(points, workers=1)
        assert found is not None
        return found.point.p99_s

    assert best(None, 8.0) == 5
    assert best(1.0, 10.0) == 5  # mistakes take 60 % of their limit, 5 s half of theirs


def test_a_quiet_trace_recommends_nothing_by_mistakes():
    """The speed of a setting it still tells."""
    points = [point(p99_s, 0, days=100.0) for p99_s in (1.0, 5.0)]
    for budget, qualifies in ((Budget(5.0), False), (Budget(5.0, 6.0), False), (Budget(None, 6.0), True)):
        found = budget.recommend(points, workers=1, quiet=True)
        assert found is not None
        assert (found.qualifies, found.quiet) == (qualifies, True)


def test_lost_and_late_heartbeats_are_what_disturbs_a_trace():
    """A silence of more than 1.25 heartbeats; one that ends with a pause of the coordinator tells nothing."""
    pause = ((20.0, "coordinator_pause", None, None), (30.0, "heal", None, "coordinator_pause"))
    made = trace({"w1": [2.0, 4.4, 6.0, 10.0, 12.6, 30.0, 32.0], "w2": [2.0, 4.0]}, 40.0, *pause)
    assert made.disturbed(1.25) == 2


def test_a_setting_with_few_mistakes_is_as_dispersed_as_one_with_more():
    """The patient timeout makes none, but the pause that strikes all workers makes eight at once of the other's."""
    at_s = [400.0, 1300.0, 2200.0]
    beats = np.arange(2.0, 3_000.0, 2.0)
    beats = beats[~np.any([(beats > at) & (beats < at + 8) for at in at_s], axis=0)]
    made = trace({f"w{number}": beats for number in range(8)}, 3_000.0)
    quick, patient = judged([made], TimeoutConfig(timeout_s=6), TimeoutConfig(timeout_s=12))
    assert (quick.mistakes, patient.mistakes) == (24, 0)
    assert patient.dispersion == quick.dispersion == pytest.approx(8, rel=0.05)


def test_a_short_trace_shows_no_small_rate():
    """Five days without a mistake do not show a rate under one per day, but six days do."""
    for days, shown in ((5.9, False), (6.1, True)):
        found = Budget(mistakes_per_day=1.0).recommend([point(5, 0, days)], workers=1)
        assert found is not None
        assert found.qualifies is shown


def test_the_budget_of_mistakes_is_that_of_all_workers():
    """Ten workers make ten times as many mistakes as one."""
    one = point(5, 0, days=100)
    assert [Budget(mistakes_per_day=1.0).ratios(one, workers)[0] for workers in (1, 10)] == pytest.approx([0.06, 0.6])


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
    arguments = ["detectors", str(path), "--max-mistakes-per-day", "5000", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "recommended: " in told.stdout
    assert "front: no other is both as fast and as seldom wrong" in told.stdout
    assert {p.name for p in (tmp_path / "out").glob("detectors.*")} == {
        "detectors.json",
        "detectors.png",
        "detectors.svg",
    }
    kept = json.loads((tmp_path / "out" / "detectors.json").read_text())
    assert kept["recommendation"]["qualifies"]
    assert kept["recommendation"]["mistakes_per_day_upper"] <= 5000
    again = CliRunner().invoke(app, [*arguments, "--force", "--json", "--no-plots"])
    assert json.loads(again.stdout) == kept


def test_the_command_says_that_a_quiet_trace_cant_tell(tmp_path: Path):
    """Nothing is lost or late, so no setting is recommended by its mistakes, and it says so."""
    path = tmp_path / "beating.yaml"
    path.write_text(scenario(duration_s=60).dump())
    arguments = ["detectors", str(path), "--no-plots", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, [*arguments, "--max-mistakes-per-day", "100000"]).stdout
    assert "the trace can't tell which setting withstands disturbed heartbeats: 0 heartbeats" in told
    told = CliRunner().invoke(app, [*arguments, "--force", "--max-detection-s", "9"]).stdout
    assert "how often wrong, the trace can't tell" in told


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
