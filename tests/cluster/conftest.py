"""Clusters of real processes, whose coordinators prove their invariants as they run and are replayed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.decision_record import NAME, replay
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster import stored_tasks
from tests.cluster.contract import peers

# Everything happens within fractions of a second, in the proportions of the defaults.
FAST = ("policies.detection.timeout_s=0.6", "policies.detection.check_every_s=0.1")
# Longer than a process waits for a processor on a busy machine; a test that kills a worker sits this out.
PATIENT = ("policies.detection.timeout_s=10", "policies.execution_timeout_s=null")

MakeCluster = Callable[..., LocalCluster]


@pytest.fixture(autouse=True)
def places_begin_anew() -> None:
    stored_tasks.PLACES.clear()


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """LocalCluster's arguments; the coordinator checks itself, and its decision record must replay alike."""
    clusters: list[LocalCluster] = []
    log = tmp_path / "log"

    def make(workers: int = 0, *, policies: tuple[str, ...] = PATIENT, **settings: object) -> LocalCluster:
        own = ("--check", "--decision-record", str(tmp_path / f"{len(clusters)}-{NAME}"))
        settings = {"heartbeat_s": 0.1, "executor": "inline", "log": log, **settings}
        cluster = LocalCluster(workers, policies=(*policies, *own), **settings)  # type: ignore[arg-type]
        clusters.append(cluster.__enter__())
        return cluster

    yield make
    statuses = []
    for cluster in clusters:
        cluster.coordinator.terminate()
        statuses.append(cluster.coordinator.wait(10))
        cluster.close()
    text = log.read_text() if log.exists() else ""
    print(text)
    assert "Traceback" not in text
    assert all(status in (0, -9) for status in statuses), f"a coordinator ended with {statuses}"
    for number in range(len(clusters)):
        again = replay(tmp_path / f"{number}-{NAME}")
        assert again.difference is None, str(again.difference)
        assert again.remark is None or statuses[number] != 0, again.remark


@pytest.fixture
def make_worker() -> Iterator[Callable[..., peers.Worker]]:
    """Workers that know only the wire contract."""
    made: list[peers.Worker] = []

    def make(cluster: LocalCluster, name: str, capacity: int = 2, heartbeat_s: float = 0.1) -> peers.Worker:
        made.append(peers.Worker(cluster.address, name, capacity, heartbeat_s))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def connect() -> Iterator[Callable[[LocalCluster], peers.Client]]:
    """Clients that know only the wire contract."""
    made: list[peers.Client] = []

    def make(cluster: LocalCluster) -> peers.Client:
        made.append(peers.Client(cluster.address))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def stranger() -> Iterator[peers.Coordinator]:
    """A coordinator that speaks only the wire contract."""
    coordinator = peers.Coordinator()
    yield coordinator
    coordinator.close()
