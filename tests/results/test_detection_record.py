"""Crashes and verdicts of a run, counted by hand."""

from __future__ import annotations

import pytest

from orchestrator.results.detection import DetectionRecord
from orchestrator.results.summaries import DETECTION_QUANTILES, pool
from tests.results.synthetic import run, tables


def detection(*events: tuple[float, str, int, str | None]) -> DetectionRecord:
    return DetectionRecord.of(tables(events=[(0.0, "up", 0, "registered"), (0.0, "up", 1, "registered"), *events]))


def test_a_crash_with_a_verdict_before_the_return_is_detected():
    """The detection time is the time from crash to verdict."""
    found = detection((10.0, "crash", 0, None), (16.0, "dead", 0, "detector"), (30.0, "heal", 0, "restart"))
    assert (found.crashes, found.time_s.tolist(), found.missed, found.false_positives) == (1, [6.0], 0, [])


def test_a_worker_back_before_any_verdict_is_missed():
    """A crash that nobody noticed has no detection time."""
    found = detection((10.0, "crash", 0, None), (12.0, "heal", 0, "restart"), (12.1, "up", 0, "reregistered"))
    assert (found.crashes, found.time_s.tolist(), found.missed) == (1, [], 1)


def test_a_verdict_between_restart_and_registration_still_detects():
    """A verdict before the new process registers is a detection and no false positive."""
    found = detection(
        (10.0, "crash", 0, None),
        (15.0, "heal", 0, "restart"),
        (15.5, "dead", 0, "detector"),
        (16.0, "up", 0, "reregistered"),
    )
    assert (found.time_s.tolist(), found.missed, found.false_positives) == ([5.5], 0, [])


def test_detection_ends_with_the_verdict_that_stays():
    """A beat that was on its way at the crash undoes a verdict; the next one counts, from the crash."""
    late = ((10.0, "crash", 0, None), (12.0, "dead", 0, "detector"), (12.5, "up", 0, "revived"))
    back = ((30.0, "heal", 0, "restart"), (30.1, "up", 0, "reregistered"))
    found = detection(*late, (18.0, "dead", 0, "detector"), *back)
    assert (found.time_s.tolist(), found.missed, found.false_positives) == ([8.0], 0, [])
    undone = detection(*late, *back)
    assert (undone.time_s.tolist(), undone.missed) == ([], 1)


def test_every_crash_has_a_place():
    """It was detected or missed, its worker was held dead already, or nobody has noticed it yet."""
    found = detection(
        (5.0, "dead", 0, "detector"),  # by mistake
        (6.0, "crash", 0, None),
        (7.0, "heal", 0, "restart"),
        (8.0, "up", 0, "reregistered"),
        (10.0, "crash", 0, None),
        (16.0, "dead", 0, "detector"),
        (20.0, "heal", 0, "restart"),
        (21.0, "up", 0, "reregistered"),
        (30.0, "crash", 1, None),
        (31.0, "heal", 1, "restart"),
        (32.0, "up", 1, "reregistered"),
        (40.0, "crash", 1, None),
    )
    assert (found.crashes, found.already_dead, found.time_s.tolist(), found.missed) == (4, 1, [6.0], 1)


def test_the_next_process_does_not_undo_what_was_found():
    """The crash at 10 was found at 13. The next process dies before its registration arrives, which revives the worker:
    only its own crash is to be found again."""
    found = detection(
        (10.0, "crash", 0, None),
        (13.0, "dead", 0, "detector"),
        (15.0, "heal", 0, "restart"),
        (15.5, "crash", 0, None),
        (16.0, "up", 0, "reregistered"),
        (19.0, "dead", 0, "detector"),
    )
    assert (found.crashes, found.time_s.tolist(), found.already_dead, found.missed) == (2, [3.0, 3.5], 0, 0)


def test_the_detector_may_find_what_a_failed_call_had_told():
    """A call fails, a heartbeat that was on its way undoes it, and then the detector has the verdict that stays."""
    told = ((10.0, "crash", 0, None), (10.1, "dead", 0, "failed_call"))
    found = detection(*told, (10.5, "up", 0, "revived"), (16.5, "dead", 0, "detector"))
    assert (found.time_s.tolist(), found.by_failed_call, found.false_positives) == ([6.5], 1, [])
    found = detection(*told, (20.0, "heal", 0, "restart"), (20.0, "up", 0, "reregistered"))
    assert (found.time_s.tolist(), found.by_failed_call, found.missed) == ([], 1, 0)


