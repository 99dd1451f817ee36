"""Clients that lose patience: what they have submitted, and submit again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.scenario.driving import Patience
from orchestrator.scenario.workload import Resubmit
from sim import keys
from sim.draws import AttemptDraws
from sim.environment import Environment
from sim.inbox import Handler


class Impatient:
    """`repeat(task, at_s)`: makes the work of a task another one, and gives its id. A message ends in task, priority
    and payload."""

    def __init__(
        self,
        env: Environment,
        resubmit: Resubmit,
        draws: AttemptDraws,
        repeat: Callable[[int, float], int],
    ) -> None:
        self._env = env
        self._keys = resubmit.keys
        self._draws = draws
        self._repeat = repeat
        self._sent: dict[int, tuple[Handler, Any]] = {}
        self._patience = Patience(resubmit, env.call_at, self._again, keys.patience_key(0))
        self.settled = self._patience.settled

    def patient(self, sending: Callable[[Handler], Handler]) -> Callable[[Handler], Handler]:
        """The same ways to send, by clients that watch what becomes of it."""
        return lambda handler: self._sending(sending(handler))

    def _sending(self, send: Handler) -> Handler:
        def submit(message: Any) -> None:
            self._sent.setdefault(message[-3], (send, message))
            self._patience.submitted(message[-3], self._env._now)
            send(message)

        return submit

    def _again(self, task: int, at_s: float) -> int:
        send, message = self._sent[task]
        if self._keys:
            send(message)
            return task
        number = self._repeat(task, at_s)
        *head, _, priority, payload = message
        send((*head, number, priority, self._draws.again(number, payload)))
        return number
