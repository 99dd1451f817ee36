"""The decision record: every input of a coordinator with its time, and what it decided; its replay.

It is for people who debug, and nothing is recovered from it. A record is JSON lines. Every process that writes to it
begins with a head, which holds all that builds the same core again. Then come two lines for each input:
`[time, name, arguments]`, written before it is applied, and `{"effects": [...]}`, written after. Where the input
raised an exception, the second line holds the effects until then, and says `"raised"`. A process that ends in order
writes `{"closed": true}`.

Nothing is ever cut off or replaced: a process appends to what it finds. A file that has become large gets a number
behind its name, FILE.1, FILE.2, ..., and its successor begins with `{"continues": number}`. Only this module and
`record_format` know the format.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import stat
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.record_format import (
    CLOSED,
    CONTINUES,
    HEAD,
    Decoder,
    Head,
    Line,
    Stretch,
    complete,
    no_record,
    numbers_of_parts,
    part_of,
    texts_of,
)
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import intercepted
from orchestrator.core.ports import Effects, PolicyError
from orchestrator.policies.settings import Policies

log = logging.getLogger("orchestrator.coordinator")

NAME = "decisions.jsonl"
FLUSH_EVERY_S = 1.0
"""How often whoever records calls `flush`."""
PART_BYTES = 256 << 20
"""A file that has become as large gets a number."""
_BUFFER_CHARACTERS = 1 << 16
_NO_EFFECTS = '{"effects":[]}'


class Unwritable(Exception):
    """A decision record that can't be begun. One sentence."""


class DecisionRecord:
    """Writes as it goes, through a buffer: a process that is killed loses what it had not flushed, a second at most.

    Where nothing can be written any more (the disk is full), recording stops and says so once, and the core goes on: a
    record with a gap could not be decided again, while nobody's task depends on it. Raises Unwritable.
    """

    def __init__(
        self,
        path: Path,
        policies: Policies,
        seed: int,
        replication: int = 0,
        *,
        part_bytes: float = PART_BYTES,
        **built: float,
    ) -> None:
        self._path = path
        self._part_bytes = part_bytes
        self._buffer: list[str] = []
        self._buffered = 0
        self._due = -math.inf
        self._encode = json.JSONEncoder(separators=(",", ":"), default=astuple).encode
        self._head = Head(policies, seed, replication, built, datetime.now(UTC).isoformat(timespec="seconds"))
        self._write(self._head._replace(policies=json.loads(policies.model_dump_json()))._asdict())
        self._file: FileIO | None = None
        try:
            self._open()
            self._hand_over()
        except OSError as error:
            self._let_go()
            raise Unwritable(f"cannot write the decision record {path}: {error.strerror}") from None

    def open(self, effects: Effects, build: Callable[[Effects], Coordinator] | None = None) -> Coordinator:
        """A core whose inputs and effects are written down. `build`: makes it, if not as the head says."""
        self._effects = EffectLog(effects)
        return intercepted((build or self._head.build)(self._effects), self._note)

    def flush(self) -> None:
        """Between two inputs. Afterwards nothing that was written is lost when the process is killed."""
        if self._file is not None and self._buffer:
            try:
                self._hand_over()
            except OSError as error:
                self._let_go()
                log.error(
                    "cannot write the decision record %s any more: %s; nothing is recorded until this coordinator is "
                    "started again, and it serves on",
                    self._path,
                    error.strerror,
                )

    def close(self) -> None:
        self._write({"closed": True})
        self.flush()
        self._let_go()

    def _note(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        if self._file is None:
            call(*arguments)
            self._effects.take()
            return
        *given, now = arguments
        self._write([now, name, given])
        try:
            call(*arguments)
        except Exception as error:
            self._write({"effects": self._effects.take(), "raised": _raised(error)})
            self.flush()
            raise
        effects = self._effects.take()
        if effects:
            self._write({"effects": effects})
        else:
            self._buffer.append(_NO_EFFECTS)
        if self._buffered >= _BUFFER_CHARACTERS or now >= self._due:  # a timer may ring late
            self._due = now + FLUSH_EVERY_S
            self.flush()

    def _write(self, line: Any) -> None:
        text = self._encode(line)
        self._buffer.append(text)
        self._buffered += len(text)

    def _open(self) -> None:
        """At its end, locked, with its last line complete."""
        self._let_go()
        file = self._file = self._path.open("a+b", buffering=0)
        status = os.fstat(file.fileno())
        self._bytes = status.st_size
        if stat.S_ISFIFO(status.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, and the coordinator would stand still while nobody reads it")
        if not stat.S_ISREG(status.st_mode):
            self._part_bytes = math.inf  # a device gets no number
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(errno.EAGAIN, "another process writes to it") from None
        if self._bytes and os.pread(file.fileno(), 1, self._bytes - 1) != b"\n":
            self._buffer.insert(0, "")  # its end goes behind what a killed process had not finished

    def _hand_over(self) -> None:
        assert self._file is not None
        self._buffer.append("")
        data = memoryview("\n".join(self._buffer).encode())
        self._buffer.clear()
        self._buffered = 0
        while data:
            written = self._file.write(data)
            self._bytes += written
            data = data[written:]
        if self._bytes >= self._part_bytes:
            number = max(numbers_of_parts(self._path), default=0) + 1
            self._path.rename(part_of(self._path, number))
            self._open()
            self._write({"continues": number})

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


# ---- reading


class Input(NamedTuple):
    """One input as it was recorded, and what came of it. `effects`: None where the record ends inside it."""

    part: Path
    line: int
    now: float
    name: str
    arguments: tuple[Any, ...]
    effects: list[list[Any]] | None
    raised: str | None

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))}) at {self.now}"

    @property
    def place(self) -> str:
        return f"{self.part}:{self.line}"


