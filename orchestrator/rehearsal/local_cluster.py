"""A cluster of real processes on this machine, none of which outlives it.

The coordinator and every worker process lead a process group of their own, so that a signal reaches a worker with
all its subprocesses. All of them are killed when the cluster is closed, when the interpreter ends, and, by the
kernel, when this process is killed or the thread that started them ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

READY_S = 30.0
LOOK_S = 0.1
"""Between two looks at the coordinator that a process is waited for with."""


class NotReady(RuntimeError):
    """A process ended, or took too long, before it was ready."""


class Process:
    """One `orchestrator` command in a process group of its own, and what it logs.

    `controlled`: it hears what `control` says. `standby`: one of that kind, which loads and waits for `begin`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: IO[bytes] | None = None,
        controlled: bool = False,
        standby: bool = False,
    ) -> None:
        self.arguments = list(arguments)
        self._line = b""
        self._control = self._loading = -1
        self._ready, ready = os.pipe()
        own = ["--ready-fd", str(ready), "--die-with", str(os.getpid())]
        theirs = [ready]
        if controlled or standby:
            heard, self._control = os.pipe()
            own += ["--control-fd", str(heard)]
            theirs.append(heard)
            if standby:
                self._loading, loaded = os.pipe()
                theirs.append(loaded)
                self.control({"standby": loaded})
        waits = standby and arguments[0] == "coordinator"  # a worker hears its control lines by itself
        module = "orchestrator.cli.standing_by" if waits else "orchestrator.cli.cluster"
        try:
            self._process = subprocess.Popen(
                # -P: no module in the current directory replaces one of the standard library.
                [sys.executable, "-P", "-m", module, *arguments, *own],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; negative: the signal that killed it; None: it runs."""
        return self._process.poll()

    def ready(self, coordinator: Process | None = None) -> str:
        """Wait for the line that it writes when it is ready. Raises NotReady, also if that coordinator ends first."""
        deadline = time.monotonic() + READY_S
        while not self._line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise NotReady(f"not ready after {READY_S:g} s: {' '.join(self.arguments)}")
            if coordinator is not None and coordinator.status is not None:
                raise NotReady(f"exit status {coordinator.status}: {' '.join(coordinator.arguments)}")
            if not select.select([self._ready], [], [], min(left_s, LOOK_S))[0]:
                continue
            chunk = os.read(self._ready, 4096)
            if not chunk:
                raise NotReady(f"exit status {self.wait(READY_S)}: {' '.join(self.arguments)}")
            self._line += chunk
        return self._line.decode().strip()

    def loaded(self) -> None:
        """Wait until one on standby could begin at once, or has ended. Raises NotReady."""
        if not select.select([self._loading], [], [], READY_S)[0]:
            raise NotReady(f"not loaded after {READY_S:g} s: {' '.join(self.arguments)}")

    def begin(self) -> None:
        """Let one on standby begin, as soon as it is loaded."""
        self.control({"begin": True})

    def signal(self, number: int) -> None:
        """To the whole group, such as SIGSTOP, SIGCONT, SIGKILL; not once its end is known, and its number free."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def control(self, line: dict[str, Any]) -> None:
        """Tell it to behave otherwise; one that has ended hears nothing."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, json.dumps(line).encode() + b"\n")

    def terminate(self) -> None:
        """SIGTERM to the process itself: a worker drains."""
        self._process.terminate()

    def wait(self, timeout_s: float) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """End the group at once, and reap its leader."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.kill()
        for descriptor in (self._ready, self._control, self._loading):
            if descriptor >= 0:
                os.close(descriptor)
        self._ready = self._control = self._loading = -1


class LocalCluster:
    """`with LocalCluster(4, capacity=8) as cluster`: a coordinator at `cluster.address`, workers w1 to w4.

    `policies`: arguments of `orchestrator coordinator`; `options`: of `orchestrator worker`. `heartbeat_s`: how often
    workers beat, if the policies do not say. `log`: a file for what all processes log, the caller's stderr if None.
    """

    def __init__(
        self,
        workers: int = 0,
        *,
        capacity: int = 2,
        prefetch: int = 0,
        executor: str = "process",
        heartbeat_s: float | None = None,
        workers_per_process: int = 1,
        policies: Sequence[str] = (),
        options: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.names = [f"w{number}" for number in range(1, workers + 1)]
        self.address = ""
        self._per_process = workers_per_process
        rhythm = [] if heartbeat_s is None else [f"policies.detection.heartbeat_s={heartbeat_s}"]
        self._policies = [*rhythm, *policies]
        self._options = [
            *("--capacity", str(capacity)),
            *("--prefetch", str(prefetch)),
            *("--executor", executor),
            *("--port", "0"),
            *options,
        ]
        self._log = log.open("ab", buffering=0) if log else None
        self._processes: list[Process] = []
        self._hosts: dict[str, Process] = {}
        self._replaced: list[Process] = []
        self._relays: dict[str, Process] = {}

    def __enter__(self) -> LocalCluster:
        atexit.register(self.close)
        try:
            self.start_coordinator()
            groups = [
                self.names[begin : begin + self._per_process] for begin in range(0, len(self.names), self._per_process)
            ]
            for process in [self.start_worker(*group) for group in groups]:
                process.ready(self.coordinator)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_coordinator(self) -> None:
        """On a free port at first, on the same one again later."""
        self.coordinator = self._start(self._coordinators_arguments())
        self.address = self.coordinator.ready()

    def prepare_coordinator(self) -> Process:
        """One on standby, to come in the place of the one that there is."""
        return self._start(self._coordinators_arguments(), standby=True)

    def begin_coordinator(self, process: Process) -> None:
        """From now on it is this one, which was on standby. The one before has ended."""
        self._replaced.append(self.coordinator)
        self.coordinator = process
        process.begin()
        self._bury()

    def _coordinators_arguments(self) -> list[str]:
        port = self.address.rpartition(":")[2] or "0"
        return ["coordinator", "--port", port, *self._policies]

    def start_worker(self, *names: str, options: Sequence[str] = ()) -> Process:
        """A process of workers of these names; `ready()` of it waits until they are registered."""
        process = self._start(self._arguments_of(names, options), controlled=True)
        self._move_in(names, process)
        return process

    def prepare_worker(self, *names: str, options: Sequence[str] = ()) -> Process:
        """One on standby for these names, whoever has them now."""
        return self._start(self._arguments_of(names, options), standby=True)

    def begin_worker(self, *names: str, process: Process) -> None:
        """From now on the names are those of this process, which was on standby for them."""
        process.begin()
        self._move_in(names, process)

    def _arguments_of(self, names: Sequence[str], options: Sequence[str]) -> list[str]:
        ids = [part for name in names for part in ("--id", name)]
        relay = self.relay(names[0])
        address = relay.ready() if relay is not None else self.address
        return ["worker", "--coordinator", address, *ids, *self._options, *options]

    def _move_in(self, names: Sequence[str], process: Process) -> None:
        self._replaced += [self._hosts[name] for name in names if name in self._hosts]
        self._hosts.update(dict.fromkeys(names, process))
        self._bury()

    def start_relay(self, *names: str, seed: int = 0, call_timeout_s: float = 2.0) -> Process:
        """From now on processes of workers of these names reach the coordinator through it."""
        options = ["--seed", str(seed), "--call-timeout", str(call_timeout_s)]
        process = self._start(["relay", "--coordinator", self.address, *options], controlled=True)
        self._relays.update(dict.fromkeys(names, process))
        return process

    def relay(self, name: str) -> Process | None:
        """The relay between that worker and the coordinator, if there is one."""
        return self._relays.get(name)

    def worker(self, name: str) -> Process:
        """The process that the worker of that name lives in, or lived in last."""
        return self._hosts[name]

    def close(self) -> None:
        """Kill whatever is left."""
        for process in self._processes:
            process.signal(signal.SIGKILL)
        for process in self._processes:
            process.close()
        self._processes.clear()
        if self._log is not None:
            self._log.close()
            self._log = None
        atexit.unregister(self.close)

    def _bury(self) -> None:
        """Close what has ended and been replaced: a run may restart more processes than there are descriptors."""
        hosts = {*self._hosts.values(), self.coordinator}
        ended = [process for process in self._replaced if process.status is not None and process not in hosts]
        for process in dict.fromkeys(ended):
            process.close()
            self._processes.remove(process)
        self._replaced = [process for process in self._replaced if process not in ended]

    def _start(self, arguments: Sequence[str], controlled: bool = False, standby: bool = False) -> Process:
        process = Process(arguments, self._log, controlled, standby)
        self._processes.append(process)
        return process
