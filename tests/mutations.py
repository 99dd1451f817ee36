"""Bugs to plant in the core, one at a time: tests that claim to see such a bug must fail with it.

A mutation replaces a piece of source text that must stand in its file exactly once, so that a refactoring can't
silently make it void.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    """Relative to the root of the tree."""
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the tree under `root`."""
        (root / self.file).write_text(self.source(root))

    def source(self, root: Path) -> str:
        """The file as it would read, of the tree under `root`."""
        source = (root / self.file).read_text()
        found = source.count(self.old)
        assert found == 1, f"{self.name}: {self.old!r} stands {found} times in {self.file}"
        return source.replace(self.old, self.new)

    def __str__(self) -> str:
        return self.name


COORDINATOR = "orchestrator/core/coordinator.py"
WORKER = "orchestrator/core/worker.py"
DEADLINES = "orchestrator/core/deadlines.py"

MUTATIONS = [
    Mutation(
        "drop a requeue",
        COORDINATOR,
        "        else:\n            self._make_pending(task)\n            self._enqueue(task)\n\n    def _fail",
        "        else:\n            self._make_pending(task)\n\n    def _fail",
    ),
    Mutation("lose a retry", COORDINATOR, "            self._retries.add(now + delay_s, task)\n", ""),
    Mutation("leak a load", COORDINATOR, "        worker.load = before - 1\n", "        worker.load = before\n"),
    Mutation("never lower abandoned", COORDINATOR, "        while worker.abandoned and ", "        while False and "),
    Mutation(
        "settle twice",
        COORDINATOR,
        "        self._fx.settled(task, now)\n",
        2 * "        self._fx.settled(task, now)\n",
    ),
    Mutation("accept a late result as new", COORDINATOR, "settles = task.state < _COMPLETED and ", "settles = "),
    Mutation(
        "count no late result", COORDINATOR, '            self.counters["late_results"] += 1\n', "            pass\n"
    ),
    Mutation("skip a wake", COORDINATOR, "            self._fx.wake_at(at)\n", ""),
    Mutation(
        "set no alarm after it rang",
        COORDINATOR,
        "        self._alarm = math.inf\n        self._rearm(now)\n",
        "        self._alarm = math.inf\n",
    ),
    Mutation("let twins run", COORDINATOR, "            self._fx.cancel(twin, now)\n", ""),
    Mutation("number attempts alike", COORDINATOR, "number = task.attempt + 1", "number = max(1, task.attempt)"),
    Mutation(
        "forget a hold",
        COORDINATOR,
        "            worker.held = why\n        self._make_unassignable(worker)\n",
        "            worker.held = why\n",
    ),
    Mutation(
        "wait behind a stale place",
        COORDINATOR,
        "        self._queue.push(task)\n        if self._roomy:\n",
        "        self._queue.push(task)\n        if False:\n",
    ),
    Mutation("time out prefetched work while it waits", COORDINATOR, "reports_start and prefetch > 0", "False"),
    Mutation("check a tick too late", DEADLINES, "if tick >= at:", "if tick > at:"),
    Mutation("execute a repeated assignment", WORKER, "if key in self._running or ", "if key in self._running and "),
    Mutation(
        "report once",
        WORKER,
        "(result, sent + 1)\n            self._fx.report(key, result, now)\n",
        "(result, sent + 1)\n",
    ),
    Mutation(
        "believe that it slept, and act",
        COORDINATOR,
        "        if now < self._listens_until:\n            self._alarm = math.inf",
        "        if False:\n            self._alarm = math.inf",
    ),
    Mutation("judge right after a sleep", COORDINATOR, "if now < self._judges_from and ", "if False and "),
    Mutation("learn from a sleep", COORDINATOR, "                worker.detector.slept(", "                float("),
    Mutation(
        "give suspects work",
        COORDINATOR,
        "        worker.state = WorkerState.SUSPECT\n        self._make_unassignable(worker)\n",
        "        worker.state = WorkerState.SUSPECT\n",
    ),
    Mutation(
        "start a twin beside its original",
        COORDINATOR,
        "        holders = [other.worker for other in task.live if other.worker.assignable]\n",
        "        holders: list[Worker] = []\n",
    ),
    Mutation("count a twin as a try", COORDINATOR, "        if not attempt.hedge:\n", "        if True:\n"),
    Mutation("convict more than the share", COORDINATOR, "Verdict.DEAD and self._may_convict():", "Verdict.DEAD:"),
    Mutation(
        "spare a worker for ever",
        COORDINATOR,
        "                self._review_later(other, now)\n            self._spared.clear()\n",
        "                pass\n            self._spared.clear()\n",
    ),
    Mutation(
        "keep both after a return",
        COORDINATOR,
        "                self._fx.cancel(attempt, now)\n                continue\n",
        "                continue\n",
    ),
    Mutation(
        "blame the innocent",
        COORDINATOR,
        "        self._absolve(worker)\n        self._not_condemned",
        "        self._not_condemned",
    ),
    Mutation(
        "try poison again", COORDINATOR, "        delay_s = None if self._is_poison(task) else ", "        delay_s = "
    ),
    Mutation(
        "never readmit",
        COORDINATOR,
        "            if worker.ejected_until == at:\n                worker.ejected_until = -math.inf\n",
        "            if worker.ejected_until == at:\n",
    ),
]
