"""A client, a worker and a coordinator that know only the wire contract, written with plain threads."""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc  # type: ignore[import-untyped]

HERE = Path(__file__).parent
PENDING, ASSIGNED, RUNNING, COMPLETED, FAILED = range(5)


def _compile() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        assert protoc.main(["protoc", f"-I{HERE}", f"--descriptor_set_out={out}", "reference.proto"]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(files.file[0].SerializeToString())
    return pool


POOL = _compile()


def message(name: str, **fields: Any) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"orchestrator.{name}"))(**fields)


class Calls:
    """A service's methods on a channel: `calls.SubmitTask(payload="17")`."""

    def __init__(self, channel: grpc.Channel, service: str) -> None:
        for method in POOL.FindServiceByName(f"orchestrator.{service}").methods:
            setattr(self, method.name, self._call(channel, f"/orchestrator.{service}/{method.name}", method))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    @staticmethod
    def _call(channel: grpc.Channel, path: str, method: Any) -> Callable[..., Any]:
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        call = channel.unary_unary(path, request.SerializeToString, response.FromString)
        return lambda timeout=10.0, **fields: call(request(**fields), timeout=timeout)


def serve(service: str, implementation: Any, server: grpc.Server) -> None:
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(implementation, method.name),
            message_factory.GetMessageClass(method.input_type).FromString,
            message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
        for method in POOL.FindServiceByName(f"orchestrator.{service}").methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"orchestrator.{service}", handlers),))


