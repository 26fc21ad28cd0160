"""Says what may be written in a config: one module for each service, and how a file is loaded and explained."""
