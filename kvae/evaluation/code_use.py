"""How much the code z says about an image, and how the codes of all images together differ from the prior."""

import math
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import Estimate, batches
from kvae.evaluation.importance_weighted import CACHED
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.internal.progress_bars import counted
from kvae.internal.tensorflow import tf
from kvae.model import densities, networks
from kvae.model.compiled_functions import compiled
from kvae.model.posteriors import CorrelatedGaussian, Distribution, Gaussian
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

COMPONENTS = 500  # of the mixture q(z) that are computed at once


class Information(NamedTuple):
    """The use of the code, in nats. Each image has the mean over its draws of z."""

    mutual_information: Estimate  # [N]  log q(z|x) - log q(z), at most log N
    mutual_information_upper: Estimate  # [N]  the same with a q(z) of the other images alone
    marginal_kl: Estimate  # [N]  log q(z) - log p(z)
    total_correlation: Estimate | None  # [N]  log q(z) - sum_d log q(z_d); None if q has no known marginals


def information(vae: VAE, data: Any, *, samples: int = 1, seed: int = 0, verbose: int = 0) -> Information:
    """The KL term in two parts: what z says about the image, and how far all z together are from the prior.

        E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)),   q(z) = 1/N sum_j q(z|x_j)

    Hoffman and Johnson, "ELBO surgery" (2016). The total correlation KL(q(z) || prod_d q(z_d)) is a part of
    the second term: Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders" (2018), equation 2.
    q(z) is the mixture of the posteriors of all N images, and each expectation is a mean over draws z ~ q(z|x) of every
    image. So the results are unbiased for the distribution that consists of these N images.

    As statements about the distribution of which the images are a sample, they have a bias that no number of draws
    removes. `mutual_information` is then a lower bound, which never exceeds log N: a value near log N says only that z
    identifies the image among N, and then `marginal_kl` and `total_correlation` are too large by as much as it is too
    small. `mutual_information_upper`, whose q(z) leaves out the image itself, is an upper bound: Poole et al., "On
    Variational Bounds of Mutual Information" (2019), for a known q(z|x). Both bounds hold in expectation, and the KL
    term is a further upper bound. If they are apart, take more images. Each standard error is that of a mean over
    images. That q(z) is made of the same images adds nothing to it to first order; near 0 it is too large.

    A conditional model has q(z|x, y), and its mutual information is that of z and the pair (x, y). If its prior depends
    on the condition, `marginal_kl` is the rest of the KL term, but no divergence of q(z) from a prior.

    The draws of an image depend only on the seed and on its index. The cost grows with samples * N^2 * D.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`, of at least two images. For a conditional
            model, batches (x, y) or the arrays (x, y).
        samples: the number of draws of z per image, at least 1.
        seed: the seed of the draws.
        verbose: 1 for a bar that counts chunks of draws, 2 for a line every ten seconds. 0 by default.

    Raises:
        UserError: if an argument is not valid, if there are fewer than two images, if they have another shape than the
            model's, or if the posterior has no `log_prob`.
    """
    check_whole("samples", samples)
    check_seed("seed", seed)
    parts = [
        tf.nest.map_structure(lambda tensor: tensor.numpy(), _draw(vae, *batch, tf.constant(seed), samples))
        for batch in batches(vae, data)
    ]
    z, own, log_prior = (np.concatenate(part, axis=1) for part in list(zip(*parts, strict=True))[:3])
    parameters = tf.nest.map_structure(lambda *each: np.concatenate(each), *(part[3] for part in parts))
    images = z.shape[1]
    if images < 2:
        raise UserError("Expected at least two images, whose codes are compared. Received one.")
    of_first = vae.posterior.distribution(tf.nest.map_structure(lambda part: tf.constant(part[:1]), parameters))
    if type(of_first).log_prob is Distribution.log_prob:
        raise UserError(
            "Expected a posterior whose density is known at any z. Received one that makes "
            f"{type(of_first).__name__}, which has no method log_prob. Define it."
        )
    others, marginals = _sums(vae, z, parameters, verbose)
    own = own.astype(np.float64)
    joint = np.logaddexp(others, own) - math.log(images)  # log q(z), [K, N]
    return Information(
        _mean(own - joint),
        _mean(own - others + math.log(images - 1)),
        _mean(joint - log_prior),
        None if marginals is None else _mean(joint - marginals),
    )


def _mean(draws: np.ndarray) -> Estimate:
    return Estimate(draws.mean(axis=0))


