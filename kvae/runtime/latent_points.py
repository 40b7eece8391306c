"""Points of the latent space: lattices in a plane and paths between two points, computed with NumPy only."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError, check_whole


def lattice(n: int, extent: float | None = 2.0) -> np.ndarray:
    """A lattice of the latent plane, row by row from the top.

    Args:
        n: the number of points per side, at least 1.
        extent: half the side of the lattice, which covers [-extent, extent]^2; or None to place the points at the
            quantiles (i + 1/2) / n of the standard normal distribution. 2 by default.

    Returns:
        z `[n * n, 2]` float32.

    Raises:
        UserError: if n is below 1, or if the extent is not positive and finite.
    """
    check_whole("n", n)
    if extent is None:
        side = normal_quantiles(n)
        return rows(side, side)
    if not 0 < extent < math.inf:
        raise UserError(f"Expected a positive, finite extent. Received {extent}.")
    return rows(*[spaced(-extent, extent, n)] * 2)


def rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All pairs of two coordinates, row by row, beginning with the largest second coordinate.

    Args:
        first: the values of the first coordinate, `[N]`.
        second: the values of the second coordinate in increasing order, `[M]`.

    Returns:
        `[M * N, 2]` float32.
    """
    grid = np.meshgrid(first, second[::-1])
    return np.stack([part.ravel() for part in grid], axis=1).astype(np.float32)


def spaced(low: float, high: float, n: int) -> np.ndarray:
    """n equally spaced numbers from low to high, `[n]`; the middle if n is 1."""
    return np.linspace(low, high, n) if n > 1 else np.array([(low + high) / 2])


def normal_quantiles(n: int) -> np.ndarray:
    """The quantiles (i + 1/2) / n of the standard normal distribution, `[n]`."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])


def path(first: ArrayLike, last: ArrayLike, steps: int = 10, spherical: bool = False) -> np.ndarray:
    """Latent points on a path from `first` to `last`, including both.

    Args:
        first: the first point, `[..., D]`.
        last: the last point, `[..., D]`.
        steps: the number of points, S, at least 2. 10 by default.
        spherical: whether the path is a great circle, with a length that changes linearly; White, "Sampling Generative
            Networks" (2016). By default it is a straight line. It is also a straight line if no great circle is
            determined, because the ends are opposite or zero.

    Returns:
        `[S, ..., D]` float32.

    Raises:
        UserError: if there are fewer than 2 steps, or if the ends have different shapes.
    """
    start, end = np.asarray(first, np.float64), np.asarray(last, np.float64)
    if start.shape != end.shape or start.ndim == 0:
        raise UserError(f"Expected two ends of the same shape [..., D]. Received {start.shape} and {end.shape}.")
    if steps < 2:
        raise UserError(f"Expected at least 2 steps, the two ends. Received {steps}.")
    t = np.linspace(0, 1, steps).reshape(-1, *[1] * start.ndim)
    straight = (1 - t) * start + t * end
    if not spherical:
        return straight.astype(np.float32)
    lengths = [np.linalg.norm(end_, axis=-1, keepdims=True) for end_ in (start, end)]
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = [end_ / length for end_, length in zip((start, end), lengths, strict=True)]
        angle = np.arccos(np.clip((unit[0] * unit[1]).sum(axis=-1, keepdims=True), -1, 1))
        direction = (np.sin((1 - t) * angle) * unit[0] + np.sin(t * angle) * unit[1]) / np.sin(angle)
        curved = direction * ((1 - t) * lengths[0] + t * lengths[1])
        usable = np.sin(angle) > 1e-6
    return np.where(usable, curved, straight).astype(np.float32)
