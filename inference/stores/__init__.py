"""Reads and writes stores such as Cloud Storage and S3 through Beam's file systems; explains their errors."""
