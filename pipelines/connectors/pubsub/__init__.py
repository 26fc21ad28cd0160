"""TODO pipelines/connectors/pubsub."""
