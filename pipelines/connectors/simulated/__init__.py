"""TODO pipelines/connectors/simulated."""
