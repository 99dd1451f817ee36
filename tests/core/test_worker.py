"""The worker's half: what it does with assignments, cancels, reports, beats and a drain."""

from __future__ import annotations

import math

import pytest

from tests.core.recording import (
    AnnounceDrain,
    Answer,
    Beat,
    CancelDone,
    Execute,
    Leave,
    ReportStart,
    SendReport,
    Stop,
    WakeAt,
)

A, B, C = ("a", 1), ("b", 1), ("c", 1)


def give(worker, *keys, now=0.0):
    for key in keys:
        worker.assigned(key, f"payload of {key}", now)


# ---- slots and the prefetch queue


def test_an_assignment_is_accepted_and_executed(make_agent):
    """With a free slot the work begins at once."""
    worker, fx = make_agent()
    give(worker, A)
    assert fx.take() == [Answer(A, True), Execute(A)]


def test_a_full_worker_refuses(make_agent):
    """Without a free slot and without prefetch an assignment is turned away."""
    worker, fx = make_agent(capacity=2)
    give(worker, A, B, C)
    assert fx.take(Answer) == [Answer(A, True), Answer(B, True), Answer(C, False)]


def test_prefetched_work_waits_for_a_slot(make_agent):
    """It is accepted, begins when a slot comes free, and says so, for the wait is no execution."""
    worker, fx = make_agent(prefetch=1)
    give(worker, A, B, C)
    assert fx.take() == [Answer(A, True), ReportStart(A), Execute(A), Answer(B, True), Answer(C, False)]
    worker.finished(A, "done", 1.0)
    assert fx.take() == [SendReport(A, "done"), ReportStart(B), Execute(B)]


def test_without_prefetch_no_start_is_reported(make_agent):
    """The assignment was the start."""
    worker, fx = make_agent()
    give(worker, A)
    assert fx.take(ReportStart) == []


def test_prefetch_may_be_unlimited(make_agent):
    """Everything is taken, and run in the order in which it came."""
    worker, fx = make_agent(prefetch=math.inf)
    keys = [(name, 1) for name in "abcdefgh"]
    give(worker, *keys)
    for key in keys:
        worker.finished(key, "done", 1.0)
    assert fx.take(Execute) == [Execute(key) for key in keys]


def test_a_worker_counts_what_waits_and_what_runs(make_agent):
    """`active` is what it holds; a result on its way is not held any more."""
    worker, _ = make_agent(prefetch=1)
    give(worker, A, B)
    assert worker.active == 2
    worker.finished(A, "done", 1.0)
    assert (worker.active, worker.completed, worker.idle) == (1, 1, False)


# ---- repeated and overtaken messages


@pytest.mark.parametrize("stage", ["running", "waiting", "unreported", "reported", "cancelled"])
def test_a_repeated_assignment_is_ignored(make_agent, stage):
    """An attempt is executed at most once, whatever became of it since."""
    worker, fx = make_agent(prefetch=1)
    give(worker, B, A) if stage == "waiting" else give(worker, A)
    if stage in ("unreported", "reported"):
        worker.finished(A, "done", 1.0)
    if stage == "reported":
        worker.reported(A, 1.1)
    if stage == "cancelled":
        worker.cancel(A, 1.0)
    fx.take()
    give(worker, A, now=2.0)
    assert fx.take() == []


def test_a_repetition_of_a_refused_assignment_is_ignored(make_agent):
    """The refusal stands: the coordinator has given the attempt up, and would not count it here."""
    worker, fx = make_agent()
    give(worker, A, B)
    worker.finished(A, "done", 1.0)
    fx.take()
    give(worker, B, now=2.0)
    assert fx.take() == []


def test_another_attempt_of_the_same_task_is_new(make_agent):
    """Attempts are told apart by number."""
    worker, fx = make_agent(capacity=2)
    give(worker, ("a", 1), ("a", 2))
    assert fx.take(Execute) == [Execute(("a", 1)), Execute(("a", 2))]


