"""How far do the simulated and the live world agree? Calibrated on one scenario, measured on others.

    python bench/fidelity.py [--out out/fidelity]

A live run of `reference.yaml` at a low load, with another service time and seed, gives the model: the delays of the
messages, the coordinator's cost, a worker's overhead. It is frozen. Then `reference.yaml` and `worker-crash.yaml` run
in both worlds, each at offered load 0.6 and 0.8, with the same plan of arrivals, demands and faults. Takes six minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SCENARIOS = Path(__file__).parent.parent / "scenarios"
RATES = {"offered load 0.6": 96, "offered load 0.8": 128}


def orchestrator(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def calibrate(out: Path) -> Path:
    run, model = out / "calibration", out / "model.yaml"
    other = [
        "seed=99",
        "duration_s=60",
        "workload.arrivals.rate_per_s=80",
        "workload.service={kind: exponential, mean_s: 0.04}",
    ]
    orchestrator("live", SCENARIOS / "reference.yaml", *other, "--out", run, "--force", "--no-plots")
    orchestrator("calibrate", run, "--out", model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/fidelity"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = calibrate(args.out)
    print(model.read_text())
    for name in ("reference", "worker-crash"):
        for load, rate in RATES.items():
            folder = args.out / f"{name}-{rate}"
            values = [f"workload.arrivals.rate_per_s={rate}", f"model={model.resolve()}"]
            told = orchestrator("compare", SCENARIOS / f"{name}.yaml", *values, "--out", folder, "--force")
            print(f"\n{name}, {load}\n{told}")


if __name__ == "__main__":
    main()
