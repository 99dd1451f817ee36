"""How fast is the live cluster, against Dask distributed, Ray, Celery and Procrastinate? Ratios of runs in turn.

    python bench/live.py [--rounds 3] [--tasks 20000] [--calls 500] [--only NAME ...]

Batches of tasks that do nothing, 4 workers x 8 in processes of their own on this machine, a client that waits for
every result; then one task after the other, each awaited. Machines drift: only the ratios of one run count. Every
measurement runs in a process of its own; what is slower than ours gets fewer tasks, and its rate is compared. Where
tasks are stored (`--data`, Redis with `appendfsync always`, PostgreSQL), they are on the disk of the current folder:
that of temporary files may be memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

WORKERS, SLOTS = 4, 8


class Measured(NamedTuple):
    """Tasks per second of the batch; milliseconds of a task alone."""

    per_s: float
    p50_ms: float
    p99_ms: float


class Contender(NamedTuple):
    """`share`: of the batch's tasks; `needs`: a package, or a program where it begins with a slash."""

    name: str
    measure: Callable[[int, int], Measured]
    share: float
    needs: tuple[str, ...]


def of(per_s: float, took_s: list[float]) -> Measured:
    took_s.sort()
    return Measured(per_s, 1000 * took_s[len(took_s) // 2], 1000 * took_s[int(0.99 * len(took_s))])


def timed(batch: Callable[[int], object], one: Callable[[], object], tasks: int, calls: int) -> Measured:
    """After a small batch that wakes everybody up."""
    batch(200)
    begin = time.perf_counter()
    batch(tasks)
    per_s = tasks / (time.perf_counter() - begin)
    took_s = []
    for _ in range(calls):
        begin = time.perf_counter()
        one()
        took_s.append(time.perf_counter() - begin)
    return of(per_s, took_s)


def ours(
    tasks: int,
    calls: int,
    *,
    executor: str = "inline",
    contract: bool = False,
    prefetch: int = 0,
    policies: Sequence[str] = (),
) -> Measured:
    from orchestrator.cluster.client import AsyncClient, NewTask
    from orchestrator.rehearsal.local_cluster import LocalCluster

    async def measure(address: str) -> Measured:
        async with AsyncClient(address, contract=contract) as client:

            async def batch(count: int) -> None:
                for submission in client.submit_batch([NewTask("0", kind="sleep")] * count):
                    assert (await submission).state.name == "COMPLETED"

            await batch(200)
            begin = time.perf_counter()
            await batch(tasks)
            per_s = tasks / (time.perf_counter() - begin)
            took_s = []
            for _ in range(calls):
                begin = time.perf_counter()
                await client.submit("0", kind="sleep")
                took_s.append(time.perf_counter() - begin)
            return of(per_s, took_s)

    options = ["--quiet", *(["--contract"] if contract else [])]
    with LocalCluster(
        WORKERS,
        capacity=SLOTS,
        prefetch=prefetch,
        executor=executor,
        options=options,
        policies=["--quiet", *policies],
    ) as cluster:
        return asyncio.run(measure(cluster.address))


def ours_stored(tasks: int, calls: int, prefetch: int = 0) -> Measured:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        return ours(tasks, calls, prefetch=prefetch, policies=["--data", folder])


def ours_in_subprocesses(tasks: int, calls: int) -> Measured:
    return ours(tasks, calls, executor="process")


def own(tasks: int, calls: int, *, name: str, prefetch: int = 0) -> Measured:
    """Functions of an app, by a client without an event loop: a value for each call."""
    import noops

    from orchestrator import Client
    from orchestrator.rehearsal.local_cluster import LocalCluster

    task = noops.app.tasks[name]
    options = ["--quiet", "--app", "noops:app"]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with (
        LocalCluster(WORKERS, capacity=SLOTS, prefetch=prefetch, options=options, policies=["--quiet"]) as cluster,
        Client(cluster.address) as client,
    ):
        return timed(
            lambda count: sum(client.map(task, range(count), ahead=count)),
            lambda: client.submit(task, 0).result(),
            tasks,
            calls,
        )


def own_async(tasks: int, calls: int) -> Measured:
    return own(tasks, calls, name="nothing_async")


def own_async_with_prefetch(tasks: int, calls: int) -> Measured:
    return own(tasks, calls, name="nothing_async", prefetch=4 * SLOTS)


def own_in_subprocesses(tasks: int, calls: int) -> Measured:
    return own(tasks, calls, name="nothing")


def own_in_subprocesses_with_prefetch(tasks: int, calls: int) -> Measured:
    return own(tasks, calls, name="nothing", prefetch=4 * SLOTS)


def ours_unary(tasks: int, calls: int) -> Measured:
    return ours(tasks, calls, contract=True)


def dask(tasks: int, calls: int) -> Measured:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=SLOTS, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        return timed(
            lambda count: client.gather(client.map(nothing, range(count), pure=False)),
            lambda: client.submit(nothing, 0, pure=False).result(),
            tasks,
            calls,
        )


def ray_tasks(tasks: int, calls: int) -> Measured:
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    task = ray.remote(nothing)
    return timed(
        lambda count: ray.get([task.remote(0) for _ in range(count)]), lambda: ray.get(task.remote(0)), tasks, calls
    )


def ray_actors(tasks: int, calls: int) -> Measured:
    import ray

    class Actor:
        def nothing(self, _: int) -> int:
            return 0

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    actors = [ray.remote(Actor).options(max_concurrency=SLOTS).remote() for _ in range(WORKERS)]
    return timed(
        lambda count: ray.get([actors[n % WORKERS].nothing.remote(0) for n in range(count)]),
        lambda: ray.get(actors[0].nothing.remote(0)),
        tasks,
        calls,
    )


def celery(tasks: int, calls: int, *stored: str) -> Measured:
    from celery import group

    with redis(*stored) as url, celery_workers(url):
        task = celery_app(url).tasks["nothing"]
        return timed(
            lambda count: group(task.s(0) for _ in range(count)).apply_async().get(timeout=120),
            lambda: task.delay(0).get(timeout=30, interval=0.0005),
            tasks,
            calls,
        )


def celery_stored(tasks: int, calls: int) -> Measured:
    return celery(tasks, calls, "--appendonly", "yes", "--appendfsync", "always")


def nothing(_: int) -> int:
    return 0


def celery_app(url: str) -> Any:
    from celery import Celery

    app = Celery("bench", broker=url, backend=url)
    app.task(name="nothing")(nothing)
    return app


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def redis(*stored: str) -> Iterator[str]:
    """The URL of a server on a free port. `stored`: options by which it keeps anything."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        started("redis-server", "--port", str(port), "--save", "", "--dir", folder, *stored),
    ):
        until_it_listens(port)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def celery_workers(url: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in range(WORKERS):
            script = f"from live import celery_app; celery_app({url!r}).worker_main({celery_arguments(number)!r})"
            stack.enter_context(started(sys.executable, "-c", script, cwd=Path(__file__).parent))
        app = celery_app(url)
        deadline = time.monotonic() + 60
        while len(app.control.ping(timeout=1.0)) < WORKERS:
            assert time.monotonic() < deadline, "Celery's workers did not come up"
        yield


def procrastinate(tasks: int, calls: int) -> Measured:
    """It keeps no results: that a task has ended is read from its table."""

    async def measure(url: str) -> Measured:
        async with procrastinate_app(url).open_async() as app:
            task = app.tasks["nothing"]
            ended = "SELECT count(*) AS ended FROM procrastinate_jobs WHERE status = 'succeeded'"
            submitted = 0

            async def batch(count: int) -> None:
                nonlocal submitted
                submitted += count
                await task.batch_defer_async(*({"number": number} for number in range(count)))
                while (await app.connector.execute_query_one_async(ended))["ended"] < submitted:
                    await asyncio.sleep(0.001)

            await batch(200)
            begin = time.perf_counter()
            await batch(tasks)
            per_s = tasks / (time.perf_counter() - begin)
            took_s = []
            for _ in range(calls):
                begin = time.perf_counter()
                job = await task.defer_async(number=0)
                while (await app.job_manager.get_job_status_async(job)).value != "succeeded":
                    await asyncio.sleep(0.0005)
                took_s.append(time.perf_counter() - begin)
            return of(per_s, took_s)

    with postgres() as url, contextlib.ExitStack() as stack:
        asyncio.run(procrastinate_schema(url))
        for _ in range(WORKERS):
            script = f"import live; live.procrastinate_app({url!r}).run_worker(concurrency={SLOTS})"
            stack.enter_context(started(sys.executable, "-c", script, cwd=Path(__file__).parent))
        return asyncio.run(measure(url))


def procrastinate_app(url: str) -> Any:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="nothing")
    async def nothing(number: int) -> None:
        pass

    return app


async def procrastinate_schema(url: str) -> None:
    async with procrastinate_app(url).open_async() as app:
        await app.schema_manager.apply_schema_async()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server on a free port, as it comes: what is committed is on the disk. It refuses to be root's."""
    port = free_port()
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        data = folder / "data"
        if user:
            shutil.chown(folder, user)
        make = ["initdb", "--pgdata", str(data), "--username", "bench", "--auth", "trust"]
        subprocess.run(make, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with started("postgres", "-D", str(data), "-p", str(port), "-k", str(folder), cwd=folder, user=user):
            until_it_listens(port)
            yield f"postgresql://bench@127.0.0.1:{port}/postgres"


def celery_arguments(number: int) -> list[str]:
    return ["worker", f"--hostname=w{number}", f"--concurrency={SLOTS}", "--loglevel=ERROR", "--without-gossip"]


@contextlib.contextmanager
def started(*command: str, cwd: Path | None = None, user: str | None = None) -> Iterator[None]:
    """A process that ends with its children."""
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=cwd, user=user, start_new_session=True, stdout=nowhere, stderr=nowhere)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


CONTENDERS = [
    Contender("ours", ours, 1, ()),
    Contender("ours, --data", ours_stored, 1, ()),
    Contender("ours, --prefetch 32", partial(ours, prefetch=32), 1, ()),
    Contender("ours, --prefetch 32 --data", partial(ours_stored, prefetch=32), 1, ()),
    Contender("ours, --prefetch 128", partial(ours, prefetch=128), 1, ()),
    Contender("ours, --prefetch 128 --data", partial(ours_stored, prefetch=128), 1, ()),
    Contender("ours, executor process", ours_in_subprocesses, 0.5, ()),
    Contender("own async", own_async, 0.5, ()),
    Contender("own async, --prefetch 32", own_async_with_prefetch, 0.5, ()),
    Contender("own in subprocesses", own_in_subprocesses, 0.5, ()),
    Contender("own in subprocesses, --prefetch 32", own_in_subprocesses_with_prefetch, 0.5, ()),
    Contender("ours, unary contract", ours_unary, 0.15, ()),
    Contender("dask distributed", dask, 0.15, ("distributed",)),
    Contender("ray tasks", ray_tasks, 0.25, ("ray",)),
    Contender("ray actors", ray_actors, 0.25, ("ray",)),
    Contender("celery with redis", celery, 0.15, ("celery", "redis", "/redis-server")),
    Contender("celery, redis stored", celery_stored, 0.15, ("celery", "redis", "/redis-server")),
    Contender("procrastinate", procrastinate, 0.1, ("procrastinate", "psycopg", "/initdb", "/postgres")),
]


def versions(needs: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in needs if not name.startswith("/"))


def missing(needs: tuple[str, ...]) -> list[str]:
    """What of it is not installed here."""

    def found(name: str) -> bool:
        if name.startswith("/"):
            return shutil.which(name[1:]) is not None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return bool(importlib.metadata.version(name))
        return False

    return [name.strip("/") for name in needs if not found(name)]


def in_a_process_of_its_own(contender: Contender, tasks: int, calls: int) -> Measured:
    command = [sys.executable, __file__, "--measure", contender.name, "--tasks", str(tasks), "--calls", str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    if done.returncode:
        raise SystemExit(f"{contender.name}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def ratio(some: list[Measured], others: list[Measured], digits: int) -> str:
    """Of the tasks per second in every round: median (least to most)."""
    ratios = sorted(one.per_s / other.per_s for one, other in zip(some, others, strict=True))
    median, least, most = (f"{each:.{digits}f}" for each in (statistics.median(ratios), ratios[0], ratios[-1]))
    return f"{median} ({least} to {most})"


def report(results: dict[str, list[Measured]], against: str) -> None:
    """Medians, and ratios of every round."""
    print(f"{'':34} {'tasks/s':>10} {'p50 ms':>8} {'p99 ms':>8}   {against} is so many times as fast")
    for name, measured in results.items():
        per_s, p50_ms, p99_ms = (statistics.median(column) for column in zip(*measured, strict=True))
        told = f"{ratio(results[against], measured, 1):22}"
        in_memory = results.get(name.removesuffix("--data").rstrip(", ")) if name.endswith("--data") else None
        if in_memory:
            told += f" {ratio(measured, in_memory, 2)} of its speed in memory"
        print(f"{name:34} {per_s:10,.0f} {p50_ms:8.2f} {p99_ms:8.2f}   {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="beside that of --against")
    parser.add_argument("--against", metavar="NAME", default="ours", choices=[each.name for each in CONTENDERS])
    parser.add_argument("--measure", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        (contender,) = (contender for contender in CONTENDERS if contender.name == arguments.measure)
        print(json.dumps(contender.measure(arguments.tasks, arguments.calls)), flush=True)
        os._exit(0)  # no farewells to servers that have been ended
    chosen = []
    for contender in CONTENDERS:
        if arguments.only is not None and contender.name not in (arguments.against, *arguments.only):
            continue
        lacking = missing(contender.needs)
        if lacking:
            print(f"{contender.name}: left out, not installed: {', '.join(lacking)}")
        else:
            chosen.append(contender)
            print(f"{contender.name}: {versions(contender.needs) or 'this version'}")
    results: dict[str, list[Measured]] = {contender.name: [] for contender in chosen}
    for number in range(arguments.rounds):
        for contender in chosen:
            tasks = max(1, int(arguments.tasks * contender.share))
            measured = in_a_process_of_its_own(contender, tasks, arguments.calls)
            results[contender.name].append(measured)
            print(f"round {number + 1}: {contender.name}: {measured.per_s:,.0f} tasks/s", flush=True)
    report(results, arguments.against)


if __name__ == "__main__":
    main()
