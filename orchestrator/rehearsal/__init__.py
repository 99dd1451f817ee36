"""The live world: a scenario run on real processes."""
