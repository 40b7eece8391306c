"""The report of `benchmark.py`: statistics, one table per size, the curves of growth, and a picture."""

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
OBJECTIVE_TOLERANCE = 1e-4  # relative; float32 sums of 784 pixels in another order differ by about 1e-6
COLORS = dict(zip(CONTENDERS, ("black", "C3", "C1", "C0", "C9", "C2", "C4"), strict=True))
AXES = {
    "batch": "batch size",
    "width": "hidden units",
    "latent": "latent dimensions",
    "images": "training images",
    "conv": "batch size, convolutional",
}


def derive(results: dict[str, Any], threshold: float | None = None) -> None:
    """Adds rates, ratios, start-up times and times to the ELBO to the results that were measured.

    A contender with another objective than the others gets the status "failed".

    Args:
        results: the results by contender, as `contenders.rounds.measure` returns them. They are changed in place.
        threshold: the test ELBO that is to be reached, in nats, or None.
    """
    objectives = {name: result["objective"] for name, result in measured(results).items() if result["objective"]}
    for name, objective in objectives.items():
        median = float(np.median(list(objectives.values())))
        if abs(objective - median) > OBJECTIVE_TOLERANCE * median:
            reason = f"another objective: {objective:.4f} nats at the initial weights, the median is {median:.4f}"
            results[name] = {**results[name], "status": "failed", "reason": reason}
    for result in measured(results).values():
        lower, median, upper = np.percentile(result["images"] / np.array(result["epoch_seconds"]), [25, 50, 75])
        result["images_per_second"] = {"median": median, "lower_quartile": lower, "upper_quartile": upper}
        seconds = float(np.median(result["epoch_seconds"]))
        result["start_up_seconds"] = result["ready_seconds"] - seconds
        epochs = epochs_to(result["elbo"], threshold)
        if epochs is not None:
            training = epochs * seconds
            total = training + result["start_up_seconds"]
            result["to_elbo"] = {"epochs": epochs, "training_seconds": training, "with_start_up_seconds": total}
    for result in measured(results).values():
        for other in (LIMIT, OURS):
            if other in measured(results):
                result[f"ratio_to_{other}"] = rate(result) / rate(results[other])


def measured(results: dict[str, Any]) -> dict[str, Any]:
    """The results of the contenders that were measured."""
    return {name: result for name, result in results.items() if result["status"] == "measured"}


def rate(result: dict[str, Any]) -> float:
    """The median of images per second."""
    return result["images_per_second"]["median"]


def epochs_to(elbo: Sequence[float | None], threshold: float | None) -> float | None:
    """The number of epochs after which the ELBO passes a threshold, with linear interpolation.

    Args:
        elbo: the ELBO after each epoch, in nats.
        threshold: the threshold in nats, or None.

    Returns:
        The number of epochs, or None if the ELBO does not pass the threshold.
    """
    if threshold is None:
        return None
    for epoch, value in enumerate(elbo, 1):
        if value is not None and value >= threshold:
            before = elbo[epoch - 2] if epoch > 1 else None
            return float(epoch) if before is None else epoch - (value - threshold) / (value - before)
    return None


def table(name: str, size: dict[str, Any]) -> Table:
    """The table of a size, with one row per contender."""
    settings, threshold = size["settings"], size["settings"]["threshold"]
    title = (
        f"{name}: {settings['network']}, batch {settings['batch']}, D = {settings['latent']}, "
        f"{settings['images']:,} images"
    )
    rows = Table(title=title, title_justify="left", caption_justify="left")
    rows.add_column("contender", no_wrap=True)
    speed = ("images/s", "quartiles", "part of the limit", "part of kvae", "start-up, s", "peak memory, MB")
    for column in (*speed, f"training to {threshold:g} nats, s", "the same with start-up, s", "epochs"):
        rows.add_column(column, justify="right")
    for contender, result in size["results"].items():
        if result["status"] != "measured":
            rows.add_row(contender, result["status"])
            continue
        speeds = result["images_per_second"]
        to_elbo = result.get("to_elbo", {})
        rows.add_row(
            contender,
            f"{speeds['median']:,.0f}",
            f"{speeds['lower_quartile']:,.0f}-{speeds['upper_quartile']:,.0f}",
            _number(result.get("ratio_to_limit"), ".2f"),
            _number(result.get("ratio_to_kvae"), ".2f"),
            _number(result["start_up_seconds"], ".1f"),
            _number(result["peak_bytes"] / 1e6, ",.0f"),
            _number(to_elbo.get("training_seconds"), ".1f"),
            _number(to_elbo.get("with_start_up_seconds"), ".1f"),
            _number(to_elbo.get("epochs"), ".1f"),
        )
    rows.caption = "\n".join(reasons(size["results"])) or None
    return rows


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def growth_line(curve: str, point: dict[str, Any]) -> str:
    """The images per second at a point of a curve, as one line."""
    rates = [f"{name} {rate(result):,.0f}" for name, result in measured(point["results"]).items()]
    return "; ".join([f"{AXES[curve]} {point['value']:,}: {', '.join(rates)} images/s", *reasons(point["results"])])


def reasons(results: dict[str, Any]) -> list[str]:
    """The reasons why contenders have no number."""
    return [f"{name} {result['status']}: {result['reason']}" for name, result in results.items() if "reason" in result]


def picture(report: dict[str, Any], path: Path) -> None:
    """Draws the images per second: for each size bars, with the limit as a line, and below them the curves of growth.

    Args:
        report: the content of benchmark.json.
        path: the path of the file.
    """
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
    results = measured(size["results"])
    limit = results.pop(LIMIT, None)
    speeds = [result["images_per_second"] for result in results.values()]
    median = np.array([speed["median"] for speed in speeds])
    lower = median - [speed["lower_quartile"] for speed in speeds]
    upper = [speed["upper_quartile"] for speed in speeds] - median
    colors = [COLORS.get(contender, "gray") for contender in results]
    ax.barh(list(results), median, xerr=[lower, upper], color=colors, ecolor="0.3", capsize=2)
    for row, value in enumerate(median):
        ax.annotate(f" {value:,.0f}", (value + upper[row], row), va="center", fontsize=8)
    largest = max([*(median + upper), rate(limit) if limit else 0.0]) or 1.0  # 1 if nothing was measured
    if limit:
        ax.axvline(rate(limit), color="black", linestyle="--")
        ax.annotate(f"limit {rate(limit):,.0f} ", (rate(limit), -0.75), ha="right", va="center", fontsize=8)
    ax.set(title=name, xlabel="images/s", xlim=(0, 1.15 * largest), ylim=(len(results) - 0.4, -1.1))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")


def _curves(ax: Axes, curve: str, points: list[dict[str, Any]]) -> None:
    for contender in COLORS:
        results = [(point["value"], measured(point["results"]).get(contender)) for point in points]
        results = [(value, result) for value, result in results if result]
        if results:
            style = "--" if contender == LIMIT else "-"
            x, y = [value for value, _ in results], [rate(result) for _, result in results]
            ax.plot(x, y, style, marker="o", markersize=3, color=COLORS[contender], label=contender)
    ticks = [point["value"] for point in points]
    ax.set(xscale="log", yscale="log", xlabel=AXES[curve], ylabel="images/s")
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30)
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
