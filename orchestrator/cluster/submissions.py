"""What a client submits, and what it holds of it: a task that may be awaited or cancelled."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from orchestrator.cluster.jobs import KIND_CHARACTERS, PAYLOAD_CHARACTERS, unsound
from orchestrator.cluster.shown import Shown, facts_of
from orchestrator.cluster.wire.frames import ID_CHARACTERS
from orchestrator.cluster.wire.progress import Progress
from orchestrator.cluster.wire.translate import Outcome, make
from orchestrator.core.labels import labels_text
from orchestrator.core.model import Priority, TimeLimits

_LOWEST, _HIGHEST = int(min(Priority)), int(max(Priority))


class NewTask(NamedTuple):
    """What a client submits; an empty kind is the coordinator's default.

    `key`: what is submitted again with it, by whichever client, is the same task, and executed once. Without one only
    the client's own repetitions are. The others are seconds above 0, None for no limit: it fails if it does not begin
    within `queue_timeout_s` of its acceptance, or is not settled within `deadline_s` of it; an attempt that runs for
    `execution_timeout_s` is given up, instead of the coordinator's own limit.

    `affinity_key`: tasks of one key are best executed by one worker, which has at hand what they need; it is for the
    routing policies `consistent_hash` and `rendezvous`. `requires`: labels that its worker must have, by name, as a
    mapping or as text: {"gpu": "a100"}, "gpu=a100". Where no worker has them, the task waits and blocks no other.
    """

    payload: str
    priority: int = Priority.NORMAL
    kind: str = ""
    key: str = ""
    queue_timeout_s: float | None = None
    execution_timeout_s: float | None = None
    deadline_s: float | None = None
    affinity_key: str = ""
    requires: Mapping[str, str] | str = ""

    @property
    def limits(self) -> TimeLimits | None:
        """None where it has none."""
        _, _, _, _, queue_timeout_s, execution_timeout_s, deadline_s, _, _ = self
        if queue_timeout_s is execution_timeout_s is deadline_s is None:
            return None
        return TimeLimits(queue_timeout_s, execution_timeout_s, deadline_s)


class Unanswered(Exception):
    """Whether the coordinator has the task is not known, and to submit it again could execute it twice."""


class TaskRefused(Exception):
    """The coordinator does not take this task."""


class KeyTaken(TaskRefused):
    """The key is that of a task with another kind, payload or priority."""


class Overloaded(TaskRefused):
    """The coordinator had no room for the task, for as long as its client submitted it again."""


class CoordinatorStopped(Exception):
    """A fault inside the coordinator ended it; the text says which. What it had not settled may never be."""


def checked(task: NewTask) -> NewTask:
    """The task, if it can be sent. Raises TypeError or ValueError if not: it is the caller's fault, nobody else's."""
    if type(task) is not NewTask:
        task = NewTask(*task)
    payload, given, kind, key, queue_timeout_s, execution_timeout_s, deadline_s, affinity_key, requires = task
    if (
        type(payload) is type(kind) is str
        and type(given) in (int, Priority)
        and _LOWEST <= given <= _HIGHEST
        and len(payload) <= PAYLOAD_CHARACTERS
        and len(kind) <= KIND_CHARACTERS
        and payload.isascii()
        and kind.isascii()
        and key == affinity_key == requires == ""
        and queue_timeout_s is execution_timeout_s is deadline_s is None
    ):
        return task  # as nearly all are
    _require_text("payload", payload, PAYLOAD_CHARACTERS)
    _require_text("kind", kind, KIND_CHARACTERS)
    _require_text("key", key, ID_CHARACTERS)
    if not key.isprintable():
        raise ValueError(f"a task's key has printable characters only, not {key!a:.80}")
    try:
        priority = operator.index(given)
    except TypeError:
        raise TypeError(f"a task's priority is an integer, not {given!r:.80}") from None
    if not _LOWEST <= priority <= _HIGHEST:
        raise ValueError(f"a task's priority is {_LOWEST} to {_HIGHEST}, not {priority}")
    limits = TimeLimits(queue_timeout_s, execution_timeout_s, deadline_s)
    for name, seconds in limits._asdict().items():
        if seconds is not None and (not isinstance(seconds, (int, float)) or isinstance(seconds, bool)):
            raise TypeError(f"a task's {name} is a number of seconds, or None, not {seconds!r:.80}")
    wrong = unsound(limits)
    if wrong:
        raise ValueError(wrong)
    _require_text("affinity_key", affinity_key, ID_CHARACTERS)
    return NewTask(payload, priority, kind, key, *limits, affinity_key, labels_text(requires))


def _require_text(what: str, text: object, most: int) -> None:
    if not isinstance(text, str):
        raise TypeError(f"a task's {what} is a str, not {type(text).__name__}: {text!r:.80}")
    if len(text) > most:
        raise ValueError(f"a task's {what} has at most {most:,} characters, not {len(text):,}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            at = text[error.start]
            raise ValueError(f"a task's {what} can't be encoded: {at!a} at position {error.start}") from None


class Awaited(asyncio.Future[Outcome]):
    """A submission's outcome. Cancelling it, or whatever awaits it, cancels the task. It has no `__init__`, which would
    cost a tenth of the client's time for a task: whoever makes it sets both attributes."""

    __slots__ = ("forsake", "number")
    number: int
    forsake: Callable[[int], None]

    def cancel(self, msg: Any | None = None) -> bool:
        cancels = super().cancel(msg)
        if cancels:
            self.forsake(self.number)
        return cancels


class Submission(Shown):
    """A task on its way; awaiting it gives its `Outcome`, or raises TaskRefused. `submitted_at`: on the loop's clock.

    `id` is known once the coordinator has taken the task. `progress`: the newest word of the task itself on how far it
    is, None before there is one.
    """

    __slots__ = ("id", "outcome", "progress", "submitted_at", "task")

    def __init__(
        self,
        task: NewTask,
        number: int,
        submitted_at: float,
        forsake: Callable[[int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`forsake` is called with the number when the outcome is cancelled."""
        self.task = task
        self.submitted_at = submitted_at
        self.progress: Progress | None = None
        self.id: asyncio.Future[str] = loop.create_future()
        self.outcome = Awaited(loop=loop)
        self.outcome.number = number
        self.outcome.forsake = forsake

    def __await__(self) -> Generator[Any, None, Outcome]:
        return self.outcome.__await__()

    @property
    def task_id(self) -> str | None:
        """None while the coordinator has not taken it."""
        if not self.id.done() or self.id.cancelled() or self.id.exception() is not None:
            return None
        return self.id.result()

    def facts(self, future: Future[Any] | asyncio.Future[Any]) -> dict[str, str]:
        """What is shown of a future that its caller has of it."""
        return facts_of(self.task_id, self.task.kind, self.progress, future)

    def _facts(self) -> dict[str, str]:
        return self.facts(self.outcome)

    def cancel(self) -> bool:
        """Nobody wants it any more: the coordinator is told, and a worker that runs it stops. False: it is settled."""
        return self.outcome.cancel()

    def accept(self, task_id: str) -> None:
        if not self.id.done():
            self.id.set_result(task_id)

    def settle(self, task_id: str, outcome: Outcome, now: float) -> None:
        """`task_id`: if it is not known yet. The latency that its caller saw is what counts, however often the
        coordinator was lost meanwhile."""
        self.accept(task_id)
        if not self.outcome.done():
            self.outcome.set_result(make(Outcome, (self.id.result(), *outcome[1:-1], now - self.submitted_at)))

    def fail(self, error: Exception) -> None:
        for future in (self.id, self.outcome):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever awaits one of them learns it: no complaint about the other
