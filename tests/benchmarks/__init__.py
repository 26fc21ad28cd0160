"""Measurements of the project against named baselines. They never run in the test command."""
