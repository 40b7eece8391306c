"""TensorFlow and Keras, imported in one place that checks the backend of Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # start-up chatter; warnings and errors still come through


def _import() -> tuple:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"kvae needs Keras on TensorFlow. Received the backend {keras.backend.backend()!r}. "
            "Set KERAS_BACKEND=tensorflow before the first import of keras."
        )
    import tensorflow as tf

    return keras, tf


keras, tf = _import()
__all__ = ["keras", "tf"]
