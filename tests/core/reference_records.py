"""What the reference model keeps of rules, attempts, tasks and workers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.deadlines import Ticks
from orchestrator.core.model import TaskId, TaskState, TimeLimits, WorkerId

Name = tuple[TaskId, WorkerId, int]
COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED
NO_LIMITS = TimeLimits()


@dataclass
class Rules:
    """The settings that the model must know. `suspect_s`, `dead_s`: (at the earliest, at the latest) this silence
    makes a worker suspect or dead; `delay_s` maps tries to the wait before the next attempt."""

    by_priority: bool = True
    least_loaded: bool = False
    suspect_s: tuple[float, float] = (math.inf, math.inf)
    dead_s: tuple[float, float] = (math.inf, math.inf)
    detection_check: Ticks | None = None
    execution_timeout_s: float | None = None
    execution_check: Ticks | None = None
    max_attempts: int | None = None
    delay_s: Any = lambda tries: 0.0
    on_failed_call: str = "hold"
    keep_settled: int = 100_000
    heartbeat_s: float = 1.0
    own_pause_s: float = math.inf
    on_suspect: str = "hold"
    max_dead_share: float | None = None
    on_return: str = "first_result"
    max_worker_kills: int | None = None
    max_copies: int = 2
    max_waiting: int | None = None
    hedges: bool = False
    ejects: bool = False


@dataclass(eq=False)
class Try:
    task: Job
    worker: str
    number: int
    timed_from: float | None
    hedge: bool = False
    lost: bool = False  # given up with its worker, which may yet return with it
    open: bool = True
    live: bool = True  # it occupies its worker
    started: bool = False

    @property
    def name(self) -> Name:
        return (self.task.id, self.worker, self.number)


@dataclass(eq=False)
class Death:
    """Of a worker that was running so many tasks."""

    worker: str
    running: int


@dataclass(eq=False)
class Job:
    id: str
    seq: int
    priority: int
    tried: list[Try] = field(default_factory=list)
    consumed: int = 0
    killed: list[Death] = field(default_factory=list)
    ready_at: float | None = 0.0  # while it waits: for a worker (0) or for its retry; None: an attempt is open
    outcome: TaskState | None = None
    accepted_at: float = 0.0
    limits: TimeLimits = NO_LIMITS
    begun: bool = False

    def live(self) -> list[Try]:
        return [attempt for attempt in self.tried if attempt.live]

    def opened(self) -> list[Try]:
        return [attempt for attempt in self.tried if attempt.open]


@dataclass(eq=False)
class Host:
    id: str
    limit: float = 0
    reports_start: bool = False
    opinion: str = "alive"  # or suspect, dead, left
    by_detector: bool = False  # dead so
    held: str = ""
    draining: bool = False
    ejected: bool = False
    capacity: int = 0
    blames: list[tuple[Job, Death]] = field(default_factory=list)
    on_trial: bool = False
    trial_at: float = -math.inf
    trial_pause_s: float = 0.0
    spared: bool = False  # dead, if it were not for the limit
    may_be_spared: bool = False  # the same, if it was judged before it had to be
    anew_at: float = -math.inf  # when one that may have been spared was perhaps judged anew
    heard_at: float = 0.0
