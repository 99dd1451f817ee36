"""What a prompt says of a comparison, and what a notebook shows of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.analysis.answers import Answer, answer
from orchestrator.analysis.comparison import Comparison, compare
from orchestrator.analysis.fidelity import Fidelity, fidelity
from orchestrator.analysis.sizing import Sizing
from tests.results.synthetic import mm1, sweep


@pytest.fixture(scope="module")
def told() -> Answer:
    found = answer(sweep({"cluster.capacity": [1, 2]}, n=200))
    assert found is not None
    return replace(found, question="<b>One & two?</b>")


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare(mm1(400), mm1(400, seed=2), ("<i>this", "that"))


@pytest.fixture(scope="module")
def faithful() -> Fidelity:
    return fidelity([mm1(400), *(mm1(400, seed=seed, world="live") for seed in (2, 3))])


def test_one_line_says_what_was_compared(told: Answer, compared: Comparison, faithful: Fidelity):
    """No table and no summary in a representation, nor in that of a part."""
    assert repr(told) == "<Answer synthetic (sim): 1 other against capacity=1>"
    assert repr(compared) == "<Comparison synthetic: <i>this against that>"
    assert repr(compared.cells[0]) == f"<CellComparison base: {len(compared.cells[0].rows)} statistics>"
    assert repr(faithful) == "<Fidelity synthetic: sim against 2 live runs, margin 10%>"
    assert repr(faithful.cells[0]) == f"<CellFidelity base: {len(faithful.cells[0].rows)} statistics>"
    assert repr(Sizing("s", "cluster.workers", [1, 2], [], 1, [], None)) == "<Sizing s: none of 2 values, 0 tried>"


def test_a_notebook_shows_a_table_of_each(told: Answer, compared: Comparison, faithful: Fidelity):
    """With its title; of an answer also every sentence."""
    assert "<caption>capacity=2 against capacity=1: 2 paired replications" in told._repr_html_()
    assert told._repr_html_().count("<li>") == len(told.sentences)
    assert "that, intervals of 95 % by 10 blocks of the run</caption>" in compared._repr_html_()
    assert "<caption>sim against live, margin 10%; KS distance of latency 0." in faithful._repr_html_()
    assert "<td>not shown</td>" in faithful._repr_html_()


def test_names_and_questions_are_escaped(told: Answer, compared: Comparison):
    """Nothing that a user wrote is read as HTML."""
    assert "<b>&lt;b&gt;One &amp; two?&lt;/b&gt;</b>" in told._repr_html_()
    assert "<i>" not in compared._repr_html_()
    assert "&lt;i&gt;this" in compared._repr_html_()
