"""A job of many files, done by one process, then by a cluster that loses a worker on the way; and what that came to."""

import argparse
import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from examples.executions import run_again
from orchestrator import Client
from orchestrator.rehearsal.local_cluster import LocalCluster

ROOT = Path(__file__).parents[1]
TOGETHER = 25
"""Files whose results one task of the second kind takes."""


class Job(NamedTuple):
    """`task` takes a file. `rest` takes the folder, what `task` gave of each file in it, and a `map` for tasks of the
    second kind; both ways are compared by what it returns."""

    app: str
    task: Callable[[Path], Any]
    rest: Callable[[Path, list[Any], Callable[..., Iterable[Any]]], Any]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options that all jobs have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=at_least(3), default=300)
    parser.add_argument("--workers", type=at_least(2), default=4, help="one of them is killed")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """What reads an option."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


class Clustered(NamedTuple):
    result: Any
    took_s: float
    there: dict[str, float]
    """When the result of each file was there."""


def parts(results: Sequence[Any]) -> list[Any]:
    """Those that one task of the second kind takes."""
    return [results[first : first + TOGETHER] for first in range(0, len(results), TOGETHER)]


def alone(job: Job, files: list[Path]) -> tuple[Any, list[float], list[float]]:
    """The result, and the seconds that each task of the first kind takes, and of the second."""
    first_s: list[float] = []
    second_s: list[float] = []

    def timed(took_s: list[float], task: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
        for one in zip(*arguments, strict=True):
            begin = time.perf_counter()
            result = task(*one)
            took_s.append(time.perf_counter() - begin)
            yield result

    results = list(timed(first_s, job.task, files))
    return job.rest(files[0].parent, results, partial(timed, second_s)), first_s, second_s


def on_a_cluster(job: Job, files: list[Path], workers: int) -> Clustered:
    """Its worker w2 is killed when a third of the results are there."""
    options = ["--app", job.app, "--quiet"]
    policies = ["detection.timeout_s=3", "--quiet"]
    with (
        contextlib.chdir(ROOT),  # where workers find the app
        LocalCluster(workers, capacity=1, options=options, policies=policies) as cluster,
        Client(cluster.address) as client,
    ):
        begin = time.perf_counter()
        futures = {client.submit(job.task, file): file for file in files}
        there: dict[str, float] = {}
        for future in client.as_completed(futures):
            there[futures[future].name] = time.monotonic()
            if len(there) == len(files) // 3:
                cluster.worker("w2").kill()
        result = job.rest(files[0].parent, [future.result() for future in futures], client.map)
        return Clustered(result, time.perf_counter() - begin, there)


def service(took_s: list[float]) -> str:
    """As a scenario has it."""
    mean_s = statistics.mean(took_s)
    return f"{1000 * mean_s:.1f} ms, cv {statistics.pstdev(took_s) / mean_s:.2f}"


def compare(job: Job, files: list[Path], workers: int) -> bool:
    """Do it both ways, each in a folder of its own, and print how that went. Whether all is right."""
    clusters = files[0].parent.with_name("cluster")
    shutil.copytree(files[0].parent, clusters, copy_function=os.link)
    load = os.getloadavg()[0]
    begin = time.perf_counter()
    expected, first_s, second_s = alone(job, files)
    alone_s = time.perf_counter() - begin
    result, cluster_s, there = on_a_cluster(job, [clusters / file.name for file in files], workers)
    again, needlessly = run_again(clusters, there)
    print(f"{len(files)} files; each takes {service(first_s)}")
    print(f"{len(second_s)} tasks for up to {TOGETHER} of them; each takes {service(second_s)}")
    print(f"{os.cpu_count()} cores; load average {load:.1f} at the beginning")
    print(f"one process: {alone_s:.2f} s")
    print(f"{workers} workers, one killed: {cluster_s:.2f} s, {alone_s / cluster_s:.2f} times as fast")
    print(f"begun once more: {again}; of these after their result had arrived: {len(needlessly)}")
    print("every result is right" if result == expected else "the results differ")
    return result == expected and not needlessly
