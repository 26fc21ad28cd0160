"""TODO inference/columns."""
