"""TODO pipelines/beam_fixes."""