class Process:
    """What one process of a coordinator has written. `closed`: it ended in order, so that nothing is missing.

    `gap`: a sentence, where a part of what it had written is not there any more.
    """

    def __init__(self, number: int, head: Head) -> None:
        self.number = number
        self.closed = False
        self.gap: str | None = None
        self.stretches: list[Stretch] = []
        self.head = head

    def __str__(self) -> str:
        begun = f", begun at {self.head.begun_at}" if self.head.begun_at else ""
        return f"process {self.number}{begun}"

    def build(self, effects: Effects) -> Coordinator:
        """A core like the one that was recorded, at its beginning."""
        return self.head.build(effects)

    def inputs(
        self, names: Collection[str] = (), task_id: Callable[[str], Hashable] = lambda task_id: task_id
    ) -> Iterator[Input]:
        """In their order; only those of these names, if any are given, without a look at the others' arguments.

        `task_id`: replaces the ids of tasks. A last line whose end was never written is left out.
        """
        decode = Decoder(task_id)
        wanted = [[name.encode()] for name in names] + [[]]  # nothing has a name where the record is damaged
        lines = self._lines()
        for line in lines:
            if line.text.startswith(b"{") or (names and line.text.split(b'"', 2)[1:2] not in wanted):
                continue
            parsed = complete(line, lines)
            if parsed is None:
                return
            after = next(lines, None)
            outcome = (complete(after, lines) if after else None) or {}
            try:
                now, name, arguments = parsed
                decoded = decode.arguments(name, arguments)
                effects, raised = outcome.get("effects"), outcome.get("raised")
            except (ValueError, TypeError, KeyError, AttributeError):
                raise ValueError(f"{line.part}:{line.number}: expected an input, and its effects after it") from None
            yield Input(line.part, line.number, now, name, decoded, effects, raised)

    def _lines(self) -> Iterator[Line]:
        for part, number, offset, end in self.stretches:
            with part.open("rb") as file:
                file.seek(offset)
                for text in file:
                    if offset >= end:
                        break
                    yield Line(part, number, text)
                    offset += len(text)
                    number += 1


class Recorded:
    """A decision record that was written before, all its parts. Raises ValueError where it is none.

    `gaps`: sentences on what is missing before the first of its processes.
    """

    def __init__(self, path: Path) -> None:
        self.processes: list[Process] = []
        self.gaps: list[str] = []
        self._path = path
        parts = {number: part_of(path, number) for number in numbers_of_parts(path)}
        if path.exists() or not parts:  # what is not there raises OSError, with its name
            parts[0] = path
        before: int | None = None
        for number, part in parts.items():
            self._read(part, before)
            before = number
        if not self.processes:
            raise ValueError(f"{path} holds the beginning of no process: {'; '.join(self.gaps) or 'it is empty'}")

    @property
    def closed(self) -> bool:
        """Its last process ended in order."""
        return self.processes[-1].closed

    def build(self, effects: Effects) -> Coordinator:
        """A core like that of the first process, at its beginning."""
        return self.processes[0].build(effects)

    def inputs(
        self, names: Collection[str] = (), task_id: Callable[[str], Hashable] = lambda task_id: task_id
    ) -> Iterator[Input]:
        """Those of every process, one after the other."""
        for process in self.processes:
            yield from process.inputs(names, task_id)

    def _read(self, part: Path, before: int | None) -> None:
        """Find which lines are whose. `before`: the number of the part that was read last."""
        offset = 0
        current = self.processes[-1] if self.processes else None
        for number, text in enumerate(texts_of(part), 1):
            after = offset + len(text)
            line = Line(part, number, text)
            if text.startswith(HEAD) and (head := _head(line)) is not None:
                _end_stretch(current, part, offset)
                current = Process(len(self.processes) + 1, head)
                current.stretches.append(Stretch(part, number + 1, after, math.inf))
                self.processes.append(current)
            elif number == 1:
                current = self._continued(line, before, current)
                if current is not None:
                    current.stretches.append(Stretch(part, 2, after, math.inf))
            elif text.startswith(CLOSED) and current is not None:
                current.closed = True
            offset = after

    def _continued(self, first: Line, before: int | None, current: Process | None) -> Process | None:
        """Whose inputs a part that begins with no head goes on with; None where that is not known."""
        begun = first.text.rstrip(b"\n")
        if not first.finished and any(begun.startswith(kind[: len(begun)]) for kind in (HEAD, CONTINUES)):
            gap = f"{first.part} begins with a line that was never finished: what follows it is not decided again"
        elif not first.text.startswith(CONTINUES):
            raise no_record(first.part)
        else:
            expected = first.parsed()["continues"]
            if before == expected and (current is None or current.gap is None):
                return current
            missing = part_of(self._path, expected)
            gap = f"{missing} is missing: what follows it, from {first.part} on, is not decided again"
        if current is None:
            self.gaps.append(gap)
        else:
            current.gap = current.gap or gap
        return None


