"""Shows rows of a stream on the console."""
