"""A directory of its own for each test."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory, where scenarios and data are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path
