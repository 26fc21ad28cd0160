"""Runs the commands: what they share, and the way from a plan to an exit code."""
