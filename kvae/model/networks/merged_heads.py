"""Two dense heads as one matrix product, where nobody can notice the difference.

A second product, with its two gradients, takes 3 to 4 % of a training step on a CPU (docs/PERFORMANCE.md).
"""

from typing import Any

from kvae.internal.tensorflow import keras, tf

CALLS = {name: getattr(keras.layers.Dense, name) for name in ("__call__", "call")}


def can_merge(head: Any) -> bool:
    """Whether a head is a plain dense layer, so that only its kernel and its bias decide what it returns.

    It is not if its class or its calls were replaced, it is quantized, it has LoRA or an activation, it adds a loss, or
    it computes in another dtype than its weights have.
    """
    plain = type(head) is keras.layers.Dense and not any(name in vars(head) for name in CALLS)
    return (
        plain
        and all(getattr(type(head), name) is call for name, call in CALLS.items())
        and head.dtype_policy.quantization_mode is None
        and head.compute_dtype == head.variable_dtype
        and not head.lora_enabled
        and head.activation is keras.activations.linear
        and head.activity_regularizer is None
        and head.bias is not None
    )


def merged(heads: tuple[Any, Any], h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The outputs of two heads of the same width, each `[B, width]`, from h `[B, n]` and one product."""
    kernel = tf.concat([tf.convert_to_tensor(head.kernel) for head in heads], axis=1)
    bias = tf.concat([tf.convert_to_tensor(head.bias) for head in heads], axis=0)
    first, second = tf.split(tf.matmul(h, kernel) + bias, 2, axis=-1)
    return first, second
