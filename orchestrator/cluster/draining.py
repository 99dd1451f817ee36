"""How long a process of workers drains: until all have left, unless that would be too long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from orchestrator.cluster.silence import Silence
from orchestrator.cluster.worker import Worker

LOOK_S = 0.5
UNREACHABLE_S = 10.0
"""After which results that are finished are given up where there is nobody to report them to."""


async def out_of_patience(workers: Mapping[str, Worker], silence: Silence, timeout_s: float | None) -> str:
    """From now on, wait until a drain has lasted too long: `timeout_s`, or, where nothing runs any more, while the
    coordinator can't be reached. Why it has."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        drained_s = loop.time() - began
        if timeout_s is not None and drained_s >= timeout_s:
            return f"it has drained for {timeout_s:g} s"
        unreachable_s = min(drained_s, silence.lasts_s)
        if unreachable_s >= UNREACHABLE_S and not any(worker.agent.active for worker in workers.values()):
            return f"the coordinator can't be reached for {unreachable_s:.0f} s"
        await asyncio.sleep(LOOK_S if timeout_s is None else min(LOOK_S, timeout_s - drained_s))
