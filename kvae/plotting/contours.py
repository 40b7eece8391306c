"""Contours of the true posterior and of q in the latent plane."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from kvae.plotting import canvas
from kvae.plotting.colours import COLOURS, WARNING
from kvae.plotting.words import Figure, words

CONTOURS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)  # the levels, relative to the maximum
FAR = 3.0  # standard deviations of q from which on a part of the posterior is missed by it

Window = tuple[np.ndarray, np.ndarray, np.ndarray]  # z_1 [n], z_2 [m], unnormalised log posterior [m, n] in nats


class Ellipse(NamedTuple):
    """The mean and covariance of a q in the latent plane."""

    mean: np.ndarray  # [2]
    covariance: np.ndarray  # [2, 2]

    @property
    def sigma(self) -> np.ndarray:
        """The standard deviations of z_1 and z_2, `[2]`."""
        return np.sqrt(np.diag(self.covariance))

    def squared_distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The squared Mahalanobis distance of points from the mean: that in standard deviations of q, squared."""
        offset = np.stack([first - self.mean[0], second - self.mean[1]], axis=-1)
        return np.einsum("...i,ij,...j->...", offset, np.linalg.inv(self.covariance), offset)


class ContourPanel(NamedTuple):
    """A window of the latent plane, with the posterior and one q."""

    title: str
    window: Window
    q: Ellipse


def posterior_contours(picture: ArrayLike, panels: Sequence[ContourPanel], caption: str = "", note: str = "") -> Figure:
    """Contours of the true, unnormalised posterior and of q, at 0.99, 0.9, 0.8, ..., 0.2 times the maximum of each.

    Args:
        picture: the image to which the posterior belongs, `[H, W, C]`; it is shown at the left.
        panels: the windows of the latent plane, from left to right.
        caption: a sentence above the panels, for what a reader must not miss.
        note: a sentence below the panels.
    """
    figure = Figure(figsize=(3.6 * len(panels) + 2.6, 5.2), layout="constrained")
    parts = figure.subplots(1, len(panels) + 1, width_ratios=[0.6, *[1] * len(panels)])
    canvas.show(parts[0], np.asarray(picture))
    parts[0].set(title="observed pixels", xticks=[], yticks=[])
    for axes, panel in zip(parts[1:], panels, strict=True):
        first, second = np.meshgrid(*panel.window[:2])
        relative = np.exp(panel.window[2] - panel.window[2].max())
        axes.contourf(first, second, relative, (*CONTOURS, 1.01), cmap="Blues", vmin=0, vmax=1.3)
        axes.contour(first, second, relative, CONTOURS, colors=COLOURS[0], linewidths=0.4)
        q = np.exp(-0.5 * panel.q.squared_distance(first, second))
        axes.contour(first, second, q, CONTOURS, colors=COLOURS[1], linewidths=0.8)
        axes.set(title=words(panel.title), xlabel="z₁", ylabel="z₂")
        axes.set_aspect("equal")
    if caption:
        figure.suptitle(caption, color=WARNING, fontsize=10)
    notes = [note] * bool(note) + ["The panels differ in scale: each is as large as what it shows."] * _differ(panels)
    figure.legend(
        [Line2D([], [], color=COLOURS[0]), Line2D([], [], color=COLOURS[1])],
        ["true posterior p(z | observed)", "its approximation q(z)"],
        title="\n".join(["contours at 20%, 30%, …, 90% and 99% of the maximum of each density", *notes]),
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    return figure


def _differ(panels: Sequence[ContourPanel]) -> bool:
    """Whether the windows of some panels differ in size, so that a reader may take equal lengths for equal."""
    widths = [np.ptp(panel.window[0]) for panel in panels]
    return bool(max(widths) > 1.05 * min(widths))


def missed_modes(window: Window, q: Ellipse) -> tuple[np.ndarray, float]:
    """The modes of the posterior that its approximation misses.

    Args:
        window: a window that contains nearly all of the posterior.
        q: the approximation, which has one mode.

    Returns:
        The modes, `[M, 2]`: the local maxima that the contours show and that are more than 3 standard deviations of q
        away from its mean. And the share of the posterior's probability that is this far away, in [0, 1].
    """
    first, second = np.meshgrid(*window[:2])
    relative = np.exp(window[2] - window[2].max())
    far = q.squared_distance(first, second) > FAR**2
    padded = np.pad(relative, 1)
    height, width = relative.shape
    around = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    modes = far & (relative >= np.max(around, axis=0)) & (relative > CONTOURS[0])
    return np.stack([first[modes], second[modes]], axis=-1), float(relative[far].sum() / relative.sum())
