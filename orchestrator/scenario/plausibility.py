"""Warnings: what a scenario may say and probably does not mean."""

from __future__ import annotations

import math
from collections.abc import Iterator

from orchestrator.policies.detection import TimeoutConfig
from orchestrator.scenario.run_settings import RunSettings
from orchestrator.scenario.traces import LATE
from orchestrator.scenario.workload import Trace

SLACK = 0.01
"""The share of duration_s by which a trace may end before it without a warning."""


def warnings(run: RunSettings) -> list[str]:
    """One sentence for each thing in a run that is allowed and probably not meant."""
    return [*_of_load(run), *_of_faults(run), *_of_detection(run)]


def _of_load(run: RunSettings) -> Iterator[str]:
    workload = run.workload
    offered_load = run.offered_load()
    if offered_load is not None and offered_load > 1 and not _soon_over(run):
        yield (
            f"offered load is {offered_load:.3g}: more work arrives than all workers can do, "
            "so the queue grows until duration_s and latencies depend on how long the run is"
        )
    if isinstance(workload.arrivals, Trace):
        yield from _of_trace(workload.arrivals, run)
    limit_s, slowest = run.policies.execution_timeout_s, min(group.speed for group in run.cluster.groups)
    mean_s = 0.0 if workload.served_by_trace else workload.mean_service_s() / slowest
    if limit_s is not None and mean_s >= limit_s:
        yield (
            f"policies.execution_timeout_s ({limit_s:g}) is not above the mean execution "
            f"({mean_s:g} s): most attempts time out, and each retry runs as long again"
        )


def _soon_over(run: RunSettings) -> bool:
    """Whether `tasks` ends the arrivals so early that all of them can be done within duration_s."""
    workload = run.workload
    if workload.tasks is None or isinstance(workload.arrivals, Trace):
        return False
    return workload.tasks * workload.mean_service_s() <= run.slots_of_speed_1() * run.duration_s


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
