"""Plays the services that run batch prediction jobs, so that they can be rehearsed on this machine."""
