"""Two servers with a queue each: the exact mean response of any rule that looks at both lengths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

MOST = 70
"""Tasks at one server: at a load of .7 it has as many in one of 10^10 moments."""


def mean_response_s(share: Callable[[int, int], float], rate: float, speeds: tuple[float, float]) -> float:
    """Poisson arrivals, exponential demands of mean 1. `share(a, b)`: the probability that a task that finds a and b
    tasks goes to the first server. The balance equations of the Markov chain, solved, and Little's law."""
    size = MOST + 1
    flows = lil_matrix((size**2, size**2))

    def flow(source: tuple[int, int], target: tuple[int, int], at: float) -> None:
        one, other = source[0] * size + source[1], target[0] * size + target[1]
        flows[other, one] += at
        flows[one, one] -= at

    for a in range(size):
        for b in range(size):
            first = 1.0 if b == MOST else 0.0 if a == MOST else share(a, b)
            if a < MOST and first:
                flow((a, b), (a + 1, b), rate * first)
            if b < MOST and first < 1:
                flow((a, b), (a, b + 1), rate * (1 - first))
            if a:
                flow((a, b), (a - 1, b), speeds[0])
            if b:
                flow((a, b), (a, b - 1), speeds[1])
    flows[0, :] = 1.0
    total = np.zeros(size**2)
    total[0] = 1.0
    shares = spsolve(flows.tocsc(), total).reshape(size, size)
    held = shares * np.add.outer(np.arange(size), np.arange(size))
    return float(held.sum() / rate)
