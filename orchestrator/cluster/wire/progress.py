"""How far tasks are, by their own word: from a worker to the coordinator, and on to the client. It may be lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from orchestrator.cluster.wire.frames import require_id
from orchestrator.cluster.wire.proto import stream_pb2
from orchestrator.core.model import AttemptKey

Whose = TypeVar("Whose")
IN_A_MESSAGE = 100
"""What travels at once, at most."""
TEXT_CHARACTERS = 1000


class Progress(NamedTuple):
    """A share of the whole, from 0 to 1, and a text."""

    share: float
    text: str = ""


def some(waiting: dict[Whose, Progress]) -> Iterator[tuple[Whose, Progress]]:
    """The first ones, as many as travel at once; they are taken out."""
    for key in list(waiting)[:IN_A_MESSAGE]:
        yield key, waiting.pop(key)


def add_of_worker(message: stream_pb2.FromWorker, told: Iterable[tuple[AttemptKey, Progress]]) -> None:
    for (task_id, attempt), (share, text) in told:
        message.progress.add(task_id=task_id, attempt=attempt, share=share, text=text)


def of_worker(message: stream_pb2.FromWorker) -> Iterator[tuple[AttemptKey, Progress]]:
    """Those that make sense. Malformed at an id that is too long."""
    for item in message.progress:
        require_id(item.task_id, "a task's id")
        if 0 <= item.share <= 1:
            yield (item.task_id, item.attempt), Progress(item.share, item.text[:TEXT_CHARACTERS])


def add_of_client(message: stream_pb2.ToClient, told: Iterable[tuple[int, Progress]]) -> None:
    for number, (share, text) in told:
        message.progress.add(number=number, share=share, text=text)


def of_client(message: stream_pb2.ToClient) -> Iterator[tuple[int, Progress]]:
    for item in message.progress:
        yield item.number, Progress(item.share, item.text)