def test_declaring_a_paused_worker_dead_is_a_false_positive():
    """A process that is paused has not crashed."""
    found = detection((10.0, "pause", 0, None), (16.0, "dead", 0, "detector"), (20.0, "heal", 0, "resume"))
    assert (found.crashes, found.false_positives) == (0, [(16.0, "w1")])


def test_declaring_a_healthy_worker_dead_is_a_false_positive_each_time():
    """Each verdict counts if the worker is revived in between."""
    found = detection((10.0, "dead", 1, "detector"), (11.0, "up", 1, "revived"), (20.0, "dead", 1, "detector"))
    assert found.false_positives == [(10.0, "w2"), (20.0, "w2")]


def test_a_failed_call_is_counted_beside_the_detector():
    """A death by a failed call is no detection, and the crash behind it is not missed."""
    found = detection(
        (10.0, "crash", 0, None),
        (10.1, "dead", 0, "failed_call"),
        (20.0, "heal", 0, "restart"),
        (20.1, "up", 0, "reregistered"),
    )
    assert (found.by_failed_call, found.time_s.tolist(), found.missed, found.false_positives) == (1, [], 0, [])


def test_a_crash_of_a_worker_that_was_declared_dead_is_not_missed():
    """A crash after a verdict cannot be detected any more."""
    found = detection(
        (10.0, "pause", 0, None),
        (16.0, "dead", 0, "detector"),
        (18.0, "crash", 0, None),
        (25.0, "heal", 0, "restart"),
        (25.1, "up", 0, "reregistered"),
    )
    assert (found.crashes, found.missed, len(found.time_s), len(found.false_positives)) == (1, 0, 0, 1)


def test_a_heartbeat_overtaken_by_the_crash_is_no_return():
    """A message from before the crash revives the worker, but the crash is still detected."""
    found = detection(
        (10.0, "dead", 0, "detector"),
        (11.0, "crash", 0, None),
        (11.001, "up", 0, "revived"),
        (17.0, "dead", 0, "detector"),
    )
    assert (found.time_s.tolist(), found.false_positives) == ([6.0], [(10.0, "w1")])


def test_workers_are_judged_apart():
    """A verdict on one worker does not affect another."""
    found = detection((10.0, "crash", 0, None), (12.0, "crash", 1, None), (16.0, "dead", 1, "detector"))
    assert (found.crashes, found.time_s.tolist(), found.missed) == (2, [4.0], 0)


def test_the_summary_tells_of_detection():
    """The summary has the counts, the rate per hour of the run and the times."""
    made = tables(events=[(10.0, "crash", 0, None), (16.0, "dead", 0, "detector"), (50.0, "dead", 1, "detector")])
    told = run(made).summary["detection"]
    assert {told["time_s"][name] for name in ("mean", *DETECTION_QUANTILES, "max")} == {6.0}
    assert (told["crashes"], told["detected"], told["missed"], told["by_failed_call"]) == (1, 1, 0, 0)
    assert (told["false_positives"], told["false_positives_per_h"]) == (1, pytest.approx(36.0))


def test_a_healthy_worker_declared_dead_is_a_mistake_whatever_the_rule():
    """After a failed call as by the detector; not the one that has crashed, nor one whose next process has not come."""
    events = [
        (10.0, "dead", 0, "failed_call"),
        (12.0, "up", 0, "revived"),
        (20.0, "dead", 1, "detector"),
        (25.0, "crash", 0, None),
        (25.1, "dead", 0, "failed_call"),
        (30.0, "heal", 0, "restart"),
        (30.1, "dead", 0, "failed_call"),
    ]
    found = detection(*events)
    assert found.healthy_declared_dead == [(20.0, "w2"), (10.0, "w1")]
    assert (found.false_positives, found.by_failed_call) == ([(20.0, "w2")], 3)
    made = run(tables(events=[(0.0, "up", 0, "registered"), (0.0, "up", 1, "registered"), *events]))
    assert made.summary["detection"]["healthy_declared_dead"] == 2
    assert pool([made, made])["detection"]["healthy_declared_dead"] == 4
