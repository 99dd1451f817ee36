import json
from typing import Any

import numpy as np
import pytest

from orchestrator.results.executions import worker_utilization
from orchestrator.results.statistics import describe, flatten
from orchestrator.results.summaries import DETECTION_QUANTILES, LATENCY_QUANTILES, pool, summarise
from orchestrator.results.timeline import series
from tests.results.synthetic import ENGINE, NAN, attempt, mm1, run, scenario, tables, task


def settled(number: int, at_s: float, ran_s: float, **changes: Any) -> dict[str, Any]:
    """An attempt on w1 that ran `ran_s` and settled its task."""
    done = {"ended_s": at_s + ran_s, "ran_s": ran_s, "outcome": "completed", "settled": True}
    return attempt(number, at_s, **(done | changes))


# ---- tasks


def test_every_task_is_counted_once():
    """submitted == completed + failed + unfinished, over the whole run with its warm-up."""
    made = tables([task(1.0, 2.0), task(20.0, 21.0), task(30.0, 31.0, state="failed"), task(99.0)])
    counts = run(made, late_results=3).summary["tasks"]
    assert counts == {
        "submitted": 4,
        "completed": 2,
        "failed": 1,
        "unfinished": 1,
        "attempts": 0,
        "late_results": 3,
        "wasted_s": 0.0,
    }


def test_latency_leaves_out_warm_up():
    """Only tasks that arrived from warmup_s on count, and an arrival at warmup_s does."""
    made = tables([task(9.9, 50.0), task(10.0, 12.0), task(20.0, 24.0)])
    latency = run(made).summary["latency_s"]
    assert (latency["mean"], latency["p50"], latency["max"], latency["n"]) == (3.0, 3.0, 4.0, 2)


def test_what_failed_or_is_unfinished_is_slower_than_all_that_completed():
    """Of 2, 4, failed after 69 and unfinished at 60: the median lies between 4 and 60, so it is not known."""
    made = tables([task(10.0, 12.0), task(20.0, 24.0), task(30.0, 99.0, state="failed"), task(40.0)])
    latency = run(made).summary["latency_s"]
    assert (latency["mean"], latency["p50"], latency["p99"], latency["max"]) == (3.0, None, None, None)
    assert (latency["n"], latency["unknown"]) == (4, 2)
    assert latency["at_least"] == {"p50": 60.0, "p90": 69.0, "p95": 69.0, "p99": 69.0, "p999": 69.0, "max": 69.0}
    wait = run(made).summary["wait_s"]
    assert (wait["max"], wait["unknown"]) == (0.0, 0)  # they had all started


def test_a_percentile_below_the_failures_is_known():
    """Of 1..9 and a failure, p50 is 5.5, and p90 already interpolates towards the failure."""
    made = tables([*(task(20.0, 20.0 + k) for k in range(1, 10)), task(20.0, 21.0, state="failed")])
    latency = run(made).summary["latency_s"]
    assert (latency["p50"], latency["p90"]) == (5.5, None)
    assert latency["at_least"]["p90"] == 9.0  # no less than the slowest that completed, although it failed after 1 s


def test_a_task_that_never_started_waited_longest():
    """It counts among the waits as slower than all that started, unlike a completed one whose start is unknown."""
    made = tables([task(20.0, 21.0), task(30.0, 31.0, started_s=NAN), task(40.0, started_s=NAN, attempts=0)])
    wait = run(made).summary["wait_s"]
    assert (wait["mean"], wait["n"], wait["unknown"], wait["max"]) == (0.0, 2, 1, None)


def test_nothing_is_known_if_all_failed():
    """Every percentile and the mean are null, and the bounds say how old the tasks were."""
    latency = run(tables([task(20.0, 25.0, state="failed")] * 3)).summary["latency_s"]
    assert {latency[name] for name in ("mean", *LATENCY_QUANTILES, "max")} == {None}
    assert set(latency["at_least"].values()) == {5.0}


def test_failures_of_the_warm_up_do_not_count_among_the_latencies():
    """They count among the tasks only."""
    summary = run(tables([task(1.0, 2.0, state="failed"), task(20.0, 21.0)])).summary
    assert (summary["tasks"]["failed"], summary["latency_s"]["unknown"], summary["latency_s"]["max"]) == (1, 0, 1.0)


def test_failures_of_one_class_leave_the_others_alone():
    """The class with failures does not know its maximum; the other one does, and both say their counts."""
    made = tables(
        [task(20.0, 21.0), task(20.0, 23.0, priority="low"), task(20.0, 22.0, priority="low", state="failed")]
    )
    by_priority = run(made).summary["by_priority"]
    assert (by_priority["normal"]["latency_s"]["max"], by_priority["low"]["latency_s"]["max"]) == (1.0, None)
    counts = [by_priority["low"][name] for name in ("submitted", "completed", "failed", "unfinished")]
    assert counts == [2, 1, 1, 0]


