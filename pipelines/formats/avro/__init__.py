"""TODO pipelines/formats/avro."""
