"""What training minimises: one class an objective, made of draws from q. And the draws, with the terms of the ELBO.

Everything is in nats per image: sums run over pixels and latent dimensions, means over the K draws, and the batch axis
stays. `elbo` always has beta = 1; `loss` is what training minimises.
"""

import copy
import math
import numbers
from typing import Any, NamedTuple

from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.tensorflow import keras, tf

KL_KINDS = ("analytic", "sampled")


class Draws(NamedTuple):
    """K draws of z ~ q(z|x) for every image of a batch, and their densities; `VAE.draw` makes them. Nats per image."""

    z: tf.Tensor  # [K, B, D]
    log_likelihood: tf.Tensor  # [K, B]  log p(x|z), of the observed pixels
    log_prior: tf.Tensor  # [K, B]  log p(z)
    log_q: tf.Tensor  # [K, B]  log q(z|x)
    kl: tf.Tensor  # [B]  KL(q || p): in closed form or log q - log p at the draws, as the objective's `kl` says
    kl_per_dimension: tf.Tensor | None  # [B, D]  in closed form, where q and p have one
    q: Any  # kvae.model.posteriors.Distribution

    @property
    def reconstruction(self) -> tf.Tensor:
        """-E_q[log p(x|z)], `[B]`."""
        return -tf.reduce_mean(self.log_likelihood, axis=0)

    @property
    def elbo(self) -> tf.Tensor:
        """ELBO = -reconstruction - kl, `[B]`; Kingma and Welling (2014), equation 3."""
        return -self.reconstruction - self.kl

    @property
    def log_weights(self) -> tf.Tensor:
        """log w = log p(x, z) - log q(z|x), `[K, B]`."""
        return self.log_likelihood + self.log_prior - self.log_q


class Objective:
    """What all objectives share. One of yours needs `loss`; to be saved, also `get_config` and to be registered.

    An objective does not change once it is made: give the model another one, `vae.objective = ...`, which may be done
    between two calls of `fit`.

    Attributes:
        samples: K, draws of z an image.
        kl: what the `kl` of its draws is, `"analytic"` where q and the prior have a closed form, or `"sampled"`.
    """

    samples: int = 1
    kl: str = "analytic"

    def loss(self, draws: Draws, step: Any) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """What training minimises, `[B]` nats per image.

        A pair stands for two gradients: the first is for the weights of encoder and posterior, the second for all
        others; the metric `loss` shows the second.

        Args:
            draws: of `samples` z an image.
            step: training steps that the model has made, for a schedule.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method loss(draws, step), in nats per image.")

    def terms(self, draws: Draws) -> dict[str, tf.Tensor]:
        """Further metrics by name, each `[B]`."""
        return {}

    def build(self, data_size: int | None) -> None:
        """Called before a training with the number of its images, None where it is not known."""

    def at_end(self) -> "Objective":
        """The objective as evaluation takes it: each schedule with its final value, where it has one."""
        return self

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        return cls(**config)


@keras.saving.register_keras_serializable("kvae")
class ELBO(Objective):
    """reconstruction + beta * kl; Kingma and Welling (2014), equation 3; Higgins et al., "beta-VAE" (2017), equation 4.

    Args:
        beta: weight of the KL term, a number of at least 0, or a schedule: a function of the step such as
            `LinearWarmup` or one of `keras.optimizers.schedules`.
        samples: K, draws of z an image.
        kl: `"analytic"`, or `"sampled"` for log q(z|x) - log p(z) at the draws.

    Raises:
        UserError: an argument that cannot be.
    """

    def __init__(self, beta: Any = 1.0, samples: int = 1, kl: str = "analytic") -> None:
        self.beta = beta if callable(beta) else check_beta(beta)
        self.samples = check_whole("samples", samples)
        if kl not in KL_KINDS:
            raise unknown("kl", kl, KL_KINDS)
        self.kl = kl

    def loss(self, draws: Draws, step: Any) -> tf.Tensor:
        beta = self.beta(step) if callable(self.beta) else self.beta
        return draws.reconstruction + beta * draws.kl

    def at_end(self) -> "ELBO":
        final = getattr(self.beta, "beta", None)
        return self if final is None else self.with_beta(final)

    def with_beta(self, beta: Any) -> "ELBO":
        """The same objective with another beta."""
        other = copy.copy(self)
        other.beta = beta if callable(beta) else check_beta(beta)
        return other

    def get_config(self) -> dict[str, Any]:
        beta = keras.saving.serialize_keras_object(self.beta) if callable(self.beta) else self.beta
        return {"beta": beta, "samples": self.samples, "kl": self.kl}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ELBO":
        beta = config["beta"]
        return cls(
            **{**config, "beta": keras.saving.deserialize_keras_object(beta) if isinstance(beta, dict) else beta}
        )


OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO}


def get(objective: "str | Objective") -> Objective:
    """An objective from its name in `OBJECTIVES` or as it is; raises `UserError` for neither."""
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str) and objective in OBJECTIVES:
        return OBJECTIVES[objective]()
    raise unknown("objective", objective, OBJECTIVES)


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
    """beta grows linearly from `start` to `beta` over the first `steps` training steps, then stays.

    Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.3. A function of the step alone, so a
    resumed training goes on where it stood. Evaluation uses the final value.

    Args:
        beta: the final value, at least 0.
        steps: training steps until then, at least 1.
        start: the value at step 0.

    Call arguments:
        step: training steps that the model has made.

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
