"""Draws of z from a mixture of Gaussians and the prior, for importance sampling.

A single q has tails that are too light and may miss a mode, and then the weights have no variance; with the prior in
the mixture no weight exceeds p(x|z) over the prior's share. Hesterberg, "Weighted average importance sampling and
defensive mixture distributions" (1995). Each component gets its share of the draws exactly (stratified).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kvae import distributions, noise
from kvae.tensorflow import tf
from kvae.vae import VAE

PRIOR_SHARE = 0.1  # of the draws
FARTHEST = 1e3  # from 0, of a mean or a log variance that is taken for one


class Draws(NamedTuple):
    """Some draws a image, and what the weights need."""

    z: tf.Tensor  # [k, B, D]
    log_prior: np.ndarray  # [k, B]  nats
    log_proposal: np.ndarray  # [k, B]  nats


def counts(components: int, samples: int) -> list[int]:
    """How many draws each component gets, the prior last."""
    prior = min(max(1, round(PRIOR_SHARE * samples)), samples - components)
    share, rest = divmod(samples - prior, components)
    return [share + (number < rest) for number in range(components)] + [prior]


def draws(
    vae: VAE, components: Sequence[tuple[Any, Any]], place: np.ndarray, samples: int, key: tuple
) -> Iterator[Draws]:
    """`samples` draws an image, some at a time.

    Args:
        vae: whose prior takes part.
        components: (mean, log_var) of each, `[B, D]`; the prior stands in where an inference diverged.
        place: of every image, `[B]`.
        samples: at least one more than there are components.
        key: of the noise.
    """
    components = [_sound(*component) for component in components]
    share = counts(len(components), samples)
    owner = np.repeat(np.arange(len(share)), share)
    log_share = np.log(np.array(share) / samples)
    size = max(1, vae.images_at_once // len(place))
    for start in range(0, samples, size):
        number = np.arange(start, min(start + size, samples), dtype=np.int32)
        keys = (np.tile(place, len(number)), np.repeat(number, len(place)))
        normal = tf.reshape(noise.normal((vae.latent_dim,), *key, *keys), [len(number), len(place), vae.latent_dim])
        z = normal  # of the prior
        for component, (mean, log_var) in enumerate(components):
            own = (owner[number] == component)[:, None, None]
            z = tf.where(own, distributions.reparameterize(mean, log_var, normal), z)
        log_prior = vae.log_prior(z).numpy()
        densities = [vae.log_q(z, mean, log_var).numpy() for mean, log_var in components]
        log_proposal = np.logaddexp.reduce([a + b for a, b in zip(log_share, [*densities, log_prior], strict=True)])
        yield Draws(z, log_prior.astype(np.float64), log_proposal.astype(np.float64))


def _sound(mean: Any, log_var: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """A component with the prior in place of every image's that is NaN, infinite or absurdly far off."""
    mean, log_var = tf.convert_to_tensor(mean), tf.convert_to_tensor(log_var)
    sound = tf.reduce_all((tf.abs(mean) < FARTHEST) & (tf.abs(log_var) < FARTHEST), axis=-1, keepdims=True)
    return tf.where(sound, mean, tf.zeros_like(mean)), tf.where(sound, log_var, tf.zeros_like(log_var))
