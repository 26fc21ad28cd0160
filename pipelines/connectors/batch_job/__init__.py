"""Runs batch prediction jobs: the folder of a job, the rows kept in it, the service that runs it."""
