import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.pictures import perfetto
from orchestrator.results.tables import Tables
from orchestrator.scenario.schema import Scenario
from tests.results.synthetic import attempt, mm1, scenario, tables, task


def traced(folder: Path, made: Tables, world: Scenario, limit: int = perfetto.LIMIT) -> list[dict[str, Any]]:
    perfetto.write(folder / "trace.json", made, world, limit)
    events: list[dict[str, Any]] = json.loads((folder / "trace.json").read_text())["traceEvents"]
    return events


def test_an_attempt_is_a_complete_event_in_microseconds(tmp_path):
    """An attempt is an event `X` from its start for as long as it ran, in the row of a slot."""
    made = tables(
        [task(20.0, 23.0)],
        [attempt(0, 20.0, worker=1, started_s=20.5, ran_s=2.0, ended_s=22.5, outcome="completed", settled=True)],
    )
    (span,) = (event for event in traced(tmp_path, made, scenario()) if event["ph"] == "X")
    assert (span["ts"], span["dur"], span["pid"], span["tid"]) == (20.5e6, 2e6, 1, 1)
    assert span["args"] == {"task": 0, "attempt": 1, "outcome": "completed", "priority": "normal"}


def test_an_attempt_tells_the_kind_of_its_task(tmp_path):
    """Each that of its own task; a run without kinds tells none."""
    workload = scenario().workload.model_dump() | {"kinds": {"look": {"share": 0.5}, "report": {"share": 0.5}}}
    made = tables([task(20.0, 21.0), task(21.0, 23.0)], [attempt(k, 20.0 + k, ran_s=1.0) for k in range(2)])
    spans = [
        e for e in traced(tmp_path, made.with_kinds(["report", "look"]), scenario(workload=workload)) if "dur" in e
    ]
    assert [(span["args"]["task"], span["args"]["kind"]) for span in spans] == [(0, "report"), (1, "look")]
    assert all("kind" not in event["args"] for event in traced(tmp_path, made, scenario()))


def test_rows_are_named(tmp_path):
    """Metadata names every process and thread that an event refers to."""
    events = traced(tmp_path, mm1(200).tables, scenario())
    named = {(e["name"], e["pid"], e.get("tid")): e["args"] for e in events if e["ph"] == "M"}
    assert named["process_name", 0, None] == {"name": "w1"}
    assert named["thread_name", 1, 1] == {"name": "slot 1"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} == {(0, 1), (1, 1)}
    assert Counter(e["ph"] for e in events) == {"X": 200, "i": 4, "M": 6}


def test_faults_and_verdicts_are_instants(tmp_path):
    """Every event of a worker after its first registration is an instant."""
    events = traced(tmp_path, mm1(200).tables, scenario())
    instants = [event["name"] for event in events if event["ph"] == "i"]
    assert instants == ["crash", "dead (detector)", "heal (restart)", "up (reregistered)"]


def test_executions_at_the_same_time_take_different_slots(tmp_path):
    """Three that overlap have three rows, and the next one takes the lowest free row."""
    starts = [(20.0, 10.0), (21.0, 2.0), (22.0, 5.0), (24.0, 1.0)]
    made = tables(
        [task(start, start + ran) for start, ran in starts],
        [attempt(k, start, ran_s=ran, ended_s=start + ran) for k, (start, ran) in enumerate(starts)],
    )
    spans = [event for event in traced(tmp_path, made, scenario()) if event["ph"] == "X"]
    assert [span["tid"] for span in spans] == [1, 2, 3, 2]


def test_an_attempt_that_never_started_is_no_execution(tmp_path):
    """A rejected attempt is not shown."""
    made = tables([task(20.0)], [attempt(0, 20.0, started_s=float("nan"), ended_s=20.1, outcome="rejected")])
    assert not [event for event in traced(tmp_path, made, scenario()) if event["ph"] == "X"]


def test_a_trace_shows_at_most_its_limit(tmp_path):
    """Of more executions exactly the limit is shown, and always the same ones."""
    done = mm1(2000)
    first = traced(tmp_path, done.tables, done.scenario, limit=100)
    assert Counter(event["ph"] for event in first)["X"] == 100
    assert traced(tmp_path, done.tables, done.scenario, limit=100) == first


def test_the_slowest_and_those_near_faults_come_first():
    """A quarter are the slowest, a quarter the nearest to a fault, and the rest is evenly spread."""
    start_s = np.arange(1000.0)
    latency_s = np.ones(1000)
    latency_s[[3, 7]] = 50.0
    latency_s[11] = np.nan
    picked = perfetto.chosen(start_s, latency_s, np.array([500.2]), 12)
    assert len(picked) == 12
    assert {3, 7, 11} <= set(picked)
    assert {499, 500, 501} <= set(picked)
    others = [row for row in picked if row not in {3, 7, 11, 499, 500, 501}]
    assert (others[0], others[-1]) == (0, 999)
    assert np.diff(others).max() < 250


def test_all_are_shown_where_they_are_few():
    """Below the limit every execution is shown."""
    assert perfetto.chosen(np.arange(5.0), np.ones(5), np.array([]), 5).tolist() == [0, 1, 2, 3, 4]
