"""Distributions: what they promise of their mean, their spread and the order of their draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.policies.streams import python_random
from orchestrator.scenario.distributions import Distribution, Empirical
from orchestrator.scenario.streams import generator

KINDS = [
    {"kind": "constant", "value_s": 0.3},
    {"kind": "uniform", "low_s": 0.1, "high_s": 0.5},
    {"kind": "exponential", "mean_s": 0.3},
    {"kind": "lognormal", "mean_s": 0.3, "cv": 1.5},
    {"kind": "lognormal", "mean_s": 0.3, "cv": 0},
    {"kind": "pareto", "mean_s": 0.3, "alpha": 4.5},
]


@pytest.fixture
def measured(tmp_path):
    """An empirical distribution of 0, 0.3 and 0.6."""
    path = tmp_path / "m.csv"
    path.write_text("id,seconds\na,0\nb,0.3\nc,0.6\n")
    return Empirical(kind="empirical", file=str(path), column="seconds")


def read(config) -> Distribution:
    distribution: Distribution = TypeAdapter(Distribution).validate_python(config)
    return distribution


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_samples_have_the_promised_mean_and_spread(config):
    """Within four standard errors of 400,000 draws for the mean, within 10 % for the squared variation."""
    distribution = read(config)
    sample = distribution.sample(np.random.default_rng(7), 400_000)
    assert sample.min() >= 0
    error = math.sqrt(distribution.cv2() / len(sample)) * 4 + 1e-12
    assert sample.mean() / distribution.mean() == pytest.approx(1, abs=error)
    assert sample.var() / sample.mean() ** 2 == pytest.approx(distribution.cv2(), rel=0.1, abs=1e-12)


@pytest.mark.parametrize("limit_s", [0.05, 0.3, 0.45, 2.0])
@pytest.mark.parametrize("config", KINDS, ids=str)
def test_a_limit_makes_of_a_distribution_what_it_makes_of_its_draws(config, limit_s):
    """The share that reaches it, and the mean of what is cut there: within five standard errors of 400,000 draws."""
    distribution = read(config)
    sample = distribution.sample(np.random.default_rng(7), 400_000)
    over, cut = sample >= limit_s, np.minimum(sample, limit_s)
    if distribution.cv2() == 0:  # draws of a lognormal without spread are off by a rounding
        over = np.full(len(sample), limit_s <= 0.3)
    error = 5 / math.sqrt(len(sample))
    assert distribution.share_from(limit_s) == pytest.approx(over.mean(), abs=error * over.std() + 1e-12)
    assert distribution.mean_up_to(limit_s) == pytest.approx(cut.mean(), abs=error * cut.std() + 1e-12)


def test_an_empirical_distribution_is_cut_at_its_values(measured):
    """0, 0.3 and 0.6 at 0.3: two of three reach it."""
    assert measured.share_from(0.3) == pytest.approx(2 / 3)
    assert measured.mean_up_to(0.5) == pytest.approx((0.3 + 0.5) / 3)


def test_an_empirical_distribution_draws_its_values_alike(measured):
    """With replacement."""
    sample = measured.sample(np.random.default_rng(7), 30_000)
    values, counts = np.unique(sample, return_counts=True)
    assert values.tolist() == [0, 0.3, 0.6]
    assert counts == pytest.approx([10_000] * 3, rel=0.05)
    assert measured.mean() == pytest.approx(0.3)
    assert measured.cv2() == pytest.approx(2 / 3)


def test_an_empirical_distribution_notices_a_new_file(measured):
    """What was read is remembered for as long as the file is the same."""
    Path(measured.file).write_text("seconds\n1000\n")
    assert measured.mean() == 1000


def test_pareto_has_its_classical_minimum():
    """mean_s (alpha - 1) / alpha; up to alpha 2 the variance is infinite."""
    heavy = read({"kind": "pareto", "mean_s": 3, "alpha": 1.5})
    sample = heavy.sample(np.random.default_rng(7), 100_000)
    assert sample.min() == pytest.approx(1, rel=1e-3)
    assert np.mean(sample > 4) == pytest.approx(4**-1.5, rel=0.05)
    assert heavy.cv2() == math.inf


@pytest.mark.parametrize("config", KINDS, ids=str)
@given(short=st.integers(0, 50), more=st.integers(0, 50))
def test_a_longer_sample_begins_with_the_shorter_one(config, short, more):
    """So that a demand belongs to its task's index."""
    distribution = read(config)
    first = distribution.sample(np.random.default_rng(1), short)
    longer = distribution.sample(np.random.default_rng(1), short + more)
    assert longer[:short].tolist() == first.tolist()


def test_streams_are_told_apart_by_every_part_of_their_name():
    """Seed, replication, and each word or number of the name."""
    names: list[tuple[Any, ...]] = [
        (1, 0, "a"),
        (2, 0, "a"),
        (1, 1, "a"),
        (1, 0, "b"),
        (1, 0, "a", "b"),
        (1, 0, "a", 1),
        (1, 0, "a", "1"),
    ]
    assert len({generator(*name).random() for name in names}) == len(names)
    assert len({python_random(*name).random() for name in names}) == len(names)


def test_streams_are_the_same_for_ever():
    """Pinned: saved seeds must keep their meaning."""
    assert generator(42, 0, "arrivals").integers(2**32) == 3207429451
    assert python_random(42, 0, "routing").getrandbits(32) == 3938577995
