"""Holds what sinks share: the step that writes rows, the interface of its writers, keys and payloads."""
