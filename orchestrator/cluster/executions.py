"""What passes between a worker and its subprocesses: a task that is to be executed, and how that ended.

A message is a header of fixed length, then its texts. Nothing here is taken apart by anything that could execute it.
It imports a few modules of the standard library only, so that a subprocess is there in some ten milliseconds.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

RESULT_CHARACTERS = 1 << 20
"""What the result of a task may have at most."""
ERROR_CHARACTERS = 1 << 16
PIECE_BYTES = 1 << 16
"""What is read at once: a larger buffer would be taken from the system, and given back, each time."""
BEGIN, CANCEL, LISTENING, ENDED, PROGRESS = range(5)
"""The kinds of message: the first two go to the subprocess, the others come from it."""
_HEADER = struct.Struct("=BBQIddIII")
HEADER_BYTES = _HEADER.size
_SUCCEEDED, _RETRYABLE, _SPENT = 1, 2, 4
_LARGEST_BYTES = 64 << 20
_ERRORS = "surrogatepass"


class Begin(NamedTuple):
    """An attempt that is to be executed. `number`: of the execution, among those of the subprocess."""

    number: int
    task_id: str
    attempt: int
    kind: str
    payload: str


class Cancel(NamedTuple):
    """Nobody wants that execution any more."""

    number: int


class Listening(NamedTuple):
    """The first word of a subprocess: it waits for tasks. `reason`: why it does not, empty if it does."""

    reason: str = ""


class Progress(NamedTuple):
    """How far an execution is: a share of the whole, and a text."""

    number: int
    share: float
    text: str


class Answer(NamedTuple):
    """How an execution ended. `retry_after_s`: the least delay before the next attempt, where the failure is
    retryable. `spent`: the subprocess is not fit for another task. `ran_s`: its duration in seconds."""

    succeeded: bool
    result: str
    error: str
    ran_s: float
    retryable: bool = False
    retry_after_s: float = 0.0
    spent: bool = False
    number: int = 0


Message = Begin | Cancel | Listening | Progress | Answer


def begin(number: int, task_id: str, attempt: int, kind: str, payload: str) -> bytes:
    return _message(BEGIN, 0, number, attempt, 0.0, 0.0, payload, task_id, kind)


def cancel(number: int) -> bytes:
    return _message(CANCEL, 0, number, 0, 0.0, 0.0)


def listening(reason: str = "") -> bytes:
    return _message(LISTENING, 0, 0, 0, 0.0, 0.0, reason)


def progress(number: int, share: float, text: str) -> bytes:
    return _message(PROGRESS, 0, number, 0, share, 0.0, text)


def answered(number: int, answer: Answer) -> bytes:
    """What is too large to travel further does not travel so far either."""
    succeeded, result, error, ran_s, retryable, after_s, spent, _ = answer
    if len(result) > RESULT_CHARACTERS:
        wanted = f"{len(result)} characters, the limit is {RESULT_CHARACTERS}"
        succeeded, result, error, retryable = False, "", f"the result is too large: {wanted}", False
    flags = succeeded * _SUCCEEDED | retryable * _RETRYABLE | spent * _SPENT
    return _message(ENDED, flags, number, 0, ran_s, after_s, result, error[:ERROR_CHARACTERS])


def _message(
    kind: int,
    flags: int,
    number: int,
    attempt: int,
    one: float,
    other: float,
    first: str = "",
    second: str = "",
    third: str = "",
) -> bytes:
    texts = first.encode("utf-8", _ERRORS), second.encode("utf-8", _ERRORS), third.encode("utf-8", _ERRORS)
    return b"".join((_HEADER.pack(kind, flags, number, attempt, one, other, *map(len, texts)), *texts))


class Incoming:
    """Messages out of the pieces in which they arrive."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a message that is not complete
        self._have, self._wanted = 0, HEADER_BYTES

    def feed(self, piece: bytes) -> list[Message]:
        """The messages that are complete with it. ValueError for what is none."""
        if self._pieces or len(piece) < HEADER_BYTES:
            self._pieces.append(piece)
            self._have += len(piece)
            if self._have < self._wanted:
                return []
            piece = b"".join(self._pieces)
            self._pieces.clear()
        messages, at, end, unpack_from = [], 0, len(piece), _HEADER.unpack_from
        self._wanted = HEADER_BYTES
        while end - at >= HEADER_BYTES:
            kind, flags, number, attempt, one, other, first, second, third = unpack_from(piece, at)
            begin = at + HEADER_BYTES
            first += begin  # from here on where each text ends
            second += first
            third += second
            if third - at > _LARGEST_BYTES:
                raise ValueError(f"no message has {third - at} bytes")
            if third > end:
                self._wanted = third - at
                break
            texts = (
                piece[begin:first].decode("utf-8", _ERRORS) if first > begin else "",
                piece[first:second].decode("utf-8", _ERRORS) if second > first else "",
                piece[second:third].decode("utf-8", _ERRORS) if third > second else "",
            )
            at = third
            messages.append(_understood(kind, flags, number, attempt, one, other, *texts))
        self._have = end - at
        if self._have:
            self._pieces.append(piece[at:])
        return messages


def _understood(
    kind: int, flags: int, number: int, attempt: int, one: float, other: float, first: str, second: str, third: str
) -> Message:
    if kind == ENDED:
        succeeded, retryable, spent = flags & _SUCCEEDED > 0, flags & _RETRYABLE > 0, flags & _SPENT > 0
        return Answer(succeeded, first, second, one, retryable, other, spent, number)
    if kind == BEGIN:
        return Begin(number, second, attempt, third, first)
    if kind == PROGRESS:
        return Progress(number, one, first)
    if kind == CANCEL:
        return Cancel(number)
    if kind == LISTENING:
        return Listening(first)
    raise ValueError(f"no message: {kind}")
