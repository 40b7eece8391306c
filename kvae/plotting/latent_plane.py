"""The latent plane: a scatter of encoded images, a lattice of decoded points, and one over the other."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError
from kvae.internal.pictures import as_images, tile
from kvae.plotting import canvas
from kvae.plotting.colours import COLOURS, MARKERS, UNLABELLED
from kvae.plotting.words import Figure, legend, words

MOST_NAMES = 20  # of classes among the points: more would hide the points
KERNEL = 0.75  # the width of a kernel, relative to the standard deviation of all points, for a class of one point
COMPARED = 1000  # points, at most, in an estimate of a density
GAP = 2  # pixels between the images of a lattice
FAINT = 0.4  # of the contrast of a lattice remains below a scatter if it is grey
FAINT_COLOURS = 0.8  # and if it is in colour
THIN = 0.2  # points of the font: the white edge of a point
LETTER = (0.01, 0.017)  # inches per point of the font: about the size of a letter of the names
TICKS = 5  # at most, on an axis of a lattice that is not evenly spaced
Look = tuple[str, str]  # colour and marker


def latent_scatter(
    mean: ArrayLike, labels: ArrayLike | None, names: Sequence[str] | None = None, title: str = "", seed: int = 0
) -> Figure:
    """Posterior means in the latent plane, with one colour and marker per label.

    With more than two latent dimensions, the plot shows the first two principal components, and the axes say so. With
    one, it shows z against the label. The points are drawn in a random order, so that no class hides another.

    Args:
        mean: posterior means, `[N, D]`.
        labels: whole numbers, `[N]`, or None: all points then have one colour. -1 stands for a point without a label.
        names: the names of the labels 0, 1, ...; without one, a label is shown as its number.
        title: a title above the plot.
        seed: the seed of the order.

    Raises:
        UserError: if there is not one label per mean.
    """
    mean, labels = np.asarray(mean), None if labels is None else np.asarray(labels)
    if labels is not None and labels.shape != mean.shape[:1]:
        raise UserError(f"Expected one label per mean: {mean.shape[:1]}. Received {labels.shape}.")
    points, x_label, y_label = _project(mean, labels)
    figure, axes = _frame()
    if mean.shape[1] > 1:
        axes.set_aspect("equal", adjustable="datalim")
    _scatter(axes, points, labels, names, seed, area=14)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_title(words(title, 100), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def lattice(means: ArrayLike, gap: int = 0) -> np.ndarray:
    """Decoded means of a lattice of latent points as one picture, by default without gaps.

    Args:
        means: the means at the points of `kvae.runtime.latent_points.lattice`, `[n * n, H, W, C]`.
        gap: the distance between neighbouring images, in pixels.

    Returns:
        A picture for `save`, `[n * H, n * W, C]` if there are no gaps.

    Raises:
        UserError: if the number of means is not a square.
    """
    means = as_images(means)
    n = round(len(means) ** 0.5)
    if n * n != len(means):
        raise UserError(f"Expected a square number of decoded means. Received {len(means)}.")
    return tile(means, n, gap=gap)


def lattice_with_axes(means: ArrayLike, first: ArrayLike, second: ArrayLike, title: str = "") -> Figure:
    """Decoded means of a lattice, with axes that say at which z each of them is.

    Args:
        means: the means, `[n * n, H, W, C]`, row by row from the largest second coordinate.
        first: the values of z₁ from left to right, `[n]`.
        second: the values of z₂ from bottom to top, `[n]`.
        title: a title above the picture.
    """
    picture = lattice(means, GAP)
    figure, axes = _frame(picture)
    _show_lattice(axes, picture, as_images(means).shape[1:3], np.asarray(first), np.asarray(second))
    axes.set_title(words(title, 100), fontsize=10)
    return figure


def scatter_over_lattice(
    means: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    points: ArrayLike,
    labels: ArrayLike | None,
    names: Sequence[str] | None = None,
    title: str = "",
    seed: int = 0,
) -> Figure:
    """Posterior means over the images that the points around them decode to, in the frame of the lattice.

    Args:
        means: the decoded means of an evenly spaced lattice, as in `lattice_with_axes`. They are drawn faintly.
        first: as in `lattice_with_axes`; at least two values.
        second: as in `lattice_with_axes`; at least two values.
        points: posterior means, `[N, 2]`. Those outside of the frame are not shown.
        labels: as in `latent_scatter`.
        names: as in `latent_scatter`.
        title: a title above the picture.
        seed: the seed of the order in which the points are drawn.
    """
    images = as_images(means)
    # Grey images become light grey on white, so that every colour has its contrast over them too. Images in colour
    # would lose their colours by this, so they stay nearly as they are, and a white edge parts the points from them.
    grey = images.shape[-1] == 1
    faint = lattice(1 - FAINT * images if grey else 1 - FAINT_COLOURS * (1 - images), GAP)
    figure, axes = _frame(faint)
    _show_lattice(axes, faint, images.shape[1:3], np.asarray(first), np.asarray(second))
    axes.autoscale(False)  # the frame stays that of the lattice
    labels = None if labels is None else np.asarray(labels)
    area, edge = (10, THIN) if grey else (22, 4 * THIN)
    _scatter(axes, np.asarray(points), labels, names, seed, area, edge)
    axes.set_title(words(title, 100), fontsize=10)
    return figure


def _frame(picture: np.ndarray | None = None) -> tuple[Figure, Any]:
    """A figure with one square for the latent plane, of about the same size in all pictures, and its axes.

    Every pixel of a given picture is a whole number of dots.
    """
    height, width = (canvas.FRAME, canvas.FRAME) if picture is None else np.array(picture.shape[:2]) / canvas.DPI
    if picture is not None:
        scale = canvas.magnification(max(picture.shape[:2]), canvas.FRAME)
        canvas.check_dots(max(picture.shape[:2]) * scale)
        height, width = height * scale, width * scale
    figure = Figure(figsize=(width + 1.5, height + 1.2))
    axes = figure.add_axes((0.9 / (width + 1.5), 0.7 / (height + 1.2), width / (width + 1.5), height / (height + 1.2)))
    return figure, axes


def _show_lattice(axes: Any, picture: np.ndarray, size: tuple[int, ...], first: np.ndarray, second: np.ndarray) -> None:
    """Shows a lattice so that the centre of each image, of `size` pixels, is at its z."""
    canvas.show(axes, picture, extent=lattice_frame(size, first, second), aspect="auto")
    for axis, values in ((axes.xaxis, first), (axes.yaxis, second)):
        if not _step(values):
            places = np.unique(np.linspace(0, len(values) - 1, min(TICKS, len(values))).round().astype(int))
            axis.set_ticks(places, [f"{values[place]:.3g}" for place in places])
    axes.set(xlabel="z₁", ylabel="z₂")


def lattice_frame(size: Sequence[int], first: np.ndarray, second: np.ndarray) -> list[float]:
    """The frame of a lattice: the left, right, bottom and top end of what it shows of the latent plane.

    It reaches half an image beyond the outermost points. On an axis that is not evenly spaced the unit is one image,
    and the first one is at 0.

    Args:
        size: the height and the width of an image, in pixels.
        first: the values of z₁ from left to right, `[n]`.
        second: the values of z₂ from bottom to top, `[n]`.
    """
    frame: list[float] = []
    for values, pixels in ((first, size[1]), (second, size[0])):
        step = _step(values)
        half = (step or 1.0) * pixels / (pixels + GAP) / 2
        ends = (values[0], values[-1]) if step else (0, len(values) - 1)
        frame += [ends[0] - half, ends[1] + half]
    return frame


def _step(values: np.ndarray) -> float:
    """The distance between neighbouring values, or 0 if it is not the same for all."""
    steps = np.diff(np.asarray(values, np.float64))
    return float(steps[0]) if steps.size and steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-3) else 0.0


def _scatter(
    axes: Any,
    points: np.ndarray,
    labels: np.ndarray | None,
    names: Sequence[str] | None,
    seed: int,
    area: float,
    edge: float = THIN,
) -> None:
    """Points in a random order, the names of the classes where these are dense, and a legend beside the axes."""
    classes = np.zeros(len(points), int) if labels is None else labels
    present, number = np.unique(classes, return_inverse=True)
    looks = [(COLOURS[0], "o")] if labels is None else _looks(present)
    order = np.random.default_rng(seed).permutation(len(points))
    shuffled = number[order]
    drawn = axes.scatter(*points[order].T, s=area, c=[looks[k][0] for k in shuffled], linewidths=edge, edgecolors="w")
    drawn.set_paths(_paths([looks[k][1] for k in shuffled]))
    if labels is None:
        return
    shown = [_name(label, names) for label in present]
    if len(present) <= MOST_NAMES:
        _show_names(axes, points[order], shuffled, [words(name) for name in shown], [colour for colour, _ in looks])
    named = min(len(present), len(COLOURS) * len(MARKERS))  # more cannot be distinguished
    handles = [Line2D([], [], color=colour, marker=marker, linestyle="") for colour, marker in looks[:named]]
    legend(
        axes,
        handles,
        shown[:named],
        title=None if named == len(present) else f"the first {named} of {len(present):,} classes",
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=math.ceil(named / 15),
    )


def _show_names(axes: Any, points: np.ndarray, classes: np.ndarray, names: list[str], colours: list[str]) -> None:
    """Writes the name of each class where it is dense, inside of the frame. A class without a point there has none."""
    axes.apply_aspect()
    left, right, bottom, top = axes.axis()
    low, high = np.array([left, bottom]), np.array([right, top])
    inside = ((points >= low) & (points <= high)).all(axis=1)
    if not inside.any():
        return
    present, classes = np.unique(classes[inside], return_inverse=True)
    texts = [names[k] for k in present]
    font_size = 15 if max(map(len, names)) <= 2 else 10
    inch = (high - low) / (axes.figure.get_size_inches() * axes.get_position().size)
    sizes = font_size * inch * np.array([(LETTER[0] * len(text), LETTER[1]) for text in texts])
    centres = np.clip(_apart(_densest(points[inside], classes), sizes), low + sizes / 2, high - sizes / 2)
    for centre, text, k in zip(centres, texts, present, strict=True):
        drawn = axes.text(*centre, text, color=colours[k], ha="center", va="center", clip_on=True)
        drawn.set(weight="bold", fontsize=font_size)
        drawn.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])


def _densest(points: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """For each of the classes 0, 1, ...: the point that has most of its class and little else around it, `[K, 2]`.

    A mean or a median would lie between the groups of a class that has several. The point has the largest product of
    the density of its class and the square root of the share of its class there, both by Gaussian kernels. The fewer
    points a class has, the wider these are, as in the rule of Scott: in proportion to N^(-1/6) in a plane.

    Args:
        points: `[N, 2]`, in a random order. At most 1,000 of a class, and 1,000 of all, are compared.
        classes: the class of each point, `[N]`.
    """
    standardized = points / np.maximum(points.std(axis=0), 1e-12)
    found = []
    for number in np.unique(classes):
        (members,) = np.nonzero(classes == number)
        scaled = standardized / (KERNEL * len(members) ** (-1 / 6))
        own, every = scaled[members[:COMPARED]], scaled[:COMPARED]
        density = len(members) * _kernel_mean(own, own)
        share = density / np.maximum(len(points) * _kernel_mean(own, every), density)
        found.append(points[members[np.argmax(density * share**0.5)]])
    return np.array(found)


def _kernel_mean(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mean of standard Gaussian kernels at `others`, for each of some points: `[N, 2]`, `[M, 2]` -> `[N]`."""
    squared = sum((points[:, None, axis] - others[None, :, axis]) ** 2 for axis in range(2))
    return np.exp(-0.5 * squared).mean(axis=1)