def test_a_cancel_stops_what_runs_and_the_next_begins(make_agent):
    """The slot is filled again; the acknowledgement says that the attempt is gone."""
    worker, fx = make_agent(prefetch=1)
    give(worker, A, B)
    fx.take()
    worker.cancel(A, 1.0)
    assert fx.take() == [Stop(A), CancelDone(A), ReportStart(B), Execute(B)]


def test_a_cancelled_attempt_that_waits_never_begins(make_agent):
    """It leaves the queue without a trace."""
    worker, fx = make_agent(prefetch=1)
    give(worker, A, B)
    fx.take()
    worker.cancel(B, 1.0)
    worker.finished(A, "done", 2.0)
    assert fx.take() == [CancelDone(B), SendReport(A, "done")]


def test_a_cancel_that_overtakes_its_assignment_is_remembered(make_agent):
    """The assignment that comes after it is not executed, even if both overtake the answer to the first
    registration."""
    worker, fx = make_agent()
    worker.cancel(A, 1.0)
    assert fx.take() == [CancelDone(A)]
    worker.registered(1, 10.0, 10.0, (), 1.05)
    fx.take()
    give(worker, A, now=1.1)
    assert fx.take() == []


def test_a_cancel_is_always_acknowledged(make_agent):
    """Also a repeated one, and one for work that is done: its report goes on."""
    worker, fx = make_agent()
    give(worker, A)
    worker.finished(A, "done", 1.0)
    fx.take()
    worker.cancel(A, 2.0)
    worker.cancel(A, 2.0)
    worker.report_failed(A, 2.0)
    worker.wake(2.2)
    assert fx.take(CancelDone, SendReport) == [CancelDone(A), CancelDone(A), SendReport(A, "done")]


def test_the_end_of_cancelled_work_is_not_reported(make_agent):
    """It may have ended just before it was stopped."""
    worker, fx = make_agent()
    give(worker, A)
    worker.cancel(A, 1.0)
    fx.take()
    worker.finished(A, "done", 1.0)
    assert fx.take() == []
    assert worker.completed == 0


def test_only_so_many_attempts_are_remembered(make_agent):
    """Memory is bounded; the oldest is forgotten first."""
    worker, fx = make_agent()
    keys = [("a", number) for number in range(worker.REMEMBERED + 1)]
    for key in keys:
        worker.cancel(key, 1.0)
    fx.take()
    give(worker, keys[1], keys[0], now=2.0)
    assert fx.take(Execute) == [Execute(keys[0])]


# ---- reports


def test_a_report_is_repeated_until_it_is_acknowledged(make_agent):
    """Each failure is followed, after a pause that grows, by another try."""
    worker, fx = make_agent(first_beat_at=100.0)
    give(worker, A)
    worker.finished(A, "done", 1.0)
    fx.take()
    worker.report_failed(A, 1.0)
    assert fx.take() == [WakeAt(1.2)]
    worker.wake(1.2)
    worker.report_failed(A, 2.0)
    assert fx.take() == [SendReport(A, "done"), WakeAt(100.0), WakeAt(2.4)]
    worker.reported(A, 2.3)
    worker.wake(2.4)
    assert fx.take(SendReport) == []


def test_the_pause_between_reports_is_bounded(make_agent):
    """It grows up to ten times its first length."""
    worker, fx = make_agent(first_beat_at=1e6)
    give(worker, A)
    worker.finished(A, "done", 0.0)
    for now in range(100, 5000, 100):
        worker.report_failed(A, float(now))
        worker.wake(now + 2.0)
    assert len(fx.take(SendReport)) == 50


def test_a_worker_may_give_up_reporting(make_agent):
    """With `report_tries` the last failure ends it, as in the plain protocol."""
    worker, fx = make_agent(report_tries=2)
    give(worker, A)
    worker.finished(A, "done", 0.0)
    worker.report_failed(A, 0.0)
    worker.wake(0.2)
    worker.report_failed(A, 0.3)
    worker.wake(1.0)
    assert fx.take(SendReport) == [SendReport(A, "done"), SendReport(A, "done")]
    assert worker.idle


def test_an_acknowledgement_may_come_twice(make_agent):
    """Nothing is left to forget."""
    worker, fx = make_agent()
    give(worker, A)
    worker.finished(A, "done", 0.0)
    fx.take()
    worker.reported(A, 1.0)
    worker.reported(A, 1.0)
    worker.report_failed(A, 1.0)
    assert fx.take() == []


