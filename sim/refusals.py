"""What becomes of tasks that the coordinator refuses: their clients submit them again, and some give up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.core.admission import pause_s
from orchestrator.core.model import Task
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim import keys
from sim.environment import Environment
from sim.inbox import Handler


class Refusals:
    """What chance does to a refusal belongs to its task and to how often that was refused. `given_up`: called with the
    number of a task that its client wants no more; `submit`: with one that arrives again."""

    def __init__(
        self,
        env: Environment,
        received: Callable[[Handler], Handler],
        scenario: Scenario,
        replication: int,
        submit: Callable[[Task], None],
        given_up: Callable[[int], None],
    ) -> None:
        network = scenario.network
        self._env = env
        self._submit = submit
        self._give_up_after_s = scenario.workload.give_up_after_s
        self._delay, self._loss, self._rpc_timeout_s = network.delay_of("submit"), network.loss, network.rpc_timeout_s
        self._stream = partial(generator, scenario.seed, replication, "refused")
        self._arrive = received(self._come)
        self._given_up = given_up
        self._refused: dict[int, tuple[int, float]] = {}  # how often, and since when
        self._pausing: set[int] = set()
        self.over: set[int] = set()
        """The tasks whose clients have given up."""

    def later(self, task: Task) -> None:
        """It has been refused."""
        now = self._env._now
        number: int = task.id  # type: ignore[assignment]  # ids are row numbers here
        if number in self._pausing:
            return  # the network's copy
        times, since = self._refused.get(number, (0, now))
        rng = self._stream(number, times)
        pause = pause_s(times + 1, now - since, self._give_up_after_s, rng.random())
        if pause is None:
            self.over.add(number)
            self._given_up(number)
            return
        self._refused[number] = times + 1, since
        self._pausing.add(number)
        there_and_back = float(self._delay.sample(rng, 2).sum())
        if self._loss:
            there_and_back += self._rpc_timeout_s * float(rng.geometric(1 - self._loss) - 1)
        self._env.call_at(now + there_and_back + pause, keys.submit_again_key(number), self._arrive, task)

    def forget_pauses(self) -> None:
        """The coordinator is gone; who submits to the next one does not ask here."""
        self._pausing.clear()

    def _come(self, task: Task) -> None:
        self._pausing.discard(task.id)
        self._submit(task)