def _apart(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Centres of boxes of some sizes, `[N, 2]` each, moved up and down until hardly any of the boxes overlap."""
    moved = centres.astype(np.float64)
    for _ in range(50):
        for k, j in itertools.combinations(range(len(moved)), 2):
            overlap = (sizes[k] + sizes[j]) / 2 - np.abs(moved[k] - moved[j])
            if (overlap > 0).all():
                upper, lower = (k, j) if moved[k, 1] >= moved[j, 1] else (j, k)
                moved[upper, 1] += overlap[1] / 2
                moved[lower, 1] -= overlap[1] / 2
    return moved


def _looks(labels: np.ndarray) -> list[Look]:
    """A colour and a marker for each of some different labels, in ascending order; -1 means that there is no label."""
    without = int(labels[0] == -1)
    numbers = range(len(labels) - without)
    looks = [(COLOURS[k % len(COLOURS)], MARKERS[(k + k // len(COLOURS)) % len(MARKERS)]) for k in numbers]
    return [(UNLABELLED, ".")] * without + looks


def _name(label: int, names: Sequence[str] | None) -> object:
    if label == -1:
        return "unlabelled"
    return names[label] if names is not None and 0 <= label < len(names) else label


def _paths(markers: Sequence[str]) -> list[Path]:
    """The outline of each marker. One collection of all points is what lets their order be any."""
    outlines = {
        name: (style := MarkerStyle(name)).get_path().transformed(style.get_transform()) for name in set(markers)
    }
    return [outlines[name] for name in markers]


def _project(mean: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, str, str]:
    """Two coordinates per mean, `[N, 2]`, and the labels of both axes."""
    if mean.shape[1] == 1:
        if labels is None:
            return np.stack([mean[:, 0], np.arange(len(mean))], axis=1), "z₁", "index of the image"
        return np.stack([mean[:, 0], labels], axis=1), "z₁", "label"
    if mean.shape[1] == 2:
        return mean, "z₁", "z₂"
    if not np.ptp(mean, axis=0).any():  # the posterior has collapsed, so there are no principal components
        return mean[:, :2], "z₁", "z₂"
    points, (first, second) = principal_components(mean)
    return (
        points,
        f"principal component 1 of {mean.shape[1]} latent dimensions ({first:.0%} of the variance)",
        f"principal component 2 ({second:.0%})",
    )


def principal_components(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of points on their first two principal axes.

    The sign of an axis is such that its largest entry is positive.

    Args:
        points: at least two points, `[N, D]`, D >= 2, which are not all equal.

    Returns:
        The coordinates, `[N, 2]` float64, and the fraction of the variance along each axis, `[2]`.

    Raises:
        UserError: if a point is not finite.
    """
    if not np.isfinite(points).all():
        raise UserError("Expected finite posterior means to draw. Received NaN or infinity: the training has diverged.")
    centred = points - points.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / (len(points) - 1))
    axes = axes[:, [-1, -2]]  # the eigenvalues are in ascending order
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return centred @ axes, np.maximum(variances[[-1, -2]], 0) / variances.sum()
