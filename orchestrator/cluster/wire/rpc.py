"""Services as their `.proto` describes them: handlers for a server, callables for a channel, settings of both.

An implementation has a method of the same name for every method of the service.
"""

from __future__ import annotations

import asyncio
import logging
import random
import selectors
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no stubs

from orchestrator.cluster.wire.frames import reader
from orchestrator.cluster.wire.proto import stream_pb2, watch_pb2, wire_pb2
from orchestrator.core import redialling

COORDINATOR: ServiceDescriptor = wire_pb2.DESCRIPTOR.services_by_name["CoordinatorService"]
REGISTRY: ServiceDescriptor = wire_pb2.DESCRIPTOR.services_by_name["WorkerRegistryService"]
WORKER: ServiceDescriptor = wire_pb2.DESCRIPTOR.services_by_name["WorkerService"]
WORKER_STREAM: ServiceDescriptor = stream_pb2.DESCRIPTOR.services_by_name["WorkerStream"]
CLIENT_STREAM: ServiceDescriptor = stream_pb2.DESCRIPTOR.services_by_name["ClientStream"]
CLUSTER_VIEW: ServiceDescriptor = watch_pb2.DESCRIPTOR.services_by_name["ClusterView"]

log = logging.getLogger("orchestrator.rpc")

Item = TypeVar("Item")

LAST_TURNS_S = 1.0
STOPPED = "the coordinator stopped: "
"""How the details of status INTERNAL begin when a coordinator stops because of a fault of its own."""
MESSAGE_BYTES = 8 << 20  # more than a result of four bytes a character, with its error, or all that a worker holds
FILL_BYTES = 2 << 20
FILL_ITEMS = 5_000
"""As far as a message is filled: what takes longer to read delays what others say. A larger item travels alone."""
NUMBER_BYTES = 10  # the longest varint
PENDING_CALLS = 20_000  # as many as workers, who all come at once; each takes some 20 KiB
PENDING_S = 600  # how long one of them may wait
CONNECTING_MS = 2_000  # for one attempt: a busy process takes long to answer
ALIVE_EVERY_S, ALIVE_WITHIN_S = 20.0, 30.0
"""A server asks a connection that was quiet for so long whether anybody is there, and closes it if no answer comes."""
# A process that is stopped for a while, on either side, is not a broken connection: only long silence is.
_COMMON: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
]
SERVER_OPTIONS = [
    *_COMMON,
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a port that is shared
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # What comes before anybody reads it waits in this process: left to itself, the window grows to megabytes a call.
    ("grpc.http2.bdp_probe", 0),
    # Calls that have come, but that the loop has not taken yet. Above the first number grpc cancels some of the new
    # ones, above the second one all of them. The defaults, 1,000 and 3,000, are less than a burst of submissions.
    ("grpc.server.max_pending_requests", PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_CALLS),
    ("grpc.server_max_unrequested_time_in_server", PENDING_S),
]
CHANNEL_OPTIONS = [
    *_COMMON,
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 300_000),
    ("grpc.http2.ping_timeout_ms", 300_000),
    ("grpc.initial_reconnect_backoff_ms", round(1000 * redialling.BACKOFF_MIN_S)),
    ("grpc.min_reconnect_backoff_ms", CONNECTING_MS),
    ("grpc.max_reconnect_backoff_ms", round(1000 * redialling.BACKOFF_MAX_S)),
    ("grpc.use_local_subchannel_pool", 1),  # a channel's failures are no other channel's reason to wait
    ("grpc.enable_http_proxy", 0),
]


