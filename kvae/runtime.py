"""What needs no TensorFlow: pictures from arrays of pixels. Importing it loads neither TensorFlow nor Keras."""

from kvae.pictures import save_picture, tile

__all__ = ["save_picture", "tile"]
