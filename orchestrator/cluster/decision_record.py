"""The journal of a coordinator's inputs and of what it decided, and its replay.

A journal is JSON lines: a head with all that builds the same core again (policies and seed),
then for every input `[time, name, arguments, effects]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from orchestrator.cluster.wire.translate import Job
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Attempt, Task, TaskId, Worker, WorkerId
from orchestrator.core.ports import Effects
from orchestrator.policies.settings import Policies, build_coordinator

INPUTS = (
    "submit",
    "register",
    "heartbeat",
    "started",
    "result",
    "rejected",
    "cancelled",
    "drain",
    "deregister",
    "call_failed",
    "connection_lost",
    "wake",
)
NAME = "journal.jsonl"
KEEP_SETTLED = 100_000
Around = Callable[..., None]


class _Intercepted:
    def __init__(self, core: Coordinator, around: Around) -> None:
        self._core = core
        for name in INPUTS:
            setattr(self, name, partial(around, name, getattr(core, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


def intercepted(core: Coordinator, around: Around) -> Coordinator:
    """The same core, whose every input goes through `around(name, input, *arguments)`."""
    return cast(Coordinator, _Intercepted(core, around))


class EffectLog:
    """Implements `Effects`: notes each one as plain values, and passes it on."""

    def __init__(self, onward: Effects | None = None) -> None:
        self.noted: list[list[Any]] = []
        self._onward = onward

    def take(self) -> list[list[Any]]:
        noted, self.noted = self.noted, []
        return noted

    def accepted(self, task: Task, now: float) -> None:
        self.noted.append(["accepted", task.id])
        if self._onward:
            self._onward.accepted(task, now)

    def assign(self, attempt: Attempt, now: float) -> None:
        self.noted.append(["assign", *_named(attempt)])
        if self._onward:
            self._onward.assign(attempt, now)

    def cancel(self, attempt: Attempt, now: float) -> None:
        self.noted.append(["cancel", *_named(attempt)])
        if self._onward:
            self._onward.cancel(attempt, now)

    def ended(self, attempt: Attempt, now: float) -> None:
        self.noted.append(["ended", *_named(attempt), attempt.outcome.name, attempt.settles])
        if self._onward:
            self._onward.ended(attempt, now)

    def settled(self, task: Task, now: float) -> None:
        self.noted.append(["settled", task.id, task.state.name, task.worker_id, task.error])
        if self._onward:
            self._onward.settled(task, now)

    def acknowledged(self, worker_id: WorkerId, task_id: TaskId, number: int | None, known: bool) -> None:
        self.noted.append(["acknowledged", worker_id, task_id, number, known])
        if self._onward:
            self._onward.acknowledged(worker_id, task_id, number, known)

    def heartbeat_answered(self, worker_id: WorkerId, known: bool) -> None:
        self.noted.append(["heartbeat_answered", worker_id, known])
        if self._onward:
            self._onward.heartbeat_answered(worker_id, known)

    def worker_changed(self, worker: Worker, kind: str, detail: str, now: float) -> None:
        self.noted.append(["worker_changed", worker.id, kind, detail])
        if self._onward:
            self._onward.worker_changed(worker, kind, detail, now)

    def wake_at(self, at: float) -> None:
        self.noted.append(["wake_at", at])
        if self._onward:
            self._onward.wake_at(at)


def _named(attempt: Attempt) -> list[Any]:
    return [attempt.task.id, attempt.number, attempt.worker.id]


class Journal:
    """Writes as it goes, through a buffer: what a killed process had not flushed is missing at the end."""

    def __init__(self, path: Path, policies: Policies, seed: int, replication: int = 0) -> None:
        self._file = path.open("w", buffering=1 << 16)
        self._encode = json.JSONEncoder(separators=(",", ":"), default=astuple).encode
        head = {
            "policies": json.loads(policies.model_dump_json()),
            "seed": seed,
            "replication": replication,
            "keep_settled": KEEP_SETTLED,
        }
        self._write(head)

    def open(self, build: Callable[[Effects], Coordinator], onward: Effects) -> Coordinator:
        """A core whose inputs and effects are written down."""
        self._effects = EffectLog(onward)
        return intercepted(build(self._effects), self._note)

    def close(self) -> None:
        self._file.close()

    def _note(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        call(*arguments)
        *given, now = arguments
        self._write([now, name, given, self._effects.take()])

    def _write(self, line: Any) -> None:
        if not self._file.closed:
            self._file.write(self._encode(line) + "\n")


class Difference(NamedTuple):
    """The first place where a replay decided otherwise; `at_hand` is the replaying core's state before that input."""

    line: int
    now: float
    input: str
    arguments: list[Any]
    expected: list[Any] | None
    got: list[Any] | None
    at_hand: str

    def __str__(self) -> str:
        return (
            f"line {self.line}: {self.input}{tuple(self.arguments)} at {self.now}\n"
            f"  recorded: {self.expected}\n  replayed: {self.got}\n  at hand: {self.at_hand}"
        )


def replay(path: Path) -> tuple[int, Difference | None]:
    """How many inputs decided the same, and the first that did not. ValueError where this is no journal."""
    lines = _lines(path)
    _, head = next(lines, (1, None))
    if not isinstance(head, dict) or "policies" not in head:
        raise ValueError(f"{path} is not a journal: its first line has no policies")
    policies = Policies.model_validate_json(json.dumps(head["policies"]))
    effects = EffectLog()
    core = build_coordinator(policies, effects, head["seed"], head["replication"], head["keep_settled"])
    same = 0
    for number, (now, name, arguments, expected) in lines:
        at_hand = _at_hand(core, arguments)
        if name == "submit":
            arguments[2] = Job(*arguments[2])
        getattr(core, name)(*arguments, now)
        got = json.loads(json.dumps(effects.take()))
        if got != expected:
            was, is_now = _first_difference(expected, got)
            return same, Difference(number, now, name, arguments, was, is_now, at_hand())
        same += 1
    return same, None


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Numbered; the last one is left out where its end was never written."""
    with path.open() as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: {error}") from None


def _first_difference(expected: Sequence[Any], got: Sequence[Any]) -> tuple[list[Any] | None, list[Any] | None]:
    for was, is_now in zip(expected, got, strict=False):
        if was != is_now:
            return was, is_now
    if len(expected) > len(got):
        return expected[len(got)], None
    return None, got[len(expected)]


def _at_hand(core: Coordinator, arguments: Sequence[Any]) -> Callable[[], str]:
    """Remembers cheaply what may be asked for later: counts, workers, and the task that the input names."""
    pending, done = core.pending, core.completed + core.failed
    workers = [(w.id, w.state.name, w.load, w.limit, w.held, w.draining) for w in core.workers()]
    named = (core.task(argument) for argument in arguments if isinstance(argument, str))
    tasks = [repr(task) for task in named if task is not None]

    def text() -> str:
        rows = [
            f"{name} {state} load {load}/{limit}{' held: ' + held if held else ''}{' draining' if draining else ''}"
            for name, state, load, limit, held, draining in workers
        ]
        return "; ".join([f"{pending} pending, {done} settled", *tasks, *rows])

    return text
