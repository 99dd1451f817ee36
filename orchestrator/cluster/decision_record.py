"""The decision record: every input of a coordinator with its time, and what it decided; its replay.

A record is JSON lines. A head holds all that builds the same core again. Then come two lines for each input:
`[time, name, arguments]`, written before it is applied, and `{"effects": [...]}`, written after. Where the input
raised an exception, the second line holds the effects until then, and says `"raised"`. Only this module knows the
format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import astuple
from functools import cache
from inspect import signature
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.jobs import Job
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import INPUTS, intercepted
from orchestrator.core.ports import Effects
from orchestrator.policies.settings import Policies, build_coordinator

NAME = "decisions.jsonl"
FLUSH_EVERY_S = 1.0
"""How often whoever records calls `flush`."""
_BUFFER_BYTES = 1 << 16


class DecisionRecord:
    """Writes as it goes, through a buffer: what a killed process had not flushed is missing at the end."""

    def __init__(
        self,
        path: Path,
        policies: Policies,
        seed: int,
        replication: int = 0,
        **built: float,
    ) -> None:
        self._file = path.open("w", buffering=_BUFFER_BYTES)
        self._encode = json.JSONEncoder(separators=(",", ":"), default=astuple).encode
        self._head = _Head(policies, seed, replication, built)
        self._write(self._head._replace(policies=json.loads(policies.model_dump_json()))._asdict())

    def open(self, effects: Effects, build: Callable[[Effects], Coordinator] | None = None) -> Coordinator:
        """A core whose inputs and effects are written down. `build`: makes it, if not as the head says."""
        self._effects = EffectLog(effects)
        return intercepted((build or self._head.build)(self._effects), self._note)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _note(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        *given, now = arguments
        self._write([now, name, given])
        try:
            call(*arguments)
        except Exception as error:
            self._write({"effects": self._effects.take(), "raised": _raised(error)})
            self.flush()
            raise
        self._write({"effects": self._effects.take()})

    def _write(self, line: Any) -> None:
        if not self._file.closed:
            self._file.write(self._encode(line) + "\n")


class Input(NamedTuple):
    """One input as it was recorded, and what came of it. `effects`: None where the record ends inside it."""

    line: int
    now: float
    name: str
    arguments: tuple[Any, ...]
    effects: list[list[Any]] | None
    raised: str | None

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))}) at {self.now}"


class Recorded:
    """A decision record that was written before. Raises ValueError where the file is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open() as file:
            try:
                head = json.loads(file.readline())
                policies = Policies.model_validate_json(json.dumps(head.pop("policies")))
                self._head = _Head(policies, **head)
            except (ValueError, TypeError, KeyError, AttributeError):
                raise ValueError(f"{path} is not a decision record: its first line has no policies") from None

    def build(self, effects: Effects) -> Coordinator:
        """A core like the one that was recorded, at its beginning."""
        return self._head.build(effects)

    def inputs(
        self, names: Collection[str] = INPUTS, task_id: Callable[[str], Hashable] = lambda task_id: task_id
    ) -> Iterator[Input]:
        """In their order; only those of these names, if any are given, without a look at the others' arguments.

        `task_id`: replaces the ids of tasks. A last line whose end was never written is left out.
        """
        decode = _Decoder(task_id)
        wanted = [[name] for name in names] + [[]]  # nothing has a name where the record is damaged: it is told below
        with self._path.open() as file:
            lines = enumerate(file, 1)
            next(lines)  # the head
            for number, line in lines:
                if not line.endswith("\n"):
                    return
                if line.startswith("{") or line.split('"', 2)[1:2] not in wanted:
                    continue
                now, name, arguments = self._parsed(number, line)
                number_after, after = next(lines, (number, ""))
                outcome = self._parsed(number_after, after) if after.endswith("\n") else {}
                decoded = decode.arguments(name, arguments)
                yield Input(number, now, name, decoded, outcome.get("effects"), outcome.get("raised"))

    def _parsed(self, number: int, line: str) -> Any:
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self._path}:{number}: {error}") from None


class _Head(NamedTuple):
    policies: Policies
    seed: int
    replication: int
    built: dict[str, Any]

    def build(self, effects: Effects) -> Coordinator:
        return build_coordinator(self.policies, effects, self.seed, self.replication, **self.built)