@pytest.mark.parametrize(
    ("n", "too_few"), [(0, []), (1, list(LATENCY_QUANTILES)), (10, ["p95", "p99", "p999"]), (999, ["p999"]), (1000, [])]
)
def test_percentiles_beyond_the_sample_are_named(n, too_few):
    """A percentile needs one task beyond it: p99.9 takes a thousand tasks."""
    assert describe(np.arange(float(n)), LATENCY_QUANTILES)["too_few"] == too_few


def test_the_queue_is_told_apart_by_where_it_waits():
    """Of [10, 100], a task waits [20, 30] at the coordinator and [30, 50] at a worker, another 45 s at a worker."""
    made = tables(
        [task(20.0, 60.0, started_s=50.0), task(55.0, started_s=NAN)],
        [
            attempt(0, 30.0, started_s=50.0, ended_s=60.0, ran_s=10.0, outcome="completed", settled=True),
            attempt(1, 55.0, started_s=NAN),
        ],
    )
    made_run = run(made)
    queue = made_run.summary["queue"]
    assert (queue["at_coordinator"], queue["at_workers"]) == pytest.approx((10 / 90, 65 / 90))
    line = series(made, scenario())
    assert np.sum(line.waiting) * line.edges_s[1] == pytest.approx(75.0)
    assert np.sum(line.waiting_at_workers) * line.edges_s[1] == pytest.approx(65.0)
    assert pool([made_run, made_run])["queue"] == queue


def test_an_attempt_of_unknown_start_does_not_wait_at_its_worker():
    """A worker that reports no start began at the assignment, or as long before the end as it says that it ran."""
    made = tables(
        [task(20.0, 60.0), task(20.0, 60.0)],
        [
            attempt(0, 20.0, started_s=NAN, ended_s=60.0, outcome="completed", settled=True),
            attempt(1, 20.0, started_s=NAN, ended_s=60.0, ran_s=31.0, outcome="completed", settled=True),
        ],
    )
    assert run(made).summary["queue"]["at_workers"] == pytest.approx(9 / 90)


def test_wait_and_acceptance_count_from_the_arrival_too():
    """wait_s ends with the first start, accept_s with the acceptance."""
    summary = run(tables([task(20.0, 24.0, accepted_s=20.5, started_s=21.0)])).summary
    assert (summary["wait_s"]["max"], summary["accept_s"]["max"]) == (1.0, 0.5)


def test_percentiles_interpolate_linearly():
    """Every percentile of 0..1000 is its own rank."""
    found = describe(np.arange(1001.0), LATENCY_QUANTILES)
    assert {name: found[name] for name in ("mean", *LATENCY_QUANTILES, "max")} == {
        "mean": 500.0,
        "p50": 500.0,
        "p90": 900.0,
        "p95": 950.0,
        "p99": 990.0,
        "p999": 999.0,
        "max": 1000.0,
    }


def test_a_statistic_of_nothing_is_null():
    """An empty run has counts of zero, nulls for the rest, and never a NaN."""
    summary = run(tables()).summary
    nothing: dict[str, Any] = {"mean": None, "max": None, "n": 0, "unknown": 0, "too_few": [], "at_least": {}}
    assert summary["latency_s"] == dict.fromkeys(LATENCY_QUANTILES) | nothing
    assert summary["detection"]["time_s"] == dict.fromkeys(DETECTION_QUANTILES) | nothing
    assert summary["tasks"]["submitted"] == 0
    assert summary["throughput_per_s"] == summary["utilization"] == 0.0
    assert summary["by_priority"] == {}
    json.dumps(summary, allow_nan=False)


def test_an_unknown_start_is_left_out_of_the_waits():
    """A task whose start is unknown adds no wait and no NaN."""
    wait = run(tables([task(20.0, 24.0, started_s=NAN), task(30.0, 31.0, started_s=30.5)])).summary["wait_s"]
    assert wait["mean"] == 0.5


def test_throughput_counts_completions_inside_the_window():
    """Throughput is the completions from warmup_s to duration_s by that length: 2 in 90 s."""
    made = tables([task(1.0, 5.0), task(9.0, 10.0), task(50.0, 100.0), task(99.0, 101.0)])
    assert run(made).summary["throughput_per_s"] == pytest.approx(2 / 90)


def test_priorities_are_counted_whole_and_timed_after_warm_up():
    """A priority that occurred has all its completions, and the latencies of those after warm-up."""
    made = tables([task(1.0, 2.0, priority="high"), task(20.0, 25.0, priority="high"), task(30.0, priority="low")])
    by_priority = run(made).summary["by_priority"]
    assert list(by_priority) == ["low", "high"]
    assert (by_priority["high"]["completed"], by_priority["high"]["latency_s"]["mean"]) == (2, 5.0)
    assert (by_priority["low"]["completed"], by_priority["low"]["latency_s"]["mean"]) == (0, None)


