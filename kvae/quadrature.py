"""Exact integrals over a latent plane, for models with two latent dimensions: a check on every estimate."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae import objectives
from kvae.errors import UserError
from kvae.tensorflow import tf
from kvae.vae import VAE

EXTENT = 7.0  # the first grid covers [-7, 7]^2: beyond it the prior has 5e-12 of its mass
WIDEST = 56.0  # where the integrand lives further out, up to this
POINTS = 65  # a side, of the coarse grid and of the first fine one
SLACK = 40.0  # nats below the maximum at which the integrand is left out: e^-40 of it
EDGE = 20.0  # nats below the maximum that the integrand must have fallen by at the edge of the plane
FINEST = 1025  # points a side at which refinement gives up
FITS = 12  # times that the box is fitted to the integrand, at most


class Integral(NamedTuple):
    """log of an integral over the latent plane, and how far it is from that on every second point."""

    log_value: np.ndarray  # [B] nats
    error: np.ndarray  # [B] nats


def log_evidence(vae: VAE, x: Any, observed: Any = None, *, tolerance: float = 1e-3) -> Integral:
    """log p(x_observed) = log of the integral of p(x_observed|z) N(z; 0, I) over the latent plane.

    The trapezoidal rule, which converges exponentially for a smooth integrand that vanishes at the edges: on a coarse
    grid over [-7, 7]^2, or a wider plane, to find where the integrand lives, then on a grid over that box alone, which
    follows the integrand where it reaches the box's edge, doubled until the value agrees with that on every second
    point.

    Args:
        vae: a built model with 2 latent dimensions.
        x: `[B, *image]` in [0, 1].
        observed: `[B, *image]` or what broadcasts to it, True for the pixels that count; all by default.
        tolerance: nats.

    Returns:
        With its error, which is above `tolerance` where even 1,025 points a side were too few, and infinite where the
        integrand lives at the edge of [-56, 56]^2.

    Raises:
        UserError: another latent size, images or a mask of another shape, or pixels outside [0, 1].
    """
    check_plane(vae)
    if vae.image_shape is None:
        raise UserError("Expected a model that was trained, or built with build((None, 28, 28, 1)). Received neither.")
    x = np.asarray(x, np.float32)
    if x.shape[1:] != vae.image_shape or x.ndim != 1 + len(vae.image_shape) or len(x) == 0:
        raise UserError(f"Expected at least one image of shape {vae.image_shape}. Received {x.shape}.")
    try:
        mask = np.broadcast_to(True if observed is None else np.asarray(observed, bool), x.shape)
    except ValueError:
        raise UserError(
            f"Expected a mask of shape {x.shape[1:]} or {x.shape}. Received {np.shape(observed)}."
        ) from None
    if not ((x >= 0) & (x <= 1))[mask].all():
        raise UserError("Expected pixels in [0, 1]. Received others. Divide uint8 images by 255.")
    coarse = np.linspace(-EXTENT, EXTENT, POINTS)
    plane = _points(coarse, coarse)
    # The first grid is the same for every image, so it is decoded once, where that fits into memory.
    logits = [vae.decode(piece) for piece in _pieces(vae, plane)] if len(plane) <= 4 * vae.images_at_once else None
    found = [_integrate(vae, image, seen, plane, logits, tolerance) for image, seen in zip(x, mask, strict=True)]
    return Integral(*(np.array(part) for part in zip(*found, strict=True)))


def log_joint(vae: VAE, x: Any, observed: Any, z: np.ndarray, logits: list[tf.Tensor] | None = None) -> np.ndarray:
    """log p(x_observed, z) at many z for one image.

    Args:
        vae: a built model.
        x: one image, `[*image]`.
        observed: `[*image]` bool.
        z: `[G, D]`.
        logits: of the z, in pieces of `vae.images_at_once`, where they are known.

    Returns:
        `[G]` nats, float64.
    """
    x, observed = np.where(observed, x, 0).astype(np.float32), np.asarray(observed, bool)
    parts = []
    for number, piece in enumerate(_pieces(vae, z)):
        decoded = vae.decode(piece) if logits is None else logits[number]
        log_prob = vae.likelihood(x, decoded)
        log_prob = objectives.sum_event(tf.where(observed, log_prob, tf.zeros_like(log_prob)), x.ndim)
        parts.append((log_prob + vae.log_prior(piece)).numpy())
    return np.concatenate(parts).astype(np.float64)


def check_plane(vae: VAE) -> None:
    """Raises `UserError` where the model does not have 2 latent dimensions."""
    if vae.latent_dim != 2:
        raise UserError(f"Expected 2 latent dimensions for a latent plane. This model has {vae.latent_dim}.")


def _pieces(vae: VAE, z: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(z), vae.images_at_once):
        yield z[start : start + vae.images_at_once]


def _points(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All pairs, the second coordinate slowest, `[len(second) * len(first), 2]`."""
    grid = np.meshgrid(first, second)
    return np.stack([grid[0].ravel(), grid[1].ravel()], axis=1).astype(np.float32)


def _integrate(
    vae: VAE, x: np.ndarray, observed: np.ndarray, plane: np.ndarray, logits: list[tf.Tensor] | None, tolerance: float
) -> tuple[float, float]:
    """The integral for one image, and its error; `logits` are those of the first grid's points, `plane`."""
    extent = EXTENT
    values = log_joint(vae, x, observed, plane, logits).reshape(POINTS, POINTS)
    while not _confined(values) and extent < WIDEST:
        extent *= 2
        values = log_joint(vae, x, observed, plane * (extent / EXTENT)).reshape(POINTS, POINTS)
    box = _box(values, [np.linspace(-extent, extent, POINTS)] * 2)
    points, fits = POINTS, 0
    while True:
        sides = [np.linspace(low, high, points) for low, high in box]
        values = log_joint(vae, x, observed, _points(*sides)).reshape(points, points)
        fitted = _box(values, sides)
        shrunk = min((new[1] - new[0]) / (old[1] - old[0]) for new, old in zip(fitted, box, strict=True)) < 0.5
        if fits < FITS and (shrunk or not _confined(values)):
            box, fits = fitted, fits + 1
            continue
        cell = math.prod(side[1] - side[0] for side in sides)
        fine = _log_sum(values) + math.log(cell)
        error = abs(fine - (_log_sum(values[::2, ::2]) + math.log(4 * cell)))
        if error <= tolerance or 2 * points - 1 > FINEST:
            return fine, error if _confined(values) else math.inf
        points = 2 * points - 1


def _box(values: np.ndarray, sides: list[np.ndarray]) -> list[tuple[float, float]]:
    """Where the integrand lives on a grid, with a margin: of one cell, or of half the grid where it runs off that."""
    confined, box = _confined(values), []
    for places, side in zip(np.nonzero(values >= values.max() - SLACK)[::-1], sides, strict=True):
        cell, half = side[1] - side[0], (side[-1] - side[0]) / 2
        low, high = places.min(), places.max()
        below = half if low == 0 and not confined else cell
        above = half if high == len(side) - 1 and not confined else cell
        box.append((max(-WIDEST, float(side[low] - below)), min(WIDEST, float(side[high] + above))))
    return box


def _confined(values: np.ndarray) -> bool:
    """Whether the integrand has fallen enough at the edge of a grid."""
    return max(values[[0, -1]].max(), values[:, [0, -1]].max()) <= values.max() - EDGE


def _log_sum(values: np.ndarray) -> float:
    highest = values.max()
    return float(highest + math.log(np.exp(values - highest).sum()))
