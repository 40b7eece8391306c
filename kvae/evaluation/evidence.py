"""Integrals over a latent space of 1 to 3 dimensions by quadrature, against which estimates are checked."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from kvae.evaluation.estimate import Estimate
from kvae.evaluation.over_batches import Keep, over_batches
from kvae.internal import finite
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model import given_images, sampling
from kvae.model.compiled_functions import compiled
from kvae.model.conditions import check_condition
from kvae.model.pixel_check import check_pixels
from kvae.model.vae import VAE

COARSE = {1: 1_025, 2: 97, 3: 33}  # points per side of the grid that locates the integrand, by latent size
POINTS = {1: 65, 2: 31, 3: 21}  # per side, of the first grid over the fitted box
MAX_POINTS = {1: 16_385, 2: 961, 3: 161}  # per side, of the finest grid
MAX_DOUBLINGS = 3  # of the width of the prior's region, if the integrand extends beyond it
MAX_FITS = 12  # of the box to the integrand
NEGLIGIBLE = 30.0  # nats below its maximum at which the integrand is neglected: a factor of e^-30
EDGE = 20.0  # nats below its maximum that the integrand must be at the edge of a grid
IMAGES = 100  # images that are located at once

Box = tuple[np.ndarray, np.ndarray]  # the lowest and the highest corner, each [D]


class Integral(NamedTuple):
    """The logarithm of an integral, and its largest difference from the values on every second grid point."""

    log_value: np.ndarray  # [B] nats
    error: np.ndarray  # [B] nats


def log_evidence(vae: VAE, x: Any, observed: Any = None, condition: Any = None, *, tolerance: float = 1e-3) -> Integral:
    """log p(x_observed), where p(x_observed) is the integral of p(x_observed|z) p(z) over the latent space.

    The trapezoidal rule converges exponentially for a smooth integrand that vanishes at the edges. A coarse grid over
    the prior's region, which is decoded once for all images and is widened if necessary, locates the integrand. A box
    is then fitted to the part where the integrand is not negligible, and the grid over this box is refined until its
    value agrees with the values on every second point: there are 2^D such grids, which begin at different points, and
    one of them agrees by chance sometimes.

    Args:
        vae: a built model with 1 to 3 latent dimensions.
        x: images, `[B, *image]`.
        observed: a mask as in `kvae.VAE.log_joint`, True for the pixels that count. By default all pixels count.
        condition: conditions, `[B, ...]`, for a model that takes one.
        tolerance: the largest difference between the values, in nats.

    Returns:
        The value and its error. The error exceeds `tolerance` if the finest grid has too few points: 16,385 per side
        for 1 dimension, 961 for 2 and 161 for 3. It is infinite if the integrand does not vanish at the edge of the
        widest box, eight times as wide as the prior's region.

    Raises:
        UserError: if the model has another number of latent dimensions, is not built or has a weight that is NaN or
            infinite, if the images, the mask or the condition have another shape, or if a pixel has a value that the
            likelihood does not accept.
    """
    finite.check_trained(vae)
    check_latent_dim(vae)
    x = given_images.at_least_one(x, vae.image_shape)
    mask = True if observed is None else given_images.as_mask(np.asarray(observed), x.shape[1:])
    try:
        mask = np.broadcast_to(mask, x.shape)
    except ValueError:
        raise given_images.wrong_mask(observed, x.shape) from None
    if mask.any():
        check_pixels(vae.likelihood, x[mask])
    condition = check_condition(condition, vae.condition_shape, len(x))
    value, error = np.empty([2, len(x)])
    for images, shared in _by_condition(condition, len(x)):
        region = vae.prior.region(None if shared is None else shared[None])
        for index, coarse in zip(images, _coarse_grids(vae, region, x[images], mask[images], shared), strict=True):
            value[index], error[index] = _integrate(
                Integrand(vae, x[index], mask[index], shared), region, coarse, tolerance
            )
    return Integral(value, error)


class Quadrature(NamedTuple):
    """log p(x) of each image in nats, and how exact it is."""

    quadrature: Estimate  # [N]
    quadrature_error: float  # the largest error of the integrals that are within the tolerance, nats
    quadrature_failures: float  # the share of images whose error is larger, or not known


def quadrature(
    vae: VAE,
    data: Any,
    *,
    images: int | None = None,
    seed: int = 0,
    tolerance: float = 1e-3,
    verbose: int = 0,
    keep: Keep = None,
) -> Quadrature:
    """log p(x) of a set by quadrature, in nats per image: exact, but for a stated error.

    The error of an image is larger than the tolerance, or not known, if the finest grid or the widest box is not enough
    for it (`kvae.evaluation.evidence.log_evidence`). Its value is then most likely too low.

    Args:
        vae: a built model with 1 to 3 latent dimensions.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        images: the largest number of images: the first ones of the set. By default all.
        seed: not used, because nothing in it is random; all evaluations have it.
        tolerance: the largest error of an integral for which its grid is not refined, in nats.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder for the results of batches, with which the same call continues after an interruption
            (`kvae.evaluation.over_batches`). By default none are kept.

    Raises:
        UserError: if an argument is not valid, if there are no data, or if the images have another shape than the
            model's.
    """
    finite.check_trained(vae)
    check_latent_dim(vae)

    def compute(x: tf.Tensor, condition: Any, _: tf.Tensor) -> Integral:
        return log_evidence(vae, x, condition=condition, tolerance=tolerance)

    value, error = over_batches(
        compute, vae, data, "log p(x) by quadrature", [tolerance], images=images, verbose=verbose, keep=keep
    )
    exact = error <= tolerance
    return Quadrature(Estimate(value), float(error[exact].max(initial=0.0)), float(np.mean(~exact)))


class Integrand(NamedTuple):
    """p(x_observed, z) of one image as a function of z."""

    vae: VAE
    x: np.ndarray  # [*image]
    observed: np.ndarray  # [*image] bool
    condition: np.ndarray | None = None  # [...]

    def log_value(self, z: np.ndarray) -> np.ndarray:
        """log p(x_observed, z) at each z, `[G, D]` -> `[G]` float64, nats."""
        vae = self.vae
        x = tf.constant(np.where(self.observed, self.x, 0).astype(np.float32))[None]
        observed = tf.constant(np.asarray(self.observed, bool))[None]
        condition = None if self.condition is None else tf.constant(self.condition)[None]
        values = [_log_joint(vae, x, tf.constant(chunk), condition, observed).numpy() for chunk in _chunks(vae, z)]
        return np.concatenate(values)[: len(z)].astype(np.float64)


@compiled(xla=True)
def _log_joint(vae: VAE, x: tf.Tensor, z: tf.Tensor, condition: Any, observed: tf.Tensor) -> tf.Tensor:
    """log p(x_observed, z) of one image `[1, *image]` at each z `[G, D]`: `[G]` nats."""
    return vae.log_joint(x, z[:, None], condition, observed)[:, 0]


@compiled(xla=True)
def _log_joint_table(vae: VAE, x: tf.Tensor, z: tf.Tensor, condition: Any, observed: tf.Tensor) -> tf.Tensor:
    """log p(x_observed, z) of images `[B, *image]` with the same condition at each z `[G, D]`: `[G, B]` nats."""
    if condition is not None:
        condition = tf.repeat(condition, tf.shape(z)[0], axis=0)
    table = vae.likelihood.log_prob_table(x, vae.decode(z, condition), observed)
    return table + vae.log_prior(z, condition)[:, None]


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


def check_latent_dim(model: _HasLatentDim) -> None:
    """Raises `UserError` if a model has too many latent dimensions for quadrature."""
    if model.latent_dim not in POINTS:
        raise UserError(
            f"Expected a model with 1 to {max(POINTS)} latent dimensions, for quadrature. This model has "
            f"{model.latent_dim}. Estimate log p(x) instead: kvae evaluate RUN --samples 5000."
        )


def _chunks(vae: VAE, z: np.ndarray) -> Iterator[np.ndarray]:
    """The points in chunks of one size, for which one graph is compiled. The last point fills the last chunk."""
    size = max(min(sampling.images_at_once(vae) // 4, POINTS[vae.latent_dim] ** vae.latent_dim), 1)
    missing = -len(z) % size
    yield from np.concatenate([z, np.repeat(z[-1:], missing, axis=0)]).reshape(-1, size, vae.latent_dim)


def _by_condition(condition: Any, count: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The indices of the images with the same condition, and this condition `[...]`; all images if there is none."""
    if condition is None:
        yield np.arange(count), None
        return
    distinct, group = np.unique(np.asarray(condition).reshape(count, -1), axis=0, return_inverse=True)
    for number, each in enumerate(distinct):
        yield np.flatnonzero(group.ravel() == number), each.reshape(condition.shape[1:])


