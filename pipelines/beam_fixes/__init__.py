"""Repairs of Beam itself, each for one runner; see docs/architecture.md for what fails without it."""
