"""A scenario with the reference system's own settings, for tests that are given the rest."""

from pathlib import Path

REFERENCE = Path(__file__).with_name("reference.yaml")
