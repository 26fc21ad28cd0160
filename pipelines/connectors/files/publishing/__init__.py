"""Publishes a run's files: reserved before it, published at its end, looked after when a run was stopped."""
