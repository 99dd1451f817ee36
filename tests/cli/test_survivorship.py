"""What a terminal says of tasks that failed or are unfinished."""

from orchestrator.cli.views import print_cells, print_summary
from tests.results.synthetic import run, sweep, tables, task


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
