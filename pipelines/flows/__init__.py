"""TODO pipelines/flows."""
