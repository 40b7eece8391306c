"""Objectives with importance weights."""

from kvae.internal.tensorflow import tf


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """log 1/K sum_k w_k, a lower bound of log p(x) that becomes tighter with K.

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), equation 8.

    Args:
        log_weights: log w_k = log p(x, z_k) - log q(z_k|x) at draws z_k ~ q(z|x), `[K, B]`.

    Returns:
        `[B]` nats.
    """
    samples = tf.cast(tf.shape(log_weights)[0], log_weights.dtype)
    return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(samples)
