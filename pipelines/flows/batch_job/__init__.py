"""Builds the two flows of a batch prediction job: rows become instances, and results come back to the rows."""
