"""An estimate of log p(x) by importance sampling that says for which images it may be wrong."""

import math
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation import pareto
from kvae.evaluation.estimate import Estimate
from kvae.evaluation.importance_weighted import CACHED, monte_carlo_error
from kvae.evaluation.mixture_proposals import draw
from kvae.evaluation.over_batches import Keep, over_batches
from kvae.evaluation.variational_fits import Settings, check_density, factorized_gaussian, fits_of_modes
from kvae.internal.errors import check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.model import sampling
from kvae.model.compiled_functions import compiled
from kvae.model.vae import VAE
from kvae.noise.streams import Stream

SAMPLES, LEAST_SAMPLES = 1000, 100
MODES = 3  # fits per image
SHARES = {"fits": 0.48, "wide": 0.27, "prior": 0.1}  # of the draws; the encoder's q has the rest
STEPS = 30
LEARNING_RATE, GRADIENT_SAMPLES = 0.1, 2  # of the fits, which serve as proposals and need not have converged
LEAST_EFFECTIVE = 10  # effective draws of a reliable estimate, whose Monte-Carlo error is then below 0.3 nats


class Defensive(NamedTuple):
    """The estimate of log p(x) of each image, in nats, and how reliable it is."""

    defensive: Estimate  # [N]
    defensive_effective_samples: Estimate  # [N]  (sum w)^2 / sum w^2, between 1 and K; no nats
    pareto_k: Estimate  # [N]  see `kvae.evaluation.pareto.tail_shape`; no nats
    defensive_monte_carlo_error: float  # of the mean of the estimates, from the draws of z alone, in nats
    unreliable: float  # the share of the images whose estimate may be wrong, from 0 to 1


def defensive(
    vae: VAE,
    data: Any,
    *,
    images: int | None = None,
    samples: int = SAMPLES,
    steps: int = STEPS,
    seed: int = 0,
    verbose: int = 0,
    keep: Keep = None,
) -> Defensive:
    """An estimate of log p(x) that does not rely on the encoder alone, and the share of images for which it may fail.

        log 1/K sum_k p(x, z_k) / q_mix(z_k)

    The bounds of `log_likelihood` propose z from the encoder's q. Where that is too narrow or in the wrong place, they
    are too low, and no number of draws shows it. Here the draws come from a mixture, with fixed shares: 15 % from the
    encoder's q; 16 % from each of three Gaussians, which are fitted to the posterior of the image from distinct starts
    (`kvae.evaluation.variational_fits.distinct_starts`), so that they find several modes; 9 % from each of these with
    standard deviations 1 + sqrt(2 / D) times as large; and 10 % from the prior. The weights have the density of the
    whole mixture in the denominator (`kvae.evaluation.mixture_proposals`). The mixture does not depend on the draws,
    and the weights are not smoothed. So the expectation of the estimate is a lower bound of log p(x), as that of the
    importance-weighted bound is. The Monte-Carlo error has the variance K / (K - 1) (sum w^2 / (sum w)^2 - 1 / K) for
    each image, as in `bounds`.

    The estimate of an image is unreliable if the k of its weights exceeds min(1 - 1 / log10 K, 0.7), which is 0.667 for
    K = 1,000 (`kvae.evaluation.pareto.tail_shape`), or if fewer than 10 of its draws are effective. No number shows a
    mode of the posterior that neither the fits nor the prior have met.

    Args:
        vae: a built model, whose posterior has the method `log_prob`.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        images: the largest number of images: the first ones of the set. By default all.
        samples: the number of draws of z per image, K, at least 100.
        steps: the number of gradient steps of each fit, at least 1, each with 2 draws of z. 30 steps of the three fits
            and the search of their starts cost about as much as 1,000 draws.
        seed: the seed of the draws.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Raises:
        UserError: if an argument is not valid, if the density of the posterior is not known, if there are no data, or
            if the images have another shape than the model's.
    """
    check_whole("samples", samples, least=LEAST_SAMPLES)
    check_whole("steps", steps)
    check_seed("seed", seed)
    check_density(vae)
    title = f"log p(x) by defensive proposals, K = {samples}"
    size = sampling.images_at_once(vae) // (MODES * GRADIENT_SAMPLES)

    def compute(x: tf.Tensor, condition: Any, index: tf.Tensor) -> np.ndarray:
        return summary(log_weights_of_part(vae, x, condition, index, samples, steps, seed))

    estimate, effective, shape = over_batches(
        compute, vae, data, title, [samples, steps, seed], size=size, images=images, verbose=verbose, keep=keep
    )
    return Defensive(
        Estimate(estimate),
        Estimate(effective),
        Estimate(shape),
        monte_carlo_error(1 / effective, samples),
        float(is_unreliable(effective, shape, samples).mean()),
    )


