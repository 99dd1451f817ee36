"""The history checker sees each broken promise, and accuses nobody where the tables leave it open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.analysis.history import range_max
from orchestrator.analysis.promises import MOST, PROMISES, check, left_out
from orchestrator.results.tables import event_rows
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import Scenario
from sim.world import World
from tests.results.synthetic import NAN, attempt, run, scenario, tables, task

UP = [(0.0, "up", 0, "registered"), (0.0, "up", 1, "registered")]


def done(number: int, assigned_s: float, ended_s: float, **changes: Any) -> dict[str, Any]:
    """The attempt that completed a task."""
    return (
        attempt(number, assigned_s, ended_s=ended_s, ran_s=ended_s - assigned_s, outcome="completed", settled=True)
        | changes
    )


def lost(number: int, assigned_s: float, given_up_s: float, **changes: Any) -> dict[str, Any]:
    """An attempt that ended when its worker was declared dead."""
    return attempt(number, assigned_s, given_up_s=given_up_s, ended_s=given_up_s, outcome="worker_died") | changes


def told(tasks, attempts, events=UP, healed: bool = False, **changes: Any) -> list[str]:
    """The checker's sentences about these rows."""
    found = check(run(tables(tasks, attempts, events), scenario(**changes)), healed=healed)
    return list(map(str, found))


def policies(**changes: Any) -> dict[str, Any]:
    return {"policies": changes}


# ---- clean histories


def test_a_run_without_tasks_is_clean():
    """A run without tasks breaks no promise."""
    assert told([], []) == []


@pytest.mark.parametrize("file", ["gc-pause", "worker-crash", "partition", "rolling-restart", "message-loss"])
def test_what_the_simulator_does_is_clean(file: str):
    """Under faults of many kinds every task settles and no promise is broken."""
    overrides = ["workload.tasks=1500", "sweep={}"]
    loaded = Scenario.load(f"scenarios/{file}.yaml", overrides)
    assert check(sim.run(loaded), healed=True) == []


# ---- outcomes


def test_a_task_has_one_row():
    """A second settlement gives a second row and a violation."""
    rows = [task(0.0, 1.0), task(0.0, 1.0, task=0)]
    assert told(rows, [done(0, 0.0, 1.0)])[0] == "outcome: task 0 was settled 2 times"


def test_a_task_is_settled_by_one_attempt():
    """The sentence names both attempts that settled the task."""
    rows = [done(0, 0.0, 1.0), done(0, 1.0, 2.0, attempt=2)]
    (sentence, *_) = told([task(0.0, 2.0, attempts=2)], rows)
    assert sentence == "outcome: task 0 was settled by 2 attempts: 1 and 2"


def test_an_unfinished_task_was_settled_by_nobody():
    """An unfinished task with an attempt that settled it is a violation."""
    assert told([task(0.0)], [done(0, 0.0, 1.0)]) == ["outcome: task 0 is unfinished, but was settled by its attempt 1"]


def test_the_summary_adds_up():
    """Every submitted task is completed, failed or unfinished."""
    history = run(tables([task(0.0, 1.0)], [done(0, 0.0, 1.0)], UP))
    history.summary["tasks"]["completed"] = 0
    assert [str(found) for found in check(history)] == [
        "outcome: the summary and the table count completed tasks differently",
        "outcome: of 1 tasks submitted, 1 are in no state",
    ]


def test_a_result_comes_from_the_attempt_that_settled():
    """A task is settled at the end of its settling attempt, by that attempt's worker."""
    (sentence,) = told([task(0.0, 1.0, worker=1)], [done(0, 0.0, 1.0)])
    assert sentence == "result: task 0 was settled at 1 s by w2, but not by its attempt 1 of task 0 on w1"


def test_a_result_without_an_attempt_that_settled_comes_from_a_worker_that_had_it():
    """A late report of a replaced process is no violation, but that of a stranger is."""
    rows = [lost(0, 0.0, 1.0)]
    assert told([task(0.0, 2.0)], rows, events=[*UP, (1.0, "up", 0, "reregistered")]) == []
    assert told([task(0.0, 2.0, worker=1)], rows, events=[*UP, (1.0, "up", 0, "reregistered")]) == [
        "result: task 0 was settled at 2 s by w2, which had not been given it"
    ]