class _Decoder:
    """From JSON to the types that an input's signature names: tuples and records are lists there."""

    def __init__(self, task_id: Callable[[str], Hashable]) -> None:
        self._task_id = task_id

    def arguments(self, name: str, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(map(self._decoded, _parameter_types(name), values))

    def _decoded(self, kind: Any, value: Any) -> Any:
        if kind is Hashable:
            return self._task_id(value)
        if kind is object and isinstance(value, list):
            return Job(*value)  # what a task is to the core is a job in this world
        if isinstance(value, list):
            if hasattr(kind, "_fields"):
                return kind(*map(self._decoded, _field_types(kind), value))
            if get_origin(kind) is tuple:
                of = get_args(kind)
                kinds = [of[0]] * len(value) if isinstance(of[-1], EllipsisType) else of
                return tuple(map(self._decoded, kinds, value))
        return value


@cache
def _parameter_types(name: str) -> tuple[Any, ...]:
    method = INPUTS[name]
    types = get_type_hints(method)
    return tuple(types[parameter] for parameter in list(signature(method).parameters)[1:-1])  # not self, nor now


@cache
def _field_types(record: Any) -> tuple[Any, ...]:
    return tuple(get_type_hints(record).values())


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# ---- replay


class Difference(NamedTuple):
    """The first place where a replay decided otherwise; `at_hand` is the replaying core's state before that input."""

    input: Input
    expected: list[Any] | None
    got: list[Any] | None
    at_hand: str

    def __str__(self) -> str:
        return (
            f"line {self.input.line}: {self.input}\n"
            f"  recorded: {self.expected}\n  replayed: {self.got}\n  at hand: {self.at_hand}"
        )


class Replay(NamedTuple):
    """`same`: how many inputs decided the same. `remark`: a sentence on an input that raised an exception, or inside
    which the record ends; such a one is the last."""

    same: int
    difference: Difference | None
    remark: str | None


def replay(path: Path) -> Replay:
    """Decide everything again. ValueError where this is no decision record."""
    recorded = Recorded(path)
    effects = EffectLog()
    core = recorded.build(effects)
    same = 0
    for item in recorded.inputs():
        if item.effects is None:
            return Replay(same, None, f"line {item.line}: the record ends inside the input {item}")
        at_hand = _at_hand(core, item.arguments)
        raised = _apply(core, item)
        expected, got = item.effects, json.loads(json.dumps(effects.take()))
        remark = None
        if item.raised is not None:
            verdict = "the same" if raised == item.raised else raised or "nothing"
            remark = f"line {item.line}: the input {item} raised {item.raised}; the replay raises {verdict}"
        if raised is not None or item.raised is not None:
            expected, got = [*expected, ["raised", item.raised]], [*got, ["raised", raised]]
        if got != expected:
            return Replay(same, Difference(item, *_first_difference(expected, got), at_hand()), remark)
        same += 1
        if remark is not None:
            return Replay(same, None, remark)
    return Replay(same, None, None)


def _apply(core: Coordinator, item: Input) -> str | None:
    """What it raised."""
    try:
        getattr(core, item.name)(*item.arguments, item.now)
    except Exception as error:  # a policy of the user's own may raise anything
        return _raised(error)
    return None


def _first_difference(expected: Sequence[Any], got: Sequence[Any]) -> tuple[list[Any] | None, list[Any] | None]:
    for was, is_now in zip(expected, got, strict=False):
        if was != is_now:
            return was, is_now
    if len(expected) > len(got):
        return expected[len(got)], None
    return None, got[len(expected)]


def _at_hand(core: Coordinator, arguments: Sequence[Any]) -> Callable[[], str]:
    """Remembers cheaply what may be asked for later: counts, workers, and the tasks that the input names."""
    pending, done = core.pending, core.completed + core.failed
    workers = [(w.id, w.state.name, w.load, w.limit, w.quarantined, w.draining) for w in core.workers()]
    ids = [getattr(argument, "task_id", argument) for argument in arguments]
    named = (core.task(task_id) for task_id in ids if isinstance(task_id, str))
    tasks = [repr(task) for task in named if task is not None]

    def text() -> str:
        rows = [
            f"{name} {state} load {load}/{limit:g}"
            + (f" quarantined: {quarantined}" if quarantined else "")
            + (" draining" if draining else "")
            for name, state, load, limit, quarantined, draining in workers
        ]
        return "; ".join([f"{pending} pending, {done} settled", *tasks, *rows])

    return text