def test_the_engine_is_copied():
    """The summary holds what the world says of its own speed."""
    assert run(tables()).summary["engine"] == ENGINE


# ---- execution


def test_utilization_is_execution_inside_the_window():
    """Of 2 slots for 90 s, 5 s of [5, 15] count, 5 s of [95, 105], and all of [50, 70]."""
    made = tables(
        [task(5.0, 15.0), task(50.0, 70.0), task(95.0, 105.0)],
        [settled(0, 5.0, 10.0), settled(1, 50.0, 20.0, worker=1), settled(2, 95.0, 10.0)],
    )
    assert run(made).summary["utilization"] == pytest.approx(30 / 180)
    assert worker_utilization(made, scenario()).tolist() == pytest.approx([10 / 90, 20 / 90])


@pytest.mark.parametrize(
    ("hedge", "waiting_s"),
    [
        ({}, 2.0),  # until the end of the task
        ({"given_up_s": 45.0, "ended_s": 45.0, "outcome": "worker_died"}, 2.0),  # it ends before the first one does
        ({"assigned_s": 50.0}, 2.0 + 3.0),  # a retry: the first attempt was given up at 47
    ],
)
def test_a_hedged_task_is_held_once(hedge: dict[str, Any], waiting_s: float):
    """Two attempts at once do not take two tasks out of the queue, in which another one waits for 2 s."""
    first = {"given_up_s": 47.0, "ended_s": 47.0, "outcome": "worker_died"} if "assigned_s" in hedge else {}
    made = tables(
        [task(40.0, 60.0, attempts=2), task(48.0, 55.0)],
        [
            attempt(0, 40.0, **first, **({} if first else {"ended_s": 60.0, "settled": True, "outcome": "completed"})),
            attempt(0, **{"assigned_s": 42.0, "attempt": 2, "worker": 1} | hedge),
            attempt(1, 50.0, ended_s=55.0, settled=True, outcome="completed"),
        ],
    )
    assert run(made).summary["queue"]["at_coordinator"] == pytest.approx(waiting_s / 90)


def test_wasted_seconds_are_those_of_attempts_that_settled_nothing():
    """A late hedge's execution is wasted; an attempt that never started wastes nothing."""
    made = tables(
        [task(20.0, 25.0, attempts=3)],
        [
            attempt(0, 20.0, given_up_s=21.0, ended_s=24.0, ran_s=4.0, outcome="timed_out"),
            attempt(0, 21.0, attempt=2, started_s=NAN, ended_s=21.0, outcome="rejected"),
            settled(0, 22.0, 3.0, attempt=3),
        ],
    )
    assert run(made).summary["tasks"]["wasted_s"] == pytest.approx(4.0)


def test_an_execution_of_unknown_length_ends_with_its_attempt_or_its_worker():
    """Without a report, an execution lasts until its attempt ends, its worker crashes or the run ends."""
    made = tables(
        [task(at_s, service_s=20.0) for at_s in (20.0, 30.0, 90.0)],
        [
            attempt(0, 20.0, given_up_s=26.0, ended_s=40.0, outcome="worker_died"),  # until the crash at 23
            attempt(1, 30.0, worker=1, ended_s=32.0, outcome="cancelled"),  # w2 never crashed
            attempt(2, 90.0),  # after the crash, open until 104
        ],
        [(22.0, "crash", 1, None), (23.0, "crash", 0, None), (40.0, "heal", 0, "restart"), (104.0, "up", 0, None)],
    )
    assert run(made).summary["tasks"]["wasted_s"] == pytest.approx(3.0 + 2.0 + 14.0)


# ---- replications


def test_percentiles_are_those_of_the_pooled_sample():
    """p50 of {1, 1, 1} and {2, 9} together is 1, not the mean of 1 and 5.5."""
    first = run(tables([task(20.0, 21.0), task(30.0, 31.0), task(40.0, 41.0)]))
    second = run(tables([task(20.0, 22.0), task(30.0, 39.0)]))
    pooled = pool([first, second])
    assert (pooled["latency_s"]["p50"], pooled["latency_s"]["max"], pooled["latency_s"]["mean"]) == (1.0, 9.0, 2.8)
    assert (pooled["tasks"]["completed"], pooled["replications"]) == (5, 2)
    assert pooled["by_priority"]["normal"]["completed"] == 5


def test_pooling_one_run_changes_nothing_but_what_it_adds():
    """A single replication is summarised by its own summary."""
    one = mm1(300)
    pooled = pool([one])
    assert {key: pooled[key] for key in one.summary} == one.summary