# ---- attempts


def test_attempts_are_numbered_without_gaps():
    """No number is repeated or left out, and there are as many attempts as the task counted."""
    rows = [lost(0, 0.0, 1.0), done(0, 1.0, 2.0, attempt=3)]
    assert told(
        [task(0.0, 2.0, attempts=3)], rows, events=[*UP, (1.0, "dead", 0, "detector"), (1.0, "up", 0, "revived")]
    ) == [
        "numbering: attempt 3 of task 0 on w1 stands in the place of number 2",
        "numbering: task 0 counts 3 attempts, and 2 are recorded",
    ]


def test_an_attempt_is_of_a_known_task():
    """An attempt at a task that was never submitted is a violation."""
    assert told([], [attempt(5, 0.0)]) == ["numbering: attempt 1 of task 5 on w1 is of no task that was submitted"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"started_s": 0.5}, "attempt 1 of task 0 on w1 started at 0.5 s, but was assigned only at 1 s"),
        ({"started_s": 3.0}, "attempt 1 of task 0 on w1 ended at 2 s, but started only at 3 s"),
        ({"given_up_s": 2.5}, "attempt 1 of task 0 on w1 ended at 2 s, but was given up only at 2.5 s"),
    ],
)
def test_nothing_happens_before_what_it_follows_from(changes, sentence):
    """Times may not fall along accepted, assigned, started, given up and ended."""
    assert told([task(0.0, 2.0)], [done(0, 1.0, 2.0) | changes]) == [f"times: {sentence}"]


def test_a_task_arrives_before_it_is_accepted():
    """A task arrives before it is accepted, and is accepted before it is settled."""
    assert told([task(1.0, 2.0, accepted_s=0.5)], [done(0, 1.0, 2.0)]) == [
        "times: task 0 was accepted at 0.5 s, but arrived only at 1 s"
    ]


def test_a_settled_task_is_not_assigned_again():
    """Only an assignment at the very moment of settling is allowed."""
    events = [*UP, (1.0, "dead", 0, "detector")]

    def rows(again_s: float) -> list[dict[str, Any]]:
        hedge = attempt(0, again_s, attempt=2, worker=1, given_up_s=again_s, ended_s=again_s, outcome="cancelled")
        return [lost(0, 0.0, 1.0, settled=True, ended_s=2.0), hedge]

    assert told([task(0.0, 2.0, attempts=2)], rows(2.0), events) == []
    assert told([task(0.0, 2.0, attempts=2)], rows(3.0), events) == [
        "settled: attempt 2 of task 0 on w2 was assigned at 3 s, when its task had been settled at 2 s"
    ]


# ---- tries


def deaths(number: int, last: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[float, str, int, str | None]]]:
    """Attempts at task 0 whose workers died one after the other, then a last one; and the events."""
    attempts = [lost(0, float(k), k + 1.0, attempt=k + 1, worker=k % 2) for k in range(number)]
    events = [
        event
        for k in range(number)
        for event in ((k + 1.0, "dead", k % 2, "detector"), (k + 1.5, "up", k % 2, "revived"))
    ]
    return [*attempts, last], [*UP, *events]


def test_a_task_is_tried_at_most_so_often():
    """Lost attempts count as tries, and rejections do not."""
    limit = policies(retry={"max_attempts": 2})
    attempts, events = deaths(3, done(0, 3.0, 4.0, attempt=4, worker=1))
    assert told([task(0.0, 4.0, attempts=4, worker=1)], attempts, events, **limit) == [
        "tries: task 0 used 3 tries, of 2 that it had"
    ]
    attempts[1] |= {"outcome": "rejected"}
    assert told([task(0.0, 4.0, attempts=4, worker=1)], attempts, events, **limit) == []


