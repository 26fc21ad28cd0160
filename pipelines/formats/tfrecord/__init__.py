"""Reads and writes TFRecord files, of tf.Examples or of raw records."""
