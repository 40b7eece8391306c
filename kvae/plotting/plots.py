"""Arrays in, matplotlib figures out. Nothing here sees a model.

Figures are made without pyplot, so nothing global changes and no window is needed.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError
from kvae.internal.files import atomic_file
from kvae.internal.pictures import as_images, save_picture, tile

DPI = 200
BITMAPS = ("png", "jpg", "jpeg", "webp", "tif", "tiff")
# Paul Tol's "muted" scheme: ten colours that stay apart for colour-blind readers, here in an order that sets
# neighbouring digits well apart; the markers tell them apart in grey print too.
COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#777777",
)  # fmt: skip
MISSING = "#6699CC"  # of pixels that are not observed
CONTOURS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)  # of the maximum
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


Drawing = Figure | np.ndarray  # a figure, or one picture [H, W, C] that is saved pixel for pixel


def save(drawing: Drawing, path: str | os.PathLike[str]) -> None:
    """Writes a figure at 200 dpi, or a picture pixel for pixel, in the format that the suffix names (PNG, SVG, PDF).

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    suffix = check_suffix(path)
    if isinstance(drawing, np.ndarray):
        if suffix in BITMAPS:
            save_picture(path, drawing)
            return
        drawing = _framed(drawing)
    with atomic_file(path) as partial:
        drawing.savefig(partial, dpi=DPI, bbox_inches="tight", pad_inches=0.05, facecolor="white")


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a picture's name, without its dot; raises `UserError` where no such picture can be written."""
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    supported = Figure().canvas.get_supported_filetypes()
    if suffix not in supported:
        raise UserError(f"Expected a picture's suffix: {', '.join(sorted(supported))}. Received {str(path)!r}.")
    return suffix


