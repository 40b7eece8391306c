"""Integrals over a latent space of 1 to 3 dimensions by quadrature, against which estimates are checked."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from kvae.evaluation.estimate import Estimate, batches, count_batches
from kvae.internal import finite
from kvae.internal.errors import UserError
from kvae.internal.progress_bars import counted
from kvae.internal.tensorflow import tf
from kvae.model import given_images, sampling
from kvae.model.compiled_functions import compiled
from kvae.model.conditions import check_condition
from kvae.model.pixel_check import check_pixels
from kvae.model.vae import VAE

POINTS = {1: 257, 2: 65, 3: 33}  # per side, of the coarse grid and of the first fine grid, by latent size
MAX_POINTS = {1: 16_385, 2: 1_025, 3: 129}  # per side, of the finest grid
MAX_DOUBLINGS = 3  # of the width of the prior's region, if the integrand extends beyond it
MAX_FITS = 12  # of the box to the integrand
NEGLIGIBLE = 40.0  # nats below its maximum at which the integrand is neglected: a factor of e^-40
EDGE = 20.0  # nats below its maximum that the integrand must be at the edge of a grid

Box = tuple[np.ndarray, np.ndarray]  # the lowest and the highest corner, each [D]


class Integral(NamedTuple):
    """The logarithm of an integral, and its difference from the value on every second grid point."""

    log_value: np.ndarray  # [B] nats
    error: np.ndarray  # [B] nats


def log_evidence(vae: VAE, x: Any, observed: Any = None, condition: Any = None, *, tolerance: float = 1e-3) -> Integral:
    """log p(x_observed), where p(x_observed) is the integral of p(x_observed|z) p(z) over the latent space.

    The trapezoidal rule converges exponentially for a smooth integrand that vanishes at the edges. A coarse grid over
    the prior's region, which is widened if necessary, locates the integrand. A box is then fitted to the part where the
    integrand is not negligible, and the grid over this box is refined until its value agrees with the value on every
    second point.

    Args:
        vae: a built model with 1 to 3 latent dimensions.
        x: images, `[B, *image]`.
        observed: a mask that broadcasts to x, True for the pixels that count. By default all pixels count.
        condition: conditions, `[B, ...]`, for a model that takes one.
        tolerance: the largest difference between the two values, in nats.

    Returns:
        The value and its error. The error exceeds `tolerance` if the finest grid has too few points: 16,385 per side
        for 1 dimension, 1,025 for 2 and 129 for 3. It is infinite if the integrand does not vanish at the edge of the
        widest box, eight times as wide as the prior's region.

    Raises:
        UserError: if the model has another number of latent dimensions, is not built or has a weight that is NaN or
            infinite, if the images, the mask or the condition have another shape, or if a pixel has a value that the
            likelihood does not accept.
    """
    check_latent_dim(vae)
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


class Quadrature(NamedTuple):
    """log p(x) of each image in nats, and the largest of the errors of the integrals."""

    quadrature: Estimate  # [N]
    quadrature_error: float


def quadrature(vae: VAE, data: Any, *, seed: int = 0, tolerance: float = 1e-3, verbose: int = 0) -> Quadrature:
    """log p(x) of a set by quadrature, in nats per image: exact, but for a stated error.

    Args:
        vae: a built model with 1 to 3 latent dimensions.
        data: a `tf.data.Dataset` of batches x, or an array `[N, *image]`. For a conditional model, batches (x, y) or
            the arrays (x, y).
        seed: not used, because nothing in it is random; all evaluations have it.
        tolerance: the largest error of an integral for which its grid is not refined, in nats.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.

    Raises:
        UserError: if an argument is not valid, if there are no data, or if the images have another shape than the
            model's.
    """
    check_latent_dim(vae)
    parts = []
    with counted(verbose, "log p(x) by quadrature", "batches", count_batches(data)) as one_more:
        for x, condition, _ in batches(vae, data):
            parts.append(log_evidence(vae, x, condition=condition, tolerance=tolerance))
            one_more()
    value, error = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Quadrature(Estimate(value), float(error.max()))


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
            known = None if parameters is None else parameters[number]
            values.append(_log_joint(vae, x, tf.constant(chunk), condition, observed, known).numpy())
        return np.concatenate(values)[: len(z)].astype(np.float64)


@compiled(xla=True)
def _log_joint(
    vae: VAE, x: tf.Tensor, z: tf.Tensor, condition: Any, observed: tf.Tensor, parameters: tf.Tensor | None
) -> tf.Tensor:
    """log p(x_observed, z) of one image `[1, *image]` at each z `[G, D]`: `[G]` nats."""
    decoded = None if parameters is None else parameters[:, None]
    return vae.log_joint(x, z[:, None], condition, observed, parameters=decoded)[:, 0]


@compiled(xla=True)
def _decode(vae: VAE, z: tf.Tensor) -> tf.Tensor:
    return vae.decode(z)


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
    """The points in chunks of equal size, for which one graph is compiled. The last point fills the last chunk."""
    count = -(-len(z) // sampling.images_at_once(vae))
    size = -(-len(z) // count)
    yield from np.concatenate([z, np.repeat(z[-1:], count * size - len(z), axis=0)]).reshape(count, size, -1)


def _decode_coarse_grid(vae: VAE, region: Box) -> list[tf.Tensor] | None:
    """The parameters of p(x|z) on the coarse grid, which all images share; None if they are too many to keep."""
    z = _points(_sides(region, POINTS[vae.latent_dim]))
    return (
        [_decode(vae, tf.constant(chunk)) for chunk in _chunks(vae, z)]
        if len(z) <= 4 * sampling.images_at_once(vae)
        else None
    )


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

    def log_integral(self, stride: int = 1) -> float:
        """The logarithm of the integral by the trapezoidal rule, on every `stride`-th point.

        The points of the faces have the full weight, which makes no difference for an integrand that vanishes there.
        """
        values = self.log_values[(slice(None, None, stride),) * len(self.sides)]
        maximum = values.max()
        cell = math.prod(stride * (side[1] - side[0]) for side in self.sides)
        return float(maximum + math.log(np.exp(values - maximum).sum())) + math.log(cell)


def _evaluate(integrand: Integrand, box: Box, points: int, parameters: list[tf.Tensor] | None = None) -> _Grid:
    sides = _sides(box, points)
    return _Grid(sides, integrand.log_value(_points(sides), parameters).reshape([points] * len(sides)))


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
    widest, first = _widened(region, 2**MAX_DOUBLINGS), POINTS[integrand.vae.latent_dim]
    box, points, fits = _bounding_box(_coarse_grid(integrand, region, parameters), widest), first, 0
    while True:
        grid = _evaluate(integrand, box, points)
        fitted = _bounding_box(grid, widest)
        much_smaller = ((fitted[1] - fitted[0]) / (box[1] - box[0])).min() < 0.5
        if fits < MAX_FITS and (much_smaller or not grid.vanishes_at_edge):
            box, fits = fitted, fits + 1
            continue
        value = grid.log_integral()
        error = abs(value - grid.log_integral(stride=2))
        if error <= tolerance or 2 * points - 1 > MAX_POINTS[integrand.vae.latent_dim]:
            return value, error if grid.vanishes_at_edge else math.inf
        points = 2 * points - 1


def _coarse_grid(integrand: Integrand, region: Box, parameters: list[tf.Tensor] | None) -> _Grid:
    """The integrand on a grid over the prior's region, which is doubled until the integrand vanishes at the edge."""
    points = POINTS[integrand.vae.latent_dim]
    grid = _evaluate(integrand, region, points, parameters)
    for doubling in range(1, MAX_DOUBLINGS + 1):
        if grid.vanishes_at_edge:
            break
        grid = _evaluate(integrand, _widened(region, 2**doubling), points)
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
    for indices, side in zip(np.nonzero(relevant), grid.sides, strict=True):
        cell, half = side[1] - side[0], (side[-1] - side[0]) / 2
        low, high = indices.min(), indices.max()
        below = half if low == 0 and extends_beyond else cell
        above = half if high == len(side) - 1 and extends_beyond else cell
        bounds.append((float(side[low] - below), float(side[high] + above)))
    low_corner, high_corner = np.array(bounds).T
    return np.maximum(low_corner, widest[0]), np.minimum(high_corner, widest[1])
