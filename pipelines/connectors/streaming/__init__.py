"""Holds what unbounded sources share: checkpoints, acknowledgement, the size of micro-batches, the end."""
