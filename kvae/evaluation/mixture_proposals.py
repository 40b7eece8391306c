"""Draws of z from a mixture of several q and the prior, for importance sampling.

The tails of a single q may be too light, and it may miss a mode; the variance of the weights may then be infinite. With
the prior in the mixture no weight exceeds p(x|z) divided by the prior's share of the draws: Hesterberg, "Weighted
average importance sampling and defensive mixture distributions" (1995). The sampling is stratified: the number of draws
from each component is fixed, not random, and each weight has the density of the whole mixture in its denominator (the
balance heuristic of Veach and Guibas, "Optimally Combining Sampling Techniques for Monte Carlo Rendering", 1995).
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
    log_proposal: Any  # [k, B]  nats


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
    """Yields `samples` draws per image from equal parts of the components, in chunks whose images fit in memory.

    Args:
        vae: a built model.
        components: distributions q, each of B images.
        index: the indices of the images, `[B]` int32, which their noise depends on.
        samples: the number of draws per image, at least one more than there are components.
        seed: the seed of the noise.
        stream: the use of the noise.
        condition: conditions, `[B, ...]`, for a model that takes one.
    """
    counts = draws_per_component(len(components), samples)
    drawn = draw(vae, components, counts, tf.constant(index), seed, stream, condition)
    log_proposal = drawn.log_proposal.numpy().astype(np.float64)
    size = max(1, sampling.images_at_once(vae) // len(index))
    for start in range(0, samples, size):
        yield ProposalDraws(drawn.z[start : start + size], log_proposal[start : start + size])


def draw(
    vae: VAE,
    components: Sequence[Distribution],
    counts: Sequence[int],
    index: tf.Tensor,
    seed: Any,
    stream: Stream,
    condition: Any = None,
) -> ProposalDraws:
    """All draws of the mixture: those of the first component first, and those of the prior last.

    Args:
        vae: a built model. Its prior is the last component; it also replaces the other components for an image whose
            inference diverged.
        components: distributions q, each of B images.
        counts: the number of draws from each component and from the prior.
        index: the indices of the images, `[B]` int32, which their noise depends on.
        seed: the seed of the noise.
        stream: the use of the noise.
        condition: conditions, `[B, ...]`, for a model that takes one.
    """
    prior = _Prior(vae, Keyed(seed, stream, index), seed, stream, index, condition)
    mixture = [_WithPriorFallback(component, prior) for component in components]
    ends = np.cumsum(counts)
    numbers = [np.arange(end - count, end, dtype=np.int32) for count, end in zip(counts, ends, strict=True)]
    parts: list[Any] = [*mixture, prior]
    z = tf.concat([part.draw(each) for part, each in zip(parts, numbers, strict=True) if len(each)], axis=0)
    log_prior = prior.log_prob(z)
    log_densities = tf.stack([*(component.log_prob(z, log_prior) for component in mixture), log_prior])
    with np.errstate(divide="ignore"):
        log_shares = np.log(np.array(counts, np.float32) / sum(counts))
    return ProposalDraws(z, tf.reduce_logsumexp(log_densities + log_shares[:, None, None], axis=0))


class _Prior(NamedTuple):
    """The prior as a component of the mixture. A draw depends only on the index of its image and on its own number."""

    vae: VAE
    noise: Keyed
    seed: Any
    stream: Stream
    index: tf.Tensor  # [B]
    condition: Any

    def draw(self, numbers: np.ndarray) -> tf.Tensor:
        """The draws of z with the given numbers, `[k, B, D]`."""
        count, images = len(numbers), tf.shape(self.index)[0]
        key = (tf.tile(self.index, [count]), tf.repeat(numbers, images))
        condition = self.condition
        if condition is not None:
            condition = tf.tile(condition, [count, *[1] * (np.ndim(condition) - 1)])
        z = self.vae.prior.sample(Keyed(self.seed, self.stream, *key), condition)
        return tf.reshape(z, [count, images, self.vae.latent_dim])

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return self.vae.log_prior(z, self.condition)


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
        return tf.where(self._usable[:, None], z, self._prior.draw(numbers))

    def log_prob(self, z: tf.Tensor, log_prior: tf.Tensor) -> tf.Tensor:
        return tf.where(self._usable, self._q.log_prob(z), log_prior)
