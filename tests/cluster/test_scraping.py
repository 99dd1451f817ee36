"""What Prometheus scrapes of a coordinator is what it tells elsewhere, and scraping harms nobody."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.scraping import SCRAPERS_MAX, serve
from orchestrator.cluster.tally import KINDS_MAX, OTHER, Tally
from orchestrator.core.model import Priority
from orchestrator.policies.settings import build_coordinator
from tests.cluster.conftest import FAST, PATIENT, MakeCluster
from tests.cluster.contract.peers import wait_until
from tests.cluster.streams import PATIENT as SETTINGS
from tests.cluster.streams import play

ANYWHERE = ("--metrics-address", "127.0.0.1:0")
Samples = dict[tuple[str, ...], float]
"""By name and values of labels, in the order of the labels' names."""


def url_in(log: str) -> str:
    """The last one that a coordinator told."""
    return re.findall(r"http://[\d.:]+/metrics", log)[-1]


def scraped(url: str) -> Samples:
    text = urlopen(url, timeout=30).read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, *labels: str) -> float:
    """Of all series that have these labels."""
    found = [
        value for (of, *values), value in samples.items() if of == f"orchestrator_{name}" and {*labels} <= {*values}
    ]
    assert found, f"no {name} of {labels}"
    return sum(found)


async def settle(address: str, tasks: list[NewTask]) -> None:
    async with AsyncClient(address) as client:
        for submission in client.submit_batch(tasks):
            await submission


def test_what_is_scraped_agrees_with_what_metrics_prints(make_cluster: MakeCluster, tmp_path: Path):
    """Counts by kind, queues by class at both places, histograms that hold every task, and what is stored."""
    data = ("--data", str(tmp_path / "data"))
    cluster = make_cluster(1, capacity=1, prefetch=2, policies=(*PATIENT, *ANYWHERE, *data))
    url = url_in((tmp_path / "log").read_text())
    good, bad = NewTask("0", kind="sleep"), NewTask("nonsense", kind="prime")

    async def story() -> None:
        await settle(cluster.address, [good] * 30 + [bad] * 4)
        async with AsyncClient(cluster.address) as client:
            client.submit_batch([NewTask("600", kind="sleep", priority=Priority.HIGH)] * 6)
            while (told := await client.metrics()).queue_depth != 3 or told.queue_at_workers != 2:
                await asyncio.sleep(0.02)
        samples = await asyncio.to_thread(scraped, url)
        assert total(samples, "tasks_submitted_total", "sleep") == 36
        assert total(samples, "tasks_completed_total", "sleep") == told.completed == 30
        assert total(samples, "tasks_failed_total", "prime") == told.failed == 4
        assert total(samples, "task_latency_seconds_count", "sleep", "completed") == 30
        assert total(samples, "task_latency_seconds_count", "prime", "failed") == 4
        assert total(samples, "task_execution_seconds_count", "sleep") == 30
        assert total(samples, "attempts_total") == 30 + 4 + 3
        assert total(samples, "retries_total") == total(samples, "timeouts_total") == told.timeouts == 0
        assert total(samples, "queue_depth", "coordinator") == told.queue_depth
        assert total(samples, "queue_depth", "coordinator", "sleep", "high") == 3
        assert total(samples, "queue_depth", "workers", "sleep", "high") == 2
        assert total(samples, "attempts_running", "sleep", "high") == total(samples, "slots") == 1
        assert total(samples, "workers", "alive") == told.alive_workers == 1
        assert 0 < total(samples, "worker_verdict_due_seconds", "w1") <= 10
        assert told.commits is not None
        assert total(samples, "commit_tasks_count") == total(samples, "commit_seconds_count") > 0
        assert total(samples, "commit_tasks_sum") >= 34

    asyncio.run(story())
    # A later coordinator counts from zero what it does itself; what it goes on with is in its queues.
    cluster.coordinator.signal(signal.SIGKILL)
    cluster.coordinator.wait(10)
    cluster.worker("w1").kill()
    cluster.start_coordinator()
    samples = scraped(url_in((tmp_path / "log").read_text()))
    assert total(samples, "tasks_submitted_total") == total(samples, "tasks_completed_total") == 0
    assert total(samples, "queue_depth", "coordinator") + total(samples, "attempts_running") == 6


