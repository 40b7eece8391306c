"""Prediction of the missing pixels from the observed ones: their mean, and draws of them.

The values that the images have in their missing pixels are never used.
"""

from typing import NamedTuple

import numpy as np

from kvae.completion.masked_images import MaskedImages, batches, indices, select_condition
from kvae.completion.variational_inference import Inferred
from kvae.evaluation import mixture_proposals
from kvae.model.posteriors import Distribution
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream


class Prediction(NamedTuple):
    """Predicted images. The observed pixels keep their values."""

    means: np.ndarray  # [B, *image]  E[x | observed]
    draw_means: np.ndarray  # [n, B, *image]  E[x|z] at n draws of z
    draws: np.ndarray  # [n, B, *image]  draws of p(x|z) at the same z


class _Batch(NamedTuple):
    """What the prediction of a batch of images depends on."""

    x: np.ndarray  # [B, *image]  0 in place of every missing pixel
    observed: np.ndarray  # [B, *image]  bool
    condition: np.ndarray | None  # [B, ...]
    q: Distribution  # q(z | observed)
    image_index: np.ndarray  # [B]  int32, among all images of the call


def predict(vae: VAE, images: MaskedImages, inferred: Inferred, draws: int, samples: int, seed: int) -> Prediction:
    """Predicts the missing pixels by importance sampling, with a mixture of q and the prior as the proposal.

    `means` is the mean over the draws of z, weighted by their importance weights. Each of the `draws` takes one of
    these z with a probability proportional to its weight (sampling importance resampling; Rubin, "Using the SIR
    algorithm to simulate posterior distributions", 1988).

    Args:
        vae: a built model.
        images: images with their mask.
        inferred: q(z | observed).
        draws: the number of completions per image, n.
        samples: the number of draws of z per image.
        seed: the seed of all random numbers.
    """
    parts = []
    for batch in batches(vae, len(images.x)):
        condition = select_condition(images.condition, batch)
        q = inferred.select(batch).q
        given = _Batch(images.zero_filled[batch], images.observed[batch], condition, q, indices(batch))
        parts.append(_predict_batch(vae, given, draws, samples, seed))
    means, draw_means, completions = zip(*parts, strict=True)
    return Prediction(np.concatenate(means), np.concatenate(draw_means, axis=1), np.concatenate(completions, axis=1))


def _predict_batch(vae: VAE, given: _Batch, draws: int, samples: int, seed: int) -> Prediction:
    means, log_weights, points = _weighted_mean(vae, given, samples, seed)
    uniform = Keyed(seed, Stream.RESAMPLING, given.image_index).uniform((draws,), Stream.CHOICE).numpy()
    parameters = vae.decode(_resample(log_weights, points, uniform), given.condition)
    pixels = [
        vae.likelihood.sample(parameters[number], Keyed(seed, Stream.COMPLETION, given.image_index, number)).numpy()
        for number in range(draws)
    ]
    predicted = means, vae.likelihood.mean(parameters).numpy(), np.stack(pixels)
    return Prediction(*(np.where(given.observed, given.x, part).astype(np.float32) for part in predicted))


def _weighted_mean(vae: VAE, given: _Batch, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[x | observed] by importance sampling, `[B, *image]`; log weights `[K, B]`; draws of z `[K, B, D]`."""

    def per_pixel(values: np.ndarray) -> np.ndarray:
        """Values per image `[B]`, in a shape that broadcasts to the images."""
        return values.reshape(-1, *[1] * (given.x.ndim - 1))

    log_weights, points = [], []
    count = len(given.image_index)
    maximum, total, weighted = np.full(count, -np.inf), np.zeros(count), np.zeros(given.x.shape)
    for drawn in mixture_proposals.draws(
        vae, [given.q], given.image_index, samples, seed, Stream.PREDICTION, given.condition
    ):
        parameters = vae.decode(drawn.z, given.condition)
        log_joint = vae.log_joint(given.x, drawn.z, given.condition, given.observed, parameters=parameters).numpy()
        log_w = log_joint.astype(np.float64) - drawn.log_proposal
        # The sums are relative to a running maximum, so that the weights stay in range in a single pass.
        new_maximum = np.maximum(maximum, log_w.max(axis=0))
        reference = np.where(np.isneginf(new_maximum), 0.0, new_maximum)  # as long as every weight is 0
        w, rescale = np.exp(log_w - reference), np.exp(maximum - reference)
        total, maximum = total * rescale + w.sum(axis=0), new_maximum
        pixel_means = vae.likelihood.mean(parameters).numpy()
        weighted = weighted * per_pixel(rescale) + np.einsum("kb,kb...->b...", w, pixel_means)
        log_weights.append(log_w)
        points.append(drawn.z.numpy())
    return weighted / per_pixel(total), np.concatenate(log_weights), np.concatenate(points)


def _resample(log_weights: np.ndarray, points: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Chooses some of the draws of every image, each with a probability proportional to its weight.

    Args:
        log_weights: the logarithms of the weights, `[K, B]`.
        points: the draws of z, `[K, B, D]`.
        uniform: uniform random numbers, `[B, count]`; each chooses one draw by inverting the cumulative distribution.

    Returns:
        `[count, B, D]`.
    """
    cumulative = np.cumsum(np.exp(log_weights - np.logaddexp.reduce(log_weights, axis=0)), axis=0)
    chosen = [
        np.searchsorted(cumulative[:, b] / cumulative[-1, b], uniform[b], side="right") for b in range(len(uniform))
    ]
    index = np.minimum(np.stack(chosen, axis=1), len(points) - 1)  # [count, B]
    return points[index, np.arange(points.shape[1])]
