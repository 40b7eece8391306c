"""Matplotlib figures and pictures of arrays. This module does not know models.

The figures are made without pyplot, so that no global state changes and no display is needed.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError
from kvae.internal.files import atomic_file
from kvae.internal.pictures import as_images, save_picture, tile
from kvae.plotting.words import Figure, legend, words

DPI = 200
MOST_DOTS = 2**16 - 1  # the largest side of a bitmap that Matplotlib draws
BITMAPS = ("png", "jpg", "jpeg", "webp", "tif", "tiff")
# Paul Tol's "muted" scheme: ten colours that colour-blind readers can distinguish, in an order that gives neighbouring
# digits very different colours. The markers distinguish them in grey print too.
COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#777777",
)  # fmt: skip
MISSING = "#6699CC"  # the colour of pixels that are not observed
CONTOURS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)  # the levels, relative to the maximum
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


Drawing = Figure | np.ndarray  # a figure, or a picture [H, W, C] that is saved without scaling


def save(drawing: Drawing, path: str | os.PathLike[str]) -> None:
    """Writes a figure at 200 dpi, or a picture without scaling.

    Args:
        drawing: a figure, or a picture `[H, W, C]` with values in [0, 1].
        path: the file to write. Its suffix names the format, for example PNG, SVG or PDF.

    Raises:
        UserError: if the suffix is not that of a supported format, or if the file cannot be written.
    """
    suffix = check_suffix(path)
    if isinstance(drawing, np.ndarray):
        if suffix in BITMAPS:
            save_picture(path, drawing)
            return
        drawing = _as_figure(drawing)
    with atomic_file(path) as partial:
        drawing.savefig(partial, dpi=DPI, bbox_inches="tight", pad_inches=0.05, facecolor="white")


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file name, without the dot; raises `UserError` if it is not that of a supported format."""
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    supported = Figure().canvas.get_supported_filetypes()
    if suffix not in supported:
        raise UserError(f"Expected the suffix of a picture: {', '.join(sorted(supported))}. Received {str(path)!r}.")
    return suffix


