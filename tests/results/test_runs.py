import subprocess
import sys

from tests.results.synthetic import mm1, sweep


def test_the_tables_are_data_frames():
    """The data frames have one row per task, attempt and event, and NaN for what never happened."""
    done = mm1(100)
    assert (len(done.tasks), len(done.attempts), len(done.events)) == (100, 100, 6)
    assert done.attempts.given_up_s.isna().all()
    assert list(done.tasks.priority.cat.categories) == ["low", "normal", "high", "urgent"]


def test_a_run_says_what_it_is():
    """The representation names scenario, world and progress."""
    assert repr(mm1(100)) == "<Run synthetic (sim): 100 of 100 tasks completed>"
    assert repr(sweep({"seed": [1, 2]}, n=50)) == "<Sweep synthetic (sim): 2 cells, 4 runs>"


def test_a_sweep_is_a_row_for_each_run():
    """The columns are cell, swept values, replication and dotted metrics."""
    table = sweep({"policies.routing": [{"kind": "random"}, {"kind": "power_of_d", "d": 2}]}, n=50).table()
    assert list(table.replication) == [0, 1, 0, 1]
    assert list(table["policies.routing"]) == ["random", "random", "power_of_d d=2", "power_of_d d=2"]
    assert table["latency_s.p99"].notna().all()


def test_the_summary_of_a_sweep_has_every_cell():
    """Each cell has its values, its pooled numbers and its number of replications."""
    summary = sweep({"seed": [1, 2]}, n=50).summary
    assert [cell["values"] for cell in summary["cells"]] == [{"seed": 1}, {"seed": 2}]
    assert all(cell["replications"] == 2 and cell["tasks"]["submitted"] == 100 for cell in summary["cells"])
    assert "latency_s" not in summary


def test_a_run_is_importable_without_its_heavy_parts():
    """pandas, scipy and matplotlib are imported only when they are used."""
    script = (
        "import sys, orchestrator.results.runs, orchestrator.results.folders, orchestrator.results.summaries;"
        "print([name for name in ('pandas', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
