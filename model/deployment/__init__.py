"""Puts a SavedModel online: its files on Cloud Storage, then model, version and endpoint of a cloud service."""
