"""The importance-weighted lower bound of log p(x) over a set."""

import math
from typing import Any

import numpy as np

from kvae.evaluation.estimate import Estimate, batches, count_batches
from kvae.internal.errors import check_seed, check_whole
from kvae.internal.progress_bars import counted
from kvae.internal.tensorflow import tf
from kvae.model import objectives, sampling
from kvae.model.compiled_functions import compiled
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

CACHED = 4  # a quarter of `images_at_once` is fastest, because 3 MB of logits stay in the processor's cache
LOG_ZERO = -1e300  # log 0, but finite, because -inf - -inf is not a number


def log_likelihood(vae: VAE, data: Any, *, samples: int = 5000, seed: int = 0, verbose: int = 0) -> Estimate:
    """The importance-weighted lower bound of log p(x), in nats per image.

    log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x); Burda, Grosse and Salakhutdinov, "Importance Weighted
    Autoencoders" (2016), equation 8. For K = 1 its expectation is the ELBO; for large K it approaches log p(x) from
    below. The memory that it needs depends neither on K nor on the size of the set.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        samples: the number of draws of z per image, K, at least 1.
        seed: the seed of the draws.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.

    Raises:
        UserError: if an argument is not valid, if there are no data, or if the images have another shape than the
            model's.
    """
    check_whole("samples", samples)
    check_seed("seed", seed)
    results = []
    with counted(verbose, f"bound of log p(x), K = {samples}", "batches", count_batches(data)) as one_more:
        for x, condition, index in batches(vae, data):
            results.append(bound_of_batch(vae, x, condition, index, samples, seed))
            one_more()
    return Estimate(np.concatenate(results))


def bound_of_batch(vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, samples: int, seed: int) -> np.ndarray:
    """The bound of each image of a batch of `kvae.evaluation.estimate.batches`, `[B]` nats."""
    seed_ = tf.constant(seed)
    count = min(max(sampling.images_at_once(vae) // (CACHED * int(x.shape[0])), 1), samples)
    whole, rest = divmod(samples, count)
    total = _log_weight_sum(vae, x, condition, index, seed_, tf.constant(0), tf.constant(whole), count).numpy()
    if rest:
        first, once = tf.constant(whole * count), tf.constant(1)
        last = _log_weight_sum(vae, x, condition, index, seed_, first, once, rest).numpy()
        total = np.logaddexp(total, last)
    return np.where(total > LOG_ZERO / 2, total - math.log(samples), -np.inf)


@compiled(xla=True)
def _log_weight_sum(
    vae: VAE,
    x: tf.Tensor,
    condition: Any,
    index: tf.Tensor,
    seed: tf.Tensor,
    first: tf.Tensor,
    chunks: tf.Tensor,
    count: int,
) -> tf.Tensor:
    """log sum_k w_k over the draws number first to first + chunks * count - 1, `[B]` float64."""
    q = vae.encode(x, condition)
    noise = Keyed(seed, Stream.BOUND, index)

    def add(done: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = first + done * count + tf.range(count)
        draws = vae.draw(x, noise.numbered(numbers), count, condition, q=q)
        bound = tf.cast(objectives.importance_weighted_bound(draws.log_weights), tf.float64) + math.log(count)
        return done + 1, tf.reduce_logsumexp(tf.stack([total, bound]), axis=0)

    nothing = tf.fill([tf.shape(x)[0]], tf.constant(LOG_ZERO, tf.float64))
    loop = tf.while_loop(lambda done, _: done < chunks, add, (tf.constant(0), nothing), parallel_iterations=1)
    return loop[1]
