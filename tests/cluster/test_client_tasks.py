"""A task that can't be sent fails its own call; the session and its other tasks go on."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pytest

from orchestrator.cluster.client import AsyncClient, Client, NewTask, Submission
from orchestrator.cluster.jobs import KIND_CHARACTERS, PAYLOAD_CHARACTERS
from orchestrator.cluster.wire.translate import Outcome
from orchestrator.core.model import Priority, TaskState
from tests.cluster.conftest import MakeCluster

BAD: dict[str, tuple[tuple[Any, Any, Any], type[Exception], str]] = {
    "a number": ((17, 1, ""), TypeError, "payload is a str, not int: 17"),
    "nothing": ((None, 1, ""), TypeError, "payload is a str, not NoneType"),
    "bytes": ((b"17", 1, ""), TypeError, "payload is a str, not bytes"),
    "a surrogate": (("a\ud800", 1, ""), ValueError, r"payload can't be encoded: '\\ud800' at position 1"),
    "too large": (("x" * (PAYLOAD_CHARACTERS + 1), 1, ""), ValueError, "payload has at most 1,048,576 characters"),
    "a word for a priority": (("0", "high", ""), TypeError, "priority is an integer, not 'high'"),
    "half a priority": (("0", 1.5, ""), TypeError, "priority is an integer, not 1.5"),
    "a large priority": (("0", 2**40, ""), ValueError, "priority is 0 to 3, not 1099511627776"),
    "a negative priority": (("0", -1, ""), ValueError, "priority is 0 to 3, not -1"),
    "a kind that is no text": (("0", 1, 3), TypeError, "kind is a str, not int"),
    "a kind that can't be encoded": (("0", 1, "\udfff"), ValueError, "kind can't be encoded"),
    "a long kind": (("0", 1, "k" * (KIND_CHARACTERS + 1)), ValueError, "kind has at most 200 characters, not 201"),
}
GOOD = NewTask("0", Priority.HIGH, "sleep")


@pytest.mark.parametrize("contract", [False, True], ids=["streams", "contract"])
def test_a_bad_task_fails_its_call_and_the_session_goes_on(make_cluster: MakeCluster, contract: bool):
    """By `submit` and inside a batch, of which nothing is sent; with and without an event loop."""
    cluster = make_cluster(1)

    async def with_a_loop() -> None:
        async with AsyncClient(cluster.address, contract=contract) as client:
            before = client.submit_batch([GOOD])
            for task, error, sentence in BAD.values():
                with pytest.raises(error, match=sentence):
                    client.submit(*task)
                with pytest.raises(error, match=sentence):
                    client.submit_batch([GOOD, NewTask(*task), GOOD])
            for submission in before + client.submit_batch([GOOD]):
                assert (await submission).state is TaskState.COMPLETED
            assert (await client.metrics()).completed == 2

    asyncio.run(asyncio.wait_for(with_a_loop(), 60))
    with Client(cluster.address, contract=contract) as client:
        before = client.submit_batch([GOOD])
        for task, error, sentence in BAD.values():
            with pytest.raises(error, match=sentence):
                client.submit(*task)
            with pytest.raises(error, match=sentence):
                client.submit_batch([GOOD, NewTask(*task), GOOD])
        for future in before + client.submit_batch([GOOD]):
            assert future.result(timeout=30).state is TaskState.COMPLETED
        assert client.metrics().completed == 4


def test_whatever_is_text_and_counts_is_sent(make_cluster: MakeCluster):
    """The largest payload, text of every plane, and a priority that only behaves like an integer."""
    cluster = make_cluster(1)

    class Three:
        def __index__(self) -> int:
            return 3

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            tasks: list[Any] = [("\U0001f600" * PAYLOAD_CHARACTERS, 0, "sleep"), ("é", Three(), "\U0001f600" * 200)]
            for submission in client.submit_batch(tasks):
                assert (await submission).state is TaskState.FAILED, "by its worker, which makes no sense of it"

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_client_without_an_event_loop_leaves_no_task_behind(
    make_cluster: MakeCluster, capfd: pytest.CaptureFixture[str]
):
    """asyncio would complain on stderr, whenever garbage is collected, that it was destroyed."""
    cluster = make_cluster()
    ended = []

    async def last_for_some_turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        ended.append(True)

    with Client(cluster.address) as client:
        client.metrics()
        asyncio.run_coroutine_threadsafe(last_for_some_turns(), client._loop)
    assert ended
    del client
    gc.collect()
    assert "Task was destroyed" not in capfd.readouterr().err


def test_a_client_begins_with_its_first_call(make_cluster: MakeCluster):
    """As in a notebook, where no block is around it; `close` ends it, once or twice, also one that did nothing."""
    client = Client(make_cluster(1).address)
    assert client.submit("0", kind="sleep").result(30).state is TaskState.COMPLETED
    for _ in range(2):
        client.close()
    Client("localhost:1").close()
    for call in (client.metrics, lambda: client.submit("0", kind="sleep")):
        with pytest.raises(RuntimeError, match="this client is closed"):
            call()


@pytest.mark.parametrize("contract", [False, True], ids=["streams", "contract"])
def test_nobody_waits_for_a_client_that_has_ended(make_cluster: MakeCluster, contract: bool):
    """What is not settled is cancelled here, with and without an event loop, and goes on where it is."""
    cluster = make_cluster(0)
    with Client(cluster.address, contract=contract) as client:
        (future,) = client.submit_batch([NewTask("0", kind="sleep", key="first")])
        while future.task_id is None:
            client.metrics()
    with pytest.raises(CancelledError):
        future.result(30)
    assert wait([future], 30).done == {future}

    async def with_a_loop() -> None:
        async with AsyncClient(cluster.address, contract=contract) as client:
            submission = client.submit("0", kind="sleep", key="second")
            waiting = asyncio.ensure_future(_outcome_of(submission))
            await submission.id
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(asyncio.wait_for(with_a_loop(), 60))
    cluster.start_worker("w1").ready(cluster.coordinator)
    with Client(cluster.address) as client:
        for key in ("first", "second"):
            assert client.submit("0", kind="sleep", key=key).result(30).state is TaskState.COMPLETED
        assert client.metrics().completed == 2


async def _outcome_of(submission: Submission) -> Outcome:
    return await submission


def test_what_a_future_calls_back_may_submit_but_not_wait(make_cluster: MakeCluster):
    """The next task is submitted as the one before it settles; a question would wait for its own answer."""
    answered: Future[Future[Any]] = Future()
    refused: Future[str] = Future()

    def go_on(_: Future[Any]) -> None:
        answered.set_result(client.submit("0", kind="sleep"))
        try:
            client.metrics()
        except RuntimeError as error:
            refused.set_result(str(error))

    with Client(make_cluster(1).address) as client:
        client.submit("0", kind="sleep").add_done_callback(go_on)
        assert answered.result(30).result(30).state is TaskState.COMPLETED
    assert refused.result(30).startswith("what a future calls back must not wait for the client")


def test_gather_tells_of_a_failure_at_once_and_of_what_was_cancelled(make_cluster: MakeCluster):
    """It does not wait for the futures before it; among values, failures and cancelled ones have their exceptions."""
    with Client(make_cluster(1, capacity=2).address) as client:
        long = client.submit("3600", kind="sleep")
        failing = client.submit("no number", kind="sleep")
        submitted: list[Future[Any]] = [long, _value_of(failing)]
        with pytest.raises(ValueError, match="no number"):
            client.gather(submitted)
        assert not long.done()
        long.cancel()
        done = client.submit("0", kind="sleep")
        values = client.gather([long, submitted[1], done], return_exceptions=True)
    assert [type(value).__name__ for value in values] == ["CancelledError", "ValueError", "Outcome"]


def _value_of(future: Future[Any]) -> Future[Any]:
    """Of a plain submission the outcome is a value even if it failed: here its error is raised."""
    value: Future[Any] = Future()

    def read(settled: Future[Any]) -> None:
        value.set_exception(ValueError(settled.result().error))

    future.add_done_callback(read)
    return value
