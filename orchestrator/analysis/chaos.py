"""Chaos: run the random scenario of every seed, and demand that no promise is broken.

All faults end before the run does, so every task must settle, the coordinator's invariants must hold and the history
must be clean (see `promises`). The caller passes in the world that runs the scenarios.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.analysis.history import Violation
from orchestrator.analysis.promises import check
from orchestrator.analysis.random_scenarios import DEFAULT, Options, draw
from orchestrator.analysis.shrinking import shrink
from orchestrator.core.invariants import InvariantError
from orchestrator.results.parallel import unordered
from orchestrator.results.runs import Run
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import Scenario

World = Callable[[Scenario], Run]
"""Runs a scenario. Its coordinator proves its invariants at the end, and InvariantError names one that is broken."""

PATIENCE_S = 60.0
"""A run that takes more seconds of real time counts as one that never ends."""


@dataclass(frozen=True)
class Trial:
    """The result of one seed."""

    seed: int
    scenario: Scenario
    violations: tuple[Violation, ...] = ()
    tasks: int = 0
    attempts: int = 0
    injections: Mapping[str, int] = field(default_factory=dict)
    """How many faults of each kind were injected."""

    def blamed(self, promise: str, sentence: str) -> Trial:
        """The trial with one more violation, which the caller found."""
        return replace(self, violations=(*self.violations, Violation(promise, sentence)))

    def described(self) -> str:
        """Tasks, attempts and injections, in words."""
        kinds = ", ".join(f"{kind.replace('_', ' ')} {number:,}" for kind, number in sorted(self.injections.items()))
        made = f"{self.tasks:,} tasks in {self.attempts:,} attempts"
        return f"{made} under {sum(self.injections.values()):,} injections ({kinds})"


class Tally:
    """The sums over many trials."""

    def __init__(self) -> None:
        self.seeds = self.tasks = self.attempts = 0
        self.injections: Counter[str] = Counter()
        self.broken: dict[str, list[int]] = {}
        """For each promise, the seeds whose first violation was of it."""
        self._began = time.monotonic()

    def add(self, trial: Trial) -> bool:
        """Count a trial. True if it is the first one to break its promise."""
        self.seeds += 1
        self.tasks += trial.tasks
        self.attempts += trial.attempts
        self.injections.update(trial.injections)
        if not trial.violations:
            return False
        others = self.broken.setdefault(trial.violations[0].promise, [])
        others.append(trial.seed)
        return len(others) == 1

    def summary(self) -> dict[str, Any]:
        """The tally as plain numbers."""
        return {
            "seeds": self.seeds,
            "tasks": self.tasks,
            "attempts": self.attempts,
            "injections": dict(sorted(self.injections.items())),
            "broken": {promise: sorted(seeds) for promise, seeds in self.broken.items()},
            "wall_s": time.monotonic() - self._began,
        }


@dataclass(frozen=True)
class Specimen:
    """The smallest scenario found that still breaks the promise that a trial broke, saved as a file."""

    trial: Trial
    violation: Violation
    scenario: Scenario
    path: Path
    runs: int
    """How many runs the search took."""

    def described(self) -> str:
        """What was found, and the commands that reproduce it."""
        faults = "; ".join(map(str, self.scenario.faults)) or "none"
        proof = " --check" if self.violation.promise == "invariant" else ""
        folder = self.path.with_suffix("")
        lines = (
            f"shrunk in {self.runs:,} runs to {len(self.scenario.faults)} fault(s): {faults}",
            f"again: orchestrator simulate {self.path} --out {folder}{proof}",
            f"       orchestrator check {folder} --settled",
        )
        return "\n".join(f"  {line}" for line in lines)

    def summary(self) -> dict[str, Any]:
        """The specimen as plain values."""
        return {
            "seed": self.trial.seed,
            "promise": self.violation.promise,
            "sentence": self.trial.violations[0].sentence,
            "shrunk_sentence": self.violation.sentence,
            "faults": list(map(str, self.scenario.faults)),
            "file": str(self.path),
        }


def hunt(
    seeds: Sequence[int],
    world: World,
    base: Scenario | None = None,
    options: Options = DEFAULT,
    jobs: int = 1,
    grace_s: float = 0.0,
) -> Iterator[Trial]:
    """Try every seed, `jobs` at a time, and yield each trial as it ends. With `base`, only its faults are drawn."""
    yield from unordered(partial(_try_seed, world, base, options, grace_s), seeds, jobs)


def _try_seed(world: World, base: Scenario | None, options: Options, grace_s: float, seed: int) -> Trial:
    return trial(seed, draw(seed, options, base), world, grace_s)


def trial(
    seed: int, scenario: Scenario, world: World, grace_s: float = 0.0, patience_s: float | None = PATIENCE_S
) -> Trial:
    """Run a scenario and check its history. An exception in the run is a violation too.

    `grace_s`: as in `promises.check`. `patience_s`: real seconds until the run is stopped; None for no limit.
    """
    injections: Counter[str] = Counter(action.kind for action in draw_plan(scenario).faults if not action.heals)
    try:
        with _time_limit(patience_s):
            run = world(scenario)
            if "interrupted" in run.summary:
                raise KeyboardInterrupt
            violations = check(run, healed=True, grace_s=grace_s)
    except Exception as error:
        return Trial(seed, scenario, (_violation_of(error),), injections=injections)
    tasks = run.summary["tasks"]
    return Trial(seed, scenario, tuple(violations), tasks["submitted"], tasks["attempts"], injections)


def preserve(broken: Trial, world: World, folder: Path, grace_s: float = 0.0) -> Specimen:
    """Shrink the scenario of a broken trial as far as it still breaks the same promise, and save it in `folder`."""
    promise = broken.violations[0].promise
    shown = {broken.scenario.dump(): broken.violations[0]}
    runs = 0

    def fails(scenario: Scenario) -> bool:
        nonlocal runs
        runs += 1
        for violation in trial(broken.seed, scenario, world, grace_s).violations:
            if violation.promise == promise:
                shown[scenario.dump()] = violation
                return True
        return False

    small = shrink(broken.scenario, fails)
    written = small.dump()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{broken.seed}.yaml"
    path.write_text(f"# {promise}: {' '.join(shown[written].sentence.split())}\n{written}", encoding="utf-8")
    return Specimen(broken, shown[written], small, path, runs)


class RunTimeout(Exception):
    """A run took longer than the time limit."""


def _violation_of(error: Exception) -> Violation:
    """An exception as a violation: a broken invariant, a run that never ends, or a run that could not go on."""
    if isinstance(error, RunTimeout):
        return Violation("ends", f"the run had not ended after {PATIENCE_S:g} s")
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    if isinstance(error, InvariantError | AssertionError):
        return Violation("invariant", f"{error or last.line} ({where})")
    return Violation("runs", f"{type(error).__name__}: {error} ({where})")


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise RunTimeout in the block after so many seconds. There is no limit for None, or outside the main thread."""

    def give_up(*_: object) -> None:
        raise RunTimeout

    try:
        handler = signal.signal(signal.SIGALRM, give_up)
    except ValueError:
        yield
        return
    began = time.monotonic()
    due_s, every_s = signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        # If the caller had a timer, it goes on with the time that it had left.
        left_s = max(due_s - (time.monotonic() - began), 1e-3) if due_s else 0.0
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left_s, every_s)
