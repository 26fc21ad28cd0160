"""TODO pipelines/rows."""