def _coarse_grids(
    vae: VAE, region: Box, x: np.ndarray, observed: np.ndarray, condition: np.ndarray | None
) -> Iterator["_Grid"]:
    """The integrand of each image on the coarse grid over the prior's region."""
    sides = _sides(region, COARSE[vae.latent_dim])
    z = _points(sides)
    given = None if condition is None else tf.constant(condition)[None]
    x = np.where(observed, x, 0).astype(np.float32)
    for start in range(0, len(x), IMAGES):
        images, mask = (tf.constant(part[start : start + IMAGES]) for part in (x, observed))
        tables = [_log_joint_table(vae, images, tf.constant(chunk), given, mask).numpy() for chunk in _chunks(vae, z)]
        table = np.concatenate(tables)[: len(z)].astype(np.float64)
        for column in table.T:
            yield _Grid(sides, column.reshape([len(side) for side in sides]))


def _sides(box: Box, points: int) -> list[np.ndarray]:
    """The coordinates of a grid over a box along each axis."""
    return [np.linspace(low, high, points) for low, high in zip(*box, strict=True)]


def _points(sides: list[np.ndarray]) -> np.ndarray:
    """All points of a grid, `[G, D]` float32; the last coordinate varies fastest."""
    return np.stack([each.ravel() for each in np.meshgrid(*sides, indexing="ij")], axis=1).astype(np.float32)


