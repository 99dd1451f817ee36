"""The simulated world: a scenario run on SimPy, with modelled workers, network and faults."""

from sim.runs import heartbeats, run, sweep
from sim.sizing import size

__all__ = ["heartbeats", "run", "size", "sweep"]
