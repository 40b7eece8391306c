"""The ELBO of a set, with its terms."""

from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import Estimate, batches
from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.internal.tensorflow import tf
from kvae.model.compiled import compiled
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

DRAWS = 8  # draws of z per example for the reconstruction term; the estimate is unbiased for any number
ACTIVE_VARIANCE = 0.01  # Burda et al. (2016), section 5.2
NOISE = {1: Stream.TEST_ELBO_BEFORE_0_2, 2: Stream.TEST_ELBO}  # by version; files of kvae 0.1 have the draws of 1


class ElboTerms(NamedTuple):
    """The ELBO of every example and the terms that it consists of."""

    elbo: Estimate  # [N]
    reconstruction: Estimate  # [N]
    kl: Estimate  # [N]
    kl_per_dimension: list[Estimate]  # D times [N], in closed form; empty if q and the prior have none
    active_units: int  # number of latent dimensions whose posterior mean has a variance over the set above 0.01


def elbo(vae: VAE, data: Any, *, draws: int = DRAWS, seed: int = 0, noise: int = 2) -> ElboTerms:
    """The ELBO with beta = 1; its KL is what the model's `kl` says, analytic by default.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches, or an array `[N, *image]`; for a model with a condition batches (x, y), or
            the arrays (x, y).
        draws: number of draws of z per example, at least 1; more of them make the estimate less noisy, not larger.
        seed: seed of the draws.
        noise: version of the random numbers: 2, or 1 for those of kvae 0.1.

    Raises:
        UserError: if there are no data, or they have another shape.
    """
    check_whole("draws", draws)
    check_seed("seed", seed)
    if noise not in NOISE:
        raise UserError(f"Expected noise to be one of {', '.join(map(str, NOISE))}. Received {noise!r}.")
    parts = [
        [
            None if part is None else part.numpy()
            for part in _elbo_of_batch(vae, *batch, tf.constant(seed), draws, noise)
        ]
        for batch in batches(vae, data)
    ]
    columns = list(zip(*parts, strict=True))
    mean, elbo_, reconstruction, kl = (np.concatenate(part) for part in columns[:4])
    per_dimension: Any = () if columns[4][0] is None else np.concatenate(columns[4]).T
    return ElboTerms(
        Estimate(elbo_),
        Estimate(reconstruction),
        Estimate(kl),
        [Estimate(column) for column in per_dimension],
        int((mean.var(axis=0) > ACTIVE_VARIANCE).sum()),
    )


@compiled
def _elbo_of_batch(
    vae: VAE, x: tf.Tensor, condition: Any, index: tf.Tensor, seed: tf.Tensor, samples: int, noise: int
) -> tuple[Any, ...]:
    draws = vae.draw(x, Keyed(seed, NOISE[noise], index), samples, condition)
    return draws.q.mean, draws.elbo, draws.reconstruction, draws.kl, draws.kl_per_dimension
