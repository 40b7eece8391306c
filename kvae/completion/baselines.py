"""What simpler predictors score on the same missing pixels."""

from typing import Any

import numpy as np

from kvae.completion import proposals
from kvae.completion.masked import batches, checked, of_batch, places
from kvae.completion.variational import Inferred, infer_whole
from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.noise.streams import Stream


def has_pixel_means(vae: VAE) -> bool:
    """Whether the likelihood has a density of pixels that is told by its mean in [0, 1] alone."""
    image_shape = tuple(vae.image_shape)
    return tuple(vae.likelihood.parameters_shape(image_shape)) == image_shape and vae.likelihood.support[:2] == (0, 1)


def pixel_mean_baseline(vae: VAE, x: Any, observed: Any, pixel_mean: Any, count: int) -> np.ndarray:
    """log p(missing) where every pixel is independent with its training mean, `[B]` nats.

    Args:
        vae: whose likelihood is taken.
        x: `[B, *image]`.
        observed: a mask as in `complete`.
        pixel_mean: of the training images, `[*image]`; smoothed by Laplace's rule, (n mean + 1) / (n + 2), so that a
            pixel that was never on has a probability.
        count: n, of the training images.

    Raises:
        UserError: a pixel_mean of another shape or outside [0, 1], a likelihood that needs more than a mean a pixel, or
            whatever `complete` refuses.
    """
    images = checked(vae, x, observed)
    if not has_pixel_means(vae):
        raise UserError(
            "Expected a likelihood of pixels in [0, 1] that a mean a pixel determines. This model has another."
        )
    mean = np.asarray(pixel_mean, np.float64)
    if mean.shape != vae.image_shape or not ((mean >= 0) & (mean <= 1)).all():
        raise UserError(f"Expected pixel_mean in [0, 1] of shape {vae.image_shape}. Received shape {mean.shape}.")
    mean = (check_whole("count", count) * mean + 1) / (count + 2)
    # The continuous Bernoulli has the mean 1/n at logit -n, the others at log 1/n.
    low, high = np.full(mean.shape, -1.1 * (count + 2)), np.full(mean.shape, 1.1 * (count + 2))
    for _ in range(90):  # the mean grows with the logit under every likelihood
        middle = (low + high) / 2
        below = vae.likelihood.mean(tf.constant(middle, tf.float32)).numpy() < mean
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    parameters = tf.constant(np.broadcast_to(middle, images.x.shape), tf.float32)
    return vae.likelihood.log_prob(tf.constant(images.x), parameters, ~images.observed).numpy()


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
    """log E[p(missing|z)] over the encoder's q(z|x), which is shown 0 for every missing pixel; `[B]` nats.

    Few draws of such a q come near the true image, so the plain mean would be too low, in favour of `complete`; the
    proposal has q(z | the whole image) and the prior beside it.

    Args:
        vae: a built model.
        x: `[B, *image]`, the missing pixels known.
        observed: a mask as in `complete`.
        whole: q(z | the whole image), as a `Completion` has it; inferred here by default.
        samples: draws of z an image.
        seed: of the draws.
        condition: `[B, ...]`, of a model that has one.
    """
    images = checked(vae, x, observed, seed, condition)
    check_whole("samples", samples, least=3)
    whole = infer_whole(vae, images, seed) if whole is None else whole
    results = []
    for batch in batches(vae, len(images.x)):
        mask, condition_, terms = images.observed[batch], of_batch(images.condition, batch), []
        q = vae.encode(images.seen[batch], condition_)
        components = [q, whole.of(batch).q]
        for some in proposals.draws(vae, components, places(batch), samples, seed, Stream.BASELINE, condition_):
            log_missing = vae.log_likelihood(images.x[batch], some.z, ~mask, condition_).numpy()
            terms.append(log_missing + q.log_prob(some.z).numpy() - some.log_proposal)
        results.append(np.logaddexp.reduce(np.concatenate(terms), axis=0) - np.log(samples))
    return np.concatenate(results)
