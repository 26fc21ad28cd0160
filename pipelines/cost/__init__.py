"""Computes what a run costs: prices from a dated file, and what a job has used."""
