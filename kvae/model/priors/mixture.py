"""The mixture of Gaussians as prior, and how a component of any mixture is chosen."""

from typing import Any

import numpy as np

from kvae.internal import memory
from kvae.internal.errors import check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, parts
from kvae.model.priors.base import HALF_WIDTH, Prior, normal_numbers
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

UNITS = 2**24  # the uniform random numbers are multiples of 1 / UNITS


@keras.saving.register_keras_serializable("kvae")
class Mixture(Prior):
    """A mixture of Gaussians with learned weights, means and variances.

        p(z) = sum_k w_k N(z; m_k, diag(s_k^2))

    Dilokthanakul et al., "Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders" (2016), have it
    as p(z) with a condition; as a prior that is learned directly, it is the "MoG" of Tomczak and Welling, "VAE with a
    VampPrior" (2018). At the start the weights are equal, the variances are 1, and the means are about one standard
    deviation away from the origin. The KL term has no closed form and is computed from the draws.

    Args:
        components: number of Gaussians, K. 10 by default.

    Raises:
        UserError: if `components` is not a whole number of at least 1.
    """

    def __init__(self, components: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = check_whole("components", components)

    def build(self, latent_dim: int, seed: int | None = None) -> None:
        super().build(latent_dim)
        shape = (self.components, latent_dim)
        memory.claim(2 * self.components * latent_dim, self.components * latent_dim, decodes=True)
        spread = keras.initializers.RandomNormal(stddev=latent_dim**-0.5, seed=next(parts.seeds(seed, 2)))
        self.logits = self.add_weight(name="logits", shape=(self.components,), initializer="zeros")
        self.means = self.add_weight(name="means", shape=shape, initializer=spread)
        self.log_vars = self.add_weight(name="log_vars", shape=shape, initializer="zeros")

    def log_prob(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """log p(z), nats, z `[..., D]` -> `[...]`. It needs K * D numbers of memory per z."""
        each = densities.gaussian_log_density(z[..., None, :], self.means.value, self.log_vars.value)
        log_weights = tf.nn.log_softmax(tf.cast(self.logits.value, each.dtype))
        return tf.reduce_logsumexp(log_weights + tf.reduce_sum(each, axis=-1), axis=-1)

    def sample(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        return _draw(noise, *self._constants())

    def region(self, condition: tf.Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The box around the regions of all components, except those that no seed draws."""
        drawn = np.diff(np.asarray(thresholds(self.logits.value)), prepend=0) > 0
        means, log_vars = (np.asarray(weight, np.float64)[drawn] for weight in (self.means, self.log_vars))
        half = HALF_WIDTH * np.exp(0.5 * log_vars)
        return (means - half).min(axis=0), (means + half).max(axis=0)

    def frozen(self) -> Prior:
        return FrozenMixture(*map(np.asarray, self._constants()))

    def _constants(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What a draw needs: the thresholds of the components, their means and their standard deviations."""
        return thresholds(self.logits.value), self.means.value, tf.exp(0.5 * self.log_vars.value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "components": self.components}


class FrozenMixture(Prior):
    """A mixture of Gaussians with constant numbers, which is only drawn from.

    Args:
        ends: the result of `thresholds`, `[K]` int32.
        means: means, `[K, D]`.
        deviations: standard deviations, `[K, D]`.
    """

    def __init__(self, ends: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> None:
        super().__init__()
        self.__dict__.update(constants=(ends, means, deviations))

    def sample(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        return _draw(noise, *map(tf.constant, self.constants))


def _draw(noise: Noise, ends: tf.Tensor, means: tf.Tensor, deviations: tf.Tensor) -> tf.Tensor:
    """z of a component that is chosen by its weight, `[B, D]`. The arguments are those of `FrozenMixture`."""
    component = choose(noise, ends)
    return tf.gather(means, component) + tf.gather(deviations, component) * normal_numbers(noise, means.shape[-1])


def thresholds(logits: Any) -> tf.Tensor:
    """Where the components of a mixture end among the whole numbers below 2^24.

    Component k has a share of these numbers that is its weight, softmax(logits)_k, rounded. As the choice compares
    integers, one seed chooses the same component on every runtime.

    Args:
        logits: logarithms of the weights, up to a constant, `[K]`.

    Returns:
        `[K]` int32, not decreasing; the last is 2^24.
    """
    shares = tf.nn.softmax(tf.cast(logits, tf.float64))
    return tf.cast(tf.round(tf.cumsum(shares) * UNITS), tf.int32)


def choose(noise: Noise, ends: Any) -> tf.Tensor:
    """The component of each image, `[B]` int32, from the result of `thresholds`."""
    number = tf.cast(noise.uniform((), Stream.CHOICE) * float(UNITS), tf.int32)  # exact
    return tf.reduce_sum(tf.cast(number[:, None] >= ends, tf.int32), axis=-1)
