"""How far is the simulated world from the live one? Errors beside a noise floor, and whether both rank policies alike.

    python bench/fidelity.py [--parts faults routing calibrated] [--out out/fidelity]

`faults`: worker-crash, gray-worker, rack-failure and coordinator-crash, once simulated and three times live (14
minutes). `routing`: six
routing policies at two loads, 100,000 tasks and more each, in both worlds (16 minutes). `calibrated`: `reference.yaml`
and `worker-crash.yaml` with a model that was fitted to a live run at another load, service time and seed, each at two
loads (7 minutes). `faults` and `routing` are what runs if nothing is said. Prints the tables of docs/fidelity.md; the
machine has to be quiet. Exit code 1 if both worlds tell two policies apart, and put them in different orders.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SCENARIOS = Path(__file__).parent.parent / "scenarios"
RATES = {"offered load 0.6": 96, "offered load 0.8": 128}
FAULTS = {
    "worker-crash": [],
    "gray-worker": ["sweep={}", "policies.hedging={quantile: 0.95, budget: 0.05}"],
    "rack-failure": [],
    "coordinator-crash": [],
}
RATE_PER_S = 1450
"""Tasks a second: 100,000 in 70 s. Where a line of a live run says that the driver fell behind, --rate 1000."""
SERVICE_S, LOADS = 0.05, (0.6, 0.8)
POLICIES = [
    "{kind: random}",
    "{kind: round_robin}",
    "{kind: power_of_d, d: 2}",
    "{kind: power_of_d, d: 3}",
    "{kind: power_of_d, d: 6}",
    "{kind: least_loaded}",
]
ROUTING = f"""\
name: routing-policies
seed: 21
warmup_s: 3
duration_s: 60
workload:
  arrivals: {{kind: poisson, rate_per_s: {RATE_PER_S}}}
  service: {{kind: exponential, mean_s: {SERVICE_S}}}
cluster: {{workers: 100, capacity: 1, prefetch: unlimited}}
live: {{workers_per_process: 50}}
policies:
  queue: {{kind: fifo}}
  detection: {{kind: timeout, heartbeat_s: 2, timeout_s: 21}}
sweep:
  policies.routing: [{", ".join(POLICIES)}]