def wait_until(true: Callable[[], Any], what: str = "", timeout_s: float = 20.0) -> Any:
    """Bounded: the value of `true()` as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)
    return value


class Client:
    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.calls = Calls(self.channel, "CoordinatorService")

    def submit(self, payload: str, priority: int = 1) -> str:
        task_id: str = self.calls.SubmitTask(payload=payload, priority=priority).task_id
        return task_id

    def status(self, task_id: str) -> Any:
        return self.calls.GetTaskStatus(task_id=task_id)

    def metrics(self) -> Any:
        return self.calls.GetMetrics()

    def settled(self, task_id: str, timeout_s: float = 20.0) -> Any:
        """Its status as soon as it is COMPLETED or FAILED."""

        def status() -> Any:
            answer = self.status(task_id)
            return answer if answer.state >= COMPLETED else None

        return wait_until(status, f"task {task_id} settled", timeout_s)

    def close(self) -> None:
        self.channel.close()


class Worker:
    """Registers, listens and executes in threads. A test may hold its tasks back, or let it refuse."""

    def __init__(self, coordinator: str, name: str, capacity: int = 2, heartbeat_s: float = 0.1) -> None:
        self.name = name
        self.capacity = capacity
        self.heartbeat_s = heartbeat_s
        self.taken: list[Any] = []  # payloads in the order of assignment
        self.go = threading.Event()  # executions wait for it
        self.go.set()
        self.refuses = False
        self.reports = True
        self.active = 0
        self.completed = 0
        self._lock = threading.Lock()
        self._silent = threading.Event()
        self._channel = grpc.insecure_channel(coordinator)
        self.calls = Calls(self._channel, "WorkerRegistryService")
        self._pool = ThreadPoolExecutor(max(capacity, 1))
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        serve("WorkerService", self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def listen(self) -> Worker:
        self._server.start()
        return self

    def register(self) -> Worker:
        answer = self.calls.RegisterWorker(
            worker_id=self.name, address=f"localhost:{self.port}", capacity=self.capacity
        )
        assert answer.success
        return self

    def start(self) -> Worker:
        """As the reference does: it registers first, then listens, then beats."""
        self.register().listen()
        threading.Thread(target=self._beat_on, daemon=True).start()
        return self

    def beat(self) -> bool:
        known: bool = self.calls.Heartbeat(
            worker_id=self.name, active_tasks=self.active, completed_tasks=self.completed
        ).acknowledged
        return known

    def report(self, task_id: str, state: int = COMPLETED, result: str = "", error: str = "", ms: int = 0) -> bool:
        outcome = message("TaskResult", task_id=task_id, state=state, result=result, error=error, latency_ms=ms)
        known: bool = self.calls.ReportResult(worker_id=self.name, result=outcome).acknowledged
        return known

    def silence(self) -> None:
        """No more heartbeats."""
        self._silent.set()

    def unlisten(self) -> None:
        self._server.stop(0).wait()

    def close(self) -> None:
        self.silence()
        self.reports = False
        self.go.set()
        self._server.stop(0)
        self._pool.shutdown(wait=True)
        self._channel.close()

    def AssignTask(self, request: Any, context: Any) -> Any:
        with self._lock:
            if self.refuses or self.active >= self.capacity:
                return message("AssignTaskResponse", accepted=False)
            self.active += 1
            self.taken.append(request.task)
        self._pool.submit(self._execute, request.task)
        return message("AssignTaskResponse", accepted=True)

    def _execute(self, task: Any) -> None:
        self.go.wait()
        with self._lock:
            self.active -= 1
            self.completed += 1
        if self.reports:
            self.report(task.task_id, result=f"{self.name} did {task.payload}")

    def _beat_on(self) -> None:
        while not self._silent.wait(self.heartbeat_s):
            try:
                self.beat()
            except (grpc.RpcError, ValueError):
                return


class Coordinator:
    """The least that a worker and a client of the contract need: first come, first served, to any free slot."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.queue: deque[str] = deque()
        self.workers: dict[str, dict[str, Any]] = {}
        self.registrations: list[str] = []
        self.beats: list[Any] = []
        self.reports: list[Any] = []
        self.unreachable_reports = 0  # so many reports fail before one gets through
        self.knows_workers = True
        self.refusals = 0
        self._lock = threading.RLock()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        serve("CoordinatorService", self, self._server)
        serve("WorkerRegistryService", self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._pool = ThreadPoolExecutor(16)
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown(wait=True)
        for worker in self.workers.values():
            worker["channel"].close()

    def submit(self, payload: str) -> str:
        with self._lock:
            task_id = uuid.uuid4().hex
            self.tasks[task_id] = {"payload": payload, "state": PENDING, "result": "", "error": "", "executions": 0}
            self.queue.append(task_id)
        self._dispatch()
        return task_id

    def settled(self, task_id: str) -> dict[str, Any]:
        wait_until(lambda: self.tasks[task_id]["state"] >= COMPLETED, f"task {task_id} settled")
        return self.tasks[task_id]

    def _dispatch(self) -> None:
        with self._lock:
            for worker in self.workers.values():
                while self.queue and worker["load"] < worker["capacity"]:
                    worker["load"] += 1
                    task_id = self.queue.popleft()
                    self.tasks[task_id]["state"] = ASSIGNED
                    self._pool.submit(self._assign, worker, task_id)

    def _assign(self, worker: dict[str, Any], task_id: str) -> None:
        task = message("TaskPayload", task_id=task_id, priority=1, payload=self.tasks[task_id]["payload"])
        try:
            accepted = worker["calls"].AssignTask(task=task, timeout=2.0).accepted
        except grpc.RpcError:
            accepted = False
        if not accepted:
            with self._lock:
                self.refusals += 1
                worker["load"] = worker["capacity"]  # nothing more for this one
                self.queue.append(task_id)

    def SubmitTask(self, request: Any, context: Any) -> Any:
        if not request.payload:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "empty payload")
        return message("SubmitTaskResponse", task_id=self.submit(request.payload))

    def GetTaskStatus(self, request: Any, context: Any) -> Any:
        task = self.tasks.get(request.task_id)
        if task is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown task")
        assert task is not None
        return message(
            "GetTaskStatusResponse",
            task_id=request.task_id,
            state=task["state"],
            result=task["result"],
            error=task["error"],
            latency_ms=7,
        )

    def GetMetrics(self, request: Any, context: Any) -> Any:
        return message("GetMetricsResponse", alive_workers=len(self.workers), throughput_tasks_per_sec=1.5)

    def RegisterWorker(self, request: Any, context: Any) -> Any:
        channel = grpc.insecure_channel(request.address)
        with self._lock:
            self.registrations.append(request.worker_id)
            self.workers[request.worker_id] = {
                "channel": channel,
                "calls": Calls(channel, "WorkerService"),
                "capacity": request.capacity,
                "load": 0,
            }
            self.knows_workers = True
        self._dispatch()
        return message("RegisterWorkerResponse", success=True)

    def Heartbeat(self, request: Any, context: Any) -> Any:
        self.beats.append(request)
        return message("HeartbeatResponse", acknowledged=self.knows_workers)

    def ReportResult(self, request: Any, context: Any) -> Any:
        self.reports.append(request)
        if self.unreachable_reports > 0:
            self.unreachable_reports -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        result = request.result
        with self._lock:
            task = self.tasks.get(result.task_id)
            if task is None:
                return message("ReportResultResponse", acknowledged=False)
            task["executions"] += 1
            task.update(state=result.state, result=result.result, error=result.error)
            self.workers[request.worker_id]["load"] -= 1
        self._dispatch()
        return message("ReportResultResponse", acknowledged=True)
