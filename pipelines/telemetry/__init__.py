"""TODO pipelines/telemetry."""