@compiled
def _draw(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, seed: tf.Tensor, samples: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Any]:
    """z `[K, B, D]`, log q(z|x) and log p(z) `[K, B]`, and the parameters of q(z|x), each `[B, width]`."""
    parameters = networks.call(vae.encoder, x, condition)
    q = vae.posterior.distribution(parameters)
    draws = vae.draw(x, Keyed(seed, Stream.INFORMATION, index), samples, condition, q=q)
    return draws.z, draws.log_q, draws.log_prior, parameters


def _sums(vae: VAE, z: np.ndarray, parameters: Any, verbose: int) -> tuple[np.ndarray, np.ndarray | None]:
    """log sum_j q(z|x_j) over all images j but its own, and sum_d log q(z_d), for each z `[K, N, D]`.

    Returns:
        Each `[K, N]` float64; None for the second one if the marginals of q are not known.
    """
    draws, images, latent_dim = z.shape
    components = min(COMPONENTS, images)
    at_once = max(batch_sizes.images_at_once((components, latent_dim)) // CACHED, 1)
    chunks = tf.nest.map_structure(lambda part: tf.constant(_in_chunks(part, components)), parameters)
    points = _in_chunks(z.reshape(-1, latent_dim), at_once)
    places = _in_chunks(np.tile(np.arange(images, dtype=np.int32), draws), at_once)
    rows = []
    with counted(verbose, "densities of q(z)", "chunks", len(points)) as one_more:
        for of_points, of_places in zip(points, places, strict=True):
            results = _sums_of_points(vae, tf.constant(of_points), tf.constant(of_places), chunks, tf.constant(images))
            rows.append([None if result is None else result.numpy() for result in results])
            one_more()
    others, marginals = (
        None if column[0] is None else np.concatenate(column)[: draws * images].reshape(draws, images)
        for column in zip(*rows, strict=True)
    )
    assert others is not None
    return others, marginals


def _in_chunks(values: np.ndarray, size: int) -> np.ndarray:
    """`[N, ...]` as chunks `[G, size, ...]`. The last value fills the last chunk."""
    missing = -len(values) % size
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]).reshape(-1, size, *values.shape[1:])


@compiled(xla=True)
def _sums_of_points(
    vae: VAE, z: tf.Tensor, places: tf.Tensor, parameters: Any, images: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The sums of `_sums` for z `[C, D]`, the draws of the images `places` `[C]`; each `[C]` float64."""
    chunks, components = tf.unstack(tf.shape(tf.nest.flatten(parameters)[0])[:2])

    def distribution(chunk: Any) -> Any:
        return vae.posterior.distribution(tf.nest.map_structure(lambda part: part[chunk], parameters))

    def add(chunk: tf.Tensor, others: tf.Tensor, marginals: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
        q = distribution(chunk)
        number = chunk * components + tf.range(components)
        exists = number < images
        log_q = q.log_prob(tf.broadcast_to(z[:, None], [tf.shape(z)[0], components, z.shape[1]]))
        others = _log_sum(others, tf.where(exists & (number != places[:, None]), log_q, -math.inf))
        known = _marginals(q)
        if known is not None:
            mean, log_var = map(tf.transpose, known)  # [D, J]: a sum over the last axis is fastest
            each = densities.gaussian_log_density(z[:, :, None], mean, log_var)
            marginals = _log_sum(marginals, tf.where(exists, each, -math.inf))
        return chunk + 1, others, marginals

    of_joint, of_dimensions = (tf.fill(tf.shape(z)[:rank], tf.constant(-math.inf, tf.float64)) for rank in (1, 2))
    start = (tf.constant(0), of_joint, of_dimensions)
    _, others, marginals = tf.while_loop(lambda chunk, *_: chunk < chunks, add, start, parallel_iterations=1)
    if _marginals(distribution(0)) is None:
        return others, None
    return others, tf.reduce_sum(marginals - tf.math.log(tf.cast(images, tf.float64)), axis=-1)


def _log_sum(total: tf.Tensor, log_values: tf.Tensor) -> tf.Tensor:
    """log of exp(total) and the sum of exp(log_values) over the last axis, float64."""
    added = tf.cast(tf.reduce_logsumexp(log_values, axis=-1), tf.float64)
    return tf.reduce_logsumexp(tf.stack([total, added]), axis=0)


def _marginals(q: Distribution) -> tuple[tf.Tensor, tf.Tensor] | None:
    """The mean and log variance `[B, D]` of the latent dimensions of a Gaussian q; None for another q."""
    if isinstance(q, Gaussian):
        return q.mean, q.log_var
    if isinstance(q, CorrelatedGaussian):
        return q.mean, tf.math.log(tf.reduce_sum(tf.square(q.cholesky), axis=-1))
    return None
