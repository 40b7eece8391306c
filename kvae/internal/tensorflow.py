"""TensorFlow and Keras. They are imported only here, where the backend of Keras is checked."""

import gc
import os

from kvae.internal import xla_cache
from kvae.internal.errors import UserError
from kvae.internal.missing_packages import explained

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides messages at start-up; warnings and errors are still printed


def _import() -> tuple:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    xla_cache.begin()
    collecting = gc.isenabled()
    gc.disable()  # the search for garbage among the many new objects would take a third of the time of the import
    try:
        import keras
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name not in ("keras", "tensorflow"):
            raise
        raise explained(error) from error
    finally:
        if collecting:
            if not gc.get_freeze_count():  # nothing that the user froze
                gc.freeze()
                gc.unfreeze()  # the new objects are now in the oldest generation, which is rarely searched
            gc.enable()

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"kvae needs Keras on TensorFlow. Received the backend {keras.backend.backend()!r}. "
            "Set KERAS_BACKEND=tensorflow before the first import of keras."
        )
    return keras, tf


keras, tf = _import()
# For functions that `tf.data` traces: AutoGraph would translate their source first, which takes a second in all, though
# they have no Python conditions or loops on tensors.
unconverted = tf.autograph.experimental.do_not_convert
__all__ = ["check_process", "keras", "tf", "unconverted"]
_forked_while_used = False


def check_process() -> None:
    """Checks that TensorFlow can compute in this process.

    Raises:
        UserError: if the process is a fork of one that had computed with TensorFlow. It has no copy of its threads, so
            that most operations would wait for them for ever.
    """
    if _forked_while_used:
        raise UserError(
            "Expected a process in which TensorFlow can compute. Received a fork of a process that has used TensorFlow "
            'already; a model would wait for ever there. Start it with multiprocessing.get_context("spawn"), or use '
            "an exported .tflite decoder, which runs in forks."
        )


def _note_fork() -> None:
    from tensorflow.python.eager import context

    global _forked_while_used
    # TensorFlow has no public name for it. A fork before the first operation can compute.
    _forked_while_used = _forked_while_used or getattr(context.context(), "_initialized", False)


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_note_fork)
