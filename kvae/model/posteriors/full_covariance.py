"""The Gaussian posterior with all covariances."""

from typing import Any, NamedTuple

import numpy as np

from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.posteriors.base import NamedTensors, Posterior
from kvae.model.priors import Prior, is_standard_normal
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream


class _Parameters(NamedTuple):
    mean: tf.Tensor  # [B, D]
    log_diagonal: tf.Tensor  # [B, D]  2 log L_ii
    below: tf.Tensor  # [B, D, D]  the elements of L below its diagonal, and 0 elsewhere


class CorrelatedGaussian(_Parameters, NamedTensors):
    """N(mean, L L'), where L is lower triangular with a positive diagonal."""

    __slots__ = ()

    @property
    def cholesky(self) -> tf.Tensor:
        """L, the Cholesky factor of the covariance, `[B, D, D]`."""
        return self.below + tf.linalg.diag(tf.exp(0.5 * self.log_diagonal))

    @property
    def covariance(self) -> tf.Tensor:
        return tf.matmul(self.cholesky, self.cholesky, transpose_b=True)

    def sample_and_log_prob(self, noise: Noise, samples: int) -> tuple[tf.Tensor, tf.Tensor]:
        """z = mean + L e and log q = log N(e; 0, I) - log det L; Kingma and Welling (2019), section 2.5.1."""
        numbers = noise.normal((samples, self.mean.shape[-1]), Stream.POSTERIOR)  # [B, K, D]
        z = self.mean[:, None] + tf.matmul(numbers, self.cholesky, transpose_b=True)
        log_q = tf.reduce_sum(densities.standard_normal_log_density(numbers), axis=-1) - self._log_determinant[:, None]
        return tf.transpose(z, [1, 0, 2]), tf.transpose(log_q)

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        difference = tf.reshape(z - self.mean, tf.concat([[-1], tf.shape(self.mean)], axis=0))
        # One system of equations for all draws of an image: [B, D, K].
        numbers = tf.linalg.triangular_solve(self.cholesky, tf.transpose(difference, [1, 2, 0]))
        log_density = tf.reduce_sum(densities.standard_normal_log_density(numbers), axis=1)
        return tf.reshape(tf.transpose(log_density - self._log_determinant[:, None]), tf.shape(z)[:-1])

    def kl(self, prior: Prior) -> tf.Tensor | None:
        """1/2 sum_i [m_i^2 + L_ii^2 - 1 - 2 log L_ii + sum_{j < i} L_ij^2] for the standard normal prior, `[B]`."""
        if not is_standard_normal(prior):
            return None
        of_diagonal = tf.reduce_sum(densities.gaussian_kl(self.mean, self.log_diagonal), axis=-1)
        return of_diagonal + 0.5 * tf.reduce_sum(tf.square(self.below), axis=[-2, -1])

    def tensors(self) -> dict[str, tf.Tensor]:
        return {"mean": self.mean, "cholesky": self.cholesky}

    @property
    def _log_determinant(self) -> tf.Tensor:
        return 0.5 * tf.reduce_sum(self.log_diagonal, axis=-1)


@keras.saving.register_keras_serializable("kvae")
class FullCovariance(Posterior):
    """q(z|x) = N(mean, L L'), a Gaussian with all covariances.

    The encoder returns the mean and the lower triangle of L, row by row; the elements on the diagonal as the
    logarithms of their squares, so that with D = 1 this is `DiagonalGaussian`. Kingma and Welling, "An Introduction to
    Variational Autoencoders" (2019), section 2.5.1. The KL term with the standard normal prior has a closed form for
    each image, but not for each dimension.
    """

    parameters = "(mean, triangle), of widths D and D (D + 1) / 2"

    def parameters_size(self, latent_dim: int) -> tuple[int, ...]:
        return latent_dim, latent_dim * (latent_dim + 1) // 2

    def distribution(self, parameters: Any) -> CorrelatedGaussian:
        mean, triangle = (tf.cast(part, tf.float32) for part in parameters)
        size = mean.shape[-1]
        rows, columns = np.tril_indices(size)
        on_diagonal = np.flatnonzero(rows == columns)
        places = np.full((size, size), len(rows))  # of a 0 that is appended
        places[rows, columns] = np.arange(len(rows))
        np.fill_diagonal(places, len(rows))
        below = tf.gather(tf.pad(triangle, [[0, 0], [0, 1]]), places, axis=-1)
        return CorrelatedGaussian(mean, tf.gather(triangle, on_diagonal, axis=-1), below)
