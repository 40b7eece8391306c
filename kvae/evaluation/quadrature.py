"""Integrals over a two-dimensional latent space by quadrature: the exact value that estimates are checked against."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from kvae.internal import finite
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import given_images, sampling
from kvae.model.conditions import check_condition
from kvae.model.pixel_check import check_pixels
from kvae.model.vae import VAE

POINTS = 65  # per side, of the coarse grid and of the first fine grid
MAX_POINTS = 1025  # per side, of the finest grid
MAX_DOUBLINGS = 3  # of the width of the prior's region, if the integrand extends beyond it
MAX_FITS = 12  # of the box to the integrand
NEGLIGIBLE = 40.0  # nats below its maximum at which the integrand is neglected: a factor of e^-40
EDGE = 20.0  # nats below its maximum that the integrand must be at the edge of a grid

Box = tuple[np.ndarray, np.ndarray]  # the lowest and the highest corner, each [2]


class Integral(NamedTuple):
    """The logarithm of an integral, and its difference from the value on every second grid point."""

    log_value: np.ndarray  # [B] nats
    error: np.ndarray  # [B] nats


def log_evidence(vae: VAE, x: Any, observed: Any = None, condition: Any = None, *, tolerance: float = 1e-3) -> Integral:
    """log p(x_observed), where p(x_observed) is the integral of p(x_observed|z) p(z) over the latent plane.

    The trapezoidal rule converges exponentially for a smooth integrand that vanishes at the edges. A coarse grid over
    the prior's region, which is widened if necessary, locates the integrand. A box is then fitted to the part where the
    integrand is not negligible, and the grid over this box is refined until its value agrees with the value on every
    second point.

    Args:
        vae: a built model with 2 latent dimensions.
        x: images, `[B, *image]`.
        observed: a mask that broadcasts to x, True for the pixels that count. By default all pixels count.
        condition: conditions, `[B, ...]`, for a model that takes one.
        tolerance: the largest difference between the two values, in nats.

    Returns:
        The value and its error. The error exceeds `tolerance` if 1,025 points per side are too few. It is infinite if
        the integrand does not vanish at the edge of the widest box, eight times as wide as the prior's region.

    Raises:
        UserError: if the model has another number of latent dimensions, is not built or has a weight that is NaN or
            infinite, if the images, the mask or the condition have another shape, or if a pixel has a value that the
            likelihood does not accept.
    """
    check_plane(vae)
    finite.check_trained(vae)
    x = given_images.at_least_one(x, vae.image_shape)
    try:
        mask = np.broadcast_to(True if observed is None else np.asarray(observed, bool), x.shape)
    except ValueError:
        raise UserError(
            f"Expected a mask of shape {x.shape[1:]} or {x.shape}. Received {np.shape(observed)}."
        ) from None
    if mask.any():
        check_pixels(vae.likelihood, x[mask])
    condition = check_condition(condition, vae.condition_shape, len(x))
    region = vae.prior.region() if condition is None else None
    parameters = None if region is None else _decode_coarse_grid(vae, region)
    integrals = []
    for index, (image, image_mask) in enumerate(zip(x, mask, strict=True)):
        image_condition = None if condition is None else condition[index].numpy()
        image_region = region or vae.prior.region(None if image_condition is None else image_condition[None])
        integrand = Integrand(vae, image, image_mask, image_condition)
        integrals.append(_integrate(integrand, image_region, parameters, tolerance))
    return Integral(*(np.array(part) for part in zip(*integrals, strict=True)))


class Integrand(NamedTuple):
    """p(x_observed, z) of one image as a function of z."""

    vae: VAE
    x: np.ndarray  # [*image]
    observed: np.ndarray  # [*image] bool
    condition: np.ndarray | None = None  # [...]

    def log_value(self, z: np.ndarray, parameters: list[tf.Tensor] | None = None) -> np.ndarray:
        """log p(x_observed, z) at each z.

        Args:
            z: points of the latent space, `[G, D]`.
            parameters: the parameters of p(x|z), if they are known, in chunks of `sampling.images_at_once(vae)` points.

        Returns:
            `[G]` float64, nats.
        """
        vae = self.vae
        x = tf.constant(np.where(self.observed, self.x, 0).astype(np.float32))[None]
        observed = tf.constant(np.asarray(self.observed, bool))[None]
        condition = None if self.condition is None else tf.constant(self.condition)[None]
        values = []
        for number, chunk in enumerate(_chunks(vae, z)):
            decoded = None if parameters is None else parameters[number][:, None]
            log_joint = vae.log_joint(x, chunk[:, None], condition, observed, parameters=decoded)
            values.append(np.asarray(log_joint, np.float64)[:, 0])
        return np.concatenate(values)


class _HasLatentDim(Protocol):
    """A model, or the configuration of one."""

    @property
    def latent_dim(self) -> int: ...


def check_plane(model: _HasLatentDim) -> None:
    """Raises `UserError` if a model does not have 2 latent dimensions."""
    if model.latent_dim != 2:
        raise UserError(
            f"Expected a model with 2 latent dimensions, a plane. This model has {model.latent_dim}. Train one with "
            "--latent-dim 2 (in Python latent_dim=2)."
        )


def _chunks(vae: VAE, z: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(z), sampling.images_at_once(vae)):
        yield z[start : start + sampling.images_at_once(vae)]


def _decode_coarse_grid(vae: VAE, region: Box) -> list[tf.Tensor] | None:
    """The parameters of p(x|z) on the coarse grid, which all images share; None if they are too many to keep."""
    z = _points(*_sides(region, POINTS))
    return [vae.decode(chunk) for chunk in _chunks(vae, z)] if len(z) <= 4 * sampling.images_at_once(vae) else None


def _sides(box: Box, points: int) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of a grid over a box along both axes."""
    first, second = (np.linspace(low, high, points) for low, high in zip(*box, strict=True))
    return first, second


