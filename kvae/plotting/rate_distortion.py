"""The rate-distortion curve of several models."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kvae.plotting.drawing import COLOURS, MARKERS
from kvae.plotting.words import Figure, legend, words

# No line crosses a text.
TEXT: Any = {"textcoords": "offset points", "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}}


class Run(NamedTuple):
    """What the curve shows of a model."""

    name: str
    rate: float  # the KL term, nats per image
    distortion: float  # the reconstruction error -E_q[log p(x|z)], nats per image
    rate_error: float | None = None  # the standard errors of both
    distortion_error: float | None = None
    least: Sequence[tuple[float, float]] = ()  # rates and distortions of the best encoder of this decoder, by annealing


def figure(lines: Mapping[str, Sequence[Run]], comparable: bool = True) -> Figure:
    """Rate against distortion, with lines of equal ELBO (Alemi et al. 2018, figure 1).

    The rate is how many nats the latent variables carry about an image, and the distortion is what is lost
    nevertheless. Their sum is the negative ELBO. A larger beta gives the rate a larger weight in the loss, which moves
    a model to the left.

    Args:
        lines: the models by the names of the lines that join them, in order. The name of a single line is not shown.
        comparable: whether all models were measured by one protocol. Otherwise the figure says that they were not.
    """
    made = Figure(figsize=(6.5, 5), layout="constrained")
    axes = made.add_subplot()
    drawn = []
    for number, runs in enumerate(lines.values()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        # Between the points no model was trained, so the line that joins them is faint.
        points, *_ = axes.errorbar(
            [run.rate for run in runs],
            [run.distortion for run in runs],
            xerr=[run.rate_error or 0.0 for run in runs],
            yerr=[run.distortion_error or 0.0 for run in runs],
            color=colour,
            marker=marker,
            linestyle=":",
            linewidth=1,
            elinewidth=1.2,
        )
        drawn.append(points)
        for run in runs:
            axes.plot(*np.reshape(run.least, [-1, 2]).T, color=colour, linewidth=0.9)
            axes.annotate(words(run.name), (run.rate, run.distortion), (6, 6), fontsize=8, **TEXT)
    if len(lines) > 1:
        legend(axes, drawn, list(lines))
    known = any(run.distortion_error is not None for runs in lines.values() for run in runs)
    bars = ", with bars of one standard error" if known else ""
    best = any(run.least for runs in lines.values() for run in runs)
    encoders = "\nSolid lines: the best that an encoder could do for its decoder." if best else ""
    axes.margins(0.15)
    _draw_levels(axes)
    axes.set(
        xlabel="rate: the KL term, in nats per image",
        ylabel="distortion: the reconstruction error, in nats per image",
        title=f"Each point is a trained model{bars}.\nAlong the dashed lines, the ELBO is the same.{encoders}"
        if comparable
        else "The models were measured by different protocols:\ndo not compare them.",
    )
    axes.spines[["top", "right"]].set_visible(False)
    return made


def _draw_levels(axes: Any) -> None:
    """Dashed lines of equal ELBO at round numbers, without a change of the limits."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    lowest, highest = left + bottom, right + top  # of the negative ELBO
    step = _round_step((highest - lowest) / 5)
    for level in np.arange(np.ceil(lowest / step) * step, highest, step):
        axes.plot([left, right], [level - left, level - right], "--", color="0.8", linewidth=0.8, zorder=0)
        # At the upper end of the line within the axes.
        x, y = (left, level - left) if level - left <= top else (level - top, top)
        axes.annotate(f"ELBO {-level:g}", (x, y), (3, -3), va="top", fontsize=7, color="0.4", **TEXT)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... and of their fractions that is not below a distance."""
    power = 10.0 ** np.floor(np.log10(max(least, 1e-9)))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least))