def _framed(picture: np.ndarray) -> Figure:
    """A picture as a figure without margins, for formats that are no bitmaps."""
    figure = Figure(figsize=(picture.shape[1] / DPI, picture.shape[0] / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    _show(axes, picture)
    axes.axis("off")
    return figure


def _show(axes: object, picture: np.ndarray) -> None:
    picture = np.clip(picture, 0, 1)
    single = picture.shape[-1] == 1
    axes.imshow(  # type: ignore[attr-defined]
        picture[..., 0] if single else picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )


def samples(means: ArrayLike, draws: ArrayLike | None = None, columns: int = 10) -> Figure:
    """Prior samples: a sheet of means and, where given, the sheet of draws from the same z beneath it.

    Args:
        means: `[N, H, W, C]` in [0, 1].
        draws: `[N, H, W, C]`, or None.
        columns: images in a row.
    """
    sheets = [("means of p(x|z), z ~ p(z)", means)]
    if draws is not None:
        sheets.append(("draws of p(x|z) at the same z", draws))
    return _sheets(sheets, columns)


def reconstructions(x: ArrayLike, means: ArrayLike, columns: int = 10) -> Figure:
    """The sheet of inputs above the sheet of their reconstructions; both `[N, H, W, C]` in [0, 1].

    Raises:
        UserError: the two differ in shape.
    """
    if np.shape(x) != np.shape(means):
        raise UserError(f"Expected as many reconstructions as inputs. Received {np.shape(means)} and {np.shape(x)}.")
    return _sheets([("inputs x", x), ("reconstructions E[x|z], z ~ q(z|x)", means)], columns)


def _sheets(sheets: Sequence[tuple[str, ArrayLike]], columns: int) -> Figure:
    """Sheets of images one above the other, each under its title."""
    stacks = [as_images(x) for _, x in sheets]
    pictures = [tile(x, columns, gap=2) for x in stacks]
    height, width, channels = pictures[0].shape
    scale = _pixels_a_pixel(stacks[0].shape[2])
    title = math.ceil(0.3 * DPI / scale)  # image pixels above every sheet
    whole = np.ones((len(pictures) * (height + title), width, channels), np.float32)
    for number, picture in enumerate(pictures):
        top = number * (height + title) + title
        whole[top : top + height, : picture.shape[1]] = picture
    figure, axes = _sheet_figure(whole, stacks[0].shape[2])
    for number, (name, _) in enumerate(sheets):
        axes.text(0, number * (height + title) + title - 2, name, ha="left", va="bottom", fontsize=9)
    return figure


def _pixels_a_pixel(width: int) -> int:
    """By what whole number a picture of images `width` pixels wide is enlarged: a cell then has some 0.6 inches."""
    return max(1, round(0.62 * DPI / width))


def _sheet_figure(picture: np.ndarray, width: int) -> tuple[Figure, Any]:
    """A figure that shows a picture of images `width` pixels wide, every pixel a whole number of dots."""
    scale = _pixels_a_pixel(width)
    figure = Figure(figsize=(picture.shape[1] * scale / DPI, picture.shape[0] * scale / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    _show(axes, picture)
    axes.axis("off")
    return figure, axes


def rows(*columns: ArrayLike, gap: int = 2) -> np.ndarray:
    """One row an example: its picture in every column, e.g. a mean followed by three draws.

    Args:
        *columns: each `[N, H, W, C]`.
        gap: pixels between neighbours.

    Returns:
        One picture, for `save`.

    Raises:
        UserError: columns of different shapes.
    """
    stacks = [as_images(column) for column in columns]
    if not stacks or any(stack.shape != stacks[0].shape for stack in stacks):
        raise UserError(f"Expected columns of one shape. Received {[stack.shape for stack in stacks]}.")
    return tile(np.stack(stacks, axis=1).reshape(-1, *stacks[0].shape[1:]), len(stacks), gap=gap)


def titled_columns(columns: Mapping[str, ArrayLike], row_titles: Sequence[str] = (), row_heading: str = "") -> Figure:
    """One row an example as in `rows`, with a title above every column and, where given, before every row.

    Args:
        columns: title -> `[N, H, W, C]`.
        row_titles: N, or none.
        row_heading: above the titles of the rows.

    Raises:
        UserError: columns of different shapes.
    """
    picture = rows(*columns.values())
    count, height, width = as_images(next(iter(columns.values()))).shape[:3]
    figure, axes = _sheet_figure(picture, width)
    for number, title in enumerate(columns):
        place = number * (width + 2) + (width - 1) / 2
        axes.text(place, -2, title, ha="center", va="bottom", fontsize=7)
    axes.text(-2, -2, row_heading, ha="right", va="bottom", fontsize=7)
    for number in range(min(count, len(row_titles))):
        axes.text(-2, number * (height + 2) + (height - 1) / 2, row_titles[number], ha="right", va="center", fontsize=7)
    return figure


def interpolation(means: ArrayLike, ends: Sequence[tuple[str, str]] = ()) -> Figure:
    """Decoded means along paths between two latent points, a row a path.

    Args:
        means: `[P, S, H, W, C]`, S steps from the first end to the second.
        ends: names of the two ends of each path.
    """
    means = np.asarray(means)
    picture = rows(*means.swapaxes(0, 1))
    figure, axes = _sheet_figure(picture, means.shape[3])
    height = means.shape[2]
    for number, (first, last) in enumerate(ends):
        middle = number * (height + 2) + (height - 1) / 2
        axes.text(-4, middle, first, ha="right", va="center", fontsize=9)
        axes.text(picture.shape[1] + 3, middle, last, ha="left", va="center", fontsize=9)
    return figure


def completion(
    x: ArrayLike,
    observed: ArrayLike,
    means: ArrayLike,
    draw_means: ArrayLike,
    draws: ArrayLike,
    scores: Sequence[str] = (),
) -> Figure:
    """A row an image: the original, what is observed of it, completions as means and as draws, and their mean.

    Args:
        x: `[B, H, W, C]` in [0, 1]; NaN where it is not known.
        observed: bool, broadcasts to x. Missing pixels are shown in blue.
        means: E[x | observed], `[B, H, W, C]`.
        draw_means: E[x|z] at n draws of z, `[n, B, H, W, C]`.
        draws: of p(x|z) at the same z, `[n, B, H, W, C]`.
        scores: log p(missing | observed) of each image in words, or none.
    """
    known = _coloured(np.nan_to_num(np.asarray(x, np.float32), nan=0.5))
    columns = {"original": known, "observed": with_missing(x, observed)}
    for number, (mean, draw) in enumerate(zip(np.asarray(draw_means), np.asarray(draws), strict=True), start=1):
        columns |= {f"mean {number}": _coloured(mean), f"draw {number}": _coloured(draw)}
    columns["mean"] = _coloured(np.asarray(means))
    return titled_columns(columns, scores, "log p(missing\n| observed)" if any(scores) else "")


def with_missing(x: ArrayLike, observed: ArrayLike) -> np.ndarray:
    """Images `[..., H, W, C]` in colour, blue where a pixel is missing."""
    known = _coloured(np.nan_to_num(np.asarray(x, np.float32), nan=0.5))
    seen = _coloured(np.broadcast_to(np.asarray(observed, bool), np.shape(x)))
    return np.where(seen, known, np.array(to_rgb(MISSING)))


def _coloured(x: np.ndarray) -> np.ndarray:
    """Grey images `[..., 1]` as `[..., 3]`."""
    return np.broadcast_to(x, (*x.shape[:-1], 3)) if x.shape[-1] == 1 else x


Window = tuple[np.ndarray, np.ndarray, np.ndarray]  # z_1 [n], z_2 [m], log posterior [m, n] unnormalised, nats


class Ellipse(NamedTuple):
    """A Gaussian in the latent plane."""

    mean: np.ndarray  # [2]
    covariance: np.ndarray  # [2, 2]

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviations, `[2]`."""
        return np.sqrt(np.diag(self.covariance))


class ContourPanel(NamedTuple):
    """A window of the latent plane with the posterior and one q."""

    title: str
    window: Window
    q: Ellipse


def posterior_contours(picture: ArrayLike, panels: Sequence[ContourPanel]) -> Figure:
    """Contours of the true, unnormalised posterior and of q, at 0.99, 0.9, 0.8 ... 0.2 of the maximum of each.

    Args:
        picture: the image whose posterior it is, `[H, W, C]`, shown at the left.
        panels: windows of the latent plane.
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
        away = np.stack([first - panel.q.mean[0], second - panel.q.mean[1]], axis=-1)
        distance = np.einsum("...i,ij,...j->...", away, np.linalg.inv(panel.q.covariance), away)
        axes.contour(first, second, np.exp(-0.5 * distance), CONTOURS, colors=COLOURS[1], linewidths=0.6)
        axes.set(title=panel.title, xlabel="$z_1$", ylabel="$z_2$")
        axes.set_aspect("equal")
    handles = [Line2D([], [], color=COLOURS[0]), Line2D([], [], color=COLOURS[1])]
    labels = ["p(z | observed), unnormalised", "q(z)"]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def latent_scatter(
    mean: ArrayLike, labels: ArrayLike | None, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Posterior means in the latent plane, a colour and a marker a label.

    More than two latent dimensions are projected on their first two principal components, which the axes say; one
    is drawn against the label.

    Args:
        mean: `[N, D]`.
        labels: `[N]` whole numbers.
        names: of the labels, in order.
        title: above the plot.

    Raises:
        UserError: no labels, or not one a mean.
    """
    mean, labels = np.asarray(mean), None if labels is None else np.asarray(labels)
    if labels is None:
        raise UserError("Expected labels to colour the latent space by. The data have none; try the kind `lattice`.")
    if labels.shape != mean.shape[:1]:
        raise UserError(f"Expected one label a mean: {mean.shape[:1]}. Received {labels.shape}.")
    points, x_label, y_label = _plane(mean, labels)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    for place, label in enumerate(np.unique(labels)):
        chosen = labels == label
        axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=12,
            alpha=0.75,
            linewidths=0,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
            label=str(names[label]) if names is not None and 0 <= label < len(names) else str(label),
        )
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    if mean.shape[1] > 1:
        axes.set_aspect("equal", adjustable="datalim")
    columns = math.ceil(len(np.unique(labels)) / 15)
    axes.legend(markerscale=2, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plane(mean: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Two coordinates a point and what the axes are."""
    if mean.shape[1] == 1:
        return np.stack([mean[:, 0], labels], axis=1), "$z_1$", "label"
    if mean.shape[1] == 2:
        return mean, "$z_1$", "$z_2$"
    from sklearn.decomposition import PCA

    if not np.ptp(mean, axis=0).any():  # a collapsed posterior, which has no principal component
        return mean[:, :2], "$z_1$", "$z_2$"
    pca = PCA(n_components=2).fit(mean)
    first, second = pca.explained_variance_ratio_
    return (
        pca.transform(mean),
        f"principal component 1 of {mean.shape[1]} latent dimensions ({first:.0%} of the variance)",
        f"principal component 2 ({second:.0%})",
    )


def lattice(means: ArrayLike) -> np.ndarray:
    """Decoded means of `kvae.runtime.latent.lattice` as one seamless picture.

    Args:
        means: `[n * n, H, W, C]`.

    Returns:
        `[n * H, n * W, C]`, for `kvae.internal.pictures.save_picture`.

    Raises:
        UserError: not a square number of images.
    """
    means = as_images(means)
    n = round(len(means) ** 0.5)
    if n * n != len(means):
        raise UserError(f"Expected a square number of decoded means. Received {len(means)}.")
    return tile(means, n)


def learning_curves(history: Mapping[str, ArrayLike], held_out: str = "validation") -> Figure:
    """The loss and its two terms over the epochs, training and held-out.

    Args:
        history: columns of history.csv: `epoch`, `loss`, `reconstruction`, `kl`, and `val_...` where there are any.
        held_out: what the `val_...` columns were measured on.

    Raises:
        UserError: no epoch in it.
    """
    epochs = np.asarray(history.get("epoch", ()))
    if epochs.size == 0:
        raise UserError("Expected a history of at least one epoch. Received none.")
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("loss", "reconstruction", "kl"), strict=True):
        axes.plot(epochs, history[name], color=COLOURS[0], label="training")
        shown = [np.asarray(history[name])]
        if f"val_{name}" in history:
            values = np.asarray(history[f"val_{name}"])
            measured = np.isfinite(values)  # where the held-out set is looked at every few epochs only
            sparse = not measured.all()
            style = {"linestyle": "--", "marker": "o" if sparse else None, "markersize": 3}
            axes.plot(epochs[measured], values[measured], color=COLOURS[1], label=held_out, **style)
            shown.append(values)
        _skip_first_epochs(axes, np.concatenate(shown), shown)
        axes.set(title=name, xlabel="epoch", ylabel="nats per image")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    return figure


def _skip_first_epochs(axes: object, values: np.ndarray, curves: Sequence[np.ndarray]) -> None:
    """Limits the axis to what follows the first twentieth, whose fall would flatten all the rest."""
    settled = np.concatenate([curve[len(curve) // 20 :] for curve in curves])
    settled = settled[np.isfinite(settled)]
    if settled.size and np.ptp(settled) > 0:
        margin = 0.05 * np.ptp(settled)
        axes.set_ylim(settled.min() - margin, settled.max() + margin)  # type: ignore[attr-defined]
