"""The posterior q(z|x) of each image of a set: its mean and, where it is known, its variance."""

from typing import Any, NamedTuple

import numpy as np

from kvae.evaluation.estimate import batches
from kvae.internal.tensorflow import tf
from kvae.model.compiled_functions import compiled
from kvae.model.posteriors import MEAN_DRAWS, Distribution
from kvae.model.vae import VAE


class Encoded(NamedTuple):
    """The posteriors of N images with D latent dimensions."""

    mean: np.ndarray  # [N, D]
    variance: np.ndarray | None  # [N, D], the variance of each latent dimension; None if the posterior does not know it
    mean_draws: int | None  # the number of draws of which the means were made; None if they are exact


def encode(vae: VAE, data: Any) -> Encoded:
    """Encodes images. The result for an image does not depend on the batch that the image is in.

    Args:
        vae: a built model.
        data: batches x of images, such as a `tf.data.Dataset`, or an array `[N, *image]`. For a conditional model,
            batches (x, y) or the arrays (x, y).

    Raises:
        UserError: if there are no data, if the images have another shape than the model's, or if a weight of the model
            is NaN or infinite.
    """
    means, variances, draws = [], [], None
    for x, condition, _ in batches(vae, data):
        mean, variance, exact = posterior_of_batch(vae, x, condition)
        means.append(mean.numpy())
        variances.append(None if variance is None else variance.numpy())
        draws = None if bool(exact) else MEAN_DRAWS
    known = variances[0] is not None
    return Encoded(np.concatenate(means), np.concatenate(variances) if known else None, draws)  # type: ignore[arg-type]


@compiled
def posterior_of_batch(vae: VAE, x: tf.Tensor, condition: Any) -> tuple[tf.Tensor, Any, bool]:
    """The mean and the variance `[B, D]`, or None for the variance; and whether the mean has a closed form."""
    q = vae.encode(x, condition)
    covariance = q.covariance
    variance = None if covariance is None else tf.linalg.diag_part(covariance)
    return q.mean, variance, type(q).mean is not Distribution.mean
