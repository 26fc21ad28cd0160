"""TODO inference/saved_model."""
