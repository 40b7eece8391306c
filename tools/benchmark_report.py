"""What `benchmark.py` makes of its measurements: statistics, a table a size, lines of growth, a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contenders.processes import CONTENDERS, LIMIT
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

OURS = "kvae"
OBJECTIVE_TOLERANCE = 1e-4  # relative: float32 sums of 784 pixels in another order differ by 1e-6
COLORS = dict(zip(CONTENDERS, ("black", "C3", "C1", "C0", "C9", "C2", "C4"), strict=True))
AXES = {"batch": "batch size", "width": "hidden units", "images": "training images"}


def derive(results: dict[str, Any], threshold: float | None = None) -> None:
    """Adds to every measured result its rates, ratios, start-up and time to the ELBO; unequal objectives are failures.

    Args:
        results: by contender, changed in place; see `contenders.rounds.measure`.
        threshold: test ELBO to be reached, or None.
    """
    objectives = {name: found["objective"] for name, found in measured(results).items() if found["objective"]}
    for name, objective in objectives.items():
        usual = float(np.median(list(objectives.values())))
        if abs(objective - usual) > OBJECTIVE_TOLERANCE * usual:
            reason = f"another objective: {objective:.4f} nats at the initial weights, the others {usual:.4f}"
            results[name] = {**results[name], "status": "failed", "reason": reason}
    for found in measured(results).values():
        lower, median, upper = np.percentile(found["images"] / np.array(found["epoch_seconds"]), [25, 50, 75])
        found["images_per_second"] = {"median": median, "lower_quartile": lower, "upper_quartile": upper}
        seconds = float(np.median(found["epoch_seconds"]))
        found["start_up_seconds"] = found["ready_seconds"] - seconds
        epochs = epochs_to(found["elbo"], threshold)
        if epochs is not None:
            training = epochs * seconds
            total = training + found["start_up_seconds"]
            found["to_elbo"] = {"epochs": epochs, "training_seconds": training, "with_start_up_seconds": total}
    for found in measured(results).values():
        for other in (LIMIT, OURS):
            if other in measured(results):
                found[f"ratio_to_{other}"] = rate(found) / rate(results[other])


def measured(results: dict[str, Any]) -> dict[str, Any]:
    return {name: found for name, found in results.items() if found["status"] == "measured"}


def rate(found: dict[str, Any]) -> float:
    return found["images_per_second"]["median"]


def epochs_to(elbo: Sequence[float | None], threshold: float | None) -> float | None:
    """After how many epochs the ELBO, known after each, passes the threshold: linear in between; None if never."""
    if threshold is None:
        return None
    for epoch, value in enumerate(elbo, 1):
        if value is not None and value >= threshold:
            before = elbo[epoch - 2] if epoch > 1 else None
            return float(epoch) if before is None else epoch - (value - threshold) / (value - before)
    return None


def table(name: str, size: dict[str, Any]) -> Table:
    """A row a contender."""
    what, threshold = size["settings"], size["settings"]["threshold"]
    title = f"{name}: {what['network']}, batch {what['batch']}, D = {what['latent']}, {what['images']:,} images"
    shown = Table(title=title, title_justify="left", caption_justify="left")
    shown.add_column("contender", no_wrap=True)
    speed = ("images/s", "quartiles", "of limit", "of kvae", "start-up s", "peak MB")
    for column in (*speed, f"s to {threshold:g} nats", "with start-up", "epochs"):
        shown.add_column(column, justify="right")
    for contender, found in size["results"].items():
        if found["status"] != "measured":
            shown.add_row(contender, found["status"])
            continue
        spread = found["images_per_second"]
        reached = found.get("to_elbo", {})
        shown.add_row(
            contender,
            f"{spread['median']:,.0f}",
            f"{spread['lower_quartile']:,.0f}-{spread['upper_quartile']:,.0f}",
            _number(found.get("ratio_to_limit"), ".2f"),
            _number(found.get("ratio_to_kvae"), ".2f"),
            _number(found["start_up_seconds"], ".1f"),
            _number(found["peak_bytes"] / 1e6, ",.0f"),
            _number(reached.get("training_seconds"), ".1f"),
            _number(reached.get("with_start_up_seconds"), ".1f"),
            _number(reached.get("epochs"), ".1f"),
        )
    shown.caption = "\n".join(reasons(size["results"])) or None
    return shown


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def growth_line(curve: str, point: dict[str, Any]) -> str:
    """images/s at a point of a curve."""
    rates = [f"{name} {rate(found):,.0f}" for name, found in measured(point["results"]).items()]
    return "; ".join([f"{AXES[curve]} {point['value']:,}: {', '.join(rates)} images/s", *reasons(point["results"])])


def reasons(results: dict[str, Any]) -> list[str]:
    """Why some have no number."""
    return [f"{name} {found['status']}: {found['reason']}" for name, found in results.items() if "reason" in found]


def picture(report: dict[str, Any], path: Path) -> None:
    """Bars of images/s a size with the limit as a line, above curves of growth."""
    rows = [row for row in (list(report["sizes"]), list(report["growth"])) if row]
    columns = max(map(len, rows), default=1)
    figure = Figure(figsize=(4.2 * columns, 3.9 * max(1, len(rows))), layout="constrained")
    subfigures = figure.subfigures(max(1, len(rows)), 1, squeeze=False)[:, 0]
    for subfigure, row in zip(subfigures, rows, strict=False):
        axes = subfigure.subplots(1, len(row), squeeze=False)[0]
        for ax, name in zip(axes, row, strict=True):
            if row == list(report["sizes"]):
                _bars(ax, name, report["sizes"][name])
            else:
                _curves(ax, name, report["growth"][name])
        handles, labels = axes[0].get_legend_handles_labels()
        if labels and row == list(report["growth"]):
            subfigure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=120)


def _bars(ax: Axes, name: str, size: dict[str, Any]) -> None:
    shown = measured(size["results"])
    limit = shown.pop(LIMIT, None)
    spreads = [found["images_per_second"] for found in shown.values()]
    middle = np.array([spread["median"] for spread in spreads])
    lower = middle - [spread["lower_quartile"] for spread in spreads]
    upper = [spread["upper_quartile"] for spread in spreads] - middle
    colors = [COLORS.get(contender, "gray") for contender in shown]
    ax.barh(list(shown), middle, xerr=[lower, upper], color=colors, ecolor="0.3", capsize=2)
    for place, value in enumerate(middle):
        ax.annotate(f" {value:,.0f}", (value + upper[place], place), va="center", fontsize=8)
    greatest = max([*(middle + upper), rate(limit) if limit else 0.0]) or 1.0  # 1: nothing was measured
    if limit:
        ax.axvline(rate(limit), color="black", linestyle="--")
        ax.annotate(f"limit {rate(limit):,.0f} ", (rate(limit), -0.75), ha="right", va="center", fontsize=8)
    ax.set(title=name, xlabel="images/s", xlim=(0, 1.15 * greatest), ylim=(len(shown) - 0.4, -1.1))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")


def _curves(ax: Axes, curve: str, points: list[dict[str, Any]]) -> None:
    for contender in COLORS:
        found = [(point["value"], measured(point["results"]).get(contender)) for point in points]
        found = [(value, result) for value, result in found if result]
        if found:
            style = "--" if contender == LIMIT else "-"
            x, y = [value for value, _ in found], [rate(result) for _, result in found]
            ax.plot(x, y, style, marker="o", markersize=3, color=COLORS[contender], label=contender)
    ticks = [point["value"] for point in points]
    ax.set(xscale="log", yscale="log", xlabel=AXES[curve], ylabel="images/s")
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30)
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