def test_a_task_fails_when_its_tries_are_used_up():
    """A task does not fail earlier, neither by the limit nor because it killed workers."""
    attempts, events = deaths(1, lost(0, 1.0, 2.0, attempt=2, worker=1))
    attempts[0] |= {"ended_s": NAN}
    events += [(2.0, "dead", 1, "detector")]
    failed = [task(0.0, 2.0, state="failed", attempts=2, worker=1)]
    assert told(failed, attempts, events, **policies(retry={"max_attempts": 2})) == []
    assert told(failed, attempts, events, **policies(retry={"max_worker_kills": 2})) == []
    assert told(failed, attempts, events, **policies(retry={"max_attempts": 5})) == [
        "tries: task 0 failed at 2 s after 2 tries of 3"
    ]


def test_a_task_has_one_open_attempt_if_nothing_hedges():
    """A second open attempt is a violation, unless the scenario hedges."""
    rows = [done(0, 0.0, 2.0), attempt(0, 1.0, attempt=2, worker=1, given_up_s=2.0, ended_s=2.0, outcome="cancelled")]
    tasks = [task(0.0, 2.0, attempts=2)]
    assert told(tasks, rows) == [
        "hedges: attempt 2 of task 0 on w2 was assigned at 1 s, while an earlier one was still open"
    ]
    assert told(tasks, rows, **policies(hedging={})) == []
    assert told(tasks, rows, **policies(detection={"kind": "timeout", "on_suspect": "hedge"})) == []


# ---- the queue


def queued(second: dict[str, Any], **changes: Any) -> list[str]:
    """Task 0 waits for w1 from 1 s to 5 s; task 1 is accepted at 2 s and assigned to w2 at 3 s."""
    tasks = [task(1.0, 6.0, started_s=5.0), task(2.0, 4.0, started_s=3.0, worker=1) | second]
    attempts = [done(0, 5.0, 6.0), done(1, 3.0, 4.0, worker=1)]
    return told(tasks, attempts, **changes)


def test_the_older_task_is_assigned_first():
    """Of two tasks with the same priority the older one is first."""
    assert queued({}) == [
        "order: task 0 waited from 1 s, and was overtaken by a younger task: attempt 1 of task 1 on w2"
    ]


def test_the_higher_priority_is_assigned_first():
    """The priority decides before the age; with fifo only the age decides."""
    assert queued({"priority": "high"}) == []
    assert queued({"priority": "low"}) == [
        "order: task 0 waited from 1 s, and was overtaken by a task of a lower priority: attempt 1 of task 1 on w2"
    ]
    assert queued({"priority": "high"}, **policies(queue={"kind": "fifo"})) == [
        "order: task 0 waited from 1 s, and was overtaken by a younger task: attempt 1 of task 1 on w2"
    ]


@pytest.mark.parametrize(("delay_s", "sentences"), [(0.0, 1), (1.0, 0)])
def test_a_task_that_comes_back_stands_where_its_age_puts_it(delay_s: float, sentences: int):
    """It joins the queue at once without a backoff, and only afterwards with one."""
    tasks = [task(0.0, 8.0, attempts=2), task(2.0, 7.0, started_s=6.0, worker=1)]
    attempts = [lost(0, 0.0, 5.0), done(0, 7.0, 8.0, attempt=2), done(1, 6.0, 7.0, worker=1)]
    events = [*UP, (5.0, "dead", 0, "detector"), (6.0, "up", 0, "revived")]
    retry = {"backoff": {"kind": "constant", "delay_s": delay_s}}
    found = told(tasks, attempts, events, **policies(retry=retry))
    assert [sentence.split(":")[0] for sentence in found] == ["order"] * sentences


def test_what_happens_at_one_moment_may_have_happened_in_order():
    """Events at the same moment never break the order."""
    tasks = [task(1.0, 4.0, started_s=3.0), task(2.0, 4.0, started_s=3.0, worker=1)]
    assert told(tasks, [done(0, 3.0, 4.0), done(1, 3.0, 4.0, worker=1)]) == []


