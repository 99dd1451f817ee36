"""Running a scenario in the simulated world: once, or over its sweep and replications in parallel processes."""

from __future__ import annotations

import gc
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from orchestrator.analysis.traces import Trace
from orchestrator.results import folders, sweeps
from orchestrator.results.parallel import unordered
from orchestrator.results.precision import Precision
from orchestrator.results.runs import Run, Sweep
from orchestrator.results.summaries import engine_summary, summarise
from orchestrator.results.sweeps import Plan, Progress, SweepProgress, Work
from orchestrator.results.tables import event_rows
from orchestrator.scenario.arguments import require_number
from orchestrator.scenario.faults import Delay, Drain, Duplicate, Loss, Restart
from orchestrator.scenario.plan import OpenArrivals, draw_plan
from orchestrator.scenario.schema import Cell, Scenario, require_one_run
from sim.durable import world_of

WITH_TASKS = (Delay, Loss, Duplicate, Restart, Drain)
"""Faults whose chance is drawn for every message, whatever it says, or whose end waits for tasks."""


def run(
    scenario: Scenario,
    replication: int = 0,
    progress: Progress | None = None,
    out: str | Path | None = None,
    check: bool = False,
    force: bool = False,
) -> Run:
    """One replication of a scenario without a sweep, written to the folder `out` where one is given; `force`: in the
    place of what an earlier run left there. It is number `replication`, of those that the scenario's `replications`
    have `sweep` run.

    `progress` is called now and then with the share of `duration_s` that is over (more than 1 while it drains).
    Ctrl-C ends the run early: what was done until then is kept, and its summary says `interrupted`. `check`: at its
    end the coordinator and the workers prove their invariants; InvariantError names one that does not hold. Raises
    PolicyError if a policy fails, RunFolderError if the folder may not be used, and ValueError for a sweep.
    """
    require_one_run(scenario, replication, "sim.sweep")
    began = time.perf_counter()
    if out is not None:
        folders.require_free(Path(out), force)
    world = world_of(scenario, draw_plan(scenario, replication), replication)
    if progress is not None:
        world.watch(progress)
    interrupted = False
    try:
        with _no_garbage_collection():
            world.run()
    except KeyboardInterrupt:
        interrupted = True
    if check and not interrupted:
        world.check()
    tables = world.tables()
    if out is not None:
        folders.begin(Path(out), folders.identity(scenario, "sim", replication))
        tables.write(Path(out))
    wall_s = time.perf_counter() - began
    engine = engine_summary(wall_s, world.env.processed, tables.tasks.num_rows)
    summary = summarise(tables, scenario, "sim", engine, world.coordinator.counters, interrupted)
    if out is not None:
        folders.finish(Path(out), scenario, summary)
    return Run(summary, tables, scenario)


def sweep(
    scenario: Scenario,
    out: str | Path | None = None,
    jobs: int = 1,
    replications: int | None = None,
    progress: SweepProgress | None = None,
    check: bool = False,
    *,
    force: bool = False,
    resume: bool = False,
    precision: Precision | None = None,
) -> Sweep:
    """Every cell of the scenario's sweep, `replications` times each, into `out/<cell>/r<k>`, `jobs` at a time.

    Without `out` the tables are in a temporary folder for as long as any of the runs is in use.
    `progress` is called with the share of the runs that is done, and the run. Ctrl-C keeps the finished runs: the
    result is then made of these, and `interrupted`; where there are none, KeyboardInterrupt passes on. `force`,
    `resume` and `precision`: see `orchestrator.results.sweeps.Plan`. Raises PolicyError if a policy fails in one of
    the runs, and RunFolderError if the folder may not be used.
    """
    jobs = require_number("jobs", jobs, 1)

    def into(folder: Path) -> Sweep:
        def runs(work: Work) -> Iterator[tuple[str, int]]:
            return unordered(partial(_run_one, folder, check), work, jobs)

        plan = Plan(scenario, "sim", folder, replications, force, resume, precision)
        return sweeps.sweep(plan, runs, progress)

    return folders.sweep_without_folder(into) if out is None else into(Path(out))


def heartbeats(scenario: Scenario, replication: int = 0, progress: Progress | None = None) -> Trace:
    """The heartbeats of a run as they reach its coordinator, and when its workers were up. ValueError for a sweep.

    The tasks are left out where they can change none of it.
    """
    require_one_run(scenario, replication, "sim.sweep")
    plan = draw_plan(scenario, replication)
    if scenario.coordinator.cost_s == 0 and not any(isinstance(fault, WITH_TASKS) for fault in scenario.faults):
        none = np.empty(0)
        plan = replace(plan, arrivals=OpenArrivals(none, none, np.empty(0, dtype=np.uint8)))
    world = world_of(scenario, plan, replication)
    heard: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    sent: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))

    def hear(worker: str, sent_s: float, now: float) -> None:
        heard[worker].append(now)
        sent[worker].append(sent_s)

    world.listen(hear)
    if progress is not None:
        world.watch(progress)
    with _no_garbage_collection():
        world.run()
    heartbeat_s = scenario.policies.detection.heartbeat_s
    return Trace.of("sim", heartbeat_s, event_rows(world.tables().events), heard, world.now, replication, sent=sent)


def _run_one(out: Path, check: bool, work: tuple[Cell, int]) -> tuple[str, int]:
    cell, number = work
    finished = run(cell.scenario, number, out=folders.run_folder(out, cell.name, number), check=check, force=True)
    if "interrupted" in finished.summary:
        raise KeyboardInterrupt
    return cell.name, number


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing in a run makes reference cycles that outlive an attempt; the collector would only count the living
    again and again, which takes half of the time of a large run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
