"""TODO pipelines/formats/parquet."""
