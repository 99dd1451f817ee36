"""Messages are packed by what their items take on the wire: none is too large, and nothing is left behind."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.wire import rpc, sizes, translate
from orchestrator.cluster.wire.frames import ITEMS_MAX, Malformed, reader
from orchestrator.cluster.wire.proto import stream_pb2
from orchestrator.cluster.wire.rpc import FILL_BYTES, FILL_ITEMS, Room
from orchestrator.cluster.wire.translate import Assignment, Done, Outcome, Refusal, WorkerNews
from orchestrator.core.model import TaskState, TimeLimits

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
keys = st.tuples(text, st.integers(0, 2**32 - 1))
ended = st.builds(Ended, st.booleans(), text, text, st.booleans(), st.floats())
FROM_WORKER: Any = stream_pb2.FromWorker.DESCRIPTOR
LETTER = "\U0001d11e"  # four bytes on the wire


@given(st.lists(st.builds(Assignment, keys, text, text), max_size=5), st.lists(keys, max_size=5))
def test_to_a_worker_no_item_is_larger_than_it_was_taken_for(assignments: list[Assignment], cancels: list[tuple]):
    """Assignments with their kinds and ids, and keys."""
    bound = sum(map(sizes.assignment_bytes, assignments)) + sizes.keys_bytes(cancels)
    assert translate.to_worker(None, (), assignments, cancels).ByteSize() <= bound


@given(st.lists(st.tuples(keys, st.builds(Done, ended, st.floats(), st.integers(0, 2**32 - 1))), max_size=5))
def test_from_a_worker_no_report_is_larger_than_it_was_taken_for(reports: list[tuple]):
    """With its result, its error and its key."""
    assert translate.from_worker(WorkerNews(), reports).ByteSize() <= sum(map(sizes.report_bytes, reports))


numbers = st.integers(0, 2**64 - 1)
outcomes = st.builds(
    Outcome, text, st.sampled_from(TaskState), text, text, text, st.integers(0, 2**32 - 1), st.floats()
)


@given(
    st.lists(numbers, max_size=5),
    st.lists(st.tuples(numbers, text), max_size=5),
    st.lists(st.builds(Refusal, numbers, text, st.booleans(), st.booleans()), max_size=5),
    st.lists(st.tuples(numbers, outcomes), max_size=5),
)
def test_to_a_client_no_item_is_larger_than_it_was_taken_for(accepted: list, known: list, refused: list, settled: list):
    """Acceptances, with ids where they are needed, refusals with their reasons, results."""
    bound = rpc.NUMBER_BYTES * len(accepted) + 2 * sizes.ITEM_BYTES + sum(map(sizes.known_bytes, known))
    bound += sum(map(sizes.refusal_bytes, refused)) + sum(map(sizes.outcome_bytes, settled))
    assert translate.to_client(accepted, known, refused, settled).ByteSize() <= bound


@given(numbers, text, text, st.integers(1, 4), text, st.none() | st.builds(TimeLimits, *[st.none() | st.floats()] * 3))
def test_from_a_client_no_task_is_larger_than_it_was_taken_for(
    number: int, kind: str, payload: str, priority: int, key: str, limits: TimeLimits | None
):
    """With its kind, its key and its limits."""
    message = translate.from_client("", [(number, kind, payload, priority, key, limits)])
    assert message.ByteSize() <= sizes.task_bytes(kind, payload, key)


@given(st.lists(st.integers(0, 3 * FILL_BYTES // 2), max_size=30))
def test_whatever_waits_is_taken_in_messages_that_are_full_or_hold_one_item(waiting: list[int]):
    """In its order."""
    left, taken = deque(waiting), []
    while left:
        message = rpc.take(left, lambda size: size)
        assert len(message) == 1 or sum(message) <= FILL_BYTES
        taken += message
    assert taken == waiting


def test_what_does_not_fit_is_not_overtaken():
    """By a smaller item of the same message."""
    room = Room()
    assert room.take(deque([FILL_BYTES - 10]), lambda size: size) == [FILL_BYTES - 10]
    assert room.take(deque([20]), lambda size: size) == []
    assert room.take(deque([5]), lambda size: size) == []


def test_news_of_a_worker_fits_into_messages_that_a_coordinator_takes():
    """However much has gathered; all of it is said, starts first."""
    news = WorkerNews()
    news.started.extend((LETTER * 200, number) for number in range(30_000))
    result = Ended(True, LETTER * sizes.RESULT_CHARACTERS, "", False, 0.1)
    news.reports.extend((("t", number), Done(result, 0.0, number)) for number in range(3))
    said = []
    while news.keys_wait:
        taken = news.take()
        message = translate.from_worker(taken, taken.reports)
        size = message.ByteSize()
        assert size <= FILL_BYTES or (len(message.reports), len(message.started)) == (1, 0)
        assert size < rpc.MESSAGE_BYTES
        assert len(message.started) <= FILL_ITEMS < ITEMS_MAX
        said += [*translate.started(message), *(report.task_id for report in translate.reports(message))]
    assert len(said) == 30_003
    assert said[-3:] == ["t"] * 3


@pytest.mark.parametrize(
    ("result", "error"),
    [("x" * (20 << 20), "the result is too large"), ("\ud800", "the result is no text")],
    ids=["large", "no text"],
)
def test_a_result_that_cannot_be_sent_fails_its_task_alone(result: str, error: str):
    """With a sentence."""
    sent = sizes.sendable(Ended(True, result, "", True, 0.5))
    assert (sent.succeeded, sent.result, sent.retryable, sent.ran_s) == (False, "", False, 0.5)
    assert sent.error.startswith(error)


def test_an_error_that_cannot_be_sent_is_cut():
    """What can't be encoded is replaced."""
    sent = sizes.sendable(Ended(False, "", "\ud800" + LETTER * (2 << 20), True, 0.5))
    assert sent.error.startswith("?" + LETTER)
    assert len(sent.error) == sizes.ERROR_CHARACTERS
    assert (sent.succeeded, sent.retryable) == (False, True)


@given(st.binary(max_size=200))
def test_bytes_of_a_stranger_are_a_message_or_malformed(data: bytes):
    """Whatever they are, nothing is raised; repeated until they are counted, too."""
    read = reader(FROM_WORKER)
    for message in (read(data), read(data * 400)):
        assert isinstance(message, (stream_pb2.FromWorker, Malformed))


@settings(max_examples=10)
@given(st.lists(keys, min_size=1, max_size=3), st.sampled_from(["started", "held"]), st.booleans())
def test_items_are_counted_as_they_are(few: list[tuple], part: str, more: bool):
    """One more than there may be is too many, whatever they hold, also inside a registration."""
    items = [stream_pb2.AttemptKey(task_id=task_id, attempt=attempt) for task_id, attempt in few]
    own = 1 if part == "held" else 0
    items = (items * (ITEMS_MAX + 1))[: ITEMS_MAX - own + more]
    if part == "held":
        message = stream_pb2.FromWorker(registration=stream_pb2.Registration(held=items))
    else:
        message = stream_pb2.FromWorker(started=items)
    read = reader(FROM_WORKER)(message.SerializeToString())
    assert isinstance(read, Malformed) is (more and message.ByteSize() > 2 * ITEMS_MAX)
