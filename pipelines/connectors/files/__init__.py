"""TODO pipelines/connectors/files."""
