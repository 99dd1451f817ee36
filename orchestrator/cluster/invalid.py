"""What can't be a task, its arguments, or its result."""

from __future__ import annotations


class InvalidTask(Exception):
    """What is declared as a task can't be one."""


class InvalidPayload(ValueError):
    """The arguments mean nothing to this kind of task."""


class InvalidResult(ValueError):
    """What a function returned can't be its result."""
