"""Runs TensorFlow predictions as Beam pipelines from one JSON config: the commands, and what they are made of."""
