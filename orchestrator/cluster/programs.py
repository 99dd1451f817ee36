"""What a worker's subprocesses execute: an app, which the worker itself never imports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import IO, NamedTuple

from orchestrator.cluster import child, executions, tasks
from orchestrator.cluster.app import work_of
from orchestrator.cluster.child import BUILT_IN, Unusable
from orchestrator.cluster.jobs import Ended


class Offer(NamedTuple):
    """A kind that an app has, as it was declared."""

    is_async: bool = False
    execution_timeout_s: float | None = None
    max_attempts: int | None = None

    def may_retry(self, attempt: int) -> bool:
        return self.max_attempts is None or attempt < self.max_attempts


_BUILT_IN = {name: Offer() for name in tasks.app.tasks}
_UNKNOWN = Offer()


class Program(NamedTuple):
    """`spec`: MODULE:NAME of the app; `offers`: its kinds. A subprocess may have `memory_bytes` of its own, and
    executes `max_tasks` at most; None for no limit."""

    spec: str = BUILT_IN
    offers: Mapping[str, Offer] = _BUILT_IN
    memory_bytes: int | None = None
    max_tasks: int | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is the user's own, about which nothing is known."""
        return self.spec != BUILT_IN

    def offer(self, kind: str) -> Offer:
        return self.offers.get(work_of(kind), _UNKNOWN)

    def explained(self, ended: Ended) -> Ended:
        """With the limit that it reached, where it had too little memory."""
        kind, colon, rest = ended.error.partition("\n")
        if self.memory_bytes is None or ended.succeeded or not kind.startswith("MemoryError"):
            return ended
        told = f"MemoryError: its subprocess may have {self.memory_bytes >> 20} MiB (--memory-limit){colon}{rest}"
        return ended._replace(error=told)

    def spawn(
        self, descriptor: int, role: str = "plain", *, board: int | None = None, output: int | IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """A subprocess at the other end of that socket, in the worker's process group, so that a signal to the group
        reaches it. `output`: what it prints goes there. Raises OSError."""
        path = [os.path.abspath(entry) for entry in sys.path]
        # The built-in tasks need no installed package, and what sets those up takes its time.
        flags = ["-P", "-X", "faulthandler"] if self.is_own else ["-I", "-S"]
        arguments = [child.__file__, *map(str, (descriptor, os.getpid(), self.spec, role, board or 0))]
        arguments += [str(self.memory_bytes or 0), *path]
        return subprocess.Popen(
            [sys.executable, *flags, *arguments],
            pass_fds=[descriptor, *([] if board is None else [board])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def program_of(spec: str, memory_bytes: int | None = None, max_tasks: int | None = None) -> Program:
    """Of that app, imported by a subprocess. Raises Unusable where it can't be."""
    ours, theirs = socket.socketpair()
    program = Program(spec, {}, memory_bytes, max_tasks)
    told = ""
    incoming = executions.Incoming()
    with ours, theirs, program.spawn(theirs.fileno(), "describe") as process:
        theirs.close()
        while piece := ours.recv(executions.PIECE_BYTES):
            for message in incoming.feed(piece):
                if isinstance(message, executions.Listening):
                    raise Unusable(message.reason)
                if isinstance(message, executions.Progress):
                    told = message.text
    if not told:
        raise Unusable(f"{spec!r} can't be imported: {why(process.returncode, 'the process that tried')}")
    offers = {name: Offer(**offer) for name, offer in json.loads(told).items()}
    if not offers:
        raise Unusable(f"the app {spec!r} has no tasks")
    return program._replace(offers=offers)


def why(status: int, whose: str = "its executor") -> str:
    """How a process ended, by its exit status."""
    if status < 0:
        return f"{whose} was killed by {signal_name(-status)}"
    return f"{whose} exited with status {status}"


def signal_name(number: int) -> str:
    return signal.Signals(number).name if number in signal.Signals.__members__.values() else f"signal {number}"


def kill_all(processes: Iterable[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def descendants(process: int) -> list[int]:
    """The processes that one has begun, and those of these, as far as they are known."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        return found
    return found + [one for child in found for one in descendants(child)]
