"""A client and its futures say at a prompt, and in a notebook, how they are."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from typing import Any

from orchestrator import AsyncClient, Client, TaskFailed
from orchestrator.cluster.client import NewTask
from tests.cluster import own_app as own
from tests.cluster.conftest import MakeCluster

OPTIONS = ("--app", "tests.cluster.own_app:app")


def test_futures_and_their_client_show_how_they_are(make_cluster: MakeCluster, tmp_path: Path):
    """While a task runs, and when it is completed, failed or cancelled."""
    cluster = make_cluster(1, capacity=4, executor="process", options=OPTIONS)
    client = Client(cluster.address)
    assert repr(client) == f"<Client address={cluster.address} state=not begun unsettled=0>"
    with client:
        squared = client.submit(own.square, 7)
        assert squared.result(30) == 49
        assert repr(client) == f"<Client address={cluster.address} state=connected unsettled=0>"
        assert repr(squared) == f"<TaskFuture task={squared.task_id} kind=square state=completed value=49>"
        failed = client.submit(own.fails, "no <b>, \x1b[31mno")
        assert failed.exception(30)
        words = "error=TaskFailed: ValueError: no <b>, \N{REPLACEMENT CHARACTER}[31mno"
        assert repr(failed) == f"<TaskFuture task={failed.task_id} kind=fails state=failed {words}>"
        assert "<td>TaskFailed: ValueError: no &lt;b&gt;, " in failed._repr_html_()
        running = client.submit(own.tells, tmp_path / "never")
        while running.progress != (0.5, "half of it"):
            time.sleep(0.01)
        assert repr(running).endswith(" kind=tells state=accepted progress=50% half of it>")
        assert "<th>unsettled</th><td>1</td>" in client._repr_html_()
        running.cancel()
        assert repr(running).endswith(" kind=tells state=cancelled>")
    assert " state=closed " in repr(client)


def test_a_text_is_shown_as_the_outcome_has_it(make_cluster: MakeCluster):
    """A future of an Outcome that failed is no completed one."""
    cluster = make_cluster(1)
    with Client(cluster.address) as client:
        good, bad = client.submit_batch([NewTask("0", kind="sleep"), NewTask("x", kind="sleep")])
        assert good.result(30).settled
        assert bad.result(30).settled
        assert " kind=sleep state=completed value='" in repr(good)
        assert " kind=sleep state=failed error=" in repr(bad)


def test_calls_on_a_loop_are_shown_and_what_nobody_learnt_of_is_still_told(make_cluster: MakeCluster):
    """To show a call that failed is not to take its exception: asyncio complains of one that nobody takes."""
    cluster = make_cluster(1, executor="process", options=OPTIONS)
    complaints: list[Any] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        async with AsyncClient(cluster.address) as client:
            squared = client.submit(own.square, 7)
            assert repr(squared) == "<AsyncCall kind=square state=not accepted>"
            assert await squared == 49
            assert repr(squared).endswith(" kind=square state=completed value=49>")
            assert "unsettled=0" in repr(client)
            (outcome,) = client.submit_batch([NewTask("[7]", kind="square")])
            await outcome
            assert repr(outcome).startswith("<Submission task=")
            failed = client.submit(own.fails, "no")
            await asyncio.wait([failed])
            assert repr(failed).endswith(" kind=fails state=failed error=TaskFailed: ValueError: no>")
            del failed
            gc.collect()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert [type(complaint) for complaint in complaints] == [TaskFailed]


def test_a_client_without_a_coordinator_says_so():
    """It is not connected, and dials on; what it submitted is unsettled."""
    with Client("127.0.0.1:1") as client:
        future = client.submit(own.square, 7)
        assert repr(client).endswith(" state=not connected unsettled=1>")
        assert repr(future) == "<TaskFuture kind=square state=not accepted>"


def test_a_long_value_is_shown_in_short(make_cluster: MakeCluster):
    """Its beginning and its end, and the whole on one line."""
    cluster = make_cluster(1, executor="process", options=OPTIONS)
    with Client(cluster.address) as client:
        future = client.submit(own.longest, ["one\n" * 10_000])
        assert future.result(30)
        assert len(repr(future)) < 300
        assert "..." in repr(future)
        assert "\n" not in repr(future)
