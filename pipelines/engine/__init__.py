"""TODO pipelines/engine."""
