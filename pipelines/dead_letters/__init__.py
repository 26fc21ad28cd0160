"""TODO pipelines/dead_letters."""
