"""SavedModels loaded and called with arrays: by TensorFlow's C++ core alone, or by TensorFlow's Python."""
