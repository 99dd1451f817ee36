"""What completes is not all there is: overload and failures must not make a system look fast."""

import sim

EXPONENTIAL = {"kind": "exponential", "mean_s": 1}


def test_a_class_that_starves_does_not_know_its_median(make):
    """Twice the load that fits: urgent tasks take all the slots, a few of the low ones complete, and the rest count."""
    scenario = make(
        duration_s=600,
        drain_s=0,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": 8},
            "service": EXPONENTIAL,
            "priorities": {"low": 0.5, "urgent": 0.5},
        },
        cluster={"workers": 4, "capacity": 1},
    )
    summary = sim.run(scenario).summary
    low = summary["by_priority"]["low"]
    assert low["completed"] < 0.05 * low["submitted"]
    assert low["submitted"] == low["completed"] + low["failed"] + low["unfinished"]
    assert low["latency_s"]["p50"] is low["latency_s"]["p99"] is None
    assert 250 < low["latency_s"]["at_least"]["p50"] < 350  # unfinished tasks are 0 to 600 s old, as they came
    assert summary["queue"]["at_coordinator"] > 1000


def test_failing_fast_is_not_being_fast(make):
    """With one attempt, a timeout of 1.5 s fails a fifth of the tasks (exp(-1.5) = 22 %): p90 must not be better."""
    scenarios = [
        make(
            duration_s=600,
            workload={"arrivals": {"kind": "poisson", "rate_per_s": 2}, "service": EXPONENTIAL},
            cluster={"workers": 4, "capacity": 1},
            policies={"retry": {"max_attempts": 1}, "execution_timeout_s": timeout_s},
        )
        for timeout_s in (1.5, None)
    ]
    hasty, patient = (sim.run(scenario).summary for scenario in scenarios)
    assert 0.18 < hasty["tasks"]["failed"] / hasty["tasks"]["submitted"] < 0.26
    assert hasty["latency_s"]["p50"] is not None
    assert hasty["latency_s"]["p90"] is hasty["latency_s"]["p99"] is None
    assert patient["tasks"]["failed"] == 0
    assert patient["latency_s"]["p99"] is not None


def test_a_prefetching_cluster_has_a_queue(make):
    """With unlimited prefetch nothing waits at the coordinator; in an overload the queue stands at the workers."""
    scenario = make(
        duration_s=100,
        drain_s=0,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": 4}, "service": EXPONENTIAL},
        cluster={"workers": 2, "capacity": 1, "prefetch": "unlimited"},
    )
    queue = sim.run(scenario).summary["queue"]
    assert queue["at_coordinator"] == 0
    assert queue["at_workers"] > 50
