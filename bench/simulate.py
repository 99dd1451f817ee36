"""How fast is the simulator, against the same model in idiomatic SimPy and against Ciw? Ratios of runs in turn.

    python bench/simulate.py [--rounds 3] [--tasks 200000]

1. `scenarios/ten-thousand-workers.yaml`: ours (tables written) and a process and a Resource request per task, with
   the same routing index, delays, priorities, heartbeats, failure detection, execution timeouts and records.
2. M/M/100 at offered load 0.9: ours, the whole coordinator in the loop, and Ciw.
3. The cost of a task at 100, 1,000 and 10,000 workers.

Machines drift: only the ratios of one run count. Every measurement runs in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simpy

from orchestrator.core.model import Worker
from orchestrator.policies.routing import LeastLoaded
from orchestrator.scenario.plan import OpenArrivals, draw_plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator

SCENARIOS = Path(__file__).parent.parent / "scenarios"
Measured = dict[str, float]


def cluster(workers: int, tasks: int) -> Scenario:
    """`ten-thousand-workers.yaml`, scaled: the same load on each worker, so many tasks."""
    rate = 3.2 * workers
    size = f"cluster.workers={workers}", f"workload.arrivals.rate_per_s={rate}", f"duration_s={tasks / rate}"
    return Scenario.load(SCENARIOS / "ten-thousand-workers.yaml", [*size, f"warmup_s={tasks / rate / 10}"])


def mm100(tasks: int) -> Scenario:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(
            f"name: mm100\nseed: 1\nduration_s: {tasks / 90}\ncluster: {{workers: 100, capacity: 1}}\nworkload:\n"
            "  arrivals: {kind: poisson, rate_per_s: 90}\n  service: {kind: exponential, mean_s: 1}\n"
        )
        file.flush()
        return Scenario.load(file.name)


def ours(scenario: Scenario) -> Measured:
    import sim

    with tempfile.TemporaryDirectory() as folder:
        summary = sim.run(scenario, out=folder).summary
    return {"tasks_per_s": summary["engine"]["tasks_per_s"], "p99_s": summary["latency_s"]["p99"]}


def idiomatic(scenario: Scenario) -> Measured:
    """The model as SimPy's documentation would write it: processes, `with resource.request()`, `a | b`."""
    began = time.perf_counter()
    plan = draw_plan(scenario)
    arrivals = plan.arrivals
    assert isinstance(arrivals, OpenArrivals)
    env = simpy.Environment()
    cluster = IdiomaticCluster(env, scenario)
    env.process(cluster.source(arrivals))
    env.run(until=cluster.all_settled)
    latencies = np.array([settled - arrival for _, arrival, _, _, settled, _ in cluster.records])
    wall_s = time.perf_counter() - began
    return {"tasks_per_s": len(arrivals) / wall_s, "p99_s": float(np.percentile(latencies, 99))}


