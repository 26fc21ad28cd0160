"""Loads SavedModels and calls them with arrays: by TensorFlow's C++ core alone, or by TensorFlow's Python."""
