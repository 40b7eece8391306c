"""The prior by a flow of affine couplings, and what every prior of couplings does."""

from typing import Any, NamedTuple

import numpy as np

from kvae.internal import memory
from kvae.internal.errors import check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, parts
from kvae.model.priors.base import Prior, normal_numbers
from kvae.noise.keyed import Noise

MOST_LOG_SCALE = 2.0  # of one coupling in magnitude, so that a training cannot make it overflow


class Coupling(NamedTuple):
    """One coupling of the flow."""

    kernel: tf.Tensor  # [D, H]
    bias: tf.Tensor  # [H]
    output: tf.Tensor  # [H, 2 D]
    output_bias: tf.Tensor  # [2 D]
    kept: np.ndarray  # [D], 1 for a coordinate that it keeps, else 0

    @classmethod
    def of(cls, weights: tuple, kept: np.ndarray) -> "Coupling":
        """The coupling with weights that `coupling_weights` made."""
        kernel, bias, output, output_bias = (weight.value for weight in weights)
        return cls(kernel, bias, output, output_bias, kept)

    def scale_and_shift(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """log scale s and shift t, each `[..., D]`, which are 0 for kept coordinates and depend on these alone."""
        hidden = tf.tanh(tf.tensordot(z * self.kept, self.kernel, axes=1) + self.bias)
        scale, shift = tf.split(tf.tensordot(hidden, self.output, axes=1) + self.output_bias, 2, axis=-1)
        log_scale = MOST_LOG_SCALE * tf.tanh(scale / MOST_LOG_SCALE)
        return (1.0 - self.kept) * log_scale, (1.0 - self.kept) * shift

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """z exp(s) + t, and log det of its derivative, `[...]`."""
        log_scale, shift = self.scale_and_shift(z)
        return z * tf.exp(log_scale) + shift, tf.reduce_sum(log_scale, axis=-1)

    def inverse(self, after: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The z that `forward` maps to `after`, and log det of the derivative of `forward` there, `[...]`."""
        log_scale, shift = self.scale_and_shift(after)
        return (after - shift) * tf.exp(-log_scale), tf.reduce_sum(log_scale, axis=-1)


def coupling_weights(part: parts.Part, number: int, latent_dim: int, units: int, seed: int | None) -> tuple:
    """Makes the weights of a coupling, those of `Coupling` in its order, with which it changes nothing before training.

    Args:
        part: prior or posterior that gets the weights.
        number: number of the coupling, a part of the names of its weights.
        latent_dim: latent size, D.
        units: width of the hidden layer, H.
        seed: seed of the initial kernel, or None.
    """
    memory.claim((latent_dim + 1) * units + 2 * latent_dim * (units + 1), units, decodes=True)
    start = keras.initializers.GlorotUniform(seed=seed)
    return (
        part.add_weight(name=f"kernel_{number}", shape=(latent_dim, units), initializer=start),
        part.add_weight(name=f"bias_{number}", shape=(units,), initializer="zeros"),
        part.add_weight(name=f"output_{number}", shape=(units, 2 * latent_dim), initializer="zeros"),
        part.add_weight(name=f"output_bias_{number}", shape=(2 * latent_dim,), initializer="zeros"),
    )


class CouplingPrior(Prior):
    """Base class of the priors whose z are standard normal numbers that pass through couplings."""

    @property
    def couplings(self) -> list[Coupling]:
        """The couplings, from standard normal numbers to z."""
        raise NotImplementedError(f"{type(self).__name__} needs a property couplings.")

    def log_prob(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        log_determinants = tf.zeros_like(z[..., 0])
        for coupling in reversed(self.couplings):
            z, log_determinant = coupling.inverse(z)
            log_determinants += log_determinant
        return tf.reduce_sum(densities.standard_normal_log_density(z), axis=-1) - log_determinants

    def sample(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        z = normal_numbers(noise, self.latent_dim)
        for coupling in self.couplings:
            z, _ = coupling.forward(z)
        return z


@keras.saving.register_keras_serializable("kvae")
class Flow(CouplingPrior):
    """A flow of affine couplings, which makes z of standard normal numbers e = z_0.

        z_l = z_(l-1) exp(s_l) + t_l,   log p(z_L) = log N(z_0; 0, I) - sum_l sum_i s_li

    Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017), section 3 and equation 9. Every second
    coordinate of z is kept by a coupling (s = t = 0), in the next one the others; s and t come from a network with one
    hidden layer that sees the kept coordinates. With D = 1 there is nothing to see, and the couplings scale and shift.
    At the start s and t are 0, so p(z) is the standard normal. The KL term is computed from the draws.

    Args:
        layers: number of couplings, L. With 0 the prior is the standard normal. 6 by default.
        layer_units: width of the hidden layer of each coupling. 64 by default.

    Raises:
        UserError: if an argument is not a whole number, `layers` is below 0 or `layer_units` below 1.
    """

    def __init__(self, layers: int = 6, layer_units: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = check_whole("layers", layers, least=0)
        self.layer_units = check_whole("layer_units", layer_units)

    def build(self, latent_dim: int, seed: int | None = None) -> None:
        super().build(latent_dim)
        seeds = parts.seeds(seed, 2)
        self._weights_of_couplings = [
            coupling_weights(self, number, latent_dim, self.layer_units, next(seeds)) for number in range(self.layers)
        ]

    @property
    def couplings(self) -> list[Coupling]:
        kept = [((np.arange(self.latent_dim) + number) % 2).astype(np.float32) for number in range(2)]
        return [Coupling.of(weights, kept[number % 2]) for number, weights in enumerate(self._weights_of_couplings)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layers": self.layers, "layer_units": self.layer_units}
