"""What training minimises and what a report states: the only place where nats are summed.

Sums run over pixels and latent dimensions; means over the K draws; the batch axis stays, so every result is per
example, `[B]`. `elbo` always has beta = 1; `loss` is what training minimises.
"""

import math
import numbers
from typing import Any, NamedTuple

from kvae.errors import UserError
from kvae.tensorflow import keras, tf


class Terms(NamedTuple):
    """The two terms of the bound, in nats per example."""

    reconstruction: tf.Tensor  # [B]  -E_q[log p(x|z)]
    kl: tf.Tensor  # [B]  KL(q(z|x) || p(z))

    @property
    def elbo(self) -> tf.Tensor:
        """ELBO = -reconstruction - kl, `[B]`; Kingma and Welling (2014), equation 3."""
        return -self.reconstruction - self.kl


def sum_event(log_density: tf.Tensor, event_rank: int) -> tf.Tensor:
    """Sums nats per element over the last `event_rank` axes: pixels or latent dimensions."""
    return tf.reduce_sum(log_density, axis=list(range(-event_rank, 0)))


def elbo_terms(log_likelihood: tf.Tensor, kl: tf.Tensor) -> Terms:
    """The terms from densities per element.

    Args:
        log_likelihood: log p(x|z) per pixel at K draws, `[K, B, H, W, C]`, or any event shape after `[K, B]`.
        kl: analytic, `[B, D]`, or at the K draws, `[K, B, D]`.
    """
    reconstruction = -tf.reduce_mean(sum_event(log_likelihood, log_likelihood.shape.rank - 2), axis=0)
    kl = tf.reduce_sum(kl, axis=-1)
    return Terms(reconstruction, tf.reduce_mean(kl, axis=0) if kl.shape.rank == 2 else kl)


def beta_loss(terms: Terms, beta: Any) -> tf.Tensor:
    """reconstruction + beta * kl, `[B]`; Higgins et al., "beta-VAE" (2017), equation 4."""
    return terms.reconstruction + beta * terms.kl


def importance_weighted_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """log 1/K sum_k w_k, a lower bound of log p(x) that tightens with K.

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), equation 8.

    Args:
        log_weights: log p(x, z_k) - log q(z_k|x), `[K, B]`, z_k ~ q(z|x).

    Returns:
        `[B]` nats.
    """
    samples = tf.cast(tf.shape(log_weights)[0], log_weights.dtype)
    return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(samples)


@keras.saving.register_keras_serializable("kvae")
class LinearWarmup:
    """beta grows linearly from `start` to `beta` over the first `steps` optimizer steps, then stays.

    Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.3. A function of the step alone, so a
    resumed training goes on where it stood. Evaluation uses the final value.

    Args:
        beta: the final value, at least 0.
        steps: optimizer steps until then, at least 1.
        start: the value at step 0.

    Call arguments:
        step: optimizer steps made so far.

    Raises:
        UserError: a negative beta or start, or fewer than one step.
    """

    def __init__(self, beta: float, steps: int, start: float = 0.0) -> None:
        self.beta = check_beta(beta)
        self.start = check_beta(start)
        if steps < 1:
            raise UserError(f"Expected a warm-up of at least 1 step. Received steps={steps}.")
        self.steps = int(steps)

    def __call__(self, step: Any) -> tf.Tensor:
        fraction = tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)
        return self.start + (self.beta - self.start) * fraction

    def get_config(self) -> dict[str, Any]:
        return {"beta": self.beta, "steps": self.steps, "start": self.start}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LinearWarmup":
        return cls(**config)


def check_beta(beta: Any) -> float:
    """`beta` as a float, or a `UserError` where it is not a finite number of at least 0."""
    if isinstance(beta, bool) or not isinstance(beta, numbers.Real) or not math.isfinite(beta) or beta < 0:
        raise UserError(f"Expected beta to be a finite number of at least 0. Received {beta!r}.")
    return float(beta)
