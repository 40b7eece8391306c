"""Readers of data, one file a format: each has a function `read` that returns the splits of a source."""
