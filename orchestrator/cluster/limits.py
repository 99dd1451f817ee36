"""What a coordinator takes and keeps at most."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cluster.jobs import KIND_CHARACTERS, PAYLOAD_CHARACTERS, Job, unsound
from orchestrator.cluster.wire import translate
from orchestrator.core.model import TimeLimits


@dataclass(frozen=True)
class Limits:
    """Beyond the first two a unary submit is RESOURCE_EXHAUSTED, and a client's stream is not read on."""

    unsettled: int = 200_000
    unsettled_characters: int = 256 << 20
    payload_characters: int = PAYLOAD_CHARACTERS
    settled_s: float = 24 * 3600.0
    """For how long settled tasks are remembered."""
    keyed_s: float = 24 * 3600.0
    """For how long those that were submitted with a key."""
    workers: int = 20_000
    """Names that are known at a time; those that left or died are forgotten after an hour."""
    held: int = 10_000
    """Attempts that a worker is given at a time."""
    clients: int = 10_000
    """Streams of clients at a time."""
    newcomers: int = 20_000
    """Streams at a time that have not said who they are, or are not admitted yet; beyond that the oldest of them ends.
    As many as workers: they all begin at once when a coordinator is started again."""
    watchers: int = 100
    """Streams at a time that watch the health, or ask which services there are; beyond that the oldest of them ends.
    As many may watch the cluster; beyond that no more are taken."""
    unread_characters: int = 128 << 20
    """Of large answers to calls that are on their way."""

    def nonsense(self, job: Job, priority: int, limits: TimeLimits | None = None) -> str:
        """What is wrong with a task, empty for nothing."""
        characters = len(job.payload)
        if not characters:
            return "the payload is empty"
        if characters > self.payload_characters:
            return f"the payload is too large: {characters} characters, the limit is {self.payload_characters}"
        if len(job.kind) > KIND_CHARACTERS:
            return f"unknown kind: {job.kind[:80]!r}..."
        if limits is not None and (wrong := unsound(limits)):
            return wrong
        return "" if translate.is_priority(priority) else f"unknown priority: {priority}"
