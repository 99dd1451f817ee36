"""Which executor a worker has, and which part of it executes a kind."""

from __future__ import annotations

from typing import Literal

from orchestrator.cluster.coroutines import CoroutineExecutor
from orchestrator.cluster.executor import (
    Executor,
    Finished,
    InlineExecutor,
    Progressed,
    SlotsChanged,
    ThreadExecutor,
)
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.programs import Program
from orchestrator.cluster.subprocesses import ProcessExecutor
from orchestrator.core.model import AttemptKey as Key

Kind = Literal["process", "thread", "inline"]


def make_executor(
    kind: Kind,
    slots: int,
    finished: Finished,
    slots_changed: SlotsChanged | None = None,
    program: Program | None = None,
) -> Executor:
    """`slots_changed` is called on the event loop, never from inside `start` or `stop`, with the number of slots that
    can be used from now on; before the first call that is all of them."""
    program = program or Program()
    if kind == "thread":
        return ThreadExecutor(finished)
    if kind == "inline":
        return InlineExecutor(finished)
    coroutines = [offer.is_async for offer in program.offers.values()]
    if not any(coroutines):
        return ProcessExecutor(slots, finished, slots_changed, program)
    if all(coroutines):
        return CoroutineExecutor(finished, program)
    return MixedExecutor(
        ProcessExecutor(slots, finished, slots_changed, program), CoroutineExecutor(finished, program), program
    )


class MixedExecutor(Executor):
    """Plain functions in subprocesses, async ones on their event loop."""

    def __init__(self, plain: ProcessExecutor, coroutines: CoroutineExecutor, program: Program) -> None:
        super().__init__(plain.finished)
        self._plain = plain
        self._coroutines = coroutines
        self._program = program
        self._asynchronous: set[Key] = set()
        coroutines.finished = self._finished_async

    def _finished_async(self, key: Key, ended: Ended) -> None:
        self._asynchronous.discard(key)
        self.finished(key, ended)

    def hear_progress(self, progressed: Progressed) -> None:
        self._plain.hear_progress(progressed)
        self._coroutines.hear_progress(progressed)

    def start(self, key: Key, kind: str, payload: str) -> None:
        if self._program.offer(kind).is_async:
            self._asynchronous.add(key)
            self._coroutines.start(key, kind, payload)
        else:
            self._plain.start(key, kind, payload)

    def stop(self, key: Key) -> None:
        if key in self._asynchronous:
            self._asynchronous.discard(key)
            self._coroutines.stop(key)
        else:
            self._plain.stop(key)

    def close(self) -> None:
        self._plain.close()
        self._coroutines.close()

    def set_speed(self, speed: float) -> None:
        self._plain.set_speed(speed)
        self._coroutines.set_speed(speed)
