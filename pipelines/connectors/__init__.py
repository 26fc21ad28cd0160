"""TODO pipelines/connectors."""
