"""The prior that is a mixture of the posteriors of learned images."""

import math
from typing import Any

import numpy as np

from kvae.internal import memory
from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras, tf
from kvae.model import parts
from kvae.model.priors.base import HALF_WIDTH, Prior
from kvae.model.priors.mixture import choose, thresholds
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

START = 3.0  # standard deviation of the weights: pixels that are nearly black or white have different posteriors


@keras.saving.register_keras_serializable("kvae")
class VampPrior(Prior):
    """The mixture of the posteriors of K learned images, the pseudo-inputs u_k.

        p(z) = 1/K sum_k q(z|u_k)

    Tomczak and Welling, "VAE with a VampPrior" (2018), equation 9. The pixels of a pseudo-input are in (0, 1), as those
    of kvae's data: they are the sigmoid of the weights. Every step of a training encodes all K of them. An export
    contains the posteriors of the pseudo-inputs in place of the encoder. The KL term is computed from the draws. With
    the posterior `IAF`, log p(z) needs K * D passes through the flow.

    Args:
        components: number of pseudo-inputs, K. 100 by default; the paper has 500 for MNIST.

    Raises:
        UserError: if `components` is not a whole number of at least 1.
    """

    def __init__(self, components: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = check_whole("components", components)

    def build(  # type: ignore[override]  # `VAE.build` gives each part the arguments that it names
        self,
        latent_dim: int,
        image_shape: tuple[int, ...],
        condition_shape: tuple[int, ...] | None = None,
        seed: int | None = None,
    ) -> None:
        """Makes the pseudo-inputs. Raises `UserError` if the model takes a condition, which a pseudo-input has not."""
        super().build(latent_dim)
        if condition_shape is not None:
            raise UserError(
                "Expected a model without a condition for the prior vamp, because its pseudo-inputs have none. "
                f"Received condition_shape {tuple(condition_shape)}. Choose another prior."
            )
        memory.claim(self.components * math.prod(image_shape), self.components * latent_dim, decodes=True)
        start = keras.initializers.RandomNormal(stddev=START, seed=next(parts.seeds(seed, 2)))
        shape = (self.components, *image_shape)
        self.logits = self.add_weight(name="pseudo_inputs", shape=shape, initializer=start)

    def bind(self, encode: Any) -> None:
        """Keeps the function. Raises `UserError` if it is that of another model, whose encoder is not the same one."""
        before = self.__dict__.get("_encode", encode)
        if _networks(before) != _networks(encode):
            raise UserError(
                "Expected a VampPrior of this model, because it is made of the posteriors of one encoder. Received "
                "that of another model. Make a VampPrior for each model."
            )
        self.__dict__["_encode"] = encode

    @property
    def pseudo_inputs(self) -> tf.Tensor:
        """u, `[K, *image]`, in (0, 1)."""
        return tf.sigmoid(self.logits.value)

    def log_prob(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """log p(z), nats, z `[..., D]` -> `[...]`. It needs K * D numbers of memory per z."""
        points = tf.reshape(z, [-1, 1, self.latent_dim])
        points = tf.broadcast_to(points, [tf.shape(points)[0], self.components, self.latent_dim])
        each = self._posteriors().log_prob(points)
        return tf.reshape(tf.reduce_logsumexp(each, axis=-1) - math.log(self.components), tf.shape(z)[:-1])

    def sample(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        return _draw(self._posteriors(), self.components, noise)

    def region(self, condition: tf.Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The box around the regions of all components if their covariances are known, else that of the draws."""
        q = self._posteriors()
        if q.covariance is None:
            return super().region(condition)
        mean, variance = (np.asarray(part, np.float64) for part in (q.mean, tf.linalg.diag_part(q.covariance)))
        half = HALF_WIDTH * np.sqrt(variance)
        return (mean - half).min(axis=0), (mean + half).max(axis=0)

    def frozen(self) -> Prior:
        return FrozenVampPrior(self._posteriors().convert(np.asarray), self.components)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "components": self.components}

    def _posteriors(self) -> Any:
        """q(z|u) of all pseudo-inputs, a distribution of K images."""
        return self._encode(self.pseudo_inputs)


def _networks(encode: Any) -> Any:
    """What decides the result of `encode`: two models that share their encoder and posterior can share the prior."""
    model = getattr(encode, "__self__", None)
    return encode if model is None else (id(model.encoder), id(model.posterior))


class FrozenVampPrior(Prior):
    """The mixture of K constant posteriors, which is only drawn from.

    Args:
        q: the posteriors, a distribution of K images whose tensors are arrays.
        components: number of posteriors, K.
    """

    def __init__(self, q: Any, components: int) -> None:
        super().__init__()
        self.__dict__.update(q=q, components=components)

    def sample(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        return _draw(self.q.convert(tf.constant), self.components, noise)


class _OfPrior:
    """A noise from which a posterior draws the z of the prior, with the numbers of `Stream.LATENT`."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise

    def normal(self, shape: tuple[int, ...], stream: Stream) -> Any:
        return self._noise.normal(shape, Stream.LATENT)

    def uniform(self, shape: tuple[int, ...], stream: Stream) -> Any:
        return self._noise.uniform(shape, Stream.LATENT)


def _draw(q: Any, components: int, noise: Noise) -> tf.Tensor:
    """z of a posterior that is chosen among those of q, `[B, D]`."""
    chosen = q.take(choose(noise, thresholds(np.zeros(components))))
    return chosen.sample_and_log_prob(_OfPrior(noise), 1)[0][0]