def is_unreliable(effective: np.ndarray, shape: np.ndarray, samples: int) -> np.ndarray:
    """Whether the estimate of each image may be wrong, `[N]` bool.

    Args:
        effective: the effective number of draws of each image, `[N]`.
        shape: the k of its weights, `[N]`.
        samples: the number of draws, K.
    """
    return ~((shape <= pareto.threshold(samples)) & (effective >= LEAST_EFFECTIVE))


def summary(log_weights: np.ndarray) -> np.ndarray:
    """The estimate, the effective number of draws and k of each image, `[3, B]`, of log weights `[K, B]`."""
    log_weights = log_weights.astype(np.float64)
    log_sum, log_sum_of_squares = (np.logaddexp.reduce(power * log_weights, axis=0) for power in (1, 2))
    effective = np.exp(2 * log_sum - log_sum_of_squares)
    return np.stack([log_sum - math.log(len(log_weights)), effective, pareto.tail_shape(log_weights)])


def counts_of_components(samples: int) -> tuple[int, ...]:
    """The number of draws from the encoder's q, from each fit, from each wide fit, and from the prior."""
    of_fits = [round(SHARES[kind] * samples / MODES) for kind in ("fits", "wide") for _ in range(MODES)]
    prior = round(SHARES["prior"] * samples)
    return (samples - sum(of_fits) - prior, *of_fits, prior)


def estimate_of_part(vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, seed: int) -> np.ndarray:
    """The estimate of log p(x) of each image, `[B]` nats, with the default options."""
    return summary(log_weights_of_part(vae, x, condition, index, SAMPLES, STEPS, seed))[0]


def log_weights_of_part(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, samples: int, steps: int, seed: int
) -> np.ndarray:
    """log w of each draw, `[samples, B]` nats."""
    settings = Settings(steps, LEARNING_RATE, GRADIENT_SAMPLES)
    fits = fits_of_modes(vae, x, condition, index, MODES, settings, seed).parameters
    at_once = max(sampling.images_at_once(vae) // (CACHED * len(x)), 1)
    return _log_weights(vae, x, condition, index, fits, tf.constant(seed), samples, at_once).numpy()


@compiled(xla=True)
def _log_weights(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, fits: Any, seed: tf.Tensor, samples: int, at_once: int
) -> tf.Tensor:
    """log p(x, z_k) - log of the density of the mixture at z_k, `[samples, B]`, decoded `at_once` draws at a time."""
    widening = math.log(1 + math.sqrt(2 / vae.latent_dim))
    means, log_sigmas = (tf.split(part, MODES) for part in fits)
    components = [
        vae.encode(x, condition),
        *map(factorized_gaussian, zip(means, log_sigmas, strict=True)),
        *(factorized_gaussian((mean, log_sigma + widening)) for mean, log_sigma in zip(means, log_sigmas, strict=True)),
    ]
    drawn = draw(vae, components, counts_of_components(samples), index, seed, Stream.DEFENSIVE, condition)
    chunks = -(-samples // at_once)
    filled = tf.concat([drawn.z, tf.repeat(drawn.z[-1:], chunks * at_once - samples, axis=0)], axis=0)
    in_chunks = tf.reshape(filled, [chunks, at_once, -1, vae.latent_dim])
    log_joint = tf.map_fn(lambda z: vae.log_joint(x, z, condition), in_chunks, parallel_iterations=1)
    return tf.reshape(log_joint, [chunks * at_once, -1])[:samples] - drawn.log_proposal
