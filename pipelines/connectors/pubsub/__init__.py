"""Reads Pub/Sub subscriptions, and publishes to topics."""
