"""Binds the columns of a record batch to the inputs of a model, and converts their values."""
