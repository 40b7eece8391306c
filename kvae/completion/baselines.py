"""Scores of simpler predictors on the same missing pixels."""

from typing import Any

import numpy as np

from kvae.completion.masked_images import batches, check_images, indices, select_condition
from kvae.completion.variational_inference import Inferred, infer_whole
from kvae.evaluation import mixture_proposals
from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import tf
from kvae.model.likelihoods import Likelihood
from kvae.model.vae import VAE
from kvae.noise.streams import Stream

BISECTIONS = 90  # halvings of the interval of logits, enough for the precision of float64


def has_pixel_means(vae: VAE) -> bool:
    """Whether the mean of a pixel, in [0, 1], determines its density under the model's likelihood."""
    image_shape = tuple(vae.image_shape)
    return tuple(vae.likelihood.parameters_shape(image_shape)) == image_shape and vae.likelihood.support[:2] == (0, 1)


def pixel_mean_baseline(
    vae: VAE, x: Any, observed: Any, pixel_mean: Any, count: int, condition: Any = None
) -> np.ndarray:
    """log p(missing) if every pixel is independent of the others and has its mean over the training images.

    Args:
        vae: a built model, whose likelihood is used.
        x: images, `[B, *image]`, with the true values of the missing pixels.
        observed: a mask as in `complete`.
        pixel_mean: the mean of the training images, `[*image]`, in [0, 1]. Laplace's rule of succession smooths it to
            (n mean + 1) / (n + 2), so that a pixel that is always 0 in training still has a probability.
        count: n, the number of training images.
        condition: conditions, `[B, ...]`, for a model that takes one. The baseline does not depend on them.

    Returns:
        `[B]`, nats; NaN for an image whose missing pixels are not known.

    Raises:
        UserError: if `pixel_mean` has another shape or a value outside [0, 1], if a mean does not determine the
            likelihood of a pixel, or if `complete` does not accept the images or the mask.
    """
    images = check_images(vae, x, observed, condition=condition)
    if not has_pixel_means(vae):
        raise UserError(
            "Expected a likelihood of pixels in [0, 1] that one mean per pixel determines, as the baseline of pixel "
            "means needs it. Received a model with another likelihood."
        )
    mean = np.asarray(pixel_mean, np.float64)
    if mean.shape != vae.image_shape or not ((mean >= 0) & (mean <= 1)).all():
        raise UserError(f"Expected pixel_mean in [0, 1] of shape {vae.image_shape}. Received shape {mean.shape}.")
    mean = (check_whole("count", count) * mean + 1) / (count + 2)
    logits = _logits_of_means(vae.likelihood, mean, bound=1.1 * (count + 2))
    parameters = tf.constant(np.broadcast_to(logits, images.x.shape), tf.float32)
    log_prob = vae.likelihood.log_prob(tf.constant(images.x), parameters, ~images.observed).numpy()
    return np.where(images.known, log_prob, np.nan)


def _logits_of_means(likelihood: Likelihood, mean: np.ndarray, bound: float) -> np.ndarray:
    """The logits in [-bound, bound] at which the likelihood has the given means, by bisection.

    The mean increases with the logit under every likelihood. For the least mean, 1 / n, the logit of a continuous
    Bernoulli is about -n, and that of the other likelihoods is about -log n.
    """
    low, high = np.full(mean.shape, -bound), np.full(mean.shape, bound)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = likelihood.mean(tf.constant(middle, tf.float32)).numpy() < mean
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return middle


def zero_filled_baseline(
    vae: VAE,
    x: Any,
    observed: Any,
    *,
    whole: Inferred | None = None,
    samples: int = 500,
    seed: int = 0,
    condition: Any = None,
) -> np.ndarray:
    """log E[p(missing|z)] over the encoder's q(z|x) for the image with 0 in place of every missing pixel.

    Few draws of this q lie where p(missing|z) is large, so the plain mean over its draws would usually be too low,
    which would favour `complete`. The estimate therefore uses importance sampling: the proposal is a mixture of this
    q, of q(z | the whole image) and of the prior.

    Args:
        vae: a built model.
        x: images, `[B, *image]`, with the true values of the missing pixels.
        observed: a mask as in `complete`.
        whole: q(z | the whole image), as in a `Completion`. By default it is inferred here.
        samples: the number of draws of z per image, at least 3.
        seed: the seed of the draws.
        condition: conditions, `[B, ...]`, for a model that takes one.

    Returns:
        `[B]`, nats; NaN for an image whose missing pixels are not known.

    Raises:
        UserError: if `complete` does not accept an argument.
    """
    images = check_images(vae, x, observed, seed, condition)
    check_whole("samples", samples, least=3)
    whole = infer_whole(vae, images, seed) if whole is None else whole
    results = []
    for batch in batches(vae, len(images.x)):
        mask, batch_condition = images.observed[batch], select_condition(images.condition, batch)
        q = vae.encode(images.zero_filled[batch], batch_condition)
        components = [q, whole.select(batch).q]
        log_terms = []
        for drawn in mixture_proposals.draws(
            vae, components, indices(batch), samples, seed, Stream.BASELINE, batch_condition
        ):
            log_missing = vae.log_likelihood(images.x[batch], drawn.z, ~mask, batch_condition).numpy()
            log_terms.append(log_missing + q.log_prob(drawn.z).numpy() - drawn.log_proposal)
        results.append(np.logaddexp.reduce(np.concatenate(log_terms), axis=0) - np.log(samples))
    return np.where(images.known, np.concatenate(results), np.nan)
