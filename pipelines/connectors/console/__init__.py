"""TODO pipelines/connectors/console."""
