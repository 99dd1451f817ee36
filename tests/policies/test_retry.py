"""Retries: how long, and how often."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.policies.retry import ConstantBackoff, ExponentialBackoff, FullJitter, Retry, RetryConfig


@given(st.integers(1, 10**9), st.floats(1e-3, 1e3), st.floats(1e-3, 1e6))
def test_full_jitter_stays_within_its_bounds(tries, base_s, cap_s):
    """Between 0 and min(cap, base * 2^(tries - 1)), however large the exponent."""
    delay_s = FullJitter(random.Random(tries), base_s, cap_s)(tries)
    top_s = min(cap_s, base_s * 2.0 ** min(tries - 1, 100))
    assert 0.0 <= delay_s <= top_s


@pytest.mark.parametrize(("tries", "top_s"), [(1, 0.1), (2, 0.2), (5, 1.6), (9, 25.6), (10, 30.0), (5000, 30.0)])
def test_full_jitter_is_uniform_up_to_its_top(tries, top_s):
    """Base 0.1 s doubles up to the cap of 30 s; the mean delay is half the top, and the extremes are reached."""
    backoff = ExponentialBackoff(kind="exponential").build(random.Random(4))
    delays = [backoff(tries) for _ in range(4000)]
    assert statistics.mean(delays) == pytest.approx(top_s / 2, rel=0.04)
    assert min(delays) < 0.01 * top_s
    assert 0.99 * top_s < max(delays) < top_s


def test_a_constant_backoff_is_constant():
    """Whatever the number of tries."""
    backoff = ConstantBackoff(delay_s=1.5).build(random.Random(0))
    assert {backoff(tries) for tries in (1, 2, 1000)} == {1.5}


@pytest.mark.parametrize(("max_attempts", "delays"), [(None, [0.5] * 4), (1, [None] * 4), (3, [0.5, 0.5, None, None])])
def test_the_last_attempt_has_no_successor(max_attempts, delays):
    """`tries` counts the attempts consumed; null is no limit."""
    retry = Retry(max_attempts, lambda tries: 0.5)
    assert [retry.delay_s(tries) for tries in (1, 2, 3, 4)] == delays


def test_the_configuration_builds_limit_and_backoff():
    """The defaults are those of the reference: at once, and for ever."""
    retry = RetryConfig().build(random.Random(0))
    assert (retry.max_attempts, retry.delay_s(1), retry.delay_s(10**6)) == (None, 0.0, 0.0)
