"""Rehearse a cluster before you run it: one coordinator, in a simulation and on real processes."""
