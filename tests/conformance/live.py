"""A live cluster: worker processes, a client and the wire are real; the coordinator runs on the kit's own event loop,
so that the kit hears each decision as it is made. The loop, and with it the coordinator, runs inside `until`."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import psutil

from orchestrator.cluster.client import AsyncClient, Submission
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.decision_record import NAME, DecisionRecord, replay
from orchestrator.cluster.durability import Release, at_once
from orchestrator.cluster.jobs import Ended, Job
from orchestrator.cluster.services import start
from orchestrator.cluster.wire import contract, rpc, translate
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Priority, TimeLimits
from orchestrator.core.ports import Effects
from orchestrator.policies.settings import build_coordinator
from orchestrator.rehearsal.local_cluster import Process
from orchestrator.scenario.schema import Scenario
from tests.conformance.cluster import PATIENCE_S, Cluster, Direction, History

T = TypeVar("T")
READY_S = 60.0
HOST = "127.0.0.1"


class Live(Cluster):
    """The coordinator proves its invariants as it runs, and writes a decision record that must replay alike.

    `release`: what is done with each effect for a peer.
    """

    def __init__(
        self, scenario: Scenario, loop: asyncio.AbstractEventLoop, folder: Path, release: Release = at_once
    ) -> None:
        self._scenario = scenario
        self._loop = loop
        self._log = (folder / "log").open("ab", buffering=0)
        self._record_at = folder / NAME
        self._release = release
        self._processes: list[Process] = []
        self._workers: dict[str, Process] = {}
        self._relays: dict[str, Process] = {}
        self._addresses: dict[str, str] = {}
        self._drained: list[Process] = []
        self._submissions: list[Submission] = []
        self.submitted = []
        self.timeout_s = scenario.policies.detection.timeout_s  # type: ignore[union-attr]  # as the kit's scenario has it
        loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self._news = asyncio.Event()
        self._record = DecisionRecord(
            self._record_at,
            self._scenario.policies,
            self._scenario.seed,
            **self._built,
        )
        self._live = LiveCoordinator(
            self._build,
            call_timeout_s=self._scenario.network.rpc_timeout_s,
            record=self._record,
            check=True,
            release=self._release,
        )
        self._live.failed.add_done_callback(lambda _: self._news.set())
        self.core = self._live.core
        self._server, port = await start(self._live, HOST, 0)
        self._address = f"{HOST}:{port}"
        self._client = await AsyncClient(self._address).__aenter__()
        self._channel = rpc.channel(self._address)
        self._registry = rpc.Stub(self._channel, rpc.REGISTRY)

    def _build(self, effects: Effects) -> Coordinator:
        self.history = History(effects, self._loop.time, lambda task: cast(Job, task.payload).number, self._news.set)
        return build_coordinator(
            self._scenario.policies,
            self.history,
            self._scenario.seed,
            **self._built,
        )

    @property
    def _built(self) -> dict[str, Any]:
        of = self._scenario
        return {"call_timeout_s": of.network.rpc_timeout_s, "max_waiting": of.coordinator.max_waiting}

    def start(
        self, *names: str, capacity: int = 1, prefetch: int = 0, contract: bool = False, fragile: bool = False
    ) -> None:
        before = len(self.history.workers)
        for name in names if fragile else ():
            timeout_s = str(self._scenario.network.rpc_timeout_s)
            self._relays[name] = self._process("relay", self._address, "--call-timeout", timeout_s)
        for name in names:
            self._begin(name, ["--capacity", str(capacity), "--prefetch", str(prefetch)], contract)
        self._wait(lambda: {name for name, _ in self.history.workers[before:]} >= set(names), READY_S)

    def _begin(self, name: str, options: list[str], contract: bool) -> None:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        self._addresses[name] = f"{HOST}:{port}"
        options = [*options, "--port", str(port), *["--contract"] * contract]
        relay = self._relays.get(name)
        address = relay.ready() if relay else self._address
        self._workers[name] = self._process("worker", address, "--id", name, *options)

    def _process(self, command: str, address: str, *options: str) -> Process:
        arguments = [command, "--coordinator", address, *options]
        process = Process(arguments, self._log, controlled=True)
        self._processes.append(process)
        return process

    def kill(self, *names: str) -> None:
        for name in names:
            self._workers[name].kill()

    def pause(self, name: str) -> None:
        self._workers[name].signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._workers[name].signal(signal.SIGCONT)

    def work_at(self, name: str, factor: float) -> None:
        self._workers[name].control({"speed": factor})

    def cut(self, name: str, *directions: Direction) -> None:
        self._relays[name].control({"blocked": directions})

    def break_connection(self, name: str) -> None:
        self._relays[name].control({"broken": True})

    def stand_still(self, seconds: float) -> None:
        time.sleep(seconds)  # the coordinator runs on this very thread

    def drain(self, name: str) -> None:
        self._workers[name].terminate()
        self._drained.append(self._workers[name])

    def kill_executor(self, name: str) -> None:
        for child in psutil.Process(self._workers[name].pid).children():
            child.kill()

    def submit(
        self, work_s: float | None, priority: Priority = Priority.NORMAL, limits: TimeLimits | None = None
    ) -> int:
        payload = "nonsense" if work_s is None else str(work_s)
        own = limits._asdict() if limits else {}
        self._submissions.append(self._client.submit(payload, priority, "sleep", **own))
        self.submitted.append(len(self._submissions))
        return len(self._submissions)

    def report(self, name: str, task: int, attempt: int) -> None:
        ended = Ended(True, "", "", False, 0.0)
        message = contract.result_message(name, (str(self.core_id(task)), attempt), ended, 0.0)
        self._loop.run_until_complete(self._registry.ReportResult(message))

    def claim(self, name: str, capacity: int) -> None:
        message = contract.registration_message(name, self._addresses[name], capacity)
        self._loop.run_until_complete(self._registry.RegisterWorker(message))

    def forget(self, name: str) -> None:
        self.core.deregister(name, self._live.now())

    def until(self, condition: Callable[[], object]) -> None:
        self._wait(condition, PATIENCE_S)

    def _wait(self, condition: Callable[[], object], within_s: float) -> None:
        self._loop.run_until_complete(self._come(condition, within_s))

    async def _come(self, condition: Callable[[], object], within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
                    assert not self._live.failed.done(), self._live.failed.exception()
        except TimeoutError:
            raise self.in_vain() from None

    def prove(self) -> None:
        super().prove()
        assert not self._live.failed.done(), self._live.failed.exception()
        for submission, outcome in zip(self._submissions, self._loop.run_until_complete(self._outcomes()), strict=True):
            assert outcome.state == self.task(self._submissions.index(submission) + 1).state
        for process in self._drained:
            assert process.wait(READY_S) == 0

    async def _outcomes(self) -> list[translate.Outcome]:
        """As the client has learnt them."""
        async with asyncio.timeout(PATIENCE_S):
            return [await submission for submission in self._submissions]

    def close(self) -> None:
        try:
            self._loop.run_until_complete(self._close())
        finally:
            for process in self._processes:
                process.close()
            self._record.close()
            self._log.close()
        again = replay(self._record_at)
        assert (again.difference, again.remark) == (None, None), str(again.difference)

    async def _close(self) -> None:
        await self._client.__aexit__()
        await self._channel.close(None)
        await self._server.stop(0.1)
        if self._live.failed.done():
            self._live.failed.exception()  # it has been told, or something else went wrong before
