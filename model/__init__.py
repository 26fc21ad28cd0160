"""Loads, trains, serves and deploys SavedModels. Needs no Beam."""
