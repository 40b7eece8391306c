"""Arrays in, matplotlib figures out. Nothing here sees a model.

Figures are made without pyplot, so nothing global changes and no window is needed.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kvae.errors import UserError
from kvae.files import atomic_file
from kvae.pictures import as_images, tile

DPI = 200
# Paul Tol's "muted" scheme: ten colours that stay apart for colour-blind readers, here in an order that sets
# neighbouring digits well apart; the markers tell them apart in grey print too.
COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#777777",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure at 200 dpi in the format that the suffix names (PNG, SVG, PDF).

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    supported = figure.canvas.get_supported_filetypes()
    if suffix not in supported:
        raise UserError(f"Expected a picture's suffix: {', '.join(sorted(supported))}. Received {str(path)!r}.")
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=DPI, bbox_inches="tight", facecolor="white")


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
    sheets = [("means of p(x|z), z ~ N(0, I)", means)]
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
    pictures = [(title, tile(x, columns, gap=2)) for title, x in sheets]
    height, width = pictures[0][1].shape[:2]
    inches = 7.0
    figure = Figure(figsize=(inches, len(sheets) * (inches * height / width + 0.35)), layout="constrained")
    for axes, (title, picture) in zip(np.atleast_1d(figure.subplots(len(sheets))), pictures, strict=True):
        _show(axes, picture)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
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
    axes.legend(markerscale=2, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
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


def lattice_points(n: int, extent: float | None = 2.0) -> np.ndarray:
    """A lattice of the latent plane, row by row from the top, as a picture of it is read.

    Args:
        n: points a side, at least 1.
        extent: the square is [-extent, extent]^2; None spaces the points by equal prior probability, at the
            quantiles (i + 1/2) / n of the standard normal.

    Returns:
        z `[n * n, 2]` float32.

    Raises:
        UserError: n below 1 or an extent that is not positive.
    """
    if n < 1 or (extent is not None and not extent > 0):
        raise UserError(f"Expected n of at least 1 and a positive extent. Received n={n}, extent={extent}.")
    if extent is None:
        from statistics import NormalDist

        side = np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])
    else:
        side = np.linspace(-extent, extent, n)
    first, second = np.meshgrid(side, side[::-1])
    return np.stack([first.ravel(), second.ravel()], axis=1).astype(np.float32)


def lattice(means: ArrayLike) -> np.ndarray:
    """Decoded means of `lattice_points` as one seamless picture.

    Args:
        means: `[n * n, H, W, C]`.

    Returns:
        `[n * H, n * W, C]`, for `kvae.pictures.save_picture`.

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
            axes.plot(epochs, history[f"val_{name}"], color=COLOURS[1], linestyle="--", label=held_out)
            shown.append(np.asarray(history[f"val_{name}"]))
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