def test_an_unfinished_task_that_was_overtaken_is_seen():
    """A task that waited to the end of the run was overtaken."""
    tasks = [task(1.0, attempts=0, started_s=NAN), task(2.0, 4.0, started_s=3.0)]
    assert told(tasks, [done(1, 3.0, 4.0)]) == [
        "order: task 0 waited from 1 s, and was overtaken by a younger task: attempt 1 of task 1 on w1"
    ]


# ---- workers


@pytest.mark.parametrize(
    ("kind", "back", "why"),
    [
        ("dead", ("up", "revived"), "was declared dead"),
        ("suspect", ("up", "revived"), "was suspect"),
        ("left", ("up", "reregistered"), "had left"),
        ("drain", ("up", "reregistered"), "drained"),
        ("ejected", ("readmitted", None), "was ejected"),
    ],
)
def test_nothing_is_assigned_to_a_worker_that_is_away(kind, back, why):
    """An absence lasts from the event that begins it to the event that ends it."""
    events = [*UP, (1.0, kind, 0, None), (5.0, back[0], 0, back[1])]
    tasks = [task(3.0, 4.0)]
    sentence = told(tasks, [done(0, 3.0, 4.0)], events)[0]
    assert sentence.startswith("membership: attempt 1 of task 0 on w1 was assigned at 3 s to a worker")
    assert sentence.endswith(f"that {why} at 1 s and came back at 5 s")
    assert told([task(5.0, 6.0)], [done(0, 5.0, 6.0)], events) == []
    assert told([task(0.5, 1.0)], [done(0, 0.5, 1.0)], events) == []


def test_a_revival_ends_no_drain():
    """Only a new process of a draining worker may get tasks."""
    events = [*UP, (1.0, "drain", 0, None), (2.0, "suspect", 0, None), (3.0, "up", 0, "revived")]
    (sentence,) = told([task(4.0, 5.0)], [done(0, 4.0, 5.0)], events)
    assert "to a worker that drained at 1 s" in sentence
    assert told([task(4.0, 5.0)], [done(0, 4.0, 5.0)], [*events, (3.5, "up", 0, "reregistered")]) == []


def test_nothing_is_assigned_before_a_worker_registers():
    """A worker that joins later gets nothing before."""
    (sentence,) = told([task(1.0, 3.0)], [done(0, 1.0, 3.0)], [(2.0, "up", 0, "registered"), UP[1]])
    assert sentence.endswith("to a worker that had never registered and came back at 2 s")


def test_a_death_gives_up_what_the_worker_holds():
    """No task counts on a dead worker, and a new process has nothing of the old one."""
    tasks, events = [task(0.0, 4.0)], [*UP, (2.0, "dead", 0, "detector")]
    kept = "membership: attempt 1 of task 0 on w1 from 0 s was kept when its worker was declared dead at 2 s"
    assert told(tasks, [done(0, 0.0, 4.0)], events) == [kept]
    assert told(tasks, [done(0, 0.0, 4.0)], [*events, (5.0, "up", 0, "reconnected")]) == [kept]
    assert told(tasks, [done(0, 0.0, 4.0)], [*events, (3.0, "up", 0, "registered")]) == [kept]
    assert told(tasks, [done(0, 0.0, 4.0, given_up_s=2.0, outcome="worker_died")], events) == []
    begun = [*UP, (2.0, "up", 0, "reregistered")]
    (sentence,) = told(tasks, [done(0, 0.0, 4.0, given_up_s=2.0, outcome="worker_died")], begun)
    assert sentence.endswith("was kept when its worker began anew at 2 s")


@pytest.mark.parametrize("on_return", ["first_result", "keep_original"])
@pytest.mark.parametrize("back", ["reconnected", "revived"])
def test_a_process_that_returns_may_keep_what_it_holds(back: str, on_return: str):
    """An attempt that counts again has no time at which it was given up, whatever the setting; one death excuses no
    other. A process that was revived may reconnect later, which is no event."""
    events = [*UP, (2.0, "dead", 0, "detector"), (3.0, "up", 0, back)]
    returns = policies(on_return=on_return)
    assert told([task(0.0, 4.0)], [done(0, 0.0, 4.0)], events, **returns) == []
    (sentence,) = told([task(0.0, 6.0)], [done(0, 0.0, 6.0)], [*events, (5.0, "dead", 0, "detector")], **returns)
    assert sentence.endswith("was kept when its worker was declared dead at 5 s")