class IdiomaticCluster:
    """Coordinator, workers and network as SimPy processes."""

    def __init__(self, env: simpy.Environment, scenario: Scenario) -> None:
        policies = scenario.policies
        self.env = env
        self.timeout_s = policies.execution_timeout_s or float("inf")
        self.detection = policies.detection
        self.routing = LeastLoaded(random.Random(scenario.seed))
        rng = generator(scenario.seed, 0, "delay")
        draws = (scenario.network.delay.sample(rng, 4096).tolist() for _ in itertools.count())
        self.delay = itertools.chain.from_iterable(draws).__next__
        group = scenario.cluster.groups[0]
        self.workers = [Worker(name, slot) for slot, name in enumerate(scenario.worker_names())]
        self.slots = {}
        self.last_heard = {}
        self.waiting = simpy.PriorityStore(env)
        self.room = group.workers * group.capacity
        self.records: list[list] = []
        self.due = 0
        self.all_settled = env.event()
        phases = generator(scenario.seed, 0, "phase")
        for worker in self.workers:
            worker.capacity = worker.limit = group.capacity
            self.slots[worker] = simpy.Resource(env, group.capacity)
            self.last_heard[worker] = 0.0
            self.routing.joined(worker)
            env.process(self.heartbeats(worker, phases.random() * self.detection.heartbeat_s))
        env.process(self.detector())

    def source(self, arrivals: OpenArrivals):
        self.due = len(arrivals)
        rows = zip(arrivals.arrival_s.tolist(), arrivals.service_s.tolist(), arrivals.priority.tolist(), strict=True)
        for task, (at, service_s, priority) in enumerate(rows):
            yield self.env.timeout(at - self.env.now)
            self.env.process(self.task(task, service_s, priority))

    def task(self, task: int, service_s: float, priority: int):
        arrival = self.env.now
        yield self.env.timeout(self.delay())
        record = [task, arrival, self.env.now, None, None, None]
        yield from self.attempt(record, service_s, priority)

    def attempt(self, record: list, service_s: float, priority: int):
        """One attempt; when it takes too long another is begun beside it, and the first to end settles the task."""
        env = self.env
        if not self.room:
            turn = env.event()
            yield self.waiting.put(simpy.PriorityItem((-priority, record[0]), turn))
            yield turn
        worker = self.routing.choose(None)
        self.load(worker, 1)
        yield env.timeout(self.delay())
        with self.slots[worker].request() as slot:
            yield slot
            started = env.now
            done = env.timeout(service_s)
            yield done | env.timeout(self.timeout_s)
            if not done.processed:
                env.process(self.attempt(record, service_s, priority))
                yield done
        yield env.timeout(self.delay())
        self.load(worker, -1)
        if record[4] is None:
            record[3:] = started, env.now, worker.id
            self.records.append(record)
            self.due -= 1
            if not self.due:
                self.all_settled.succeed()

    def load(self, worker: Worker, change: int) -> None:
        before = worker.load
        worker.load += change
        self.routing.load_changed(worker, before)
        self.room -= change
        if change < 0 and self.waiting.items:
            self.waiting.get().callbacks.append(lambda got: got.value.item.succeed())

    def heartbeats(self, worker: Worker, phase: float):
        yield self.env.timeout(phase)
        while True:
            self.env.process(self.beat(worker))
            yield self.env.timeout(self.detection.heartbeat_s)

    def beat(self, worker: Worker):
        yield self.env.timeout(self.delay())
        self.last_heard[worker] = self.env.now

    def detector(self):
        while True:
            yield self.env.timeout(self.detection.check_every_s)
            for worker in self.workers:
                if self.env.now - self.last_heard[worker] > self.detection.timeout_s:
                    raise RuntimeError(f"{worker} is silent, in a scenario without faults")


def ciw_mm100(tasks: int) -> Measured:
    import ciw

    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=90)],
        service_distributions=[ciw.dists.Exponential(rate=1)],
        number_of_servers=[100],
    )
    ciw.seed(1)
    began = time.perf_counter()
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(tasks, method="Finish")
    records = simulation.get_all_records()
    wall_s = time.perf_counter() - began
    return {"tasks_per_s": len(records) / wall_s}


MEASUREMENTS: dict[str, Callable[[int], Measured]] = {
    "ten-thousand-workers": lambda tasks: ours(cluster(10_000, tasks)),
    "idiomatic SimPy": lambda tasks: idiomatic(cluster(10_000, tasks)),
    "M/M/100": lambda tasks: ours(mm100(tasks)),
    "Ciw": ciw_mm100,
    "100 workers": lambda tasks: ours(cluster(100, tasks)),
    "1,000 workers": lambda tasks: ours(cluster(1_000, tasks)),
}


def measure(name: str, tasks: int) -> Measured:
    """In a process of its own, so that no measurement inherits another's memory."""
    command = [sys.executable, __file__, "--one", name, "--tasks", str(tasks)]
    found: Measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"  {name:22} {found['tasks_per_s']:10,.0f} tasks/s   {found['rss_mib']:6.0f} MiB", flush=True)
    return found


def ratios(name: str, a: str, b: str, rounds: list[dict[str, Measured]]) -> None:
    found = [r[a]["tasks_per_s"] / r[b]["tasks_per_s"] for r in rounds]
    print(f"{name}: {statistics.median(found):.2f} (from {min(found):.2f} to {max(found):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--one", choices=MEASUREMENTS, help="measure just this, and print JSON")
    args = parser.parse_args()
    if args.one:
        found = MEASUREMENTS[args.one](args.tasks)
        rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "rss_mib": rss_mib}))
        return
    rounds = []
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}, {args.tasks:,} tasks each")
        rounds.append({name: measure(name, args.tasks) for name in MEASUREMENTS})
    ratios("ours / idiomatic SimPy", "ten-thousand-workers", "idiomatic SimPy", rounds)
    ratios("ours / Ciw on M/M/100", "M/M/100", "Ciw", rounds)
    ratios("cost of a task, 10,000 workers / 100 workers", "100 workers", "ten-thousand-workers", rounds)


if __name__ == "__main__":
    main()
