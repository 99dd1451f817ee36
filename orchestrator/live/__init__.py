"""The live world: coordinator, workers and clients over gRPC around the core's own state machines."""
