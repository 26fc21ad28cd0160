"""TODO pipelines/connectors/bigquery."""
