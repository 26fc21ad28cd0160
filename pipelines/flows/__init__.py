"""Builds the flow of a run: source, decoding, Predict, sink, and the account."""
