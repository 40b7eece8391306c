"""What every prior p(z) must do."""

from typing import Any

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import parts
from kvae.noise import keyed, portable
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

REGION_DRAWS = 4096  # number of draws from which the region of a prior is computed
HALF_WIDTH = 7.0  # of a Gaussian's region, in standard deviations: 5e-12 of the mass of two dimensions is outside


class Prior(parts.Part):
    """Base class of the priors. A subclass must define `log_prob` and `sample`, and makes its weights in `build`.

    Attributes:
        latent_dim: latent size, D; None until the prior is built.
        exact: whether the z of a seed are the same on every runtime, bit for bit. The z of a prior that computes with
            weights can differ by rounding.
    """

    exact = False
    latent_dim: Any = None

    def build(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def log_prob(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """log p(z), nats.

        Args:
            z: latent points, `[..., D]`; `[..., B, D]` if there is a condition.
            condition: condition per image, `[B, ...]`, or None.

        Returns:
            `[...]`, the shape of z without its last axis.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob(z, condition=None), in nats.")

    def sample(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        """z ~ p(z), with operations that are built into LiteRT, so that the draw can be exported.

        Args:
            noise: source of the random numbers for B images, whose streams are `Stream.LATENT` and `Stream.CHOICE`.
            condition: condition per image, `[B, ...]`, or None.

        Returns:
            `[B, D]` float32.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method sample(noise, condition=None).")

    def region(self, condition: tf.Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
        """A box that contains nearly all of the probability mass, for quadrature and figures.

        By default the box around 4,096 draws, twice as wide in each dimension.

        Args:
            condition: one condition, `[1, ...]`, or None.

        Returns:
            The lowest and the highest corner, each `[D]`.
        """
        starts = range(0, REGION_DRAWS, REGION_DRAWS // 4)
        z = np.concatenate([self._draws(condition, start) for start in starts]).astype(np.float64)
        low, high = z.min(axis=0), z.max(axis=0)
        margin = (high - low) / 2
        return low - margin, high + margin

    def _draws(self, condition: tf.Tensor | None, start: int) -> np.ndarray:
        """A quarter of the draws for `region`."""
        count = REGION_DRAWS // 4
        if condition is not None:
            condition = tf.repeat(tf.convert_to_tensor(condition)[:1], count, axis=0)
        seeds = tf.constant(portable.seeds(count, 0, start))
        return np.asarray(self.sample(keyed.PortableTensors(seeds), condition))

    def quantiles(self, n: int) -> np.ndarray:
        """The quantiles (i + 1/2) / n of one latent dimension, for a lattice of equal probability.

        Args:
            n: number of quantiles.

        Returns:
            `[n]`.

        Raises:
            UserError: by default; only a prior with independent, identically distributed dimensions defines quantiles.
        """
        raise UserError(
            "Expected a prior with independent dimensions, because only such a prior has quantiles. Received "
            f"{type(self).__name__}. Choose evenly spaced points instead."
        )

    def bind(self, encode: Any) -> None:
        """`VAE.build` calls it with the function x `[B, *image]` -> q(z|x), for a prior that depends on the encoder."""

    def frozen(self) -> "Prior":
        """The prior to export: itself, or one with constant weights if its weights are the result of a computation."""
        return self


def normal_numbers(noise: Noise, latent_dim: int) -> tf.Tensor:
    """The standard normal numbers of which a prior makes z, `[B, D]` float32.

    The numbers of the portable noise are within +-5.3, so the clip changes none. It prevents converters from merging
    the last factor of that noise, 2^-20, into float16 weights.
    """
    return tf.clip_by_value(noise.normal((latent_dim,), Stream.LATENT), -6.0, 6.0)