def test_pooled_speed_is_work_over_wall_time():
    """Wall times and events are summed, and rates are not."""
    assert pool([run(tables()), run(tables())])["engine"] == {**ENGINE, "wall_s": 4.0, "events": 600}


def test_flattening_keeps_every_leaf():
    """Nested keys are joined by dots."""
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


# ---- over time


def test_waiting_tasks_are_those_that_no_attempt_holds():
    """A task accepted at 20, assigned at 30 and 60, given up at 50 and settled at 70 waits 10 s + 10 s."""
    made = tables(
        [task(20.0, 70.0, started_s=30.0, attempts=2)],
        [
            attempt(0, 30.0, given_up_s=50.0, ended_s=65.0, outcome="timed_out"),
            attempt(0, 60.0, attempt=2, ended_s=70.0, ran_s=10.0, outcome="completed", settled=True),
        ],
    )
    line = series(made, scenario())
    assert np.sum(line.waiting) * line.edges_s[1] == pytest.approx(20.0)
    assert line.waiting.min() >= 0


def test_tasks_wait_at_the_door_of_a_coordinator_that_does_not_answer():
    """Of [0, 100], one task is accepted 25 s after its arrival and begins at once, another one never is."""
    made = tables(
        [task(20.0, 55.0, accepted_s=45.0, started_s=45.0), task(60.0, accepted_s=NAN, started_s=NAN)],
        [attempt(0, 45.0, ended_s=55.0, ran_s=10.0, outcome="completed", settled=True)],
    )
    line = series(made, scenario())
    assert np.sum(line.waiting[line.edges_s[:-1] < 45]) * line.edges_s[1] == pytest.approx(25.0)
    assert line.waiting[-1] == 1


def test_a_late_result_takes_its_task_out_of_the_queue():
    """A task given up at 50 and settled by the same attempt at 70 waits from 50 to 70."""
    made = tables(
        [task(20.0, 70.0)], [attempt(0, 20.0, given_up_s=50.0, ended_s=70.0, outcome="completed", settled=True)]
    )
    line = series(made, scenario())
    assert np.sum(line.waiting) * line.edges_s[1] == pytest.approx(20.0)


def test_rates_over_time_add_up_to_the_tasks():
    """Every arrival and every completion lies in one bin; duration_s is an edge."""
    done = mm1(3000)
    line = series(done.tables, done.scenario)
    width_s = line.edges_s[1]
    assert np.sum(line.arrivals_per_s) * width_s == pytest.approx(3000)
    assert np.sum(line.completions_per_s) * width_s == pytest.approx(3000)
    assert np.isclose(line.edges_s, done.scenario.duration_s).any()
    assert len(line.edges_s) - 1 == len(line.p50_s) == len(line.waiting)


def test_percentiles_over_time_are_those_of_each_bin():
    """Binned percentiles equal numpy's on the tasks that arrived in the bin."""
    done = mm1(3000)
    line = series(done.tables, done.scenario)
    tasks = done.tasks
    for index in (0, len(line.p99_s) // 2):
        low, high = line.edges_s[index : index + 2]
        inside = tasks[(tasks.arrival_s >= low) & (tasks.arrival_s < high)].latency_s
        assert line.p50_s[index] == pytest.approx(np.quantile(inside, 0.5))
        assert line.p99_s[index] == pytest.approx(np.quantile(inside, 0.99))
        assert line.slowest_s[index] == inside.max()


def test_a_bin_without_arrivals_has_no_latency():
    """An empty bin is NaN, and the other bins are not affected."""
    line = series(tables([task(50.0, 51.0)]), scenario())
    assert np.isnan(line.p50_s).sum() == len(line.p50_s) - 1


def test_the_long_way_gives_the_same_numbers():
    """The vectorised summary of a whole queue equals one computed from the data frames."""
    done = mm1(2000)
    tasks, window = done.tasks, done.scenario.duration_s - 10.0
    late = tasks[tasks.arrival_s >= 10.0]
    busy = (done.attempts.started_s + done.attempts.ran_s).clip(10.0, done.scenario.duration_s)
    busy_s = (busy - done.attempts.started_s.clip(10.0, done.scenario.duration_s)).sum()
    summary = summarise(done.tables, done.scenario, "sim", ENGINE, {"late_results": 0})
    assert summary["latency_s"]["p99"] == pytest.approx(late.latency_s.quantile(0.99))
    assert summary["wait_s"]["mean"] == pytest.approx(late.wait_s.mean())
    assert summary["utilization"] == pytest.approx(busy_s / (2 * window))
    assert {name: part["completed"] for name, part in summary["by_priority"].items()} == dict(
        tasks.priority.value_counts(sort=False)
    )
