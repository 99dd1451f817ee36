"""What a terminal says of how sure the numbers of replications are."""

from __future__ import annotations

import re

from orchestrator.cli.intervals import print_intervals
from orchestrator.cli.views import print_summary
from orchestrator.results.summaries import pool
from tests.results.synthetic import mm1, run, scenario, tables, task


def test_intervals_say_over_how_many_replications_they_are(capsys):
    """Both ends where the replications carry them, the lower one where they are too few, and what that means."""
    print_intervals(pool([mm1(2_000, seed=seed) for seed in range(6)]))
    printed = capsys.readouterr().out
    assert "intervals of 95 % over 6 replications" in printed
    assert re.search(r"^latency +\S+ m?s to \S+ m?s .* > \S+ s$", printed, re.MULTILINE)
    assert re.search(r"^utilisation +\d+\.\d% to \d+\.\d% *$", printed, re.MULTILINE)
    assert "> at least that: too few replications" in printed


def test_a_single_run_has_no_intervals(capsys):
    """Nor does one replication."""
    print_intervals(mm1(100).summary)
    print_intervals(pool([mm1(100)]))
    assert not capsys.readouterr().out


def test_a_warm_up_that_is_too_short_is_said(capsys):
    """Until when it would have to be, or nothing."""
    slow = tables([task(float(k), float(k) + (50.0 if k < 300 else 1.0)) for k in range(4_000)])
    print_summary(run(slow, scenario(duration_s=5_000, warmup_s=0)).summary)
    assert re.search(r"^warm-up +too short: latency settled after \d+ s only", capsys.readouterr().out, re.MULTILINE)
    print_summary(run(slow, scenario(duration_s=5_000, warmup_s=400)).summary)
    assert "warm-up" not in capsys.readouterr().out