def _head(line: Line) -> Head | None:
    """None where its process was killed, or the disk became full, before it was complete."""
    try:
        head = json.loads(line.text)
    except ValueError:
        return None
    try:
        policies = Policies.model_validate_json(json.dumps(head.pop("policies")))
        return Head(policies, **head)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{line.part}:{line.number}: this head builds no coordinator: {reason}") from None


def _end_stretch(process: Process | None, part: Path, end: int) -> None:
    if process is not None and process.stretches[-1].part == part:
        process.stretches[-1] = process.stretches[-1]._replace(end=end)


# ---- replay


class Difference(NamedTuple):
    """The first place where a replay decided otherwise; `at_hand` is the replaying core's state before that input."""

    input: Input
    expected: list[Any] | None
    got: list[Any] | None
    at_hand: str

    def __str__(self) -> str:
        return (
            f"{self.input.place}: {self.input}\n"
            f"  recorded: {self.expected}\n  replayed: {self.got}\n  at hand: {self.at_hand}"
        )


class Replay(NamedTuple):
    """`same`: how many inputs decided the same. `remark`: a sentence on an input that raised an exception, or inside
    which the record ends; such a one is the last."""

    same: int
    difference: Difference | None
    remark: str | None


def replay(path: Path) -> Replay:
    """Decide everything again, up to the first difference. `remark` is that of the last process.

    ValueError where this is no decision record.
    """
    same, again = 0, Replay(0, None, None)
    for _, again in replays(path):
        same += again.same
        if again.difference is not None:
            break
    return again._replace(same=same)


def replays(path: Path) -> Iterator[tuple[Process, Replay]]:
    """Decide again what each process decided, one after the other. ValueError where this is no decision record."""
    for process in Recorded(path).processes:
        yield process, _replayed(process)


def told(path: Path) -> Iterator[tuple[bool, str]]:
    """Of each process in words: whether everything was decided the same, and what is to be said of it."""
    recorded = Recorded(path)
    for gap in recorded.gaps:
        yield True, gap
    for process in recorded.processes:
        again = _replayed(process)
        remarks = [remark for remark in (again.remark, process.gap) if remark]
        if not process.closed and not process.gap:
            remarks.append("it did not end in order, or has not yet: its last second may be missing")
        said = "; ".join([f"{process}: {again.same:,} inputs decided the same", *remarks])
        if again.difference is None:
            yield True, said
        else:
            yield False, f"{said}; then otherwise:\n{again.difference}"


def _replayed(process: Process) -> Replay:
    effects = EffectLog()
    try:
        core = process.build(effects)
    except PolicyError as error:  # another version of the user's own
        raise ValueError(f"{process}: {error}") from None
    same = 0
    for item in process.inputs():
        if item.effects is None:
            return Replay(same, None, f"{item.place}: the record ends inside the input {item}")
        at_hand = _at_hand(core, item.arguments)
        raised = _apply(core, item)
        expected, got = item.effects, json.loads(json.dumps(effects.take()))
        remark = None
        if item.raised is not None:
            verdict = "the same" if raised == item.raised else raised or "nothing"
            remark = f"{item.place}: the input {item} raised {item.raised}; the replay raises {verdict}"
        if raised is not None or item.raised is not None:
            expected, got = [*expected, ["raised", item.raised]], [*got, ["raised", raised]]
        if got != expected:
            return Replay(same, Difference(item, *_first_difference(expected, got), at_hand()), remark)
        same += 1
        if remark is not None:
            return Replay(same, None, remark)
    return Replay(same, None, None)


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


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
