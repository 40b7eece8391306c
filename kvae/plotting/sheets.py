"""Sheets of images with titles: samples, reconstructions, interpolations and completions."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError
from kvae.internal.pictures import as_images, tile
from kvae.plotting import canvas, colours
from kvae.plotting.words import Figure, words

TITLE = 9  # points: the titles of sheets and the names of rows
HEADING = 7  # points: the titles of columns, which are as narrow as one image, and notes
NOTE = 11  # letters of a note that are about as wide as one image
NARROWEST = 5  # a note is at least as wide as this many images
Title = str | tuple[str, ...]  # a title of one line, or of several


def samples(means: ArrayLike, draws: ArrayLike | None = None, columns: int = 10) -> Figure:
    """Samples from the prior: their means, and below them draws of p(x|z) at the same z.

    Args:
        means: means of p(x|z), `[N, H, W, C]` in [0, 1].
        draws: draws of p(x|z), `[N, H, W, C]` in [0, 1], or None to show only the means.
        columns: the number of images per row.
    """
    parts = {"new images: the mean of every pixel, for z drawn from the prior p(z)": means}
    if draws is not None:
        parts["the same z: every pixel drawn from p(x|z)"] = draws
    return sheets(parts, columns)


def reconstructions(x: ArrayLike, means: ArrayLike, columns: int = 10, originals: ArrayLike | None = None) -> Figure:
    """Images, above their reconstructions.

    Args:
        x: images as the model sees them, `[N, H, W, C]` in [0, 1].
        means: their reconstructions, `[N, H, W, C]` in [0, 1].
        columns: the number of images per row.
        originals: the images before they were binarized, `[N, H, W, C]` in [0, 1], shown first.

    Raises:
        UserError: if the arrays differ in shape.
    """
    if np.shape(x) != np.shape(means):
        raise UserError(f"Expected as many reconstructions as inputs. Received {np.shape(means)} and {np.shape(x)}.")
    parts = {"test images: the model's input x": x}
    if originals is not None:
        if np.shape(originals) != np.shape(x):
            raise UserError(f"Expected as many originals as inputs. Received {np.shape(originals)} and {np.shape(x)}.")
        parts = {"test images": originals, "the same images, binarized: the model's input x": x}
    return sheets({**parts, "reconstructions: the mean of every pixel, for z drawn from q(z|x)": means}, columns)


def sheets(parts: Mapping[str, ArrayLike], columns: int) -> Figure:
    """Several sheets of images, one above the other, each below its title.

    Args:
        parts: the images of each sheet, `[N, H, W, C]` in [0, 1], by its title.
        columns: the number of images per row.
    """
    arrays = [as_images(x) for x in parts.values()]
    pictures = [tile(x, columns, gap=2) for x in arrays]
    height, width, channels = pictures[0].shape
    scale = canvas.magnification(arrays[0].shape[2])
    title_height = math.ceil(0.3 * canvas.DPI / scale)  # in pixels of the images
    sheet = np.ones((len(pictures) * (height + title_height), width, channels), np.float32)
    for number, picture in enumerate(pictures):
        top = number * (height + title_height) + title_height
        sheet[top : top + height, : picture.shape[1]] = picture
    figure, axes = canvas.figure_of(sheet, scale)
    for number, name in enumerate(parts):
        bottom = number * (height + title_height) + title_height - 2
        axes.text(0, bottom, name, ha="left", va="bottom", fontsize=TITLE)
    return figure


def rows(*columns: ArrayLike, gap: int = 2) -> np.ndarray:
    """One picture with one row per image, for instance its mean and three draws.

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


def titled_columns(
    columns: Mapping[str, ArrayLike] | Mapping[Title, ArrayLike],
    row_titles: Sequence[Title] = (),
    row_heading: str = "",
    note: str = "",
) -> Figure:
    """One row per image as in `rows`, with titles of the columns and, optionally, of the rows.

    Args:
        columns: the images of each column, `[N, H, W, C]`, by the title of the column.
        row_titles: N titles of the rows, or none.
        row_heading: a heading above the titles of the rows.
        note: sentences below the images, if there is something to explain.

    Raises:
        UserError: if there is no column, or if the columns differ in shape.
    """
    picture = rows(*columns.values())
    count, height, width = as_images(next(iter(columns.values()))).shape[:3]
    figure, axes = canvas.figure_of(picture, canvas.magnification(width))
    for number, title in enumerate(columns):
        centre = number * (width + 2) + (width - 1) / 2
        axes.text(centre, -2, _lines(title), ha="center", va="bottom", fontsize=HEADING)
    axes.text(-2, -2, row_heading, ha="right", va="bottom", fontsize=HEADING)
    for number in range(min(count, len(row_titles))):
        middle = number * (height + 2) + (height - 1) / 2
        axes.text(-2, middle, _lines(row_titles[number]), ha="right", va="center", fontsize=HEADING)
    if note:
        text = textwrap.fill(note, NOTE * max(len(columns), NARROWEST))
        axes.text(0, picture.shape[0] + 3, text, ha="left", va="top", fontsize=HEADING)
    return figure


