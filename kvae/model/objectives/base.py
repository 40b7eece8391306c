"""Draws from q, and the base class of the objectives that are computed from them."""

from typing import Any, NamedTuple

from kvae.internal.tensorflow import tf
from kvae.model.keywords import check_keywords
from kvae.model.posteriors import POSTERIORS, DiagonalGaussian, Posterior
from kvae.model.priors import Prior, is_standard_normal

KL_KINDS = ("analytic", "sampled")


class Draws(NamedTuple):
    """K draws of z ~ q(z|x) for each image of a batch, and their log densities in nats. `VAE.draw` returns them."""

    z: tf.Tensor  # [K, B, D]
    log_likelihood: tf.Tensor  # [K, B]  log p(x|z), summed over the observed pixels
    log_prior: tf.Tensor  # [K, B]  log p(z)
    log_q: tf.Tensor  # [K, B]  log q(z|x)
    kl: tf.Tensor  # [B]  KL(q || p): in closed form, or the mean of log q - log p over the draws; see `Objective.kl`
    kl_per_dimension: tf.Tensor | None  # [B, D]  in closed form; None if q and p have none per dimension
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
    """Base class of the objectives. A subclass must define `loss`.

    A model with an objective of your own can be saved if the class also defines `get_config` and is registered with
    Keras. An objective is never changed: to train with another one, set `vae.objective` between two calls of `fit`.

    Attributes:
        samples: number of draws of z per image, K.
        kl: how the `kl` of its draws is computed: `"analytic"`, in closed form if q and the prior have one, or
            `"sampled"`, from the draws.
    """

    samples: int = 1
    kl: str = "analytic"

    def __new__(cls, *_: Any, **options: Any) -> "Objective":
        check_keywords(cls, options)
        return super().__new__(cls)

    def __init__(self) -> None:
        """An objective without options."""

    def loss(self, draws: Draws, step: int | tf.Tensor | tf.Variable) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        """The loss of each image.

        An objective can return two losses. Then the gradient of the first one trains the encoder and the posterior, and
        the gradient of the second one trains all other parts. The metric `loss` is the second one.

        Args:
            draws: draws with `samples` z per image.
            step: number of training steps that the model has made, for a schedule.

        Returns:
            `[B]` nats per image, or a pair of these.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method loss(draws, step), in nats per image.")

    def terms(self, draws: Draws) -> dict[str, tf.Tensor]:
        """Further metrics by name, each `[B]`."""
        return {}

    def check(self, prior: Prior, posterior: Posterior) -> None:
        """A model that gets the objective calls it. Raises `UserError` if it cannot train a model of these parts."""

    def build(self, data_size: int | None) -> None:
        """`fit` calls it before the training, with the number of training images, or None if it is not known."""

    def at_end(self) -> "Objective":
        """The objective for evaluation: a schedule that has a final value is replaced by this value."""
        return self

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        return cls(**config)


def lacks_kl_per_dimension(prior: Prior, posterior: Posterior) -> bool:
    """Whether a posterior of kvae has no KL term per dimension in closed form with a prior.

    Of a posterior of your own it is not known before its first draws.
    """
    closed = is_standard_normal(prior) and isinstance(posterior, DiagonalGaussian)
    return type(posterior) in POSTERIORS.values() and not closed