def test_the_death_of_a_worker_is_counted_and_so_is_a_mistake(make_cluster: MakeCluster, tmp_path: Path):
    """One worker is killed, the other one only stands still for too long."""
    cluster = make_cluster(2, capacity=1, policies=(*FAST, *ANYWHERE))
    url = url_in((tmp_path / "log").read_text())
    cluster.worker("w1").kill()
    wait_until(lambda: total(scraped(url), "worker_deaths_total", "detector") == 1)
    assert total(scraped(url), "workers", "dead") == 1
    assert total(scraped(url), "worker_mistakes_total") == 0
    cluster.worker("w2").signal(signal.SIGSTOP)
    wait_until(lambda: total(scraped(url), "worker_deaths_total", "detector") == 2)
    cluster.worker("w2").signal(signal.SIGCONT)
    wait_until(lambda: total(scraped(url), "worker_mistakes_total", "detector") == 1)
    assert total(scraped(url), "workers", "alive") == 1


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:{taken}", "--metrics-address: cannot listen on 127.0.0.1:{taken}: Address already in use"),
        ("127.0.0.1", "--metrics-address '127.0.0.1': an address is HOST:PORT, and a port is 0 to 65535"),
        ("0.0.0.0:9464", "--metrics-address 0.0.0.0: whoever reaches this machine could read the metrics, without a"),
    ],
    ids=["taken", "without a port", "for everybody"],
)
def test_an_address_that_cannot_be_had_is_one_sentence(address: str, sentence: str):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        done = CliRunner().invoke(app, ["coordinator", "--port", "0", "--metrics-address", address.format(taken=taken)])
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(sentence.format(taken=taken))


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[LiveCoordinator, str]]:
    """A coordinator without a server of its own, and where it is scraped."""
    tally = Tally()
    live = LiveCoordinator(lambda effects: build_coordinator(SETTINGS, tally.counting(effects)), check=True)
    listener = socket.create_server(("127.0.0.1", 0))
    server = await serve(live, tally, listener, "1.2.3")
    try:
        yield live, f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
    finally:
        server.close()
        live.close()


def test_kinds_are_counted_by_name_up_to_a_limit():
    """Who submits names them: there are no more series than that."""

    async def story() -> None:
        async with watched() as (live, url):
            for number in range(KINDS_MAX + 10):
                for again in range(2):
                    live.submit(f"{number}-{again}", Job(f'kind "{number}"\n', "1"), 1)
            samples = await asyncio.to_thread(scraped, url)
            submitted = {kind[0]: value for (name, *kind), value in samples.items() if "tasks_submitted_total" in name}
            assert len(submitted) == KINDS_MAX + 1
            assert (submitted['kind "7"\n'], submitted[OTHER]) == (2, 20)
            assert total(samples, "queue_depth", "coordinator", OTHER, "normal") == 20

    play(story)


def test_scrapers_that_dawdle_get_a_few_places_only():
    """When they are gone, others are served."""

    async def story() -> None:
        async with watched() as (_, url):
            host, port = "127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])
            dawdlers = [await asyncio.open_connection(host, port) for _ in range(SCRAPERS_MAX)]
            reader, writer = await asyncio.open_connection(host, port)
            assert await reader.read() == b""
            for _, other in (*dawdlers, (reader, writer)):
                other.close()
            while True:
                try:
                    assert total(await asyncio.to_thread(scraped, url), "workers") == 0
                    return
                except OSError:
                    await asyncio.sleep(0.01)

    play(story)


def test_it_speaks_as_much_http_as_scrapers_need():
    """The version of the format that is asked for; nothing but metrics, and nothing but reading."""

    async def story() -> None:
        async with watched() as (_, url):
            accepted = Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
            text = (await asyncio.to_thread(urlopen, accepted)).read().decode()
            assert {family.name for family in open_metrics(text)} > {"orchestrator_workers", "orchestrator_hedges"}
            head = await asyncio.to_thread(urlopen, Request(url, method="HEAD"))
            assert (head.status, head.read(), int(head.headers["Content-Length"]) > 1000) == (200, b"", True)
            for request, status in ((Request(url[:-1]), 404), (Request(url, data=b"x"), 405)):
                with pytest.raises(HTTPError) as refused:
                    await asyncio.to_thread(urlopen, request)
                assert refused.value.code == status
                refused.value.close()
            host, port = url[7:-8].split(":")
            for nonsense in (b"\x16\x03\x01\r\n\r\n", b"x" * 100_000):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(nonsense)
                assert (await reader.read(12)) in (b"HTTP/1.1 400", b"")
                writer.close()

    play(story)
