"""Runs a pipeline on a Beam runner, and collects the account of it."""
