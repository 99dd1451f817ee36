"""`sim.size` on a queue that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim
from orchestrator.results import folders
from orchestrator.results.objectives import Objective
from orchestrator.scenario.schema import Scenario


@pytest.mark.parametrize("replications", [1, 2])
def test_four_workers_keep_up_with_three_and_a_half_seconds_a_second(replications: int, tmp_path: Path):
    """One task a second, 3.5 s of service each: with four workers nobody waits, with three ever more do."""
    scenario = Scenario.model_validate(
        {
            "name": "by-hand",
            "duration_s": 60,
            "workload": {
                "arrivals": {"kind": "constant", "rate_per_s": 1},
                "service": {"kind": "constant", "value_s": 3.5},
            },
            "cluster": {"workers": 1, "capacity": 1},
        }
    )
    shares: list[float] = []

    def hear(share: float, run: str = "") -> None:
        shares.append(share)

    objective = Objective.parse("latency_s.max <= 3.5001")
    found = sim.size(scenario, "cluster.workers", range(1, 17), [objective], tmp_path, 1, replications, hear)
    assert found.answer is not None
    assert found.below is not None
    assert (found.answer.value, found.below.value) == (4, 3)
    assert found.answer.verdicts[0].value == pytest.approx(3.5)
    assert {3, 4, 5} <= {one.value for one in found.tried}
    assert len(found.tried) < 9
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] <= 1
    first = folders.load(tmp_path / "round-1")
    assert [cell["cell"] for cell in first.summary["cells"]] == ["workers=1", "workers=16"]
    without_folder = sim.size(scenario, "cluster.workers", range(1, 17), [objective], replications=replications)
    assert without_folder.sentences() == found.sentences()