class _Grid(NamedTuple):
    """The integrand of one image on a grid."""

    sides: list[np.ndarray]  # D times [n], the coordinates along each axis
    log_values: np.ndarray  # [n, ..., n] nats, one axis per latent dimension

    @property
    def vanishes_at_edge(self) -> bool:
        """Whether the integrand is at least `EDGE` nats below its maximum on all faces of the box."""
        faces = [self.log_values.take([0, -1], axis=axis).max() for axis in range(len(self.sides))]
        return bool(max(faces) <= self.log_values.max() - EDGE)

    def log_integral(self) -> tuple[float, float]:
        """The logarithm of the integral by the trapezoidal rule, and its error.

        The error is the largest difference from the values on every second point along each axis, which are those of
        2^D grids. It is infinite if the integrand vanishes on one of them. The points of the faces have the full
        weight, which makes no difference for an integrand that vanishes there.
        """
        maximum = self.log_values.max()
        values = np.exp(self.log_values - maximum)
        starts = itertools.product([slice(0, None, 2), slice(1, None, 2)], repeat=values.ndim)
        sums = np.array([values[start].sum() for start in starts])
        shares = len(sums) * sums / sums.sum()
        cell = math.prod(side[1] - side[0] for side in self.sides)
        error = np.abs(np.log(shares)).max() if shares.all() else math.inf
        return float(maximum + math.log(sums.sum()) + math.log(cell)), float(error)


def _evaluate(integrand: Integrand, box: Box, points: int) -> _Grid:
    sides = _sides(box, points)
    return _Grid(sides, integrand.log_value(_points(sides)).reshape([points] * len(sides)))


def _integrate(integrand: Integrand, region: Box, grid: _Grid, tolerance: float) -> tuple[float, float]:
    """The log integral for one image, and its error.

    Args:
        integrand: p(x_observed, z) of the image.
        region: the prior's region.
        grid: the integrand on the coarse grid over this region.
        tolerance: the largest error, in nats.
    """
    widest, points = _widened(region, 2**MAX_DOUBLINGS), POINTS[integrand.vae.latent_dim]
    for doubling in range(1, MAX_DOUBLINGS + 1):
        if grid.vanishes_at_edge:
            break
        grid = _evaluate(integrand, _widened(region, 2**doubling), len(grid.sides[0]))
    box = _bounding_box(grid, widest)
    for _ in range(MAX_FITS):
        grid = _evaluate(integrand, box, points)
        fitted = _bounding_box(grid, widest)
        much_smaller = ((fitted[1] - fitted[0]) / (box[1] - box[0])).min() < 0.5
        if grid.vanishes_at_edge and not much_smaller:
            break
        box = fitted
    while True:
        value, error = grid.log_integral()
        points = 2 * points - 1
        if error <= tolerance or points > MAX_POINTS[integrand.vae.latent_dim]:
            return value, error if grid.vanishes_at_edge else math.inf
        grid = _refine(integrand, grid)


def _refine(integrand: Integrand, grid: _Grid) -> _Grid:
    """The integrand on a grid of half the spacing; its new points are those near points where it is not negligible."""
    sides = [np.linspace(side[0], side[-1], 2 * len(side) - 1) for side in grid.sides]
    even = (slice(None, None, 2),) * len(sides)
    near, known = np.zeros([2, *map(len, sides)], bool)
    near[even], known[even] = grid.log_values >= grid.log_values.max() - NEGLIGIBLE, True
    for axis in range(len(sides)):
        padded = np.pad(near, [(2, 2) if each == axis else (0, 0) for each in range(len(sides))])
        near = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=axis).any(axis=-1)
    log_values = np.full(near.shape, -np.inf)
    log_values[even] = grid.log_values
    new = near & ~known
    log_values[new] = integrand.log_value(_points(sides).reshape(*near.shape, len(sides))[new])
    return _Grid(sides, log_values)


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
    for indices, side in zip(np.nonzero(relevant), grid.sides, strict=True):
        cell, half = side[1] - side[0], (side[-1] - side[0]) / 2
        low, high = indices.min(), indices.max()
        below = half if low == 0 and extends_beyond else cell
        above = half if high == len(side) - 1 and extends_beyond else cell
        bounds.append((float(side[low] - below), float(side[high] + above)))
    low_corner, high_corner = np.array(bounds).T
    return np.maximum(low_corner, widest[0]), np.minimum(high_corner, widest[1])
