"""What every folder may use: errors, files, quiet output, pictures, and the one import of TensorFlow."""
