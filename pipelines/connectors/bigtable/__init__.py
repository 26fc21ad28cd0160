"""TODO pipelines/connectors/bigtable."""
