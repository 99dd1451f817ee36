import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.results.runs import Sweep
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


def test_a_sweep_is_a_mapping_of_its_cells():
    """By their names, in their order; a cell has its runs, its values and its pooled summary."""
    swept = sweep({"seed": [1, 2]}, n=50)
    assert isinstance(swept, Mapping)
    assert list(swept) == list(swept.keys()) == ["seed=1", "seed=2"]
    assert [name for name, cell in swept.items() if cell.values == {"seed": 2}] == ["seed=2"]
    assert list(swept.values()) == swept.cells
    assert len(swept) == len(swept["seed=1"].runs) == 2
    assert "seed=1" in swept
    assert "seed=3" not in swept
    assert swept.get("seed=3") is None
    assert swept["seed=2"].pooled["tasks"]["submitted"] == 100
    with pytest.raises(KeyError, match=r"there is no cell seed=3, expected one of seed=1, seed=2"):
        swept["seed=3"]


def test_sweeps_are_told_apart_by_identity():
    """Two sweeps with equal cells are two, so that one may stand in a set."""
    one = sweep({"seed": [1]}, n=50)
    assert len({one, one, type(one)(one.scenario, one.cells)}) == 2


def test_one_line_says_what_a_part_is():
    """No representation holds a table or a summary."""
    swept = sweep({"seed": [1, 2]}, n=50, replications=1)
    assert repr(swept["seed=1"]) == "<CellRuns seed=1: 1 run>"
    assert repr(sweep({"seed": [1]}, n=50, replications=1)) == "<Sweep synthetic (sim): 1 cell, 1 run>"


def test_a_notebook_shows_tables():
    """A row for each run or cell, and for each class; not more than a person reads."""
    shown = mm1(100)._repr_html_()
    assert shown.startswith("<table><caption>synthetic (sim): Latency, from arrival to result</caption>")
    assert '<th scope="row">all tasks</th>' in shown
    shown = sweep({"seed": [1, 2]}, n=50)._repr_html_()
    assert all(f'<th scope="row">seed={seed}</th>' in shown for seed in (1, 2))
    swept = sweep({"seed": [1]}, n=50)
    many = Sweep(swept.scenario, [replace(swept.cells[0], name=f"seed={number}") for number in range(60)])
    assert many._repr_html_().count('<th scope="row">seed=') == 2 * 50
    assert many._repr_html_().endswith("<p>and 10 more cells: see table()</p>")


def test_what_a_notebook_shows_is_escaped():
    """A name is text, whatever it holds."""
    done = mm1(50)
    done.summary["scenario"] = "<script>alert(1)</script>"
    swept = sweep({"seed": [1]}, n=50)
    named = Sweep(swept.scenario, [replace(swept.cells[0], name="<b>&")])
    assert "<script>" not in done._repr_html_()
    assert "&lt;script&gt;" in done._repr_html_()
    assert '<th scope="row">&lt;b&gt;&amp;</th>' in named._repr_html_()


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