def _as_figure(picture: np.ndarray) -> Figure:
    """A picture as a figure without margins, for vector formats."""
    figure = Figure(figsize=(picture.shape[1] / DPI, picture.shape[0] / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    _show(axes, picture)
    axes.axis("off")
    return figure


def _show(axes: object, picture: np.ndarray) -> None:
    picture = np.clip(picture, 0, 1)
    grey = picture.shape[-1] == 1
    axes.imshow(  # type: ignore[attr-defined]
        picture[..., 0] if grey else picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )


def samples(means: ArrayLike, draws: ArrayLike | None = None, columns: int = 10) -> Figure:
    """Samples from the prior: their means, and below them draws of p(x|z) at the same z.

    Args:
        means: means of p(x|z), `[N, H, W, C]` in [0, 1].
        draws: draws of p(x|z), `[N, H, W, C]` in [0, 1], or None to show only the means.
        columns: the number of images per row.
    """
    sheets = [("means of p(x|z), z ~ p(z)", means)]
    if draws is not None:
        sheets.append(("draws of p(x|z) at the same z", draws))
    return _sheets(sheets, columns)


def reconstructions(x: ArrayLike, means: ArrayLike, columns: int = 10) -> Figure:
    """Images, above their reconstructions.

    Args:
        x: images, `[N, H, W, C]` in [0, 1].
        means: their reconstructions, `[N, H, W, C]` in [0, 1].
        columns: the number of images per row.

    Raises:
        UserError: if the two arrays differ in shape.
    """
    if np.shape(x) != np.shape(means):
        raise UserError(f"Expected as many reconstructions as inputs. Received {np.shape(means)} and {np.shape(x)}.")
    return _sheets([("inputs x", x), ("reconstructions E[x|z], z ~ q(z|x)", means)], columns)


def _sheets(sheets: Sequence[tuple[str, ArrayLike]], columns: int) -> Figure:
    """Several sheets of images, one above the other, each below its title."""
    arrays = [as_images(x) for _, x in sheets]
    pictures = [tile(x, columns, gap=2) for x in arrays]
    height, width, channels = pictures[0].shape
    scale = _magnification(arrays[0].shape[2])
    title_height = math.ceil(0.3 * DPI / scale)  # in pixels of the images
    canvas = np.ones((len(pictures) * (height + title_height), width, channels), np.float32)
    for number, picture in enumerate(pictures):
        top = number * (height + title_height) + title_height
        canvas[top : top + height, : picture.shape[1]] = picture
    figure, axes = _sheet_figure(canvas, arrays[0].shape[2])
    for number, (name, _) in enumerate(sheets):
        axes.text(0, number * (height + title_height) + title_height - 2, name, ha="left", va="bottom", fontsize=9)
    return figure


def _magnification(width: int) -> int:
    """The whole number that enlarges images of `width` pixels to about 0.6 inches."""
    return max(1, round(0.62 * DPI / width))


def check_size(rows: int, columns: int, image_shape: Sequence[int]) -> None:
    """Raises `UserError` if a figure of this many rows and columns of images would be too large to be drawn."""
    scale = _magnification(image_shape[1])
    _check_dots(max(rows * (image_shape[0] + 2), columns * (image_shape[1] + 2)) * scale)


def _check_dots(side: int) -> None:
    if side > MOST_DOTS:
        raise UserError(
            f"Expected a figure of at most {MOST_DOTS:,} dots in each direction. Received one of {side:,}. Draw fewer "
            "images."
        )


def _sheet_figure(picture: np.ndarray, width: int) -> tuple[Figure, Any]:
    """A figure of a picture that contains images of `width` pixels; every pixel is a whole number of dots."""
    scale = _magnification(width)
    _check_dots(max(picture.shape[:2]) * scale)
    figure = Figure(figsize=(picture.shape[1] * scale / DPI, picture.shape[0] * scale / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    _show(axes, picture)
    axes.axis("off")
    return figure, axes


def rows(*columns: ArrayLike, gap: int = 2) -> np.ndarray:
    """One picture with one row per example, for instance its mean and three draws.

    Args:
        *columns: the images of each column, `[N, H, W, C]`.
        gap: the distance between neighbouring images, in pixels.

    Returns:
        A picture for `save`, `[rows, columns, C]` in pixels.

    Raises:
        UserError: if there is no column, or if the columns differ in shape.
    """
    arrays = [as_images(column) for column in columns]
    if not arrays or any(array.shape != arrays[0].shape for array in arrays):
        raise UserError(f"Expected columns of one shape. Received {[array.shape for array in arrays]}.")
    return tile(np.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:]), len(arrays), gap=gap)


def titled_columns(columns: Mapping[str, ArrayLike], row_titles: Sequence[str] = (), row_heading: str = "") -> Figure:
    """One row per example as in `rows`, with titles of the columns and, optionally, of the rows.

    Args:
        columns: the images of each column, `[N, H, W, C]`, by the title of the column.
        row_titles: N titles of the rows, or none.
        row_heading: a heading above the titles of the rows.

    Raises:
        UserError: if there is no column, or if the columns differ in shape.
    """
    picture = rows(*columns.values())
    count, height, width = as_images(next(iter(columns.values()))).shape[:3]
    figure, axes = _sheet_figure(picture, width)
    for number, title in enumerate(columns):
        centre = number * (width + 2) + (width - 1) / 2
        axes.text(centre, -2, words(title), ha="center", va="bottom", fontsize=7)
    axes.text(-2, -2, row_heading, ha="right", va="bottom", fontsize=7)
    for number in range(min(count, len(row_titles))):
        middle = number * (height + 2) + (height - 1) / 2
        axes.text(-2, middle, words(row_titles[number]), ha="right", va="center", fontsize=7)
    return figure


def interpolation(means: ArrayLike, ends: Sequence[tuple[str, str]] = ()) -> Figure:
    """Decoded means along paths between two latent points, one row per path.

    Args:
        means: the means of P paths with S points each, `[P, S, H, W, C]`.
        ends: the names of both ends of each path.
    """
    means = np.asarray(means)
    picture = rows(*means.swapaxes(0, 1))
    figure, axes = _sheet_figure(picture, means.shape[3])
    height = means.shape[2]
    for number, (first, last) in enumerate(ends):
        middle = number * (height + 2) + (height - 1) / 2
        axes.text(-4, middle, words(first), ha="right", va="center", fontsize=9)
        axes.text(picture.shape[1] + 3, middle, words(last), ha="left", va="center", fontsize=9)
    return figure


def completion(
    x: ArrayLike,
    observed: ArrayLike,
    means: ArrayLike,
    draw_means: ArrayLike,
    draws: ArrayLike,
    scores: Sequence[str] = (),
) -> Figure:
    """One row per image: the original, its observed pixels, n completions as mean and as draw, and E[x | observed].

    Args:
        x: the images, `[B, H, W, C]` in [0, 1]; NaN for a pixel that is not known.
        observed: a mask that broadcasts to x. Missing pixels are shown in blue.
        means: E[x | observed], `[B, H, W, C]`.
        draw_means: E[x|z] at n draws of z, `[n, B, H, W, C]`.
        draws: draws of p(x|z) at the same z, `[n, B, H, W, C]`.
        scores: log p(missing | observed) of each image as text, or none.
    """
    known = _as_rgb(np.nan_to_num(np.asarray(x, np.float32), nan=0.5))
    columns = {"original": known, "observed": mark_missing(x, observed)}
    for number, (mean, draw) in enumerate(zip(np.asarray(draw_means), np.asarray(draws), strict=True), start=1):
        columns |= {f"mean {number}": _as_rgb(mean), f"draw {number}": _as_rgb(draw)}
    columns["mean"] = _as_rgb(np.asarray(means))
    return titled_columns(columns, scores, "log p(missing\n| observed)" if any(scores) else "")


def mark_missing(x: ArrayLike, observed: ArrayLike) -> np.ndarray:
    """Images `[..., H, W, C]` as colour images in which the missing pixels are blue."""
    known = _as_rgb(np.nan_to_num(np.asarray(x, np.float32), nan=0.5))
    seen = _as_rgb(np.broadcast_to(np.asarray(observed, bool), np.shape(x)))
    return np.where(seen, known, np.array(to_rgb(MISSING)))


def _as_rgb(x: np.ndarray) -> np.ndarray:
    """Grey images `[..., 1]` as colour images `[..., 3]`; colour images as they are."""
    return np.broadcast_to(x, (*x.shape[:-1], 3)) if x.shape[-1] == 1 else x


Window = tuple[np.ndarray, np.ndarray, np.ndarray]  # z_1 [n], z_2 [m], unnormalised log posterior [m, n] in nats


class Ellipse(NamedTuple):
    """The mean and covariance of a q in the latent plane."""

    mean: np.ndarray  # [2]
    covariance: np.ndarray  # [2, 2]

    @property
    def sigma(self) -> np.ndarray:
        """The standard deviations of z_1 and z_2, `[2]`."""
        return np.sqrt(np.diag(self.covariance))


class ContourPanel(NamedTuple):
    """A window of the latent plane, with the posterior and one q."""

    title: str
    window: Window
    q: Ellipse


def posterior_contours(picture: ArrayLike, panels: Sequence[ContourPanel]) -> Figure:
    """Contours of the true, unnormalised posterior and of q, at 0.99, 0.9, 0.8, ..., 0.2 times the maximum of each.

    Args:
        picture: the image to which the posterior belongs, `[H, W, C]`; it is shown at the left.
        panels: the windows of the latent plane, from left to right.
    """
    figure = Figure(figsize=(3.3 * len(panels) + 2.0, 4.0), layout="constrained")
    parts = figure.subplots(1, len(panels) + 1, width_ratios=[0.6, *[1] * len(panels)])
    _show(parts[0], np.asarray(picture))
    parts[0].set(title="observed", xticks=[], yticks=[])
    for axes, panel in zip(parts[1:], panels, strict=True):
        first, second = np.meshgrid(*panel.window[:2])
        relative = np.exp(panel.window[2] - panel.window[2].max())
        axes.contourf(first, second, relative, (*CONTOURS, 1.01), cmap="Blues", vmin=0, vmax=1.3)
        axes.contour(first, second, relative, CONTOURS, colors=COLOURS[0], linewidths=0.4)
        offset = np.stack([first - panel.q.mean[0], second - panel.q.mean[1]], axis=-1)
        squared_distance = np.einsum("...i,ij,...j->...", offset, np.linalg.inv(panel.q.covariance), offset)
        axes.contour(first, second, np.exp(-0.5 * squared_distance), CONTOURS, colors=COLOURS[1], linewidths=0.6)
        axes.set(title=words(panel.title), xlabel="z₁", ylabel="z₂")
        axes.set_aspect("equal")
    handles = [Line2D([], [], color=COLOURS[0]), Line2D([], [], color=COLOURS[1])]
    labels = ["p(z | observed), unnormalised", "q(z)"]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def latent_scatter(
    mean: ArrayLike, labels: ArrayLike | None, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Posterior means in the latent plane, with one colour and marker per label.

    With more than two latent dimensions, the plot shows the first two principal components, and the axes say so. With
    one, it shows z against the label.

    Args:
        mean: posterior means, `[N, D]`.
        labels: whole numbers, `[N]`.
        names: the names of the labels 0, 1, ...; without one, a label is shown as its number.
        title: a title above the plot.

    Raises:
        UserError: if there are no labels, or if there is not one label per mean.
    """
    mean, labels = np.asarray(mean), None if labels is None else np.asarray(labels)
    if labels is None:
        raise UserError("Expected labels to colour the latent space by. The data have none; try lattice.")
    if labels.shape != mean.shape[:1]:
        raise UserError(f"Expected one label per mean: {mean.shape[:1]}. Received {labels.shape}.")
    points, x_label, y_label = _project(mean, labels)
    present = np.unique(labels)
    named = present[: len(COLOURS) * len(MARKERS)]  # more cannot be distinguished
    columns = math.ceil(len(named) / 15)
    figure = Figure(figsize=(6.4 + 4.5 * (columns - 1), 5.6), layout="constrained")
    axes = figure.subplots()
    for number, label in enumerate(present):
        chosen = labels == label
        axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=12,
            alpha=0.75,
            linewidths=0,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
        )
    axes.set(xlabel=x_label, ylabel=y_label, title=words(title, 100))
    if mean.shape[1] > 1:
        axes.set_aspect("equal", adjustable="datalim")
    legend(
        axes,
        axes.collections[: len(named)],
        [names[label] if names is not None and 0 <= label < len(names) else label for label in named],
        title=None if len(named) == len(present) else f"the first {len(named)} of {len(present):,} classes",
        markerscale=2,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=columns,
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _project(mean: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Two coordinates per mean, `[N, 2]`, and the labels of both axes."""
    if mean.shape[1] == 1:
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
        raise UserError("Expected finite posterior means to draw. Received NaN or infinity: the model has diverged.")
    centred = points - points.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / (len(points) - 1))
    axes = axes[:, [-1, -2]]  # the eigenvalues are in ascending order
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return centred @ axes, np.maximum(variances[[-1, -2]], 0) / variances.sum()


def lattice(means: ArrayLike) -> np.ndarray:
    """Decoded means of a lattice of latent points as one picture without gaps.

    Args:
        means: the means at the points of `kvae.runtime.latent_points.lattice`, `[n * n, H, W, C]`.

    Returns:
        A picture for `save`, `[n * H, n * W, C]`.

    Raises:
        UserError: if the number of means is not a square.
    """
    means = as_images(means)
    n = round(len(means) ** 0.5)
    if n * n != len(means):
        raise UserError(f"Expected a square number of decoded means. Received {len(means)}.")
    return tile(means, n)


def learning_curves(history: Mapping[str, ArrayLike], held_out: str = "validation") -> Figure:
    """The loss and its two terms per epoch, on the training data and, if they were measured, on held-out data.

    Args:
        history: the columns of history.csv by name: `epoch`, and `loss`, `reconstruction` and `kl` in nats per image,
            optionally with the prefix `val_` too.
        held_out: a name for the data that the `val_...` columns were measured on.

    Raises:
        UserError: if the history has no epoch.
    """
    epochs = np.asarray(history.get("epoch", ()))
    if epochs.size == 0:
        raise UserError("Expected a history of at least one epoch. Received none.")
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("loss", "reconstruction", "kl"), strict=True):
        axes.plot(epochs, history[name], color=COLOURS[0])
        shown = [np.asarray(history[name])]
        if f"val_{name}" in history:
            values = np.asarray(history[f"val_{name}"])
            measured = np.isfinite(values)  # NaN for epochs without an evaluation on the held-out data
            sparse = not measured.all()
            style = {"linestyle": "--", "marker": "o" if sparse else None, "markersize": 3}
            axes.plot(epochs[measured], values[measured], color=COLOURS[1], **style)
            shown.append(values)
        _skip_first_epochs(axes, np.concatenate(shown), shown)
        axes.set(title=name, xlabel="epoch", ylabel="nats per image")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        legend(axes, axes.lines, ("training", held_out)[: len(axes.lines)])
    return figure


def _skip_first_epochs(axes: object, values: np.ndarray, curves: Sequence[np.ndarray]) -> None:
    """Limits the axis to the values after the first twentieth, which fall so far that the rest would look flat."""
    later = np.concatenate([curve[len(curve) // 20 :] for curve in curves])
    later = later[np.isfinite(later)]
    if later.size and np.ptp(later) > 0:
        margin = 0.05 * np.ptp(later)
        axes.set_ylim(later.min() - margin, later.max() + margin)  # type: ignore[attr-defined]