@pytest.mark.parametrize(("reconnects_s", "back"), [(8.1, "reconnected"), (8.6, "revived")])
def test_a_simulated_process_that_reconnects_goes_on(reconnects_s: float, back: str):
    """It is declared dead at 4.95 s behind a partition that ends at 8 s, and beats again at 8.45 s. Its attempt counts
    again, before its task found room elsewhere."""
    loaded = scenario(
        duration_s=2.5,
        warmup_s=0,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 1},
            "service": {"kind": "constant", "value_s": 12},
        },
        policies={"detection": {"kind": "timeout", "heartbeat_s": 0.5, "timeout_s": 2}},
        faults=[{"kind": "partition", "workers": ["w1"], "at_s": 3, "for_s": 5}],
    )
    world = World(loaded, draw_plan(loaded), 0)
    world.env.call_at(reconnects_s, 0, world.disconnect, "w1")
    world.run()
    history = run(world.tables(), loaded)
    (row,) = [row for row in history.tables.attempts.to_pylist() if row["worker"] == "w1"]
    assert (row["assigned_s"], row["given_up_s"], row["ended_s"]) == (2.0, None, 14.0)
    assert [event.detail for event in event_rows(history.tables.events) if event.kind == "up"][2:] == [back]
    assert check(history, healed=True) == []


def test_what_was_assigned_between_a_death_and_a_return_is_no_hedge():
    """The attempt that counts again did not count when its task was assigned to another worker, which died too."""
    events = [*UP, (1.0, "dead", 0, "detector"), (3.0, "dead", 1, "detector"), (4.0, "up", 0, "reconnected")]
    tasks = [task(0.0, 6.0, attempts=2)]

    def again(assigned_s: float, first_s: float = 0.0) -> list[str]:
        return told(tasks, [done(0, first_s, 6.0), lost(0, assigned_s, 3.0, attempt=2, worker=1)], events)

    assert again(2.0) == []
    assert again(2.0, 1.0) == [], "also one that was assigned at the moment of the death"
    assert again(0.5) == [
        "hedges: attempt 2 of task 0 on w2 was assigned at 0.5 s, while an earlier one was still open"
    ]


def test_an_attempt_that_counts_again_may_have_consumed_several_tries():
    """Its row shows one of them at most, so its task may fail before the rows show as many tries as it had."""
    limit = policies(retry={"max_attempts": 2})
    events = [*UP, (1.0, "dead", 0, "detector"), (2.0, "up", 0, "reconnected"), (3.0, "dead", 0, "detector")]
    failed = [task(0.0, 3.0, state="failed")]
    assert told(failed, [lost(0, 0.0, 3.0)], events, **limit) == []
    assert told(failed, [lost(0, 0.0, 3.0)], [*UP, (3.0, "dead", 0, "detector")], **limit) == [
        "tries: task 0 failed at 3 s after 1 tries of 2"
    ]


def test_a_worker_holds_no_more_than_it_may():
    """Abandoned attempts count, and an end and a beginning at the same moment do not overlap."""
    tasks = [task(0.0, 2.0), task(1.0, 3.0)]
    attempts = [done(0, 0.0, 2.0), done(1, 1.0, 3.0)]
    assert told(tasks, attempts) == ["load: attempt 1 of task 1 on w1 was number 2 there at 1 s, of 1 that it may hold"]
    assert told(tasks, attempts, cluster={"workers": 2, "capacity": 1, "prefetch": 1}) == []
    assert told(tasks, attempts, cluster={"workers": 2, "capacity": 1, "prefetch": "unlimited"}) == []
    assert told([task(0.0, 2.0), task(2.0, 3.0)], [done(0, 0.0, 2.0), done(1, 2.0, 3.0)]) == []


