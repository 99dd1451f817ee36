"""The worker's half: slots, the prefetch queue, reports, heartbeats, registration, drain.

An attempt at a worker: assigned -> waiting (all slots busy) -> running -> unreported (done, its report on the way)
-> forgotten. One that was cancelled, but can't be stopped, keeps its slot until it ends. Messages may be lost, repeated
or reordered. An assignment that was seen before is ignored, a cancel that overtakes its assignment is remembered, and a
report is repeated until it is acknowledged.

A worker that lost its coordinator works on. When it registers again in the same incarnation it says what it holds
(`held`); the answer (`registered`) names what it is to stop. A coordinator has a term, and a newer one is higher: the
worker refuses an older one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Protocol

from orchestrator.core.invariants import raise_if_broken
from orchestrator.core.model import AttemptKey

Key = AttemptKey


class WorkerEffects(Protocol):
    """What the worker makes happen; the rules are those of `core.ports.Effects`."""

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        """Answer to an assignment, sent to the coordinator; a refusal may also come later, at a drain."""

    def execute(self, key: Key, payload: object, now: float) -> None:
        """Begin the work; its end is the input `finished`."""

    def stop(self, key: Key, now: float) -> None:
        """End the work; no `finished` follows."""

    def report_start(self, key: Key, now: float) -> None: ...
    def report(self, key: Key, result: object, now: float) -> None: ...
    def cancel_done(self, key: Key, now: float) -> None: ...
    def beat(self, active: int, completed: int, now: float) -> None: ...
    def announce_drain(self, now: float) -> None: ...
    def leave(self, now: float) -> None:
        """Everything is reported: deregister and end."""

    def wake_at(self, at: float) -> None:
        """Call `wake` at that time; only the newest request counts."""


class WorkerAgent:
    """One worker process's decisions.

    `first_beat_at`: inf for a worker that learns at its registration when to beat. `report_tries`: how often a
    report is sent before it is dropped (None: until it is acknowledged). The pauses between the tries grow by
    `report_pause_s` each, up to ten times that. `can_stop`: whether the effect `stop` can end the work; if not, it is
    never asked to, and the cancel is acknowledged when the work has ended by itself.
    """

    REMEMBERED = 4096  # attempts that are over, to know a late repetition

    def __init__(
        self,
        effects: WorkerEffects,
        *,
        capacity: int,
        prefetch: float,
        heartbeat_s: float,
        first_beat_at: float,
        report_tries: int | None = None,
        report_pause_s: float = 0.2,
        can_stop: bool = True,
    ) -> None:
        self._fx = effects
        self.capacity = capacity
        self.prefetch = prefetch
        self._heartbeat_s = heartbeat_s
        self._next_beat = first_beat_at
        self._report_tries = report_tries
        self._report_pause_s = report_pause_s
        self._can_stop = can_stop
        self._slots = capacity  # that can be used at present
        self._waiting: OrderedDict[Key, object] = OrderedDict()
        self._running: dict[Key, object] = {}
        self._unwanted: dict[Key, None] = {}  # of these, what was cancelled and can't be stopped
        self._unreported: dict[Key, tuple[object, int]] = {}  # result, times sent
        self._repeat_at: OrderedDict[Key, float] = OrderedDict()
        self._over: OrderedDict[Key, None] = OrderedDict()
        self.completed = 0
        self.term = 0  # of the newest coordinator that it has registered with
        self.draining = False
        self.gone = False
        effects.wake_at(first_beat_at)

    @property
    def active(self) -> int:
        """Attempts that it holds, waiting or running."""
        return len(self._waiting) + len(self._running)

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._unreported or len(self._running) > len(self._unwanted))

    @property
    def held(self) -> tuple[Key, ...]:
        """The attempts that it answers for: waiting, running, or finished and not yet acknowledged."""
        return (*self._waiting, *self._running, *self._unreported)

    def registered(
        self, term: int, heartbeat_s: float, first_beat_at: float, dropped: Iterable[Key], now: float
    ) -> bool:
        """The coordinator's answer to a registration. False: it is older than the one before, and refused.

        The worker beats as the coordinator says; where that changes nothing, it keeps its rhythm. It stops what is
        `dropped`, and repeats at once every report that is not acknowledged.
        """
        if term < self.term:
            return False
        if heartbeat_s != self._heartbeat_s or self._next_beat == math.inf:
            self._heartbeat_s = heartbeat_s
            self._next_beat = first_beat_at
        for key in dropped:
            if self._unreported.pop(key, None) is not None:
                self._repeat_at.pop(key, None)
                self._forget(key)
                self._fx.cancel_done(key, now)
            elif key in self._running or key in self._waiting:
                self.cancel(key, now)
        if 0 < self.term < term:  # before the first one, it has heard of this one's attempts only
            self._over.clear()  # a new coordinator may count the attempts of a task from one again
        self.term = term
        self._report_again(now)
        return True

    def assigned(self, key: Key, payload: object, now: float) -> None:
        if key in self._running or key in self._waiting or key in self._unreported or key in self._over:
            return  # a repetition (of a refused one too), or cancelled before it came
        if self.draining or not self._slots or self.active >= self._slots + self.prefetch:
            self._forget(key)
            self._fx.answer(key, False, now)
            return
        self._fx.answer(key, True, now)
        if len(self._running) < self._slots:
            self._execute(key, payload, now)
        else:
            self._waiting[key] = payload

    def cancel(self, key: Key, now: float) -> None:
        """Stop an attempt, if it is here; the answer says that it is not here any more."""
        if key in self._running and not self._can_stop:
            self._unwanted[key] = None
            self._leave_when_idle(now)
            return
        if self._running.pop(key, self) is not self:
            self._fx.stop(key, now)
        self._waiting.pop(key, None)
        if key not in self._unreported:
            self._forget(key)
        self._fx.cancel_done(key, now)
        self._fill_slots(now)

    def recall(self, key: Key, now: float) -> None:
        """Give an attempt back that has not begun; the answer is that of a cancel. One that has begun goes on."""
        if key not in self._running and key not in self._unreported:
            self.cancel(key, now)

    def finished(self, key: Key, result: object, now: float) -> None:
        """The work of an attempt has ended, well or badly: `result` is what the report will say."""
        if self._running.pop(key, self) is self:
            return  # cancelled in the meantime
        if key in self._unwanted:
            del self._unwanted[key]
            self._forget(key)
            self._fx.cancel_done(key, now)
            self._fill_slots(now)
            return
        self.completed += 1
        self._unreported[key] = (result, 1)
        self._fx.report(key, result, now)
        self._fill_slots(now)

    def reported(self, key: Key, now: float) -> None:
        """The coordinator has the report."""
        if self._unreported.pop(key, None) is not None:
            self._repeat_at.pop(key, None)
            self._forget(key)
            self._leave_when_idle(now)

    def report_failed(self, key: Key, now: float) -> None:
        """The report did not get through."""
        if key not in self._unreported:
            return
        _, sent = self._unreported[key]
        if self._report_tries is not None and sent >= self._report_tries:
            self.reported(key, now)
            return
        self._repeat_at[key] = now + self._report_pause_s * min(sent, 10)
        self._rearm()

    def connection_lost(self, now: float) -> None:
        """No report that is on its way is acknowledged any more."""
        for key in self._unreported:
            self.report_failed(key, now)

    def start_over(self, now: float) -> None:
        """By the wire contract, to register again is to have lost everything: what the worker holds is requeued.

        So it stops that here, and reports what it had finished.
        """
        if not self._can_stop:
            self._unwanted.update(dict.fromkeys(self._running))
        else:
            for key in self._running:
                self._fx.stop(key, now)
                self._forget(key)
            self._running.clear()
        for key in self._waiting:
            self._forget(key)
        self._waiting.clear()
        self._report_again(now)

    def drain(self, now: float) -> None:
        """Take nothing new, hand back what has not begun, finish and report the rest, then leave."""
        if self.draining:
            return
        self.draining = True
        self._fx.announce_drain(now)
        self._hand_back_waiting(now)
        self._leave_when_idle(now)

    def use_slots(self, slots: int, now: float) -> None:
        """So many slots can be used from now on. What waits goes back to the coordinator if there is none."""
        self._slots = slots
        if not slots:
            self._hand_back_waiting(now)
        self._fill_slots(now)

    def wake(self, now: float) -> None:
        """Beats and repetitions that are due. Beats that were missed in a pause are not made up for."""
        if self.gone:
            return
        if now >= self._next_beat:
            self._fx.beat(self.active, self.completed, now)
            self._next_beat += self._heartbeat_s * max(1, math.ceil((now - self._next_beat) / self._heartbeat_s))
            if self._next_beat <= now:
                self._next_beat += self._heartbeat_s
        if self._repeat_at:
            self._repeat_reports(now)
        self._rearm()

    def _repeat_reports(self, now: float) -> None:
        for key in [key for key, at in self._repeat_at.items() if at <= now]:
            del self._repeat_at[key]
            result, sent = self._unreported[key]
            self._unreported[key] = (result, sent + 1)
            self._fx.report(key, result, now)

    def check(self) -> None:
        """Raise InvariantError where an invariant does not hold."""
        raise_if_broken(self._violations())

    def _violations(self) -> Iterator[str]:
        if len(self._running) > self.capacity:
            yield f"{len(self._running)} attempts run in {self.capacity} slots"
        if self._waiting and len(self._running) < self._slots:
            yield "an attempt waits beside a free slot"
        if self.active > self.capacity + self.prefetch:
            yield f"the worker holds {self.active} attempts, more than it may"
        if not set(self._unwanted) <= set(self._running):
            yield "an attempt is to end that does not run"
        if not set(self._repeat_at) <= set(self._unreported):
            yield "a report is to be repeated that is not due"

    def _report_again(self, now: float) -> None:
        """After a registration: every report that is not acknowledged, as if for the first time."""
        self._repeat_at.clear()
        for key, (result, _) in self._unreported.items():
            self._unreported[key] = (result, 1)
            self._fx.report(key, result, now)
        self._rearm()
        self._leave_when_idle(now)

    def _execute(self, key: Key, payload: object, now: float) -> None:
        self._running[key] = payload
        if self.prefetch:
            self._fx.report_start(key, now)
        self._fx.execute(key, payload, now)

    def _hand_back_waiting(self, now: float) -> None:
        while self._waiting:
            key, _ = self._waiting.popitem(last=False)
            self._forget(key)
            self._fx.answer(key, False, now)

    def _fill_slots(self, now: float) -> None:
        while self._waiting and len(self._running) < self._slots:
            self._execute(*self._waiting.popitem(last=False), now)
        self._leave_when_idle(now)

    def _forget(self, key: Key) -> None:
        self._over[key] = None
        if len(self._over) > self.REMEMBERED:
            self._over.popitem(last=False)

    def _leave_when_idle(self, now: float) -> None:
        if self.draining and self.idle and not self.gone:
            self.gone = True
            self._fx.leave(now)

    def _rearm(self) -> None:
        at = self._next_beat
        if self._repeat_at:
            at = min(at, min(self._repeat_at.values()))
        self._fx.wake_at(at)
