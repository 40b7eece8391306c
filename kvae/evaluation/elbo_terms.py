"""The ELBO of a set and its terms."""

import math
from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import Estimate, batches
from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.model.compiled_functions import compiled
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

DRAWS = 8  # draws of z per image for the reconstruction term; the estimate is unbiased for any number of draws
ACTIVE_VARIANCE = 0.01  # Burda et al. (2016), section 5.2
NOISE = {1: Stream.TEST_ELBO_BEFORE_0_2, 2: Stream.TEST_ELBO}  # by version; results of kvae 0.1 have version 1


class ElboTerms(NamedTuple):
    """The ELBO of each image and its terms, in nats."""

    elbo: Estimate  # [N]
    reconstruction: Estimate  # [N]
    kl: Estimate  # [N]
    kl_per_dimension: list[Estimate]  # D times [N], in closed form; empty if there is no closed form
    active_units: int  # number of latent dimensions whose posterior mean has a variance above 0.01 over the set
    bits_per_dimension: Estimate | None = None  # [N] bits; None under a density, and for pixels that are 0 or 1


def elbo(vae: VAE, data: Any, *, draws: int = DRAWS, seed: int = 0, noise: int = 2) -> ElboTerms:
    """The ELBO with beta = 1. Its KL term is computed as the model's argument `kl` says, analytically by default.

    Under a likelihood of discrete values, such as the 256 levels of 8-bit images, `bits_per_dimension` is

        -ELBO / (P log 2)  >=  -log2 p(x) / P,

    in expectation over the draws, where P is the number of pixels times that of channels. So it is an upper bound on
    the bits per number with which the model could store the images without loss; lower is better. A density, such as
    the Gaussian, has none, because its -log p(x) is no number of bits. Nor have pixels that are 0 or 1, whose numbers
    are usually given in nats.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        draws: the number of draws of z per image, at least 1. More draws make the estimate less noisy, not larger.
        seed: the seed of the draws.
        noise: the version of the random numbers: 2, or 1 for those of kvae 0.1.

    Raises:
        UserError: if an argument is not valid, if there are no data, or if the images have another shape than the
            model's.
    """
    check_whole("draws", draws)
    check_seed("seed", seed)
    if noise not in NOISE:
        raise UserError(f"Expected noise to be one of {', '.join(map(str, NOISE))}. Received {noise!r}.")
    rows = [
        [
            None if value is None else value.numpy()
            for value in _elbo_of_batch(vae, *batch, tf.constant(seed), draws, noise)
        ]
        for batch in batches(vae, data)
    ]
    columns = list(zip(*rows, strict=True))
    mean, elbo_, reconstruction, kl = (np.concatenate(column) for column in columns[:4])
    per_dimension: Any = () if columns[4][0] is None else np.concatenate(columns[4]).T
    return ElboTerms(
        Estimate(elbo_),
        Estimate(reconstruction),
        Estimate(kl),
        [Estimate(values) for values in per_dimension],
        int((mean.var(axis=0) > ACTIVE_VARIANCE).sum()),
        _bits_per_dimension(vae, elbo_),
    )


def kl_kind(vae: VAE) -> str:
    """How the KL term of a model is computed: `"analytic"`, or `"sampled"` if it has no closed form or is not asked."""
    if vae.kl == "sampled":
        return "sampled"
    x = tf.zeros([1, *vae.image_shape])
    condition = None if vae.condition_shape is None else tf.zeros([1, *vae.condition_shape])
    return "sampled" if vae.encode(x, condition).kl(vae.prior) is None else "analytic"


def _bits_per_dimension(vae: VAE, elbo_: np.ndarray) -> Estimate | None:
    if not (vae.likelihood.discrete and vae.likelihood.normalized) or vae.likelihood.binary:
        return None
    return Estimate(-elbo_ / (math.prod(vae.image_shape) * math.log(2.0)))


@compiled
def _elbo_of_batch(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, seed: tf.Tensor, samples: int, noise: int
) -> tuple[Any, ...]:
    """The posterior mean `[B, D]`; the ELBO, reconstruction and KL `[B]`; the KL per dimension `[B, D]` or None."""
    draws = vae.draw(x, Keyed(seed, NOISE[noise], index), samples, condition)
    return draws.q.mean, draws.elbo, draws.reconstruction, draws.kl, draws.kl_per_dimension
