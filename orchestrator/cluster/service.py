"""What the coordinator's services have in common: how a request is refused, and what large answers may take."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import grpc.aio

from orchestrator.cluster.answers import LARGE_CHARACTERS, Unread
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.peers import Refused
from orchestrator.cluster.wire import contract
from orchestrator.cluster.wire.frames import Malformed
from orchestrator.core.model import Task

Context = grpc.aio.ServicerContext[Any, Any]
Code = grpc.StatusCode


class Service:
    """`unread`: of the coordinator, whose services share it."""

    def __init__(self, live: LiveCoordinator, unread: Unread) -> None:
        self._live = live
        self._unread = unread

    def _status(self, task: Task, context: Context) -> Any:
        """What is to be told of a task. Raises Refused."""
        answer = contract.status_message(task)
        self._take_room(len(answer.result) + len(answer.error), context)
        return answer

    def _take_room(self, characters: int, context: Context) -> None:
        """For an answer, until its peer has read it. Raises Refused where there is none."""
        unread = self._unread
        if characters >= LARGE_CHARACTERS:
            peer = context.peer()
            if not unread.take(peer, characters):
                reason = f"{unread.of(peer)} characters of other answers are not read yet"
                raise Refused(Code.RESOURCE_EXHAUSTED, reason)
            context.add_done_callback(lambda _: unread.give_back(peer, characters))  # type: ignore[arg-type]

    async def _abort(self, context: Context, refused: Refused | Malformed) -> NoReturn:
        code = refused.code if isinstance(refused, Refused) else Code.INVALID_ARGUMENT
        if code not in (Code.UNAVAILABLE, Code.INTERNAL):
            self._live.lines.warning(host_of(context), "refused a request of %s: %s", context.peer(), refused)
        await context.abort(code, str(refused))
        raise AssertionError("abort raises")


def host_of(context: Context) -> str:
    """Where the peer is; the same for all its connections."""
    return context.peer().rpartition(":")[0]
