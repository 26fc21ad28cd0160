"""TODO pipelines/formats/orc."""
