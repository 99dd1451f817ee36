"""What a coordinator takes and keeps at most."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cluster.jobs import PAYLOAD_CHARACTERS


@dataclass(frozen=True)
class Limits:
    """Beyond the first two a unary submit is RESOURCE_EXHAUSTED, and a client's stream is not read on."""

    unsettled: int = 200_000
    unsettled_characters: int = 256 << 20
    payload_characters: int = PAYLOAD_CHARACTERS
    settled_s: float = 3600.0
    """For how long settled tasks are remembered."""
    workers: int = 20_000
    """Names that are known at a time; those that left or died are forgotten after an hour."""
    held: int = 10_000
    """Attempts that a worker is given at a time."""
    clients: int = 10_000
    """Streams of clients at a time."""
    newcomers: int = 20_000
    """Streams at a time that have not said who they are, or are not admitted yet; beyond that the oldest of them ends.
    As many as workers: they all begin at once when a coordinator is started again."""
    unread_characters: int = 128 << 20
    """Of large answers to calls that are on their way."""
