"""Generates messages at an exact rate, and publishes them."""
