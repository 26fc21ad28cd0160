"""Reads from and writes to services: one package for each, named by `registry`."""
