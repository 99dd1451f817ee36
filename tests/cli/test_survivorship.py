"""What a terminal says of tasks that failed or are unfinished."""

from orchestrator.analysis.comparison import compare
from orchestrator.cli.views import print_cells, print_comparison, print_summary
from orchestrator.results.runs import Run
from tests.results.synthetic import NAN, run, sweep, tables, task


def test_a_percentile_that_is_not_known_shows_its_bound(capsys):
    """Two of four tasks never completed: every percentile is longer than the age of one; classes have their counts."""
    made = tables([task(20.0, 21.0), task(20.0, 22.0), task(20.0, priority="low"), task(20.0, 25.0, state="failed")])
    print_summary(run(made).summary)
    printed = capsys.readouterr().out
    assert "> 5.00 s" in printed
    assert "> not known, but longer" in printed
    assert "  low       submitted 1, completed 0, failed 0, unfinished 1" in printed


def test_a_sample_that_is_too_small_says_so(capsys):
    """One task has no percentile, but a maximum."""
    print_summary(run(tables([task(20.0, 21.5)])).summary)
    printed = capsys.readouterr().out
    assert "~ 1.50 s" in printed
    assert "~ too few tasks" in printed


def test_a_sweep_shows_failures_only_if_there_are_any(capsys):
    """The columns appear with the first task that failed."""
    summary = sweep({"cluster.workers": [1, 2]}, 1).summary
    print_cells(summary)
    assert "failed" not in capsys.readouterr().out
    summary["cells"][1]["tasks"]["failed"] = 269
    summary["cells"][1]["latency_s"] |= {"p99": None, "at_least": {"p99": 4.0}}
    print_cells(summary)
    printed = capsys.readouterr().out
    assert "failed" in printed
    assert "269" in printed
    assert "> 4.00 s" in printed


def test_a_sweep_says_what_its_columns_are(capsys):
    """Those that are shown, and whose names leave it open: `tasks/s` is no throughput."""
    print_cells(sweep({"cluster.workers": [1, 2]}, 1).summary)
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("n: arrivals after")]
    assert "through: completed a second" in told
    assert "late:" not in told


def with_classes(low_settled_s: float) -> Run:
    """Two urgent tasks of 1 s, and a low one."""
    rows = [task(20.0, 21.0, priority="urgent"), task(30.0, 31.0, priority="urgent")]
    return run(tables([*rows, task(20.0, low_settled_s, priority="low")]))


def test_a_sweep_tells_each_class_of_each_cell(capsys):
    """The starved class of one cell stands in its own line, with what is known of it."""
    summary = sweep({"cluster.workers": [1, 2]}, 1).summary
    for cell, low_settled_s in zip(summary["cells"], (25.0, NAN), strict=True):
        cell["by_priority"] = with_classes(low_settled_s).summary["by_priority"]
    print_cells(summary)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("workers=")][2:]
    assert [line[:6] for line in lines] == [
        ["workers=1,", "low", "1", "0", "1", "~"],
        ["workers=1,", "urgent", "2", "0", "2", "1.00"],
        ["workers=2,", "low", "0", "1", "1", ">"],
        ["workers=2,", "urgent", "2", "0", "2", "1.00"],
    ]


def test_a_comparison_counts_each_class_of_either_side(capsys):
    """Low tasks are unfinished on one side only."""
    print_comparison(compare(with_classes(NAN), with_classes(25.0), ("hasty", "patient")).summary())
    told = capsys.readouterr().out.splitlines()[-6:]
    assert [line.split(maxsplit=1)[0] for line in told] == ["hasty", "low", "urgent", "patient", "low", "urgent"]
    assert told[1].endswith("submitted 1, completed 0, failed 0, unfinished 1")
    assert told[4].endswith("submitted 1, completed 1, failed 0, unfinished 0")


def test_a_comparison_of_sweeps_counts_each_class_of_each_cell(capsys):
    """Below the cell that it belongs to."""
    made = sweep({"cluster.workers": [1, 2]}, 1)
    print_comparison(compare(made, made, ("one", "other")).summary())
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("Tasks of either side") :]
    told = [line.split() for line in table[: table.index("", 2)]][3:]
    assert [line[0] for line in told] == [
        name for workers in (1, 2) for name in (f"workers={workers}", "low", "normal", "high", "urgent")
    ]
    assert sum(int(line[1].replace(",", "")) for line in told[1:5]) == int(told[0][1].replace(",", ""))
