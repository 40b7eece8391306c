"""The posterior of two layers of latent variables, the lower one first."""

from typing import Any, NamedTuple

import numpy as np

from kvae.internal.errors import check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, parts
from kvae.model.posteriors.base import NamedTensors, Posterior
from kvae.model.priors.flow import Coupling, coupling_weights
from kvae.model.priors.hierarchical import upper_layer
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream


class _Parameters(NamedTuple):
    start_mean: tf.Tensor  # [B, D]
    start_log_var: tf.Tensor  # [B, D]
    coupling: Coupling  # keeps z_1 and changes z_2


class TwoLayers(_Parameters, NamedTensors):
    """The distribution of z = (z_1, z_2): a Gaussian z_1, and z_2 that is Gaussian if z_1 is given.

    Its mean is that of 64 draws, and its covariance is not known.
    """

    __slots__ = ()

    def sample_and_log_prob(self, noise: Noise, samples: int) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = noise.normal((samples, self.start_mean.shape[-1]), Stream.POSTERIOR)
        start = densities.reparameterize(self.start_mean, self.start_log_var, tf.transpose(numbers, [1, 0, 2]))
        z, log_determinant = self.coupling.forward(start)
        return z, self._start_log_prob(start) - log_determinant

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        start, log_determinant = self.coupling.inverse(z)
        return self._start_log_prob(start) - log_determinant

    def take(self, images: tf.Tensor) -> "TwoLayers":
        mean, log_var = (tf.gather(part, images) for part in (self.start_mean, self.start_log_var))
        return TwoLayers(mean, log_var, self.coupling)

    def _start_log_prob(self, start: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(densities.gaussian_log_density(start, self.start_mean, self.start_log_var), axis=-1)


@keras.saving.register_keras_serializable("kvae")
class BottomUp(Posterior):
    """q(z|x) of two layers of latent variables z = (z_1, z_2), of which the lower one decides the upper one.

        q(z|x) = N(z_1; a_1, diag(b_1^2)) N(z_2; t(z_1) + s(z_1) a_2, diag((s(z_1) b_2)^2))

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), section 5: models with two stochastic
    layers. Their q(z_1|x) q(z_2|z_1) has a_2 = 0 and b_2 = 1; here z_2 may see the image too. The encoder returns
    a = (a_1, a_2) and the logarithm of b^2 as for `DiagonalGaussian`; t and log s, which is kept within -2 and 2, come
    from a network with one hidden layer of tanh units. It is made for the prior `Hierarchical`, whose `upper_dim` it
    should have. At the start t = 0 and s = 1, so it is `DiagonalGaussian`. The KL term is computed from
    the draws.

    Args:
        upper_dim: number of dimensions of z_2, the last ones of z. By default half of the latent size, rounded down.
        layer_units: width of the hidden layer. 64 by default.

    Raises:
        UserError: if an argument is not a whole number of at least 1; in `build`, if no dimension is left for z_1.
    """

    parameters = "(mean, log_var), each [B, D]"

    def __init__(self, upper_dim: int | None = None, layer_units: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.upper_dim = None if upper_dim is None else check_whole("upper_dim", upper_dim)
        self.layer_units = check_whole("layer_units", layer_units)

    def build(self, latent_dim: int, seed: int | None = None) -> None:
        self._kept: np.ndarray = 1 - upper_layer("posterior bottom_up", latent_dim, self.upper_dim)
        self._weights_of_coupling = coupling_weights(self, 0, latent_dim, self.layer_units, next(parts.seeds(seed, 3)))

    def parameters_size(self, latent_dim: int) -> tuple[int, ...]:
        return latent_dim, latent_dim

    def distribution(self, parameters: Any) -> TwoLayers:
        mean, log_var = (tf.cast(part, tf.float32) for part in parameters)
        return TwoLayers(mean, log_var, Coupling.of(self._weights_of_coupling, self._kept))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "upper_dim": self.upper_dim, "layer_units": self.layer_units}
