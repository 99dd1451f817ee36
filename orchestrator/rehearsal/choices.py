"""Why a task of a live run went where it went: its decision record is decided again, up to the end of that task."""

from __future__ import annotations

from pathlib import Path

from orchestrator.analysis.choices import Choice, watched
from orchestrator.cluster.decision_record import NAME, Recorded
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.rehearsal.record import row_of


def choices(folder: Path, task: int) -> list[Choice]:
    """Every choice of a worker for a task, in their order. `folder`: of the run.

    OSError where it has no decision record, ValueError where that can't be read.
    """
    recorded = Recorded(folder / NAME)
    noted: list[Choice] = []
    for process in recorded.processes:
        effects = EffectLog()
        core = process.head._replace(policies=watched(process.head.policies, task, noted)).build(effects)
        for item in process.inputs(task_id=row_of(recorded)):
            if item.raised is not None:
                break
            getattr(core, item.name)(*item.arguments, item.now)
            effects.take()
            known = core.task(task)
            if known is not None and known.settled:
                break
    return noted
