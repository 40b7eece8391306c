"""Pictures of missing pixels: completions, and contours of the true posterior and of q in the latent plane."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae.completion import LEAST_EFFECTIVE, Completion, Inferred, complete
from kvae.evaluation import evidence
from kvae.model.posteriors import Distribution
from kvae.model.vae import VAE
from kvae.plotting import drawing
from kvae.plotting.subject import (
    Drawings,
    Subject,
    Unsuitable,
    check_plane,
    clip,
    first_of_each_class,
    inference_options,
)

UNRELIABLE = "unreliable"
NOTE = (
    f"{UNRELIABLE}: this score would rest on fewer than {LEAST_EFFECTIVE} draws of z, because hardly any draw explains "
    "the pixels of the image. The completions are still those of the model. For a score, use more draws: kvae "
    "complete RUN --samples 5000; or, with up to 3 latent dimensions, kvae complete RUN --exact, which needs no draws."
)
INFERENCE = (
    "The steps are those of stochastic variational inference, which fits q(z) to the observed pixels of this one image."
)
PLANE_FRACTION = 4 / 7  # of each side of the prior's region: where the posterior is looked for at least
CONTOUR_POINTS = 201  # per side of a grid
NEAR = 4.0  # nats below its maximum down to which the posterior is looked at for modes
REACH = 2.0  # standard deviations of q that a panel contains: its lowest contour is at 1.8
MARGIN = 1.1  # the width of a panel, relative to what it must contain


def completion(
    subject: Subject,
    *,
    observed: Any = "top",
    places: Sequence[int] | None = None,
    draws: int = 3,
    plain: bool = False,
    seed: int = 0,
) -> Drawings:
    """Test images, completed from their observed pixels.

    Args:
        subject: with data.
        observed: a mask as in `kvae.completion.complete`.
        places: the indices of the test images. By default the first image of each of the first six classes.
        draws: the number of completions per image.
        plain: whether to infer by the gradient descent of the article, `kvae.completion.article_options`.
        seed: the seed of the inference and the draws.
    """
    data = subject.test()
    chosen = np.asarray(first_of_each_class(data) if places is None else places)
    x = data.images_at("test", chosen)
    completed = complete(subject.vae, x, observed, draws=draws, seed=seed, **inference_options(subject.vae, plain))
    return {"completion": completion_rows(x, completed, subject.originals(x, chosen))}


def completion_rows(x: np.ndarray, completed: Completion, originals: np.ndarray | None = None) -> drawing.Drawing:
    """Completions as a figure: one row per image, with its score, or a warning if too few draws of z count for it.

    Args:
        x: the images, `[B, H, W, C]`, or `[B, H, W]` of a model for images without channels; NaN for a pixel that is
            not known.
        completed: their completions.
        originals: the images before they were binarized, if this changed them.
    """
    score = completed.score
    titles = [_score_title(*values) for values in zip(score.log_density, score.effective_samples, strict=True)]
    note = NOTE if UNRELIABLE in titles else ""
    observed, draws = completed.observed, completed.draws
    means, draw_means = clip(completed.means), clip(completed.draw_means)
    if x.ndim == 3:
        x, observed, means, draw_means, draws = (part[..., None] for part in (x, observed, means, draw_means, draws))
        originals = None if originals is None else originals[..., None]
    return drawing.completion(x, observed, means, draw_means, draws, titles, originals, note)


def _score_title(log_density: float, effective_samples: float) -> str:
    if np.isnan(log_density):
        return ""
    return UNRELIABLE if effective_samples < LEAST_EFFECTIVE else f"{log_density:.1f}"


def posterior_contours(
    subject: Subject, *, observed: Any = "top", places: Sequence[int] = (0,), plain: bool = False, seed: int = 0
) -> Drawings:
    """The true posterior p(z | observed) of one test image, and q before and after the inference.

    Args:
        subject: with data, and a model of 2 latent dimensions.
        observed: a mask as in `kvae.completion.complete`.
        places: the index of the test image, in a sequence of length 1.
        plain: as in `completion`.
        seed: the seed of the inference.
    """
    check_plane(subject.vae)
    if len(places) != 1:
        raise Unsuitable(f"Expected one test image for posterior_contours. Received {len(places)}.")
    x = subject.test().images_at("test", places)
    options = inference_options(subject.vae, plain)
    completed = complete(subject.vae, x, observed, draws=1, samples=3, seed=seed, **options)
    return {"posterior_contours": contour_panels(subject.vae, x[0], completed.observed[0], completed.inferred)}


def contour_panels(
    vae: VAE, x: np.ndarray, observed: np.ndarray, inferred: Inferred, index: int = 0
) -> drawing.Drawing:
    """The observed image, and the true posterior with q before and after the inference, each as large as it fits.

    Args:
        vae: a model with 2 latent dimensions.
        x: one image, `[H, W, C]`, or `[H, W]` of a model for images without channels.
        observed: its mask, of the same shape.
        inferred: the inferences of a batch of images.
        index: the index of the image in this batch.
    """
    before, after = (_ellipse(q, index) for q in (inferred.start, inferred.q))
    posterior = _posterior(vae, x, observed, before, after)
    panels = []
    for title, q in (("q before the first step", before), (f"q after {inferred.losses.shape[1]} steps", after)):
        window = _log_joint_on_window(vae, x, observed, *_panel_bounds(posterior, q))
        panels.append(drawing.ContourPanel(title, window, q))
    parts = (x[..., None], observed[..., None]) if x.ndim == 2 else (x, observed)
    picture = drawing.mark_missing(*parts)
    return drawing.posterior_contours(picture, panels, _caption(posterior, after), INFERENCE)


def _caption(posterior: drawing.Window, q: drawing.Ellipse) -> str:
    """A sentence on the modes that q misses, empty if there are none."""
    modes, share = drawing.missed_modes(posterior, q)
    if not len(modes):
        return ""
    what = "a mode" if len(modes) == 1 else f"{len(modes)} modes"
    percent = f"{share:.0%}" if share >= 0.01 else "less than 1%"
    return (
        f"q misses {what} of the true posterior: {percent} of the posterior's probability is more than 3 standard "
        "deviations of q away from the mean of q."
    )


def _posterior(
    vae: VAE, x: np.ndarray, observed: np.ndarray, before: drawing.Ellipse, after: drawing.Ellipse
) -> drawing.Window:
    """The posterior on a fine grid, which contains all of it that a coarse grid over the plane shows."""
    plane = _log_joint_on_window(vae, x, observed, *_plane_bounds(vae, before, after))
    low, high = _extent(plane, NEAR)
    step = np.array([axis[1] - axis[0] for axis in plane[:2]])
    return _log_joint_on_window(vae, x, observed, low - step, high + step)


def _plane_bounds(vae: VAE, before: drawing.Ellipse, after: drawing.Ellipse) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the middle of the prior's region: two standard deviations of both q are in it if possible."""
    low, high = vae.prior.region()
    centre, half = (low + high) / 2, (high - low) / 2
    needed = max(np.max((np.abs(q.mean - centre) + 2 * q.sigma) / half) for q in (before, after))
    half = half * min(max(float(needed), PLANE_FRACTION), 1.0)
    return centre - half, centre + half


