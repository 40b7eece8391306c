"""Draws of z from a mixture of several q and the prior, for importance sampling.

The tails of a single q may be too light, and it may miss a mode; the variance of the weights may then be infinite. With
the prior in the mixture no weight exceeds p(x|z) divided by the prior's share of the draws: Hesterberg, "Weighted
average importance sampling and defensive mixture distributions" (1995). The sampling is stratified: the number of draws
from each component is fixed, not random.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kvae.internal.tensorflow import tf
from kvae.model import sampling
from kvae.model.posteriors import Distribution
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

PRIOR_SHARE = 0.1  # the fraction of the draws that come from the prior
MAX_MAGNITUDE = 1e3  # a q with a larger mean or standard deviation is taken as diverged


class ProposalDraws(NamedTuple):
    """Some draws of z per image, and the density of the mixture at each."""

    z: tf.Tensor  # [k, B, D]
    log_proposal: np.ndarray  # [k, B]  nats


def draws_per_component(components: int, samples: int) -> list[int]:
    """The number of draws from each component; the last entry is that of the prior."""
    prior = min(max(1, round(PRIOR_SHARE * samples)), samples - components)
    count, remainder = divmod(samples - prior, components)
    return [count + (number < remainder) for number in range(components)] + [prior]


def draws(
    vae: VAE,
    components: Sequence[Distribution],
    index: np.ndarray,
    samples: int,
    seed: int,
    stream: Stream,
    condition: Any = None,
) -> Iterator[ProposalDraws]:
    """Yields `samples` draws per image, in chunks that fit in memory.

    Args:
        vae: a built model. Its prior is the last component; it also replaces the other components for an image whose
            inference diverged.
        components: distributions q, each of B images.
        index: the indices of the images, `[B]` int32, which their noise depends on.
        samples: the number of draws per image, at least one more than there are components.
        seed: the seed of the noise.
        stream: the use of the noise.
        condition: conditions, `[B, ...]`, for a model that takes one.
    """
    prior = _Prior(vae, seed, stream, index, condition)
    mixture: list[Any] = [*(_WithPriorFallback(component, prior) for component in components), prior]
    counts = draws_per_component(len(components), samples)
    ends = np.cumsum(counts)
    log_weights = np.log(np.array(counts) / samples)
    size = max(1, sampling.images_at_once(vae) // len(index))
    for start in range(0, samples, size):
        stop, parts = min(start + size, samples), []
        for component, first, last in zip(mixture, ends - counts, ends, strict=True):
            numbers = np.arange(max(start, first), min(stop, last), dtype=np.int32)
            if len(numbers):
                parts.append(component.draw(numbers))
        z = tf.concat(parts, axis=0)
        log_densities = [np.asarray(component.log_prob(z)) for component in mixture]
        log_proposal = np.logaddexp.reduce([a + b for a, b in zip(log_weights, log_densities, strict=True)])
        yield ProposalDraws(z, log_proposal.astype(np.float64))


class _Prior:
    """The prior as a component of the mixture. A draw depends only on the index of its image and on its own number."""

    def __init__(self, vae: VAE, seed: int, stream: Stream, index: np.ndarray, condition: Any) -> None:
        self._vae, self._seed, self._stream, self._index, self._condition = vae, seed, stream, index, condition

    @property
    def noise(self) -> Keyed:
        return Keyed(self._seed, self._stream, self._index)

    def draw(self, numbers: np.ndarray) -> tf.Tensor:
        """The draws of z with the given numbers, `[k, B, D]`."""
        shape = (len(numbers), len(self._index))
        key = (np.tile(self._index, shape[0]), np.repeat(numbers, shape[1]))
        condition = self._condition
        if condition is not None:
            condition = tf.tile(condition, [shape[0], *[1] * (np.ndim(condition) - 1)])
        z = self._vae.prior.sample(Keyed(self._seed, self._stream, *key), condition)
        return tf.reshape(z, [*shape, self._vae.latent_dim])

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return self._vae.log_prior(z, self._condition)


class _WithPriorFallback:
    """A q as a component of the mixture; the prior replaces it for every image whose inference diverged.

    An inference has diverged if the mean or covariance of q is NaN or infinite, if a mean or standard deviation exceeds
    `MAX_MAGNITUDE`, or if a variance is 0.
    """

    def __init__(self, q: Distribution, prior: _Prior) -> None:
        self._q, self._prior = q, prior
        usable = tf.reduce_all(tf.abs(q.mean) < MAX_MAGNITUDE, axis=-1)
        covariance = q.covariance
        if covariance is not None:
            variance = tf.linalg.diag_part(covariance)
            usable &= tf.reduce_all((variance > 0) & (variance < MAX_MAGNITUDE**2), axis=-1)
            usable &= tf.reduce_all(tf.math.is_finite(covariance), axis=[-2, -1])
        self._usable = usable  # [B]

    def draw(self, numbers: np.ndarray) -> tf.Tensor:
        z, _ = self._q.sample_and_log_prob(self._prior.noise.numbered(numbers), len(numbers))
        return z if tf.reduce_all(self._usable) else tf.where(self._usable[:, None], z, self._prior.draw(numbers))

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        log_q = self._q.log_prob(z)
        return log_q if tf.reduce_all(self._usable) else tf.where(self._usable, log_q, self._prior.log_prob(z))
