"""Holds a config against the files, the model and the columns that it names, before anything runs."""
