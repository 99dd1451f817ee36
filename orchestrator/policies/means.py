"""A running mean of what was heard."""

from __future__ import annotations


class Mean:
    """Of `n` values, in which the newest counts 1/n; beyond a window, as much as the window's last."""

    __slots__ = ("n", "value")

    def __init__(self, value: float = 0.0, n: int = 0) -> None:
        self.value = value
        self.n = n

    def add(self, value: float, window: int) -> None:
        self.n = min(self.n + 1, window)
        self.value += (value - self.value) / self.n
