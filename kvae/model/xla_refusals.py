"""Models that XLA cannot compile: which errors say so."""

from kvae.internal.tensorflow import tf

# Parts of the messages of TensorFlow. A refusal comes before anything is computed, so the same call can run as a graph.
REFUSALS = (
    "unsupported operations when trying to compile",  # an operation without an XLA kernel on this device
    "compile-time constant",  # a shape that depends on data
    "tf2xla conversion failed",
    "XLA compilation",
)
KINDS = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError, tf.errors.InternalError)


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
