"""TODO pipelines/connectors/streaming."""
