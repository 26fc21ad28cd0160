"""Binds the columns of a record batch to the inputs of a model, and turns their values into those that the inputs take."""
