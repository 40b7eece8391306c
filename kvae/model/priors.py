"""p(z): the density of the latent space, draws of it, and where its mass lies. One class a prior."""

from typing import Any

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, parts
from kvae.noise import keyed, portable
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream
from kvae.runtime import latent

DRAWS = 4096  # that tell where a prior's mass lies
REACH = 7.0  # standard deviations: beyond them a plane of the standard normal has 5e-12 of its mass


class Prior(parts.Part):
    """What all priors share. A prior of yours needs `log_prob` and `sample`; weights are made in `build`.

    Attributes:
        latent_dim: D, once built.
        exact: whether its z are a function of the seed alone, the same bit for bit on every runtime. Where weights take
            part, z agrees to rounding.
    """

    exact = False
    latent_dim: Any = None

    def build(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def log_prob(self, z: tf.Tensor, condition: Any = None) -> tf.Tensor:
        """log p(z) in nats; z `[..., D]` -> `[...]`. `condition` `[B, ...]` belongs to the last axis but one of z."""
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob(z, condition=None), in nats.")

    def sample(self, noise: Noise, condition: Any = None) -> tf.Tensor:
        """z ~ p(z), `[B, D]`, in operations that LiteRT has built in, so that a decoder with it can be exported."""
        raise NotImplementedError(f"{type(self).__name__} needs a method sample(noise, condition=None).")

    def region(self, condition: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """A box that holds the mass, for quadrature and pictures: its lowest and its highest corner, each `[D]`.

        By default the box of 4,096 draws, twice as wide.
        """
        z = np.concatenate([self._draws(condition, start) for start in range(0, DRAWS, DRAWS // 4)]).astype(np.float64)
        low, high = z.min(axis=0), z.max(axis=0)
        margin = (high - low) / 2
        return low - margin, high + margin

    def _draws(self, condition: Any, start: int) -> np.ndarray:
        """A quarter of `DRAWS`, for one condition."""
        count = DRAWS // 4
        if condition is not None:
            condition = tf.repeat(tf.convert_to_tensor(condition)[:1], count, axis=0)
        seeds = tf.constant(portable.seeds(count, 0, start))
        return np.asarray(self.sample(portable.Portable(seeds, keyed.TENSORFLOW), condition))

    def quantiles(self, n: int) -> np.ndarray:
        """The points (i + 1/2) / n of the distribution of one latent dimension, `[n]`: a lattice of equal probability.

        Raises:
            UserError: a prior whose dimensions are not independent and alike, which is the default.
        """
        raise UserError(
            f"Expected a prior of independent dimensions for its quantiles. Received {type(self).__name__}."
        )

    def bind(self, encode: Any) -> None:
        """Called by `VAE.build` with x `[B, *image]` -> q(z|x), for a prior that is made of the encoder's answers."""

    def frozen(self) -> "Prior":
        """The prior to export: itself, or one of constants where its weights follow from a computation."""
        return self


@keras.saving.register_keras_serializable("kvae")
class StandardNormal(Prior):
    """p(z) = N(0, I); Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 3."""

    exact = True

    def log_prob(self, z: tf.Tensor, condition: Any = None) -> tf.Tensor:
        return tf.reduce_sum(densities.standard_normal_log_density(z), axis=-1)

    def sample(self, noise: Noise, condition: Any = None) -> tf.Tensor:
        # Within +-5.3 as it is. The clip keeps converters from folding the last factor, 2^-20, into float16 weights.
        return tf.clip_by_value(noise.normal((self.latent_dim,), Stream.LATENT), -6.0, 6.0)

    def region(self, condition: Any = None) -> tuple[np.ndarray, np.ndarray]:
        reach = np.full(self.latent_dim, REACH)
        return -reach, reach

    def quantiles(self, n: int) -> np.ndarray:
        return latent.normal_quantiles(n)


PRIORS: dict[str, type[Prior]] = {"standard_normal": StandardNormal}


def get(prior: "str | Prior") -> Prior:
    """A prior from its name in `PRIORS` or as it is; raises `UserError` for neither."""
    return parts.chosen("prior", prior, PRIORS, Prior)


def name_of(prior: Prior) -> str:
    """The name by which `get` knows a prior, or the class's name where it is the user's own."""
    return parts.name_of(prior, PRIORS)