def _lines(title: Title) -> str:
    return "\n".join(map(words, title)) if isinstance(title, tuple) else words(title)


def interpolation(
    means: ArrayLike, ends: Sequence[tuple[str, str]] = (), originals: tuple[ArrayLike, ArrayLike] | None = None
) -> Figure:
    """Decoded means along paths between two latent points, one row per path.

    Args:
        means: the means of P paths with S points each, `[P, S, H, W, C]`.
        ends: the names of both ends of each path.
        originals: the images at the first and at the last end of each path, `[P, H, W, C]` each. They are shown beside
            the path, where a dotted line parts them from it.
    """
    path = list(np.asarray(means).swapaxes(0, 1))
    height, width = path[0].shape[1:3]
    columns = path if originals is None else [np.asarray(originals[0]), *path, np.asarray(originals[1])]
    picture = rows(*columns)
    figure, axes = canvas.figure_of(picture, canvas.magnification(width))
    for number, (first, last) in enumerate(ends):
        middle = number * (height + 2) + (height - 1) / 2
        axes.text(-4, middle, words(first), ha="right", va="center", fontsize=TITLE)
        axes.text(picture.shape[1] + 3, middle, words(last), ha="left", va="center", fontsize=TITLE)
    if originals is not None:
        last_column = len(columns) - 1
        titles = {
            0: "test image",
            last_column / 2: "images decoded on the path between their z",
            last_column: "test image",
        }
        for column, title in titles.items():
            centre = column * (width + 2) + (width - 1) / 2
            axes.text(centre, -2, title, ha="center", va="bottom", fontsize=HEADING)
        for column in (1, last_column):
            axes.axvline(column * (width + 2) - 1.5, color=colours.MISSING, linewidth=1.2, linestyle=":")
    return figure


def completion(
    x: ArrayLike,
    observed: ArrayLike,
    means: ArrayLike,
    draw_means: ArrayLike,
    draws: ArrayLike,
    scores: Sequence[Title] = (),
    originals: ArrayLike | None = None,
    note: str = "",
) -> Figure:
    """One row per image: the image, its observed pixels, E[x | observed], and n completions as mean and as draw.

    Args:
        x: the images, `[B, H, W, C]` in [0, 1]; NaN for a pixel that is not known.
        observed: a mask that broadcasts to x. Missing pixels are shown in blue.
        means: E[x | observed], `[B, H, W, C]`.
        draw_means: E[x|z] at n draws of z, `[n, B, H, W, C]`.
        draws: draws of p(x|z) at the same z, `[n, B, H, W, C]`.
        scores: log p(missing | observed) of each image as text, in nats per image, or a warning; or none.
        originals: the images before they were binarized, `[B, H, W, C]` in [0, 1], shown first.
        note: sentences below the images, if there is something to explain.
    """
    known = _as_rgb(np.nan_to_num(np.asarray(x, np.float32), nan=0.5))
    columns: dict[Title, np.ndarray] = {"image": known}
    if originals is not None:
        columns = {"image": _as_rgb(np.asarray(originals)), "binarized": known}
    columns["observed"] = mark_missing(x, observed)
    columns["all draws", "mean of x"] = _as_rgb(np.asarray(means))
    for number, (mean, draw) in enumerate(zip(np.asarray(draw_means), np.asarray(draws), strict=True), start=1):
        columns[f"draw {number} of z", "mean of x"] = _as_rgb(mean)
        columns[f"draw {number} of z", "draw of x"] = _as_rgb(draw)
    return titled_columns(columns, scores, "log p(missing | observed),\nnats per image" if any(scores) else "", note)


def mark_missing(x: ArrayLike, observed: ArrayLike) -> np.ndarray:
    """Images `[..., H, W, C]` as colour images in which the missing pixels are blue."""
    known = _as_rgb(np.nan_to_num(np.asarray(x, np.float32), nan=0.5))
    seen = _as_rgb(np.broadcast_to(np.asarray(observed, bool), np.shape(x)))
    return np.where(seen, known, np.array(to_rgb(colours.MISSING)))


def _as_rgb(x: np.ndarray) -> np.ndarray:
    """Grey images `[..., 1]` as colour images `[..., 3]`; colour images as they are."""
    return np.broadcast_to(x, (*x.shape[:-1], 3)) if x.shape[-1] == 1 else x
