"""What anybody may ask a server of ours: whether it serves (`grpc.health.v1`), and what (`grpc.reflection.v1alpha`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from orchestrator.cluster.limits import Limits
from orchestrator.cluster.newcomers import SILENCE_S, Newcomers, heard, the_request
from orchestrator.cluster.peers import Refused
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.frames import Malformed, sound

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

_Status = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[Any, Any]
Code = grpc.StatusCode


def add_health(
    server: grpc.aio.Server,
    services: Sequence[Any],
    stopping: asyncio.Event,
    *,
    watchers: int = Limits.watchers,
    silence_s: float = SILENCE_S,
) -> None:
    """The server has those services (descriptors), and serves until `stopping` is set."""
    served = (*services, HEALTH, REFLECTION)
    implementation = _Health(served, stopping, Newcomers(watchers, "too many streams watch"), silence_s)
    for service in (HEALTH, REFLECTION):
        rpc.add_service(server, service, implementation)


class _Health:
    def __init__(self, served: Sequence[Any], stopping: asyncio.Event, watchers: Newcomers, silence_s: float) -> None:
        names = [service.full_name for service in served]
        self._names = frozenset(("", *names))  # the empty one: the server as a whole
        self._stopping = stopping
        self._watchers = watchers
        self._silence_s = silence_s
        pool = rpc.pool_of(served)
        self._reflection = reflection.aio.ReflectionServicer(names, pool)  # type: ignore[attr-defined]  # the stubs lack it

    def _status(self, name: str) -> Any:
        if name not in self._names:
            return _Status(status=_Status.SERVICE_UNKNOWN)
        return _Status(status=_Status.NOT_SERVING if self._stopping.is_set() else _Status.SERVING)

    async def Check(self, request: Any, context: Context) -> Any:
        try:
            answer = self._status(sound(request).service)
        except Malformed as malformed:
            await context.abort(Code.INVALID_ARGUMENT, str(malformed))
        if answer.status == _Status.SERVICE_UNKNOWN:
            await context.abort(Code.NOT_FOUND, "no such service is served here")
        return answer

    async def List(self, request: Any, context: Context) -> Any:
        return health_pb2.HealthListResponse(statuses={name: self._status(name) for name in self._names})

    async def Watch(self, requests: AsyncIterator[Any], context: Context) -> None:
        """How it is now, and once more when that changes; with that the stream ends."""
        try:
            async with self._watchers.place():
                name = (await the_request(requests, self._silence_s)).service
                await context.write(self._status(name))
                await self._stopping.wait()
                await context.write(self._status(name))
        except (Refused, Malformed) as refused:
            await _abort(context, refused)

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: Context) -> None:
        try:
            async with self._watchers.place():
                async for answer in self._reflection.ServerReflectionInfo(heard(requests, self._silence_s), context):
                    await context.write(answer)
        except (Refused, Malformed) as refused:
            await _abort(context, refused)


async def _abort(context: Context, refused: Refused | Malformed) -> None:
    await context.abort(refused.code if isinstance(refused, Refused) else Code.INVALID_ARGUMENT, str(refused))
