"""Log densities, divergences and the reparameterized draw: pure functions on tensors.

Everything here is per element and in nats, broadcasts over any leading dimensions, keeps float32 or float64 as it
comes, and has finite values and finite gradients for logits up to +-1e4 and log variances up to +-30. Nothing is
summed; `kvae.objectives` sums.
"""

import math
from typing import Any

from kvae.internal.tensorflow import tf

LOG_2PI = math.log(2.0 * math.pi)
TensorLike = Any


def gaussian_log_density(x: TensorLike, mean: TensorLike, log_var: TensorLike) -> tf.Tensor:
    """log N(x; mean, exp(log_var)), the factorized Gaussian.

        -1/2 [log 2 pi + log_var + (x - mean)^2 exp(-log_var)]

    Args:
        x: where the density is taken, `[..., D]`.
        mean: `[..., D]`.
        log_var: logarithm of the variance, `[..., D]`.

    Returns:
        Nats per element, the broadcast shape.
    """
    x, mean, log_var = _tensors(x, mean, log_var)
    return -0.5 * (LOG_2PI + log_var + tf.square(x - mean) * tf.exp(-log_var))


def standard_normal_log_density(z: TensorLike) -> tf.Tensor:
    """log N(z; 0, 1), the prior p(z), in nats per element of `z` `[..., D]`."""
    (z,) = _tensors(z)
    return -0.5 * (LOG_2PI + tf.square(z))


def bernoulli_log_density(x: TensorLike, logits: TensorLike) -> tf.Tensor:
    """log Bernoulli(x; sigmoid(logits)), computed from the logits.

        x log sigmoid(l) + (1 - x) log sigmoid(-l)  =  -[max(l, 0) - x l + log(1 + exp(-|l|))]

    The right side has no difference of large numbers and no logarithm of a rounded probability, so it is exact
    where log(1 - p) would be -inf (float32 rounds sigmoid(17) to 1).

    Args:
        x: data in [0, 1], `[..., H, W, C]`. Grey values give the cross entropy, which is not a log density.
        logits: `[..., H, W, C]`.

    Returns:
        Nats per element.
    """
    x, logits = _tensors(x, logits)
    # One comparison selects both branches: the gradient at logits = 0 is x - 1/2, as it must be, whereas max(l, 0)
    # and |l| each have subgradient 0 there.
    positive = logits >= 0
    hinge = tf.where(positive, logits, tf.zeros_like(logits))
    minus_abs = tf.where(positive, -logits, logits)
    return x * logits - hinge - tf.math.log1p(tf.exp(minus_abs))


def continuous_bernoulli_log_normalizer(logits: TensorLike) -> tf.Tensor:
    """log C of the continuous Bernoulli with parameter lambda = sigmoid(logits), nats per element.

    Loaiza-Ganem and Cunningham, "The continuous Bernoulli" (2019), equation 2, has
    C = 2 artanh(1 - 2 lambda) / (1 - 2 lambda), and 2 at lambda = 1/2. With 1 - 2 lambda = -tanh(l / 2) this is

        C = l / tanh(l / 2) = 2 y coth y,   y = l / 2,

    an even function without poles. Near 0 the quotient is 0/0 and its gradient loses digits; there the series
    log(y coth y) = y^2/3 - 7 y^4/90 + 62 y^6/2835 - 127 y^8/18900 + O(y^10) takes over.
    """
    (logits,) = _tensors(logits)
    # At |l| = 0.2 the series is off by 2e-13 (its gradient by 3e-10, relative), and the quotient's gradient, a
    # difference of two numbers near 1/l, is still good to 3e-5 relative in float32.
    near_half = tf.abs(logits) < 0.2
    zeros = tf.zeros_like(logits)
    y2 = tf.square(tf.where(near_half, logits, zeros) / 2)
    series = y2 * (1 / 3 - y2 * (7 / 90 - y2 * (62 / 2835 - y2 * (127 / 18900))))
    magnitude = tf.where(near_half, tf.ones_like(logits), tf.abs(logits))  # 1: any value whose gradient is finite
    quotient = tf.math.log(magnitude / tf.tanh(magnitude / 2))
    return tf.where(near_half, math.log(2.0) + series, quotient)


def continuous_bernoulli_log_density(x: TensorLike, logits: TensorLike) -> tf.Tensor:
    """log density on [0, 1] of the continuous Bernoulli: C(lambda) lambda^x (1 - lambda)^(1 - x).

    Loaiza-Ganem and Cunningham (2019), equation 1.

    Args:
        x: grey data in [0, 1], `[..., H, W, C]`.
        logits: log(lambda / (1 - lambda)), `[..., H, W, C]`.

    Returns:
        Nats per element.
    """
    return bernoulli_log_density(x, logits) + continuous_bernoulli_log_normalizer(logits)


def gaussian_kl(mean: TensorLike, log_var: TensorLike) -> tf.Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)), analytic.

        1/2 [mean^2 + exp(log_var) - 1 - log_var]

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix B. `expm1` keeps the digits near
    log_var = 0, where the three last terms cancel.

    Args:
        mean: `[..., D]`.
        log_var: `[..., D]`.

    Returns:
        Nats per latent dimension, `[..., D]`, never negative but for rounding.
    """
    mean, log_var = _tensors(mean, log_var)
    return 0.5 * (tf.square(mean) + tf.math.expm1(log_var) - log_var)


def sampled_kl(z: TensorLike, mean: TensorLike, log_var: TensorLike) -> tf.Tensor:
    """log q(z) - log p(z) at draws z ~ q = N(mean, exp(log_var)): unbiased for `gaussian_kl`, and of either sign.

    Args:
        z: `[K, ..., D]`.
        mean: `[..., D]`.
        log_var: `[..., D]`.

    Returns:
        Nats per latent dimension, `[K, ..., D]`.
    """
    return gaussian_log_density(z, mean, log_var) - standard_normal_log_density(z)


def reparameterize(mean: TensorLike, log_var: TensorLike, noise: TensorLike) -> tf.Tensor:
    """z = mean + exp(log_var / 2) * noise, a draw of N(mean, exp(log_var)) for noise ~ N(0, 1).

    Kingma and Welling (2014), section 2.4.

    Args:
        mean: `[B, D]`.
        log_var: `[B, D]`.
        noise: `[K, B, D]`, or any shape that broadcasts with the other two.

    Returns:
        z `[K, B, D]`.
    """
    mean, log_var, noise = _tensors(mean, log_var, noise)
    return mean + tf.exp(0.5 * log_var) * noise


def _tensors(*values: TensorLike) -> tuple[tf.Tensor, ...]:
    """Converts to floating tensors of one type: the widest that came in, float32 for plain Python numbers."""
    types = {tf.as_dtype(value.dtype) for value in values if hasattr(value, "dtype")}
    dtype = tf.float64 if tf.float64 in types else tf.float32
    # Plain numbers are converted at that type: by way of float32 they would lose digits beside a float64 tensor.
    return tuple(tf.cast(v, dtype) if hasattr(v, "dtype") else tf.convert_to_tensor(v, dtype) for v in values)
