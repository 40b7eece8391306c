"""Learning curves: the loss and its two terms per epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError
from kvae.plotting.colours import COLOURS
from kvae.plotting.words import Figure, legend

TITLES = {
    "loss": "loss: what training minimises",
    "reconstruction": "reconstruction error: -E[log p(x|z)]",
    "kl": "KL divergence from q(z|x) to the prior",
}


def learning_curves(history: Mapping[str, ArrayLike], held_out: str = "validation") -> Figure:
    """The loss and its two terms per epoch, on the training data and, if they were measured, on held-out data.

    A vertical line marks the best epoch of the held-out data. If the axis leaves out the fall of the first epochs, a
    line below the title says so.

    Args:
        history: the columns of history.csv by name: `epoch`, and `loss`, `reconstruction` and `kl` in nats per image,
            optionally with the prefix `val_` too, and `val_elbo`.
        held_out: a name for the data that the `val_...` columns were measured on.

    Raises:
        UserError: if the history has no epoch.
    """
    epochs = np.asarray(history.get("epoch", ()))
    if epochs.size == 0:
        raise UserError("Expected a history of at least one epoch. Received none.")
    best = best_epoch(history)
    single = len(epochs) == 1  # one point makes no line
    handles: dict[str, Line2D] = {}
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 3), TITLES.items(), strict=True):
        (handles["training"],) = axes.plot(
            epochs, history[name], color=COLOURS[0], marker="o" if single else None, markersize=5
        )
        curves = [(epochs, np.asarray(history[name], float))]
        if f"val_{name}" in history:
            values = np.asarray(history[f"val_{name}"], float)
            measured = np.isfinite(values)  # NaN for epochs without an evaluation on the held-out data
            sparse = single or not measured.all()
            style = {"linestyle": "--", "marker": "o" if sparse else None, "markersize": 5 if single else 3}
            (handles[held_out],) = axes.plot(epochs[measured], values[measured], color=COLOURS[1], **style)
            curves.append((epochs, values))
        if best is not None:
            why = "highest ELBO" if "val_elbo" in history else "lowest loss"
            text = f"best epoch: {best}, with the {why} of the {held_out} images"
            handles[text] = axes.axvline(best, color=COLOURS[2], linestyle=":")
        note = cut_first_epochs(axes, curves)
        axes.set_title(f"{title}\n{note}", fontsize=10)
        axes.set(xlabel="epoch", ylabel="nats per image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    legend(figure, list(handles.values()), list(handles), most=80, loc="outside lower center", ncols=len(handles))
    return figure


def best_epoch(history: Mapping[str, ArrayLike]) -> int | None:
    """The epoch with the highest held-out ELBO, or with the lowest held-out loss if there is no ELBO, or None."""
    values = np.asarray(history["val_elbo"] if "val_elbo" in history else history.get("val_loss", ()), float)
    if not np.isfinite(values).any():
        return None
    place = np.nanargmax(values) if "val_elbo" in history else np.nanargmin(values)
    return int(np.asarray(history["epoch"])[place])


def cut_first_epochs(axes: Any, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Limits the axis to the values after the first twentieth of each curve: otherwise these would look flat.

    Args:
        axes: the axes with the curves.
        curves: the epochs and the values of each curve, `[E]`.

    Returns:
        A line that says which epochs have values outside of the axis, empty if there are none.
    """
    later = np.concatenate([values[len(values) // 20 :] for _, values in curves])
    later = later[np.isfinite(later)]
    if not later.size or np.ptp(later) == 0:
        return ""
    margin = 0.05 * np.ptp(later)
    low, high = later.min() - margin, later.max() + margin
    axes.set_ylim(low, high)
    cut = [epochs[(values < low) | (values > high)] for epochs, values in curves]
    if not any(map(len, cut)):
        return ""
    first, last = int(min(epochs[0] for epochs, _ in curves)), int(max(epochs[-1] for epochs in cut if len(epochs)))
    return f"(epoch {first} is cut off)" if first == last else f"(epochs {first} to {last} are partly cut off)"
