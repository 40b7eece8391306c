"""The missing pixels, given the observed ones: their mean and draws. What stands in them is not looked at."""

import numpy as np

from kvae.completion import proposals
from kvae.completion.masked import Masked, batches, of_batch, places
from kvae.completion.variational import Inferred
from kvae.model.posteriors import Distribution
from kvae.model.vae import VAE
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream


def predict(
    vae: VAE, images: Masked, inferred: Inferred, draws: int, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[x | observed] `[B, *image]`, and for each of the draws E[x|z] and a draw of p(x|z), `[n, B, *image]`.

    Importance sampling from q and the prior: the mean is weighted, the draws take a z with the probability of its
    weight. Observed pixels are as they were.
    """
    parts = []
    for batch in batches(vae, len(images.x)):
        seen = images.seen[batch], images.observed[batch], of_batch(images.condition, batch)
        parts.append(_predict_batch(vae, *seen, inferred.of(batch).q, places(batch), draws, samples, seed))
    means, draw_means, completions = zip(*parts, strict=True)
    return np.concatenate(means), np.concatenate(draw_means, axis=1), np.concatenate(completions, axis=1)


def _predict_batch(
    vae: VAE,
    seen: np.ndarray,
    mask: np.ndarray,
    condition: np.ndarray | None,
    q: Distribution,
    place: np.ndarray,
    draws: int,
    samples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def spread(of_images: np.ndarray) -> np.ndarray:
        return of_images.reshape(-1, *[1] * (seen.ndim - 1))

    log_weights, points = [], []
    highest, total, weighted = np.full(len(place), -np.inf), np.zeros(len(place)), np.zeros(seen.shape)
    for some in proposals.draws(vae, [q], place, samples, seed, Stream.PREDICTION, condition):
        parameters = vae.decode(some.z, condition)
        log_joint = vae.log_joint(seen, some.z, condition, mask, parameters=parameters).numpy()
        log_w = log_joint.astype(np.float64) - some.log_proposal
        # A running maximum keeps the weights in range without a second pass over the draws.
        higher = np.maximum(highest, log_w.max(axis=0))
        scale = np.where(np.isneginf(higher), 0.0, higher)  # until the first draw of any weight
        w, faded = np.exp(log_w - scale), np.exp(highest - scale)
        total, highest = total * faded + w.sum(axis=0), higher
        weighted = weighted * spread(faded) + np.einsum("kb,kb...->b...", w, vae.likelihood.mean(parameters).numpy())
        log_weights.append(log_w)
        points.append(some.z.numpy())
    uniform = Keyed(seed, Stream.RESAMPLING, place).uniform((draws,), Stream.CHOICE).numpy()
    chosen = _resampled(np.concatenate(log_weights), np.concatenate(points), uniform)
    parameters = vae.decode(chosen, condition)
    pixels = [
        vae.likelihood.sample(parameters[number], Keyed(seed, Stream.COMPLETION, place, number)).numpy()
        for number in range(draws)
    ]
    missing = (weighted / spread(total), vae.likelihood.mean(parameters).numpy(), np.stack(pixels))
    means, draw_means, completions = (np.where(mask, seen, part).astype(np.float32) for part in missing)
    return means, draw_means, completions


def _resampled(log_weights: np.ndarray, points: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Some of the draws an image, each with the probability of its weight.

    Args:
        log_weights: `[K, B]`.
        points: `[K, B, D]`.
        uniform: `[B, count]`, which decide.

    Returns:
        `[count, B, D]`.
    """
    ladder = np.cumsum(np.exp(log_weights - np.logaddexp.reduce(log_weights, axis=0)), axis=0)
    picks = [np.searchsorted(ladder[:, b] / ladder[-1, b], uniform[b], side="right") for b in range(len(uniform))]
    index = np.minimum(np.stack(picks, axis=1), len(points) - 1)  # [count, B]
    return points[index, np.arange(points.shape[1])]
