"""What a relay between a worker and its coordinator does to their messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

from orchestrator.cluster.wire.proto import stream_pb2
from orchestrator.cluster.wire.translate import FromWorker, ToWorker

Message = TypeVar("Message", FromWorker, ToWorker)


def parts(message: Message) -> Iterator[tuple[str, Message]]:
    """A message for each item that there is in it, with its field's name."""
    kind: Any = type(message)
    for descriptor, value in message.ListFields():
        items = [[item] for item in value] if descriptor.is_repeated else [value]
        for item in items:
            yield descriptor.name, kind(**{descriptor.name: item})


def confirmations(message: Message) -> Iterator[Message]:
    """For each attempt that a worker's message says something of, one that only says that it is there."""
    if isinstance(message, FromWorker):
        for item in (*message.started, *message.cancelled, *message.reports):
            yield FromWorker(confirmed=[stream_pb2.AttemptKey(task_id=item.task_id, attempt=item.attempt)])


def content(message: FromWorker | ToWorker) -> bytes:
    """The same for messages that say the same."""
    return message.SerializeToString(deterministic=True)


def merged(parts: deque[FromWorker], most_bytes: int) -> FromWorker:
    """One message of the first parts, as far as they fit, at least one; they are taken away."""
    whole = FromWorker()
    whole.MergeFrom(parts.popleft())
    while parts and whole.ByteSize() < most_bytes:
        whole.MergeFrom(parts.popleft())
    return whole
