"""Calls a model on a server: the handler, the client that sends requests, and what goes over the wire."""
