"""TODO pipelines/formats/tfrecord."""
