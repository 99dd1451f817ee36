"""What tells two versions of the wire apart."""

from __future__ import annotations

import hashlib

from orchestrator.cluster.wire.proto import stream_pb2, watch_pb2, wire_pb2


def fingerprint() -> str:
    """Eight hexadecimal digits of contract, streams and questions; they change with any message or call."""
    described = [module.DESCRIPTOR.serialized_pb for module in (wire_pb2, stream_pb2, watch_pb2)]
    return hashlib.sha256(b"".join(described)).hexdigest()[:8]
