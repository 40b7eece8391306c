"""Readers of data, one module per format. Each has a function `read` that returns the splits of a source."""
