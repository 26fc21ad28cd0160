"""TODO pipelines/connectors/kafka."""