def _points(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All points of a grid, `[len(second) * len(first), 2]` float32; the first coordinate varies fastest."""
    grid = np.meshgrid(first, second)
    return np.stack([grid[0].ravel(), grid[1].ravel()], axis=1).astype(np.float32)


class _Grid(NamedTuple):
    """The integrand of one image on a grid."""

    first: np.ndarray  # [n], the coordinates along z_1
    second: np.ndarray  # [m], along z_2
    log_values: np.ndarray  # [m, n] nats

    @property
    def vanishes_at_edge(self) -> bool:
        """Whether the integrand is at least `EDGE` nats below its maximum along the whole edge."""
        rows, columns = self.log_values[[0, -1]], self.log_values[:, [0, -1]]
        return max(rows.max(), columns.max()) <= self.log_values.max() - EDGE

    def log_integral(self, stride: int = 1) -> float:
        """The logarithm of the integral by the trapezoidal rule, on every `stride`-th point.

        The points of the edge have the full weight, which makes no difference for an integrand that vanishes there.
        """
        values = self.log_values[::stride, ::stride]
        maximum = values.max()
        cell = math.prod(side[1] - side[0] for side in (self.first, self.second))
        return float(maximum + math.log(np.exp(values - maximum).sum())) + math.log(stride**2 * cell)


def _evaluate(integrand: Integrand, box: Box, points: int, parameters: list[tf.Tensor] | None = None) -> _Grid:
    first, second = _sides(box, points)
    values = integrand.log_value(_points(first, second), parameters)
    return _Grid(first, second, values.reshape(len(second), len(first)))


def _integrate(
    integrand: Integrand, region: Box, parameters: list[tf.Tensor] | None, tolerance: float
) -> tuple[float, float]:
    """The log integral for one image, and its error.

    Args:
        integrand: p(x_observed, z) of the image.
        region: the prior's region.
        parameters: the parameters of p(x|z) on the coarse grid over this region, if they are known.
        tolerance: the largest error, in nats.
    """
    widest = _widened(region, 2**MAX_DOUBLINGS)
    box, points, fits = _bounding_box(_coarse_grid(integrand, region, parameters), widest), POINTS, 0
    while True:
        grid = _evaluate(integrand, box, points)
        fitted = _bounding_box(grid, widest)
        much_smaller = ((fitted[1] - fitted[0]) / (box[1] - box[0])).min() < 0.5
        if fits < MAX_FITS and (much_smaller or not grid.vanishes_at_edge):
            box, fits = fitted, fits + 1
            continue
        value = grid.log_integral()
        error = abs(value - grid.log_integral(stride=2))
        if error <= tolerance or 2 * points - 1 > MAX_POINTS:
            return value, error if grid.vanishes_at_edge else math.inf
        points = 2 * points - 1


def _coarse_grid(integrand: Integrand, region: Box, parameters: list[tf.Tensor] | None) -> _Grid:
    """The integrand on a grid over the prior's region, which is doubled until the integrand vanishes at the edge."""
    grid = _evaluate(integrand, region, POINTS, parameters)
    for doubling in range(1, MAX_DOUBLINGS + 1):
        if grid.vanishes_at_edge:
            break
        grid = _evaluate(integrand, _widened(region, 2**doubling), POINTS)
    return grid


def _widened(box: Box, factor: float) -> Box:
    """A box with the same centre, and sides that are `factor` times as long."""
    centre, half = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    return centre - factor * half, centre + factor * half


def _bounding_box(grid: _Grid, widest: Box) -> Box:
    """The box around the points where the integrand is not negligible, with a margin, within the widest box.

    The margin is one cell of the grid. It is half of the grid on a side where the integrand extends beyond the grid.
    """
    extends_beyond, bounds = not grid.vanishes_at_edge, []
    relevant = grid.log_values >= grid.log_values.max() - NEGLIGIBLE
    for indices, side in zip(np.nonzero(relevant)[::-1], (grid.first, grid.second), strict=True):
        cell, half = side[1] - side[0], (side[-1] - side[0]) / 2
        low, high = indices.min(), indices.max()
        below = half if low == 0 and extends_beyond else cell
        above = half if high == len(side) - 1 and extends_beyond else cell
        bounds.append((float(side[low] - below), float(side[high] + above)))
    low_corner, high_corner = np.array(bounds).T
    return np.maximum(low_corner, widest[0]), np.minimum(high_corner, widest[1])
