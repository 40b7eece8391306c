"""Draws of z from a mixture of several q and the prior, for importance sampling.

A single q has tails that are too light and may miss a mode, and then the weights have no variance; with the prior in
the mixture no weight exceeds p(x|z) over the prior's share. Hesterberg, "Weighted average importance sampling and
defensive mixture distributions" (1995). Each component gets its share of the draws exactly (stratified).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kvae.internal.tensorflow import tf
from kvae.model.posteriors import Distribution
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

PRIOR_SHARE = 0.1  # of the draws
FARTHEST = 1e3  # from 0, of a mean that is taken for one, and of a standard deviation


class Proposed(NamedTuple):
    """Some draws an image, and the density that they were drawn from."""

    z: tf.Tensor  # [k, B, D]
    log_proposal: np.ndarray  # [k, B]  nats


def counts(components: int, samples: int) -> list[int]:
    """How many draws each component gets, the prior last."""
    prior = min(max(1, round(PRIOR_SHARE * samples)), samples - components)
    share, rest = divmod(samples - prior, components)
    return [share + (number < rest) for number in range(components)] + [prior]


def draws(
    vae: VAE,
    components: Sequence[Distribution],
    place: np.ndarray,
    samples: int,
    seed: int,
    use: Stream,
    condition: Any = None,
) -> Iterator[Proposed]:
    """`samples` draws an image, some at a time.

    Args:
        vae: whose prior takes part, and stands in for a component where its inference diverged.
        components: of B images each.
        place: of every image, `[B]`.
        samples: at least one more than there are components.
        seed: of the noise.
        use: of the noise.
        condition: `[B, ...]`, of a model that has one.
    """
    prior = _Prior(vae, seed, use, place, condition)
    members: list[Any] = [*(_Sound(component, prior) for component in components), prior]
    share = counts(len(components), samples)
    ends = np.cumsum(share)
    log_share = np.log(np.array(share) / samples)
    size = max(1, vae.images_at_once // len(place))
    for start in range(0, samples, size):
        stop, parts = min(start + size, samples), []
        for member, first, last in zip(members, ends - share, ends, strict=True):
            numbers = np.arange(max(start, first), min(stop, last), dtype=np.int32)
            if len(numbers):
                parts.append(member.draw(numbers))
        z = tf.concat(parts, axis=0)
        densities = [np.asarray(member.log_prob(z)) for member in members]
        log_proposal = np.logaddexp.reduce([a + b for a, b in zip(log_share, densities, strict=True)])
        yield Proposed(z, log_proposal.astype(np.float64))


class _Prior:
    """The prior as a member of the mixture; draw k of an image is a function of its place and k."""

    def __init__(self, vae: VAE, seed: int, use: Stream, place: np.ndarray, condition: Any) -> None:
        self._vae, self._seed, self._use, self._place, self._condition = vae, seed, use, place, condition

    @property
    def noise(self) -> Keyed:
        return Keyed(self._seed, self._use, self._place)

    def draw(self, numbers: np.ndarray) -> tf.Tensor:
        """z `[k, B, D]` of the draws with these numbers."""
        shape = (len(numbers), len(self._place))
        key = (np.tile(self._place, shape[0]), np.repeat(numbers, shape[1]))
        condition = self._condition
        if condition is not None:
            condition = tf.tile(condition, [shape[0], *[1] * (np.ndim(condition) - 1)])
        z = self._vae.prior.sample(Keyed(self._seed, self._use, *key), condition)
        return tf.reshape(z, [*shape, self._vae.latent_dim])

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return self._vae.log_prior(z, self._condition)


class _Sound:
    """A component with the prior in place of it for every image whose q is NaN, infinite or absurdly far off."""

    def __init__(self, q: Distribution, prior: _Prior) -> None:
        self._q, self._prior = q, prior
        sound = tf.reduce_all(tf.abs(q.mean) < FARTHEST, axis=-1)
        covariance = q.covariance
        if covariance is not None:
            variance = tf.linalg.diag_part(covariance)
            sound &= tf.reduce_all((variance > 0) & (variance < FARTHEST**2), axis=-1)
            sound &= tf.reduce_all(tf.math.is_finite(covariance), axis=[-2, -1])
        self._sound = sound

    def draw(self, numbers: np.ndarray) -> tf.Tensor:
        z, _ = self._q.sample_and_log_prob(self._prior.noise.numbered(numbers), len(numbers))
        return z if tf.reduce_all(self._sound) else tf.where(self._sound[:, None], z, self._prior.draw(numbers))

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        log_q = self._q.log_prob(z)
        return log_q if tf.reduce_all(self._sound) else tf.where(self._sound, log_q, self._prior.log_prob(z))
