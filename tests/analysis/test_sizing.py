"""Sizing: the smallest value that suffices, in few tries, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.analysis.sizing import Sizing, Tried, between, border, rounds
from orchestrator.cli.sizing import print_sizing
from orchestrator.results.objectives import Objective, Verdict
from tests.cli.test_command_line import narrow


def search(met: Sequence[bool], at_once: int) -> tuple[int | None, list[list[int]]]:
    """The answer for values of which it is known whether they meet, and what was tried."""
    asked: list[list[int]] = []

    def tries(places: Sequence[int]) -> dict[int, bool]:
        asked.append(list(places))
        return {place: met[place] for place in places}

    return border(len(met), tries, at_once), asked


@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("number", [1, 2, 3, 10, 61])
def test_the_border_is_found_wherever_it_is(number: int, at_once: int):
    """Nothing is tried twice, both neighbours of the answer are tried, and not more rounds than foretold."""
    for first in range(number + 1):
        answer, asked = search([place >= first for place in range(number)], at_once)
        tried = [place for places in asked for place in places]
        assert answer == (first if first < number else None)
        assert len(tried) == len(set(tried))
        if answer is not None:
            assert {n for n in (first - 1, first + 1) if 0 <= n < number} <= set(tried)
            assert len(asked) <= rounds(number, at_once)
        assert all(len(places) <= max(at_once, 2) for places in asked)


def test_a_miss_above_the_border_moves_the_answer_up():
    """3 meets and 4 misses: the answer is the smallest above every miss that was seen."""
    answer, _ = search([False, False, False, True, False, False, True, True, True], 1)
    assert answer == 6


def test_the_largest_value_decides_whether_there_is_an_answer():
    """If it misses nothing else is asked."""
    assert search([True, True, False], 1) == (None, [[0, 2]])


def test_parts_are_equal():
    """What is between two numbers is halved, or cut into as many parts as can be tried at once."""
    assert between(0, 10, 1) == [5]
    assert between(0, 9, 2) == [3, 6]
    assert between(3, 5, 4) == [4]
    assert between(3, 4, 4) == []


def tried(value: int, p95: float, interval: tuple[float, float | None] | None = None) -> Tried:
    verdict = Verdict(Objective.parse("latency_s.p95 < 5"), p95, None, interval)
    return Tried(value, [verdict], {"utilization": 0.5, "tasks": {}})


def sizing(results: Sequence[Tried], answer: Tried | None) -> Sizing:
    return Sizing("small", "cluster.workers", range(2, 10), [Objective.parse("latency_s.p95 < 5")], 1, results, answer)


def test_the_answer_names_the_value_and_the_next_smaller_one():
    """Both with their numbers, and what is assumed."""
    results = [tried(2, 30.0, (20.0, None)), tried(5, 6.0, (5.5, 7.0)), tried(6, 4.5, (4.0, 4.9)), tried(9, 4.0)]
    found = sizing(results, results[2])
    assert found.sentences() == [
        "cluster.workers = 6 is the smallest from 2 to 9 that meets latency_s.p95 < 5.",
        "With 6: latency_s.p95 is 4.5 (interval 4 to 4.9). "
        "With 5 it is missed: latency_s.p95 is 6 (interval 5.5 to 7).",
        "4 of 8 values were tried, with the same arrivals and demands; that a larger one is never worse holds for "
        "these, and is assumed for the others.",
    ]
    assert (found.summary()["answer"], found.summary()["below"], found.summary()["monotone"]) == (6, 5, True)


def test_an_interval_over_the_limit_is_told():
    """The value is on one side of the limit, and its interval on both; which value has it on one side."""
    results = [
        tried(5, 6.0, (4.0, 7.0)),
        tried(6, 4.5, (4.0, None)),
        tried(7, 4.3, (4.0, 5.1)),
        tried(9, 4.0, (3, 4.9)),
    ]
    assert sizing(results, results[1]).sentences()[2:4] == [
        "Of other arrivals like these that is not sure: with 6 and with 5 the interval of 95 % reaches over the limit.",
        "9 is the smallest that was tried whose whole interval keeps it.",
    ]
    results = [tried(5, 6.0), tried(6, 4.5, (4.0, 4.9))]
    told = sizing(results, results[1]).sentences()[2]
    assert told.startswith("How sure that is of other arrivals like these, is not known: there is no interval.")


def test_what_is_told_of_a_size_breaks_between_words(monkeypatch: pytest.MonkeyPatch):
    """On a terminal of 60 columns."""
    screen = narrow(monkeypatch)
    results = [tried(5, 6.0, (5.5, 7.0)), tried(6, 4.5, (4.0, 4.9))]
    found = sizing(results, results[1])
    print_sizing(found)
    lines = screen.shown().splitlines()
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()).endswith(" ".join(found.sentences()))


def test_what_is_not_found_is_told():
    """The largest misses; the smallest meets; more is worse."""
    results = [tried(2, 30.0), tried(9, 7.0)]
    assert sizing(results, None).sentences()[0] == (
        "No cluster.workers from 2 to 9 meets latency_s.p95 < 5: with 9 latency_s.p95 is 7."
    )
    results = [tried(2, 3.0), tried(3, 3.0), tried(9, 2.0)]
    assert "the smallest of the range, meets" in sizing(results, results[0]).sentences()[0]
    results = [tried(2, 3.0), tried(9, 6.0)]
    found = sizing(results, None)
    assert found.sentences()[-1] == "More is not always better here: 2 meets and 9 misses."
    assert found.summary()["monotone"] is False
