"""Importance-weighted lower bounds of log p(x) over a set."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import Estimate
from kvae.evaluation.over_batches import Keep, over_batches
from kvae.internal.errors import UserError, check_list, check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.model import objectives, sampling
from kvae.model.compiled_functions import compiled
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

CACHED = 4  # a quarter of `images_at_once` is fastest, because 3 MB of logits stay in the processor's cache
LOG_ZERO = -1e300  # log 0, but finite, because -inf - -inf is not a number


def log_likelihood(
    vae: VAE,
    data: Any,
    *,
    images: int | None = None,
    samples: int = 5000,
    seed: int = 0,
    verbose: int = 0,
    keep: Keep = None,
) -> Estimate:
    """The importance-weighted lower bound of log p(x), in nats per image.

    log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x); Burda, Grosse and Salakhutdinov, "Importance Weighted
    Autoencoders" (2016), equation 8. For K = 1 its expectation is the ELBO; for large K it approaches log p(x) from
    below. The memory that it needs depends neither on K nor on the size of the set.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        images: the largest number of images: the first ones of the set. By default all.
        samples: the number of draws of z per image, K, at least 1.
        seed: the seed of the draws.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Raises:
        UserError: if an argument is not valid, if there are no data, or if the images have another shape than the
            model's.
    """
    check_whole("samples", samples)
    check_seed("seed", seed)
    title = f"bound of log p(x), K = {samples}"

    def compute(x: tf.Tensor, condition: Any, index: tf.Tensor) -> list[np.ndarray]:
        return [bound_of_batch(vae, x, condition, index, samples, seed)]

    return Estimate(
        *over_batches(compute, vae, data, title, [samples, seed], images=images, verbose=verbose, keep=keep)
    )


class Bounds(NamedTuple):
    """The bounds of log p(x) of each image for several K, in nats, and how reliable the last one is."""

    bounds: list[Estimate]  # one for each K, each [N]
    effective_samples: Estimate  # [N]  (sum w)^2 / sum w^2, between 1 and K, for the largest K; no nats
    # Of the mean of the bounds for the largest K, from the draws of z alone, in nats. None if this K is 1: the error of
    # a single draw is not known.
    bounds_monte_carlo_error: float | None


def bounds(
    vae: VAE,
    data: Any,
    *,
    images: int | None = None,
    sample_sizes: Sequence[int] = (1, 5, 50, 5000),
    seed: int = 0,
    verbose: int = 0,
    keep: Keep = None,
) -> Bounds:
    """The importance-weighted bounds of log p(x) for several K, which are made of the same draws.

    The bound for K is that of `log_likelihood` with samples=K, and all of them cost no more than the largest one. Two
    errors are apart: each standard error of `Estimate` is that of a mean over images drawn from their distribution; the
    Monte-Carlo error is what other draws of z would change, by the delta method, whose variance of log mean w is
    K / (K - 1) (sum w^2 / (sum w)^2 - 1 / K), so that it is not known for K = 1. Neither of them says how far the bound
    is below log p(x): where q misses a part of the posterior, no draw shows it. `quadrature` does, for up to 3 latent
    dimensions.

    Args:
        vae: a built model.
        data: as in `log_likelihood`.
        images: the largest number of images: the first ones of the set. By default all.
        sample_sizes: each K, at least 1.
        seed: the seed of the draws.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Raises:
        UserError: if an argument is not valid, if there are no data, or if the images have another shape than the
            model's.
    """
    asked = [check_whole("sample_sizes", size) for size in check_list("sample_sizes", sample_sizes)]
    check_seed("seed", seed)
    sizes = sorted(set(asked))
    if not sizes:
        raise UserError("Expected at least one number of draws as sample_sizes. Received none.")
    title = f"bounds of log p(x), K to {sizes[-1]}"

    def compute(x: tf.Tensor, condition: Any, index: tf.Tensor) -> WeightSums:
        return weights_of_batch(vae, x, condition, index, sizes, seed)

    log_sum, log_sum_of_squares = over_batches(
        compute, vae, data, title, [sizes, seed], images=images, verbose=verbose, keep=keep
    )
    inverse = np.exp(log_sum_of_squares[-1] - 2 * log_sum[-1])  # of the effective number of draws
    return Bounds(
        [Estimate(_bound(log_sum[sizes.index(size)], size)) for size in asked],
        Estimate(1 / inverse),
        None if sizes[-1] == 1 else monte_carlo_error(inverse, sizes[-1]),
    )


def monte_carlo_error(inverse: np.ndarray, samples: int) -> float:
    """The error of the mean of log mean w over images, from the draws alone, by the delta method, in nats.

    Args:
        inverse: sum w^2 / (sum w)^2 of each image, `[N]`.
        samples: the number of draws per image, K, at least 2.
    """
    variance = np.maximum(inverse - 1 / samples, 0) * samples / (samples - 1)
    return float(math.sqrt(variance.sum()) / len(variance))


class WeightSums(NamedTuple):
    """Sums over the weights of the first K draws of each image, for each K."""

    log_sum: np.ndarray  # [sizes, B] nats, log sum_k w_k
    log_sum_of_squares: np.ndarray  # [sizes, B] nats, log sum_k w_k^2


def bound_of_batch(vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, samples: int, seed: int) -> np.ndarray:
    """The bound of each image of a batch of `kvae.evaluation.estimate.batches`, `[B]` nats."""
    return _bound(weights_of_batch(vae, x, condition, index, [samples], seed).log_sum[0], samples)


def _bound(log_sum: np.ndarray, samples: int) -> np.ndarray:
    return np.where(log_sum > LOG_ZERO / 2, log_sum - math.log(samples), -np.inf)


def weights_of_batch(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, sizes: Sequence[int], seed: int
) -> WeightSums:
    """The sums over the weights of each image of a batch, for each K of `sizes`, which are in rising order."""
    at_once = max(sampling.images_at_once(vae) // (CACHED * int(x.shape[0])), 1)
    total, done, rows = np.full([2, int(x.shape[0])], LOG_ZERO), 0, []
    for size in sizes:
        while done < size:
            count = min(at_once, size - done)
            chunks = (size - done) // count
            added = _log_weight_sums(
                vae, x, condition, index, tf.constant(seed), tf.constant(done), tf.constant(chunks), count
            )
            total, done = np.logaddexp(total, added.numpy()), done + chunks * count
        rows.append(total)
    return WeightSums(*np.stack(rows, axis=1))


@compiled(xla=True)
def _log_weight_sums(
    vae: VAE,
    x: tf.Tensor,
    condition: Any,
    index: tf.Tensor,
    seed: tf.Tensor,
    first: tf.Tensor,
    chunks: tf.Tensor,
    count: int,
) -> tf.Tensor:
    """log sum_k w_k and log sum_k w_k^2 over the draws number first to first + chunks * count - 1, `[2, B]` float64."""
    q = vae.encode(x, condition)
    noise = Keyed(seed, Stream.BOUND, index)

    def add(done: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = first + done * count + tf.range(count)
        log_weights = vae.draw(x, noise.numbered(numbers), count, condition, q=q).log_weights
        of_powers = [objectives.importance_weighted_bound(power * log_weights) for power in (1.0, 2.0)]
        sums = tf.cast(tf.stack(of_powers), tf.float64) + math.log(count)
        return done + 1, tf.reduce_logsumexp(tf.stack([total, sums]), axis=0)

    nothing = tf.fill([2, tf.shape(x)[0]], tf.constant(LOG_ZERO, tf.float64))
    loop = tf.while_loop(lambda done, _: done < chunks, add, (tf.constant(0), nothing), parallel_iterations=1)
    return loop[1]
