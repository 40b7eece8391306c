"""Exact integrals over a latent plane, for models with two latent dimensions: a check on every estimate."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE

DOUBLINGS = 3  # of the prior's region, where the integrand lives further out
POINTS = 65  # a side, of the coarse grid and of the first fine one
SLACK = 40.0  # nats below the maximum at which the integrand is left out: e^-40 of it
EDGE = 20.0  # nats below the maximum that the integrand must have fallen by at the edge of the plane
FINEST = 1025  # points a side at which refinement gives up
FITS = 12  # times that the box is fitted to the integrand, at most


class Integral(NamedTuple):
    """log of an integral over the latent plane, and how far it is from that on every second point."""

    log_value: np.ndarray  # [B] nats
    error: np.ndarray  # [B] nats


def log_evidence(vae: VAE, x: Any, observed: Any = None, condition: Any = None, *, tolerance: float = 1e-3) -> Integral:
    """log p(x_observed) = log of the integral of p(x_observed|z) p(z) over the latent plane.

    The trapezoidal rule, which converges exponentially for a smooth integrand that vanishes at the edges: on a coarse
    grid over the prior's region, or a wider plane, to find where the integrand lives, then on a grid over that box
    alone, which follows the integrand where it reaches the box's edge, doubled until the value agrees with that on
    every second point.

    Args:
        vae: a built model with 2 latent dimensions.
        x: `[B, *image]`.
        observed: `[B, *image]` or what broadcasts to it, True for the pixels that count; all by default.
        condition: `[B, ...]`, of a model that has one.
        tolerance: nats.

    Returns:
        With its error, which is above `tolerance` where even 1,025 points a side were too few, and infinite where the
        integrand lives at the edge of eight times the prior's region.

    Raises:
        UserError: another latent size, images or a mask of another shape, or pixels that the likelihood refuses.
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
    if mask.any():
        vae.check_pixels(x[mask])
    condition = vae.check_condition(condition, len(x))
    region = vae.prior.region() if condition is None else None
    plane = parameters = None
    if region is not None:  # the first grid is the same for every image, so it is decoded once, where that fits
        plane = _points(*_grid(region))
        if len(plane) <= 4 * vae.images_at_once:
            parameters = [vae.decode(piece) for piece in _pieces(vae, plane)]
    found = []
    for place, (image, seen) in enumerate(zip(x, mask, strict=True)):
        own = None if condition is None else condition[place].numpy()
        box = region or vae.prior.region(None if own is None else own[None])
        found.append(_integrate(Integrand(vae, image, seen, own), box, parameters, tolerance))
    return Integral(*(np.array(part) for part in zip(*found, strict=True)))


class Integrand(NamedTuple):
    """p(x_observed, z) of one image as a function of z."""

    vae: VAE
    x: np.ndarray  # [*image]
    observed: np.ndarray  # [*image] bool
    condition: np.ndarray | None = None  # [...]

    def log_value(self, z: np.ndarray, parameters: list[tf.Tensor] | None = None) -> np.ndarray:
        """log p(x_observed, z) at many z.

        Args:
            z: `[G, D]`.
            parameters: what the z decode to, in pieces of `vae.images_at_once`, where that is known.

        Returns:
            `[G]` nats, float64.
        """
        vae = self.vae
        x = tf.constant(np.where(self.observed, self.x, 0).astype(np.float32))[None]
        observed = tf.constant(np.asarray(self.observed, bool))[None]
        condition = None if self.condition is None else tf.constant(self.condition)[None]
        parts = []
        for number, piece in enumerate(_pieces(vae, z)):
            decoded = None if parameters is None else parameters[number][:, None]
            joint = vae.log_joint(x, piece[:, None], condition, observed, parameters=decoded)
            parts.append(np.asarray(joint, np.float64)[:, 0])
        return np.concatenate(parts)


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


Box = tuple[np.ndarray, np.ndarray]  # lowest and highest corner, each [2]


def _grid(box: Box, points: int = POINTS) -> list[np.ndarray]:
    """The coordinates of both sides of a grid over a box."""
    return [np.linspace(low, high, points) for low, high in zip(*box, strict=True)]


def _widened(box: Box, times: float) -> Box:
    """The box that is so many times as wide, about the same centre."""
    centre, half = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    return centre - times * half, centre + times * half


def _integrate(
    integrand: Integrand, region: Box, parameters: list[tf.Tensor] | None, tolerance: float
) -> tuple[float, float]:
    """The integral for one image, and its error; `parameters` are those of the first grid's points."""

    def values_on(sides: list[np.ndarray], known: list[tf.Tensor] | None = None) -> np.ndarray:
        return integrand.log_value(_points(*sides), known).reshape(len(sides[1]), len(sides[0]))

    sides, times = _grid(region), 1
    values = values_on(sides, parameters)
    while not _confined(values) and times < 2**DOUBLINGS:
        times *= 2
        sides = _grid(_widened(region, times))
        values = values_on(sides)
    widest = _widened(region, 2**DOUBLINGS)
    box, points, fits = _box(values, sides, widest), POINTS, 0
    while True:
        sides = _grid(box, points)
        values = values_on(sides)
        fitted = _box(values, sides, widest)
        shrunk = ((fitted[1] - fitted[0]) / (box[1] - box[0])).min() < 0.5
        if fits < FITS and (shrunk or not _confined(values)):
            box, fits = fitted, fits + 1
            continue
        cell = math.prod(side[1] - side[0] for side in sides)
        fine = _log_sum(values) + math.log(cell)
        error = abs(fine - (_log_sum(values[::2, ::2]) + math.log(4 * cell)))
        if error <= tolerance or 2 * points - 1 > FINEST:
            return fine, error if _confined(values) else math.inf
        points = 2 * points - 1


def _box(values: np.ndarray, sides: list[np.ndarray], widest: Box) -> Box:
    """Where the integrand lives on a grid, with a margin: of one cell, or of half the grid where it runs off that."""
    confined, box = _confined(values), []
    for places, side in zip(np.nonzero(values >= values.max() - SLACK)[::-1], sides, strict=True):
        cell, half = side[1] - side[0], (side[-1] - side[0]) / 2
        low, high = places.min(), places.max()
        below = half if low == 0 and not confined else cell
        above = half if high == len(side) - 1 and not confined else cell
        box.append((float(side[low] - below), float(side[high] + above)))
    low_corner, high_corner = np.array(box).T
    return np.maximum(low_corner, widest[0]), np.minimum(high_corner, widest[1])


def _confined(values: np.ndarray) -> bool:
    """Whether the integrand has fallen enough at the edge of a grid."""
    return max(values[[0, -1]].max(), values[:, [0, -1]].max()) <= values.max() - EDGE


def _log_sum(values: np.ndarray) -> float:
    highest = values.max()
    return float(highest + math.log(np.exp(values - highest).sum()))
