"""Every coordinator and every worker made here is checked when its test ends."""

from __future__ import annotations

import pytest

from tests.core import making
from tests.core.recording import Recorder, WorkerRecorder, register


@pytest.fixture
def make_coordinator():
    """`core, fx = make_coordinator(**settings)`: see `making.coordinator`."""
    made = []

    def make(**settings):
        fx = Recorder()
        core = making.coordinator(fx, **settings)
        made.append(core)
        return core, fx

    yield make
    for core in made:
        core.check()


@pytest.fixture
def make_cluster(make_coordinator):
    """`make_cluster("w1", "w2", capacity=1, prefetch=0, **settings)`: a coordinator whose workers stand ready."""

    def make(*workers, capacity=1, prefetch=0, reports_start=True, **settings):
        core, fx = make_coordinator(**settings)
        for worker in workers:
            register(core, worker, capacity, prefetch, reports_start, 0.0)
        fx.take()
        return core, fx

    return make


@pytest.fixture
def make_agent():
    """`worker, fx = make_agent(**settings)`: see `making.agent`."""
    made = []

    def make(**settings):
        fx = WorkerRecorder()
        worker = making.agent(fx, **settings)
        made.append(worker)
        fx.take()  # its first alarm
        return worker, fx

    yield make
    for worker in made:
        worker.check()
