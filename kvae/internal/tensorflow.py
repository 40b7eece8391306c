"""TensorFlow and Keras. They are imported only here, where the backend of Keras is checked."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides messages at start-up; warnings and errors are still printed


def _import() -> tuple:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name not in ("keras", "tensorflow"):
            raise
        raise ImportError(
            f"kvae trains, evaluates and exports with TensorFlow and Keras. {error.name} is not installed for Python "
            f"{sys.version_info.major}.{sys.version_info.minor}. Install kvae under Python 3.11, 3.12 or 3.13. "
            "Exported decoders run without it: kvae.load, kvae.runtime."
        ) from error

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"kvae needs Keras on TensorFlow. Received the backend {keras.backend.backend()!r}. "
            "Set KERAS_BACKEND=tensorflow before the first import of keras."
        )
    return keras, tf


keras, tf = _import()
__all__ = ["keras", "tf"]
