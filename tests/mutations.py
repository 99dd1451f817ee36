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
        path = root / self.file
        source = path.read_text()
        found = source.count(self.old)
        assert found == 1, f"{self.name}: {self.old!r} stands {found} times in {self.file}"
        path.write_text(source.replace(self.old, self.new))

    def __str__(self) -> str:
        return self.name


COORDINATOR = "orchestrator/core/coordinator.py"
WORKER = "orchestrator/core/worker.py"
DEADLINES = "orchestrator/core/deadlines.py"

MUTATIONS = [
    Mutation(
        "drop a requeue",
        COORDINATOR,
        "    def _requeue_if_orphaned(self, task: Task) -> None:\n        if ",
        "    def _requeue_if_orphaned(self, task: Task) -> None:\n        if False and ",
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
        "        self._alarm = math.inf\n        self._rearm()\n",
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
]
