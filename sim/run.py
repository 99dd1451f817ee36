"""Running a scenario in the simulated world: once, or over its sweep and replications in parallel processes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from orchestrator.experiment.plan import draw_plan
from orchestrator.experiment.run import Run
from orchestrator.experiment.scenario import Scenario
from orchestrator.experiment.statistics import summarise
from sim.world import World

Progress = Callable[[float], None]


def run(scenario: Scenario, replication: int = 0, progress: Progress | None = None) -> Run:
    """One replication of a scenario without a sweep.

    `progress` is called now and then with the share of `duration_s` that is over (more than 1 while it drains).
    Ctrl-C ends the run early: what was done until then is returned, and its summary says `interrupted`.
    """
    began = time.perf_counter()
    world = World(scenario, draw_plan(scenario, replication), replication)
    if progress is not None:
        report = progress
        world.watch(scenario.duration_s / 200, lambda now: report(now / scenario.duration_s))
    interrupted = False
    # Nothing in a run makes reference cycles that outlive an attempt; the collector would only count
    # the living again and again, at half the speed.
    gc.disable()
    try:
        world.run()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        gc.enable()
    tables = world.tables()
    wall_s = time.perf_counter() - began
    engine = {
        "wall_s": wall_s,
        "events": world.env.processed,
        "tasks_per_s": tables.tasks.num_rows / wall_s,
        "events_per_s": world.env.processed / wall_s,
    }
    summary = summarise(tables, scenario, "sim", engine, dict(world.coordinator.counters))
    if interrupted:
        summary["interrupted"] = True
    return Run(summary, tables, scenario)
