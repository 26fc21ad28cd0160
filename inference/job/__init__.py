"""Calls a model by a batch prediction job: instances and their keys, results, the services that run such jobs."""
