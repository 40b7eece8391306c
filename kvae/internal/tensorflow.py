"""TensorFlow and Keras. They are imported only here, where the backend of Keras is checked."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides messages at start-up; warnings and errors are still printed


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
