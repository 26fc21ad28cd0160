"""Calls a SavedModel inside the worker: the handler, the loader, the files, and newer versions that replace it."""
