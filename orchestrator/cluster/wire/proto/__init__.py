"""The messages on the wire. `python -m orchestrator.cluster.wire.proto` makes the stubs anew from their sources."""

from google.protobuf.descriptor_pool import DescriptorPool

# Not the default pool: another program's stubs of the same package can then live in the same process.
POOL = DescriptorPool()
