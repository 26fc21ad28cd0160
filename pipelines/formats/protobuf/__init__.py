"""TODO pipelines/formats/protobuf."""