"""
RANKED = ("latency_s.p50", "latency_s.p90", "latency_s.p95", "latency_s.p99")
OUTAGES = ("outage_s.mean", "backlog.mean", "recovery_s.half", "recovery_s.quarter", "recovery_s.tenth")
SHOWN = (*RANKED, "wait_s.mean", *OUTAGES)
AROUND = "around the faults"


def orchestrator(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def fidelity(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(orchestrator("fidelity", *arguments, "--json"))
    return found


def table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    """Of Markdown."""
    print(f"\n| {' | '.join(columns)} |")
    print(f"|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def faults(out: Path, live_runs: int, shorter: Sequence[str]) -> bool:
    """The table of errors beside the noise floor."""
    table(
        ["scenario", "statistic", "sim", "live", "error", "its interval", "two live runs", "within 10 %"],
        (
            row
            for name, changes in FAULTS.items()
            for row in told(
                name,
                fidelity(
                    SCENARIOS / f"{name}.yaml", *changes, *shorter, "--floor", str(live_runs), "--out", out / name
                ),
            )
        ),
    )
    return True


def told(name: str, found: Mapping[str, Any]) -> Iterator[list[str]]:
    (cell,) = found["cells"]
    for row in cell["rows"]:
        around = row["where"] == AROUND and row["metric"] == "latency_s.p99"
        if around or (row["where"] != AROUND and row["metric"] in SHOWN):
            interval = row["error_ci95"]
            yield [
                f"`{name}`",
                f"{row['metric']}{', around the faults' if around else ''}",
                *(shown(row[side], row["metric"]) for side in ("sim", "live")),
                percent(row["error"]),
                "-" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}",
                percent(max(row["floor"], default=None)).lstrip("+"),
                row["verdict"] or "-",
            ]
    distances = [f"{cell['ks']:.4f}", f"{max(cell['ks_floor'], default=0.0):.4f}"]
    yield [f"`{name}`", "KS distance of latency", "", "", distances[0], "", distances[1], ""]


def routing(out: Path, tasks: int, rate_per_s: float) -> bool:
    """The tables of the policies at both loads; whether both worlds rank alike what both tell apart."""
    scenario = out / "routing-policies.yaml"
    scenario.write_text(ROUTING)
    changes = [f"workload.arrivals.rate_per_s={rate_per_s}", f"duration_s={math.ceil(1.01 * tasks / rate_per_s)}"]
    found = {}
    for aim in LOADS:
        workers = math.ceil(rate_per_s * SERVICE_S / aim)
        folder = out / f"routing-{workers}"
        load = rate_per_s * SERVICE_S / workers
        found[load] = fidelity(scenario, f"cluster.workers={workers}", *changes, "--out", folder)
    table(
        ["offered load", "policy", "tasks", *(f"{m.rpartition('.')[2]}, sim / live" for m in RANKED), "KS distance"],
        (
            [
                f"{load:.2f}",
                cell["cell"].removeprefix("routing="),
                " / ".join(f"{cell['tasks'][world]['completed']:,}" for world in ("sim", "live")),
                *(f"{shown(row['sim'])} / {shown(row['live'])}" for row in map(of(cell), RANKED)),
                f"{cell['ks']:.4f}",
            ]
            for load, one in found.items()
            for cell in one["cells"]
        ),
    )
    table(
        ["offered load", "ranked by", "Kendall's tau", "pairs whose intervals are disjoint in both", "of them alike"],
        (
            [
                f"{load:.2f}",
                order["metric"],
                "-" if order["tau"] is None else f"{order['tau']:.3f}",
                str(order["apart"]),
                str(order["alike"]),
            ]
            for load, one in found.items()
            for order in one["order"]
        ),
    )
    return all(order["apart"] == order["alike"] for one in found.values() for order in one["order"])


def of(cell: Mapping[str, Any]) -> Any:
    """Its row of a statistic of the whole run."""
    return lambda metric: next(r for r in cell["rows"] if r["metric"] == metric and r["where"] != AROUND)


def calibrated(out: Path) -> bool:
    """A model, fitted and frozen, and the errors with it."""
    run, model = out / "calibration", out / "model.yaml"
    other = [
        "seed=99",
        "duration_s=60",
        "workload.arrivals.rate_per_s=80",
        "workload.service={kind: exponential, mean_s: 0.04}",
    ]
    orchestrator("live", SCENARIOS / "reference.yaml", *other, "--out", run, "--no-plots")
    orchestrator("calibrate", run, "--out", model)
    print(model.read_text())
    for name in ("reference", "worker-crash"):
        for load, rate in RATES.items():
            values = [f"workload.arrivals.rate_per_s={rate}", f"model={model.resolve()}"]
            said = orchestrator("fidelity", SCENARIOS / f"{name}.yaml", *values, "--out", out / f"{name}-{rate}")
            print(f"\n{name}, {load}\n{said}")
    return True


def shown(value: float | None, metric: str = "") -> str:
    if metric == "backlog.mean":
        return "-" if value is None else f"{value:.4g} tasks"
    return "-" if value is None else f"{value * 1e3:.4g} ms" if value < 1 else f"{value:.4g} s"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:+.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/fidelity"))
    parser.add_argument(
        "--parts", nargs="+", choices=["faults", "routing", "calibrated"], default=["faults", "routing"]
    )
    parser.add_argument("--tasks", type=int, default=100_000, help="of each routing policy")
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="tasks a second, of the same")
    parser.add_argument("--floor", type=int, default=3, help="live runs of each fault scenario")
    parser.add_argument("--shorter", nargs="*", default=[], help="KEY=VALUE for the fault scenarios, to try this out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{datetime.date.today()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    alike = True
    for part in args.parts:
        began = time.monotonic()
        if part == "faults":
            faults(args.out, args.floor, args.shorter)
        elif part == "routing":
            alike = routing(args.out, args.tasks, args.rate)
        else:
            calibrated(args.out)
        print(f"({part}: {(time.monotonic() - began) / 60:.1f} minutes)")
    if not alike:
        print("both worlds tell policies apart, and put them in different orders")
        sys.exit(1)


if __name__ == "__main__":
    main()