# ---- cancels


def run_on(events=(), **changes: Any) -> list[str]:
    """A replacement on w2 that runs for 2 s after the original on w1 has settled the task."""
    tasks = [task(0.0, 4.0, attempts=2)]
    attempts = [
        lost(0, 0.0, 2.0, ended_s=4.0, settled=True),
        attempt(0, 3.0, attempt=2, worker=1, given_up_s=4.0, ended_s=6.0, ran_s=3.0, outcome="cancelled"),
    ]
    dead = [(2.0, "dead", 0, "detector"), (3.0, "up", 0, "revived")]
    return told(tasks, attempts, [*UP, *dead, *events], **changes)


def test_what_runs_for_a_settled_task_is_stopped():
    """It may run on only until the cancel must have arrived."""
    assert run_on() == ["cancel: attempt 2 of task 0 on w2 ran on until 6 s, although its task was settled at 4 s"]
    assert run_on(network={"delay": {"kind": "constant", "value_s": 2.5}}) == []


@pytest.mark.parametrize(
    ("events", "network"),
    [
        ([], {"loss": 0.1}),
        ([], {"delay": {"kind": "exponential", "mean_s": 0.001}}),
        ([(3.5, "pause", 1, None)], {}),
        ([(1.0, "partition", 1, None), (4.5, "heal", 1, "partition")], {}),
        ([(3.5, "recovered", -1, "term 2"), (5.0, "up", 1, "reconnected")], {}),
    ],
)
def test_a_cancel_that_may_not_have_come_accuses_nobody(events, network):
    """Lost or unboundedly late messages and impaired workers excuse an attempt that runs on."""
    assert run_on(events, network=network) == []


def test_a_fault_that_is_over_excuses_nothing():
    """A fault that ended before the task was settled is no excuse, nor is a coordinator that was reached by then."""
    assert len(run_on([(1.0, "pause", 1, None), (2.0, "heal", 1, "resume")])) == 1
    assert len(run_on([(3.2, "recovered", -1, "term 2"), (3.5, "up", 1, "reconnected")])) == 1


# ---- the end


def test_after_the_faults_everything_is_settled():
    """An unfinished task is a violation if the caller says that there was time enough."""
    assert told([task(1.0)], [attempt(0, 1.0)]) == []
    assert told([task(1.0)], [attempt(0, 1.0)], healed=True) == [
        "progress: task 0 was never settled: it arrived at 1 s, and 1 attempts were made"
    ]
    for service_s, broken in ((60.0, 1), (61.0, 0)):  # no time is enough for what takes longer than there is
        row = task(1.0, service_s=service_s)
        assert len(told([row], [attempt(0, 1.0)], healed=True, drain_s=60.0)) == broken


def test_many_violations_are_counted():
    """A few sentences are written, and the others are counted."""
    tasks = [task(float(k)) for k in range(MOST + 7)]
    found = told(tasks, [attempt(k, float(k), worker=k % 2) for k in range(len(tasks))], healed=True)
    progress = [sentence for sentence in found if sentence.startswith("progress")]
    assert len(progress) == MOST + 1
    assert progress[-1] == "progress: and 7 more"


def test_what_is_not_asked_is_said():
    """Every promise that is not checked is listed with its reason."""
    assert left_out(scenario()) == {"progress": "faults may have lasted to the end"}
    assert left_out(scenario(network={"loss": 0.1}, **policies(hedging={})), healed=True) == {
        "cancel": "messages are lost",
        "hedges": "tasks may be hedged",
    }
    assert {promise.name for promise in PROMISES} >= set(left_out(scenario()))


def test_every_overtaking_is_found():
    """The maxima over ranges equal those computed one by one."""
    rng = np.random.default_rng(1)
    values = rng.random(200)
    begin = rng.integers(0, 200, 500)
    end = np.minimum(200, begin + rng.integers(0, 90, 500))
    expected = [values[b:e].max(initial=-np.inf) for b, e in zip(begin, end, strict=True)]
    assert range_max(values, begin, end).tolist() == expected
