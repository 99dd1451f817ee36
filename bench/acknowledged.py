"""How soon is a task acknowledged, and how soon is its result there, at a given rate? With `--data` and without.

    python bench/acknowledged.py [--rates 1000 4000 8000 10000] [--seconds 10] [--rounds 2]

Tasks that do nothing come at a constant rate, whatever becomes of them, to 4 workers x 8 in processes of their own;
with `--data` the acknowledgement follows the sync of the disk that the current folder is on. Times are from the
submission on; in them are the 2 ms for which an acknowledgement may wait for company. `settled/s`: of what was settled
before the last task came; far below the rate, the cluster does not keep up with it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from functools import partial
from typing import NamedTuple

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.rehearsal.local_cluster import LocalCluster

WORKERS, SLOTS, PREFETCH = 4, 8, 32
TICK_S = 0.002


class Measured(NamedTuple):
    """Percentiles in ms: of the acknowledgement, of the result."""

    settled_per_s: float
    accepted_ms: tuple[float, float]
    settled_ms: tuple[float, float]


async def submit_at(address: str, rate: float, seconds: float) -> Measured:
    accepted: list[float] = []
    settled: list[float] = []
    now = time.perf_counter
    gc.disable()  # the load generator's own pauses are nobody's latency
    async with AsyncClient(address) as client:
        for submission in client.submit_batch([NewTask("0", kind="sleep")] * 500):
            await submission
        outcomes: list[asyncio.Future[object]] = []
        begin = now()
        while (age_s := now() - begin) < seconds:
            due = int(age_s * rate) - len(outcomes)
            submitted_at = now()
            for submission in client.submit_batch([NewTask("0", kind="sleep")] * due):
                submission.id.add_done_callback(partial(_note, accepted, submitted_at))
                submission.outcome.add_done_callback(partial(_note, settled, submitted_at))
                outcomes.append(submission.outcome)  # type: ignore[arg-type]
            await asyncio.sleep(TICK_S)
        per_s = len(settled) / seconds
        await asyncio.gather(*outcomes)
    return Measured(per_s, percentiles_ms(accepted), percentiles_ms(settled))


def _note(took_s: list[float], since: float, _: object) -> None:
    took_s.append(time.perf_counter() - since)


def percentiles_ms(took_s: list[float]) -> tuple[float, float]:
    took_s.sort()
    return 1000 * took_s[len(took_s) // 2], 1000 * took_s[int(0.99 * len(took_s))]


def measure(stored: bool, rate: float, seconds: float) -> Measured:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        policies = ["--quiet", *(["--data", folder] if stored else [])]
        with LocalCluster(
            WORKERS, capacity=SLOTS, prefetch=PREFETCH, executor="inline", options=["--quiet"], policies=policies
        ) as cluster:
            return asyncio.run(submit_at(cluster.address, rate, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rates = [1000.0, 4000.0, 8000.0, 10000.0]
    parser.add_argument("--rates", type=float, nargs="+", default=rates, help="tasks a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print("| rate | tasks are | settled/s | acknowledged p50 / p99 ms | result p50 / p99 ms |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for rate in arguments.rates:
        for _ in range(arguments.rounds):
            for stored in (False, True):
                found = measure(stored, rate, arguments.seconds)
                accepted, settled = ("{:.2f} / {:.2f}".format(*each) for each in found[1:])  # type: ignore[misc]
                kept = "on the disk" if stored else "in memory"
                print(f"| {rate:,.0f} | {kept} | {found.settled_per_s:,.0f} | {accepted} | {settled} |", flush=True)


if __name__ == "__main__":
    main()
