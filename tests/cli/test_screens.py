"""The screen of `orchestrator top`: it fits whatever the terminal is, and cuts no figure."""

from __future__ import annotations

import re

import pytest

from orchestrator.cli.screens import screen
from orchestrator.cluster.figures import Metrics, Percentiles
from orchestrator.cluster.views import EventView, LaneView, QueueView, Snapshot, TaskClass, WorkerView
from orchestrator.core.model import WorkerState

LONG = "a-worker-with-a-long-name.of.a.rack.example-"
METRICS = Metrics(
    throughput_per_s=1234.5,
    failed_per_s=0.25,
    latency_ms=Percentiles(12.34, 345.6, None),
    latency_at_least_ms=Percentiles(None, None, 5678.0),
    execution_ms=Percentiles(11.1, 222.2, 3333.3),
    queue_depth=123_456,
    queue_at_workers=7_890,
    alive_workers=12,
    completed=98_765_432,
    failed=1_357,
    timeouts=24,
)
FIGURES = (
    *("12 alive", "1 suspect", "2 dead", "1 draining", "6,400 of 9,600 busy", "load 67%"),
    *("123,456 waiting", "7,890 waiting at workers", "98,765,432 completed", "1,357 failed", "1,234 completed"),
    *("p50 12.3 ms", "p95 346 ms", "p99 > 5.68 s", "p99 3.33 s", "3 deaths", "24 timeouts"),
)


def a_snapshot(workers: int = 6, events: int = 8) -> Snapshot:
    names = ["w1", *(f"{LONG}{number}" for number in range(2, workers + 1))]
    states = [WorkerState.ALIVE, WorkerState.DEAD, WorkerState.SUSPECT]
    shown = tuple(
        WorkerView(
            *(name, states[number % 3] if number < 3 else WorkerState.ALIVE),
            draining=number == 4,
            hindrance="quarantined: failed call" if number == 5 else "",
            capacity=800,
            load=900,
            running=800,
            waiting=99,
            given_up=1,
            heard_s=12.3,
            suspicion=None if number == 1 else 0.55,
            labels=("gpu=a100", "zone=b"),
        )
        for number, name in enumerate(names)
    )
    lane = LaneView("train", "gpu=a100,zone=b", 3_456, 12.3, "no worker here that takes train has gpu=a100 and zone=b")
    classes = (TaskClass(3, "render", 120_000, 4_000.0), TaskClass(1, LONG, 3_456, 12.3))
    queue = QueueView(123_456, classes, 0, (lane,), 17, (), 7_890, 0.0)
    lately = tuple(
        EventView(number, 100.0 - number, "timeout" if number % 2 else "dead", LONG, "0123456789abcdef-17", "detector")
        for number in range(events)
    )
    return Snapshot(7, 4_000.0, METRICS, 12, 1, 2, 1, 9_600, 6_400, shown, 3, queue, 3, lately)


@pytest.mark.parametrize("width", [60, 79, 80, 100, 120, 200])
def test_no_figure_is_cut(width: int):
    """Every line fits, and every number stands there in full; rows have the figures of their workers and classes."""
    lines = [line.plain for line in screen(a_snapshot(), width, title="host.example:50051", note="a note " * 40)]
    assert max(map(len, lines)) <= width
    text = re.sub(r"\s+", " ", " ".join(lines))
    assert [figure for figure in FIGURES if figure not in text] == []
    assert sum("800 of 800" in line for line in lines) == 6
    assert any(re.search(r"urgent render +120,000 +66\.7 min", line) for line in lines)
    assert sum("12.3 s" in line for line in lines) >= 8
    assert [number for number in range(2, 7) if not any(re.match(rf"a.*-{number} ", line) for line in lines)] == []


@pytest.mark.parametrize("height", [12, 16, 20, 24, 40])
def test_what_has_no_room_is_counted(height: int):
    """Each part has some rows while there is room; workers in trouble come first."""
    lines = [line.plain for line in screen(a_snapshot(40, 20), 80, height)]
    assert len(lines) <= height
    assert "1,357 failed" in " ".join(lines)
    if height >= 24:
        assert [word for word in ("WORKER", "WAITING", "NOBODY TAKES", "LATELY") if word not in "\n".join(lines)] == []
        heading = next(number for number, line in enumerate(lines) if line.startswith("WORKER"))
        assert " dead " in lines[heading + 1]
        assert " suspect " in lines[heading + 2]
        assert any(re.fullmatch(r"\.\.\. [0-9]+ more", line) for line in lines)


def test_an_empty_cluster_has_a_screen():
    """Nothing is known of it, and nothing is made up."""
    nothing = Metrics(0.0, None, None, None, None, 0, None, 0, 0, 0)
    queue = QueueView(0, (), 0, (), 0, (), 0, 0.0)
    lines = [line.plain for line in screen(Snapshot(1, 0.5, nothing, 0, 0, 0, 0, 0, 0, (), 0, queue, 0, ()), 60, 24)]
    assert [line for line in lines if line.startswith(("latency", "slots"))] == [
        "slots      0 of 0 busy   no slots",
        "latency    unknown",
    ]
