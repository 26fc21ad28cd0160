"""Counts and measures a run: receipts and their balance, the tally, latencies, the closing summary."""
