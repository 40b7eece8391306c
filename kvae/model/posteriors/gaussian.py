"""The factorized Gaussian posterior."""

from typing import Any, NamedTuple

from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.posteriors.base import NamedTensors, Posterior
from kvae.model.priors import Prior, is_standard_normal
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream


class _MeanAndLogVar(NamedTuple):
    mean: tf.Tensor  # [B, D]
    log_var: tf.Tensor  # [B, D]


class Gaussian(_MeanAndLogVar, NamedTensors):
    """The factorized N(mean, exp(log_var)). It is the tuple of both, each `[B, D]`: `mean, log_var = vae.encode(x)`."""

    __slots__ = ()

    @property
    def covariance(self) -> tf.Tensor:
        return tf.linalg.diag(tf.exp(self.log_var))

    def sample_and_log_prob(self, noise: Noise, samples: int) -> tuple[tf.Tensor, tf.Tensor]:
        """z = mean + exp(log_var / 2) * noise; Kingma and Welling (2014), section 2.4."""
        numbers = noise.normal((samples, self.mean.shape[-1]), Stream.POSTERIOR)
        z = densities.reparameterize(self.mean, self.log_var, tf.transpose(numbers, [1, 0, 2]))
        return z, self.log_prob(z)

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(densities.gaussian_log_density(z, self.mean, self.log_var), axis=-1)

    def kl(self, prior: Prior) -> tf.Tensor | None:
        if not is_standard_normal(prior):
            return None
        return densities.gaussian_kl(self.mean, self.log_var)

    def tensors(self) -> dict[str, tf.Tensor]:
        return self._asdict()


@keras.saving.register_keras_serializable("kvae")
class DiagonalGaussian(Posterior):
    """q(z|x) = N(mean, exp(log_var)), factorized. Kingma and Welling (2014), equation 9."""

    parameters = "(mean, log_var), each [B, D]"

    def parameters_size(self, latent_dim: int) -> tuple[int, ...]:
        return latent_dim, latent_dim

    def distribution(self, parameters: Any) -> Gaussian:
        mean, log_var = parameters
        return Gaussian(tf.cast(mean, tf.float32), tf.cast(log_var, tf.float32))
