"""TODO pipelines/connectors/writing."""
