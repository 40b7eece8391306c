"""Pictures of the latent space: a scatter of test images, a lattice of decoded points, and one over the other."""

import math

import numpy as np

from kvae.internal import memory
from kvae.internal.errors import UserError, check_whole
from kvae.model.vae import VAE
from kvae.plotting import drawing
from kvae.plotting.subject import Drawings, Subject, Unsuitable, check_plane, means_at
from kvae.runtime import latent_points

LATTICE_FRACTION = 2 / 7  # of each side of the prior's region: what a lattice covers if there are no data
ENCODED = 1000  # test images whose posterior means a lattice covers
COVERED = 98  # percent of them, along each axis


def latent_scatter(subject: Subject, *, n: int = 5000) -> Drawings:
    """The posterior means of test images, coloured by label if they have labels.

    Args:
        subject: with data.
        n: the largest number of test images.
    """
    mean, labels = subject.encoded(check_whole("n", n))
    title = f"where the encoder puts {len(mean):,} test images of {subject.test_name()}: the mean of q(z|x)"
    return {"latent_scatter": drawing.latent_scatter(mean, labels, subject.test().info.label_names, title)}


def lattice(
    subject: Subject, *, n: int = 20, extent: float | None = None, quantiles: bool = False, seamless: bool = False
) -> Drawings:
    """Decoded means on an n x n lattice of the latent plane, with axes.

    By default the lattice covers the square that contains 98 % of the posterior means of the first 1,000 test images
    along each axis. Without data it covers the middle of the prior's region, which is [-2, 2]^2 for a standard normal
    prior.

    Args:
        subject: with a model of 2 latent dimensions.
        n: the number of points per side.
        extent: covers [-extent, extent]^2 instead.
        quantiles: whether to place the points at quantiles of the prior instead.
        seamless: whether to draw the images alone, without axes and without gaps: n * H pixels high and n * W wide.
    """
    check_plane(subject.vae)
    _check_memory(subject.vae, n)
    if quantiles and extent is not None:
        raise UserError("Expected either extent or quantiles. Received both.")
    if quantiles:
        first = second = _quantiles(subject.vae, n)
    else:
        first, second = _sides(subject, n, extent, None if subject.data is None else subject.encoded(ENCODED)[0])
    means = means_at(subject.vae, latent_points.rows(first, second))
    if seamless:
        return {"lattice": drawing.lattice(means)}
    where = ", which are quantiles of the prior" * quantiles
    title = f"images decoded at {n} x {n} points z{where}: the mean of p(x|z)"
    return {"lattice": drawing.lattice_with_axes(means, first, second, title)}


def latent_map(subject: Subject, *, n: int = 20, extent: float | None = None) -> Drawings:
    """The posterior means of the first 1,000 test images, over a lattice of the images that are decoded around them.

    Args:
        subject: with data, and a model of 2 latent dimensions.
        n: the number of points of the lattice per side, at least 2.
        extent: covers [-extent, extent]^2. By default as `lattice`.
    """
    check_plane(subject.vae)
    _check_memory(subject.vae, check_whole("n", n, least=2))
    mean, labels = subject.encoded(ENCODED)
    first, second = _sides(subject, n, extent, mean)
    means = means_at(subject.vae, latent_points.rows(first, second))
    names = subject.test().info.label_names
    left, right, bottom, top = drawing.lattice_frame(means.shape[1:3], first, second)
    inside = ((mean >= [left, bottom]) & (mean <= [right, top])).all(axis=1)
    beyond = "" if inside.all() else f" ({np.sum(~inside):,} are outside)"
    title = f"where the encoder puts {len(mean):,} test images{beyond}, over images decoded at each z"
    return {"map": drawing.scatter_over_lattice(means, first, second, mean, labels, names, title)}


def _check_memory(vae: VAE, n: int) -> None:
    values = check_whole("n", n) ** 2 * math.prod(vae.image_shape)
    # the means, a copy of them as a picture, and the picture as bytes
    memory.check(9 * values, f"a lattice of {n:,} x {n:,} images", "Choose a smaller -n.")


def _sides(subject: Subject, n: int, extent: float | None, mean: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The values of z_1 from left to right and of z_2 from bottom to top, `[n]` each.

    Args:
        subject: with a model of 2 latent dimensions.
        n: the number of points per side.
        extent: covers [-extent, extent]^2.
        mean: posterior means that it covers without `extent`, `[N, 2]`, or None. If they are all the same or not
            finite, it covers the middle of the prior's region.
    """
    if extent is not None:
        side = latent_points.lattice(n, extent)[:n, 0]
        return side, side
    low, high = subject.vae.prior.region()
    centre, half = (low + high) / 2, LATTICE_FRACTION * (high - low) / 2
    if mean is not None and np.isfinite(mean).all():
        ends = np.percentile(mean.astype(np.float64), [50 - COVERED / 2, 50 + COVERED / 2], axis=0)
        if np.ptp(ends, axis=0).any():
            centre, half = ends.mean(axis=0), np.ptp(ends, axis=0).max() / 2 * np.ones(2)
    first, second = (latent_points.spaced(a, b, n) for a, b in zip(centre - half, centre + half, strict=True))
    return first, second


def _quantiles(vae: VAE, n: int) -> np.ndarray:
    try:
        return vae.prior.quantiles(n)
    except UserError as error:
        raise Unsuitable(str(error)) from None