def _panel_bounds(posterior: drawing.Window, q: drawing.Ellipse) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the square around the lowest contour of the posterior and two standard deviations of q."""
    low, high = _extent(posterior, -np.log(drawing.CONTOURS[0]))
    low = np.minimum(q.mean - REACH * q.sigma, low)
    high = np.maximum(q.mean + REACH * q.sigma, high)
    half = MARGIN * np.max(high - low) / 2 * np.ones(2)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _extent(window: drawing.Window, nats: float) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the box around the points at which a density is at most this far below its maximum."""
    first, second, log_joint = window
    inside = np.argwhere(log_joint >= log_joint.max() - nats)
    (row, column), (last_row, last_column) = inside.min(axis=0), inside.max(axis=0)
    return np.array([first[column], second[row]]), np.array([first[last_column], second[last_row]])


def _log_joint_on_window(vae: VAE, x: np.ndarray, observed: np.ndarray, low: Any, high: Any) -> drawing.Window:
    """log p(x_observed, z) on a grid over a window of the latent plane with these corners."""
    first, second = (np.linspace(low[axis], high[axis], CONTOUR_POINTS) for axis in range(2))
    grid = np.stack([part.ravel() for part in np.meshgrid(first, second)], axis=1).astype(np.float32)
    values = evidence.Integrand(vae, x, observed).log_value(grid)
    return first, second, values.reshape(CONTOUR_POINTS, CONTOUR_POINTS)


def _ellipse(q: Distribution, index: int) -> drawing.Ellipse:
    """The mean and covariance of q for one image of a batch."""
    covariance = q.covariance
    if covariance is None:
        raise Unsuitable("Expected a q with a known covariance, to draw its ellipse. This q has none.")
    return drawing.Ellipse(np.asarray(q.mean)[index], np.asarray(covariance)[index])
