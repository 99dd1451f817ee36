"""Warnings: what a scenario may say and probably does not mean."""

from __future__ import annotations

import math
from collections.abc import Iterator

from orchestrator.policies.detection import TimeoutConfig
from orchestrator.scenario import loads
from orchestrator.scenario.faults import WorkerFault
from orchestrator.scenario.run_settings import RunSettings
from orchestrator.scenario.traces import LATE
from orchestrator.scenario.workload import Trace

MANY_TIME_OUT = 0.1
"""The share of tasks that may be stuck: so many more are not what a timeout is for."""
ROUNDING = 1e-9
SLACK = 0.01
"""The share of duration_s by which a trace may end before it without a warning."""


def warnings(run: RunSettings) -> list[str]:
    """One sentence for each thing in a run that is allowed and probably not meant."""
    return [*_of_load(run), *_of_faults(run), *_of_detection(run)]


def _of_load(run: RunSettings) -> Iterator[str]:
    occupied = loads.occupancy(run)
    if occupied is not None and occupied >= 1 - ROUNDING and not _ends(run, occupied):
        outcome = "so the queue grows until duration_s and latencies depend on how long the run is"
        yield f"{_overload(run, occupied)}, {outcome}"
    busy = loads.coordinator_load(run)
    if busy is not None and busy >= 1:
        yield (
            f"coordinator.cost_s ({run.coordinator.cost_s:g}) is too long: heartbeats, tasks and results keep the "
            f"coordinator busy for {busy:.3g} s of each second, so the queue in front of it grows until duration_s"
        )
    if isinstance(run.workload.arrivals, Trace):
        yield from _of_trace(run.workload.arrivals, run)
    over = loads.over_timeout(run)
    if over is not None and over >= MANY_TIME_OUT:
        limit_s, own_s = run.policies.attempt_timeout_s, run.policies.execution_timeout_s
        key = "policies.execution_timeout_s" if limit_s == own_s else "policies.detection.start_to_close_s"
        yield (
            f"{key} ({limit_s:g}) is too short for {over:.0%} of the tasks: "
            "all attempts of these time out, because each retry runs as long again"
        )


def _overload(run: RunSettings, occupied: float) -> str:
    """The work alone, or all that holds a slot, where that is another number."""
    work = run.offered_load()
    if work is not None and work >= 1 - ROUNDING and math.isclose(work, occupied, rel_tol=0.01):
        return f"offered load is {work:.3g}: more work arrives than all workers can do"
    alone = "" if work is None else f" (offered load {work:.3g})"
    counted = " and ".join(loads.beyond_work(run))
    return f"occupancy is {occupied:.3g}{alone}: with {counted}, tasks would hold all slots and more"


def _ends(run: RunSettings, occupied: float) -> bool:
    """Whether `tasks` ends the arrivals so early that all of them can be done within duration_s."""
    tasks, rate = run.workload.tasks, loads.arrivals_per_s(run)
    if tasks is None or not rate or isinstance(run.workload.arrivals, Trace):
        return not rate
    return tasks * occupied <= rate * run.duration_s * (1 + ROUNDING)


def _of_trace(trace: Trace, run: RunSettings) -> Iterator[str]:
    data, arrived, duration_s, tasks = (
        trace.data(),
        int(trace.expected(run.duration_s)),
        run.duration_s,
        run.workload.tasks,
    )
    last_s = trace.last_s(tasks)
    if arrived < min(len(data.arrival_s), tasks or math.inf):
        yield (
            f"{len(data.arrival_s) - arrived} of the trace's {len(data.arrival_s)} arrivals "
            f"come after duration_s ({duration_s:g}) and are left out"
        )
    elif duration_s - last_s > SLACK * duration_s:
        what = "the trace ends" if tasks is None else f"the trace's first {tasks} arrivals end"
        yield (
            f"{what} at {last_s:g} s, before duration_s ({duration_s:g}), and throughput and utilisation count until "
            f"then{': duration_s: trace ends with it' if last_s else ''}"
        )
    if trace.first_s() > LATE * duration_s:
        yield (
            f"the trace begins at {trace.first_s():g} s, and load, throughput and utilisation count from 0: "
            "origin: first begins with it"
        )
    if data.left_out:
        yield f"{data.left_out} rows of the trace are left out: a value in them is not known (-1)"
    if data.has_service and run.workload.service is not None:
        yield "workload.service is not used: the trace has its own service_s"
    for name, kind in run.workload.kinds.items():
        if data.has_service and kind.service is not None:
            yield f"workload.kinds.{name}.service is not used: the trace has its own service_s"
        if data.priority is not None and kind.priority is not None:
            yield f"workload.kinds.{name}.priority is not used: the trace has its own priority"


def _of_faults(run: RunSettings) -> Iterator[str]:
    for i, fault in enumerate(run.faults):
        if fault.at_s is not None and fault.at_s > run.duration_s:
            yield (
                f"faults[{i}].at_s ({fault.at_s:g}) is after duration_s ({run.duration_s:g}): "
                "the fault is injected only if tasks are still open then"
            )
        elif fault.at_s is not None and isinstance(fault, WorkerFault) and fault.stagger_s:
            victims = fault.count or len(run.victims(fault))
            last_s = fault.at_s + (victims - 1) * fault.stagger_s
            if last_s > run.duration_s:
                yield (
                    f"faults[{i}].stagger_s ({fault.stagger_s:g}): the last of {victims} workers is hit at {last_s:g} "
                    f"s, after duration_s ({run.duration_s:g}), and only if tasks are still open then"
                )


def _of_detection(run: RunSettings) -> Iterator[str]:
    detection = run.policies.detection
    if not isinstance(detection, TimeoutConfig):
        return
    beat_s, limit_s = detection.heartbeat_s, detection.timeout_s
    beats = limit_s / beat_s
    if beats < 1:
        yield (
            f"policies.detection.timeout_s ({limit_s:g}) is below heartbeat_s ({beat_s:g}): "
            "every healthy worker is declared dead between two heartbeats"
        )
    elif math.isclose(beats, round(beats)) and run.network.delay_of("heartbeat").cv2() > 0:
        yield (
            f"policies.detection.timeout_s ({limit_s:g}) is exactly {round(beats)} times heartbeat_s "
            f"({beat_s:g}), a knife-edge: the network's jitter decides whether a heartbeat due just then counts"
        )