class Room:
    """What still fits into a message. Sizes are upper bounds of what items take on the wire, in bytes."""

    def __init__(self, most_items: int = FILL_ITEMS) -> None:
        self._bytes = FILL_BYTES
        self._items = most_items
        self._empty = True

    def charge(self, size: int) -> None:
        """Something is in the message already."""
        self._bytes -= size
        self._empty = False

    def take(self, waiting: deque[Item], size: Callable[[Item], int]) -> list[Item]:
        """From the front, as much as fits. Of what waits, an empty message takes one item at least."""
        taken: list[Item] = []
        room, most = self._bytes, self._items
        while waiting and len(taken) < most:
            needed = size(waiting[0])
            if needed > room and (taken or not self._empty):
                most = len(taken)  # whatever else waits is not to overtake it
                break
            room -= needed
            taken.append(waiting.popleft())
        if taken:
            self._empty = False
        self._bytes, self._items = room, most - len(taken)
        return taken

    def take_numbers(self, waiting: list[int]) -> list[int]:
        """The same of numbers."""
        if not waiting:
            return []
        most = min(self._items, max(0, self._bytes) // NUMBER_BYTES)
        taken = waiting[:most]
        del waiting[:most]
        self._items -= len(taken)
        self._bytes -= NUMBER_BYTES * len(taken)
        self._empty = False
        return taken


def take(waiting: deque[Item], size: Callable[[Item], int], most: int = FILL_ITEMS) -> list[Item]:
    """From the front, as much as fits into one message, and `most` items at most."""
    return Room(most).take(waiting, size)


LISTEN_S = 1.0


def listen_s(error: grpc.aio.AioRpcError) -> float:
    """For how many seconds nothing is to be written to a stream, where the one before it ended so.

    After a write that failed, gRPC calls the end INTERNAL, whatever the peer has said: that it has no such streams is
    heard only by whoever writes nothing.
    """
    return LISTEN_S if error.code() is grpc.StatusCode.INTERNAL else 0.0


async def first_of(*parts: Coroutine[Any, Any, Any]) -> Any:
    """Run them together until one ends; its result, or its exception.

    Of several that end at once, the first in the order of the arguments counts. The others are cancelled and awaited;
    what they raise is logged.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    first: asyncio.Task[Any] | None = None
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in tasks if task.done())
    finally:
        others = [task for task in tasks if task is not first]
        for task in others:
            task.cancel()
        for error in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(error, Exception):
                log.warning("beside what ended first: %s: %s", type(error).__name__, error)
    return first.result()


def begin(coroutine: Coroutine[Any, Any, Item]) -> asyncio.Task[Item]:
    """A task that has begun already: until it waits for something, it runs here, rather than at the loop's next turn.
    (From Python 3.12 on, that is `asyncio.Task(..., eager_start=True)`.)"""
    try:
        waits_for = coroutine.send(None)
    except Exception as over:  # it has ended, or failed, without a wait
        return asyncio.ensure_future(_ended(over))
    return asyncio.ensure_future(_rest(coroutine, waits_for))


async def _rest(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    while True:
        try:
            try:
                sent = await _wait(waits_for)
            except BaseException as error:
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(sent)
        except StopIteration as ended:
            return await _ended(ended)


async def _ended(over: Exception) -> Any:
    if isinstance(over, StopIteration):
        return over.value
    raise over


@types.coroutine
def _wait(waits_for: Any) -> Generator[Any, Any, Any]:
    return (yield waits_for)


def pauses() -> Iterator[float]:
    """Seconds between attempts to reach a coordinator."""
    return redialling.pauses(random)


def precise_loop() -> asyncio.AbstractEventLoop:
    """One whose timers are kept to microseconds, by select; the default, epoll, rounds them up to milliseconds.
    Select serves descriptors below 1024 only: not for a process that keeps many connections or subprocesses."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def server(
    idle_s: float | None = None, interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] | None = None
) -> grpc.aio.Server:
    """`idle_s`: after which a connection is closed that asks for nothing; None: never."""
    logging.getLogger(cygrpc.__name__).addFilter(_is_fault)
    options = [
        *SERVER_OPTIONS,
        ("grpc.keepalive_time_ms", round(1000 * ALIVE_EVERY_S)),
        ("grpc.keepalive_timeout_ms", round(1000 * ALIVE_WITHIN_S)),
        ("grpc.http2.ping_timeout_ms", round(1000 * ALIVE_WITHIN_S)),
        ("grpc.http2.max_pings_without_data", 0),  # any number
    ]
    if idle_s is not None:
        milliseconds = max(1, round(1000 * idle_s))
        options += [("grpc.max_connection_idle_ms", milliseconds), ("grpc.server_handshake_timeout_ms", milliseconds)]
    return grpc.aio.server(options=options, interceptors=interceptors)


def _is_fault(line: logging.LogRecord) -> bool:
    """Not that a caller went while its answer was on the way, which grpc logs with a traceback."""
    return line.exc_info is None or not isinstance(line.exc_info[1], cygrpc.ExecuteBatchError)


async def last_turns() -> None:
    """When all is closed, before the event loop ends: gRPC's own tasks have some turns left. Those that are cancelled
    then write a traceback, and asyncio complains of those that are forgotten."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=LAST_TURNS_S)


def channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def add_service(server: grpc.aio.Server, service: ServiceDescriptor, implementation: object) -> None:
    handlers = {}
    for method in service.methods:
        # What is answered by a stream is asked by one, too. To the peer it is the same: here, nothing of the request is
        # read before the implementation asks for it.
        shape = "stream_stream" if method.server_streaming else _shape(method)
        make = getattr(grpc, f"{shape}_rpc_method_handler")
        _, response = _messages(method)
        behaviour = getattr(implementation, method.name)
        handlers[method.name] = make(behaviour, reader(method.input_type), response.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    # By this each method has a queue of its own: heartbeats and reports do not wait behind a burst of submissions.
    server.add_registered_method_handlers(service.full_name, handlers)  # type: ignore[attr-defined]  # the stubs are older


def pool_of(services: Sequence[ServiceDescriptor]) -> DescriptorPool:
    """The files of these services, and those that they import: each of ours and of others has a pool of its own."""
    pool = DescriptorPool()

    def add(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            add(imported)
        pool.AddSerializedFile(file.serialized_pb)

    for service in services:
        add(service.file)
    return pool


class Stub:
    """The methods of a service on a channel, by name. None stands for an answer that is no such message."""

    def __init__(self, channel: grpc.aio.Channel, service: ServiceDescriptor) -> None:
        for method in service.methods:
            request, response = _messages(method)
            call = getattr(channel, _shape(method))
            path = f"/{service.full_name}/{method.name}"
            setattr(self, method.name, call(path, request.SerializeToString, _lenient(response.FromString)))

    def __getattr__(self, name: str) -> Any:  # for the type checker: methods are set above
        raise AttributeError(name)


def _lenient(decode: Callable[[bytes], Item]) -> Callable[[bytes], Item | None]:
    def decode_or_none(data: bytes) -> Item | None:
        try:
            return decode(data)
        except DecodeError:
            return None

    return decode_or_none


def _shape(method: MethodDescriptor) -> str:
    sides = (method.client_streaming, method.server_streaming)
    return "_".join("stream" if streams else "unary" for streams in sides)


def _messages(method: MethodDescriptor) -> tuple[Any, Any]:
    return GetMessageClass(method.input_type), GetMessageClass(method.output_type)
