"""The product: coordinator, workers and clients over gRPC."""
