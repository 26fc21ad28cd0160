"""Writes rows and dead letters of a stream to BigQuery."""
