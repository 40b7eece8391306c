"""Helpers for every other package: errors, files, hidden output, pictures, and the import of TensorFlow."""
