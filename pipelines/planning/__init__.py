"""TODO pipelines/planning."""