# ---- beats


def test_a_beat_says_what_the_worker_holds_and_has_done(make_agent):
    """`active` and `completed`, at the moments that its phase and period give."""
    worker, fx = make_agent(prefetch=1)
    give(worker, A, B)
    worker.finished(A, "done", 1.0)
    fx.take()
    worker.wake(2.0)
    assert fx.take() == [Beat(active=1, completed=1), WakeAt(4.0)]


def test_an_early_wake_does_not_beat(make_agent):
    """It only asks for the same alarm again."""
    worker, fx = make_agent()
    worker.wake(1.0)
    assert fx.take() == [WakeAt(2.0)]


@pytest.mark.parametrize(("now", "following"), [(3.0, 4.0), (3.999, 4.0), (4.0, 6.0), (4.1, 6.0), (101.0, 102.0)])
def test_beats_missed_in_a_pause_are_not_made_up_for(make_agent, now, following):
    """After a pause there is one beat, and the next comes in its old rhythm."""
    worker, fx = make_agent()
    worker.wake(now)
    assert fx.take() == [Beat(0, 0), WakeAt(following)]


# ---- drain


def test_a_draining_worker_refuses(make_agent):
    """New assignments are turned away while the old ones are finished."""
    worker, fx = make_agent(capacity=2)
    give(worker, A)
    worker.drain(1.0)
    fx.take()
    give(worker, B, now=1.1)
    assert fx.take() == [Answer(B, False)]


def test_a_drain_hands_back_what_has_not_begun(make_agent):
    """What waits is refused late; what runs goes on."""
    worker, fx = make_agent(prefetch=2)
    give(worker, A, B, C)
    fx.take()
    worker.drain(1.0)
    assert fx.take() == [AnnounceDrain(), Answer(B, False), Answer(C, False)]
    assert worker.active == 1


def test_a_drained_worker_leaves_when_its_last_report_is_acknowledged(make_agent):
    """Not when the work ends: a result that nobody has is not done."""
    worker, fx = make_agent()
    give(worker, A)
    worker.drain(1.0)
    worker.finished(A, "done", 2.0)
    assert fx.take(Leave) == []
    worker.reported(A, 3.0)
    assert fx.take(Leave) == [Leave()]


def test_an_idle_worker_leaves_at_once(make_agent):
    """And a second drain says nothing more."""
    worker, fx = make_agent()
    worker.drain(1.0)
    worker.drain(1.1)
    assert fx.take() == [AnnounceDrain(), Leave()]


def test_a_worker_leaves_when_its_last_attempt_is_cancelled(make_agent):
    """There is nothing to report."""
    worker, fx = make_agent()
    give(worker, A)
    worker.drain(1.0)
    fx.take()
    worker.cancel(A, 2.0)
    assert fx.take() == [Stop(A), CancelDone(A), Leave()]


def test_a_worker_leaves_once_and_falls_silent(make_agent):
    """A late cancel is answered, but there is no second goodbye and no further beat."""
    worker, fx = make_agent()
    worker.drain(1.0)
    fx.take()
    worker.cancel(A, 1.5)
    worker.wake(2.0)
    assert fx.take() == [CancelDone(A)]


def test_a_draining_worker_still_beats(make_agent):
    """It is alive until it leaves."""
    worker, fx = make_agent()
    give(worker, A)
    worker.drain(1.0)
    worker.wake(2.0)
    assert fx.take(Beat) == [Beat(1, 0)]


# ---- starting over


def test_a_worker_that_starts_over_stops_everything_and_reports_what_is_done(make_agent):
    """The coordinator has forgotten it: what it holds will be requeued, what it finished still counts."""
    worker, fx = make_agent(capacity=2, prefetch=1)
    give(worker, A, B, C)
    worker.finished(A, "done", 1.0)
    fx.take()
    worker.start_over(2.0)
    assert fx.take(Stop, SendReport, Execute) == [Stop(B), Stop(C), SendReport(A, "done")]
    assert worker.active == 0


