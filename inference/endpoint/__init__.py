"""TODO inference/endpoint."""
