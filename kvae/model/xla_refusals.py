"""Models that XLA cannot compile: which errors say so, and how such a model goes on without XLA."""

import warnings
from typing import Any

from kvae.internal.errors import KvaeWarning, stacklevel_of_user
from kvae.internal.tensorflow import tf

# Parts of the messages of TensorFlow. A refusal comes before anything is computed, so the same call can run as a graph.
REFUSALS = (
    "unsupported operations when trying to compile",  # an operation without an XLA kernel on this device
    "compile-time constant",  # a shape that depends on data
    "tf2xla conversion failed",
    "XLA compilation",
    # A file of `kvae.internal.xla_cache` cannot be read or written.
    "_XLA_CPU_JIT.pb",
    "Read less bytes than requested",
    "Serialized cache key does not match",
    "Serialized HLO does not match",
)
KINDS = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
    tf.errors.InternalError,
    tf.errors.DataLossError,
    tf.errors.OutOfRangeError,
    tf.errors.ResourceExhaustedError,
)


def is_refusal(error: Exception) -> bool:
    """Whether an error says that XLA cannot compile the operations of a function."""
    return isinstance(error, KINDS) and any(part in str(error) for part in REFUSALS)


def reason(error: Exception) -> str:
    """The operation that XLA refused, as a clause for a message."""
    text = str(error)
    marker = "_JIT: "
    if marker in text:
        return f"XLA has no {text.split(marker, 1)[1].split(' ', 1)[0]} for this device"
    return f"XLA cannot compile its operations ({text.strip().splitlines()[0][:120]})"


def user_decided(model: Any) -> bool:
    """Whether the user decided about XLA, by `compile(jit_compile=...)`; otherwise kvae does."""
    return model._asked_to_compile.get("jit_compile", "auto") != "auto"


def leave_xla(model: Any, refusal: Exception) -> bool:
    """Runs a `kvae.VAE` as a graph from now on, after an error for which `is_refusal` is true.

    Returns:
        False if the user asked for XLA. The error is then to be raised.
    """
    if user_decided(model):
        return False
    if not model._xla_refused:
        text = (
            f"This model runs without XLA, as a graph, because {reason(refusal)}. The result is the same, but it can "
            "take longer."
        )
        warnings.warn(text, KvaeWarning, stacklevel=stacklevel_of_user())
    model.__dict__["_xla_refused"] = True
    model.jit_compile = False
    return True