def test_what_was_stopped_by_starting_over_is_not_executed_again(make_agent):
    """A repetition of its assignment comes too late; the slot is free for another attempt."""
    worker, fx = make_agent(prefetch=1)
    give(worker, A, B)
    worker.start_over(2.0)
    fx.take()
    give(worker, A, B, ("b", 2), now=3.0)
    assert fx.take(Answer, Execute) == [Answer(("b", 2), True), Execute(("b", 2))]


def test_starting_over_counts_the_tries_of_a_report_anew(make_agent):
    """It is as if the report were the first."""
    worker, fx = make_agent(report_tries=2)
    give(worker, A)
    worker.finished(A, "done", 0.0)
    worker.start_over(1.0)
    worker.report_failed(A, 1.0)
    worker.wake(1.2)
    assert len(fx.take(SendReport)) == 3


def test_a_draining_worker_that_starts_over_leaves_when_nothing_is_due(make_agent):
    """Nothing is held any more, and nothing is left to report."""
    worker, fx = make_agent()
    give(worker, A)
    worker.drain(1.0)
    fx.take()
    worker.start_over(2.0)
    assert fx.take(Stop, Leave) == [Stop(A), Leave()]


# ---- work that can't be stopped, and slots that can't be used


def test_what_cannot_be_stopped_is_acknowledged_when_it_ends(make_agent):
    """Until then it occupies its slot, is held and counted; how it ended is not reported."""
    worker, fx = make_agent(capacity=1, prefetch=1, can_stop=False)
    give(worker, A, B)
    fx.take()
    worker.cancel(A, 1.0)
    worker.cancel(A, 1.5)
    give(worker, A, C)
    assert fx.take() == [Answer(C, False)]
    assert (worker.active, worker.held) == (2, (B, A))
    worker.finished(A, "too late", 2.0)
    worker.check()
    assert fx.take() == [CancelDone(A), ReportStart(B), Execute(B)]


def test_a_drain_does_not_wait_for_what_nobody_wants(make_agent):
    """The process ends, and with it what could not be stopped."""
    worker, fx = make_agent(capacity=1, can_stop=False)
    give(worker, A)
    worker.cancel(A, 1.0)
    worker.drain(2.0)
    assert fx.take(Leave) == [Leave()]


def test_what_is_not_wanted_any_more_ends_a_drain(make_agent):
    """Also where the cancel comes after the drain began."""
    worker, fx = make_agent(capacity=1, can_stop=False)
    give(worker, A)
    worker.drain(1.0)
    assert fx.take(Leave) == []
    worker.cancel(A, 2.0)
    assert fx.take(Leave) == [Leave()]


def test_to_start_over_does_not_free_the_slot_of_what_cannot_be_stopped(make_agent):
    """The coordinator has forgotten it, and gives a task too many: that is refused."""
    worker, fx = make_agent(capacity=1, can_stop=False)
    give(worker, A)
    worker.start_over(1.0)
    give(worker, B)
    worker.finished(A, "too late", 2.0)
    give(worker, C)
    assert fx.take(Answer) == [Answer(A, True), Answer(B, False), Answer(C, True)]
    assert fx.take(SendReport) == []


def test_a_slot_that_cannot_be_used_is_not_filled(make_agent):
    """The worker refuses what it has no place for, and fills the slot when it is back."""
    worker, fx = make_agent(capacity=2, prefetch=1)
    worker.use_slots(1, 0.0)
    give(worker, A, B, C)
    assert fx.take(Answer, Execute) == [Answer(A, True), Execute(A), Answer(B, True), Answer(C, False)]
    worker.use_slots(2, 1.0)
    worker.check()
    assert fx.take(Execute) == [Execute(B)]


def test_without_any_slot_nothing_waits(make_agent):
    """What waited is handed back, and nothing more is taken."""
    worker, fx = make_agent(capacity=1, prefetch=1)
    give(worker, A, B)
    worker.use_slots(0, 1.0)
    worker.finished(A, "done", 2.0)
    give(worker, C)
    worker.check()
    assert fx.take(Answer, Execute)[3:] == [Answer(B, False), Answer(C, False)]
