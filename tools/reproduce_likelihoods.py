"""The page of `reproduce.py --page results`: published bounds of log p(x) on MNIST, and ours per training time."""

import platform
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import processor
import tensorflow as tf
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from kvae import training
from kvae.internal import files
from kvae.plotting import canvas
from kvae.plotting.colours import COLOURS, MARKERS
from kvae.training import results
from kvae.training.config import RunConfig, load_values, override
from kvae.training.runs import read_evaluation

PAGE, CURVE, RECORDS = "RESULTS.md", "results/curve.png", "results/runs.json"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Method:
    """A model with its published results, in nats per image; None where there is none."""

    name: str
    recipe: str | None  # None for published numbers that stand here for comparison only
    paper: float | None  # Burda et al., table 1
    tensorflow: float | None  # nbip/IWAE, README.md


METHODS = (
    Method("VAE", "iwae_vae", 86.76, 86.35),
    Method("VAE, 50 draws", None, 86.35, 86.06),
    Method("IWAE, 5 draws", "iwae_5", 85.54, 85.18),
    Method("IWAE, 50 draws", "iwae_50", 84.78, 84.59),
    Method("DReG, 5 draws", None, None, 84.90),
    Method("DReG, 50 draws", "dreg_50", None, 84.32),
)
RECIPES = [method.recipe for method in METHODS if method.recipe is not None]


class Budget(NamedTuple):
    """About how long a training takes on two cores that do nothing else; each has a full schedule of its own."""

    minutes: int
    epochs: int  # times those of the recipe, whose training takes about 10 minutes
    seeds: tuple[int, ...]


BUDGETS = (Budget(10, 1, (0, 1, 2)), Budget(60, 6, (0,)), Budget(120, 12, (0,)))
QUICK = {
    "data.source": "mnist5k",
    "data.train": "train[:500]",
    "data.test": "test[:50]",
    "data.batch_size": 250,
    "training.warmup_epochs": 0,
}


@dataclass(frozen=True)
class Plan:
    """A run that belongs on the page.

    Attributes:
        recipe: its recipe.
        budget: its training time, which decides the number of epochs.
        seed: its seed.
        quick: whether to train for a moment on the embedded digits.
    """

    recipe: str
    budget: Budget
    seed: int
    quick: bool

    @property
    def name(self) -> str:
        """The name of its folder and of its record."""
        return f"{self.recipe}_{self.budget.minutes}min_seed{self.seed}"

    @property
    def draws(self) -> int:
        """The number of draws of the bound."""
        return 50 if self.quick else 5000

    @property
    def config(self) -> RunConfig:
        values = load_values(self.recipe)
        epochs = (1 if self.quick else values["training"]["epochs"]) * self.budget.epochs
        settings = {"seed": self.seed, "training.epochs": epochs, **(QUICK if self.quick else {})}
        return RunConfig.from_dict(override(values, settings))

    def conduct(self, folder: Path) -> dict[str, Any]:
        """Trains and measures what has not been trained and measured.

        Args:
            folder: the folder of all runs.

        Returns:
            The record of the run: its settings, numbers, times and the machine.
        """
        if (folder / self.name).exists():
            run = training.resume(folder / self.name, self.config, verbose=0)
        else:
            run = training.train(self.config, folder / self.name, verbose=0)
        evaluation = folder / self.name / "evaluation.json"
        if read_evaluation(evaluation)["protocol"].get("importance_samples") != self.draws:
            results.evaluate(run, only=["elbo", "log_likelihood"], samples=self.draws)
        return {
            "config": self.config.to_dict(),
            "evaluation": read_evaluation(evaluation),
            "processor_seconds": run.processor_seconds(),
            "seconds": run.training_seconds(),
            "machine": machine(),
        }

    def describes(self, record: dict[str, Any]) -> bool:
        """Whether a record is of a run with the settings that the recipe has now."""
        settings = [{**config, "description": None} for config in (self.config.to_dict(), record["config"])]
        return settings[0] == settings[1]


def plans(quick: bool, recipes: Sequence[str] = (), minutes: Sequence[int] = ()) -> Iterator[Plan]:
    """The runs, the shortest first.

    Args:
        quick: whether they are quick ones, with two seeds at most.
        recipes: only runs of these recipes. By default all.
        minutes: only runs of these budgets. By default all.
    """
    for budget in BUDGETS:
        for seed in budget.seeds[: 2 if quick else None]:
            for recipe in RECIPES:
                if (not recipes or recipe in recipes) and (not minutes or budget.minutes in minutes):
                    yield Plan(recipe, budget, seed, quick)


def write(
    runs: Path, out: Path, quick: bool, recipes: Sequence[str], minutes: Sequence[int], train: bool = True
) -> Path:
    """Trains the runs that have no record beside the page, each after the shorter ones; the page is written after each.

    A record is made when a run is trained and measured. So the runs can be made in any order, on several machines, and
    their folders are not needed for the page.

    Args:
        runs: the folder of the runs.
        out: the folder of the page.
        quick: whether to train for a moment on the embedded digits.
        recipes: only these recipes are trained. All by default, also for an empty sequence.
        minutes: only these budgets are trained, likewise.
        train: whether to train. If not, the page shows the records that exist.

    Returns:
        The path of the page.
    """
    recorded = read_records(out / RECORDS, quick)
    for plan in plans(quick, recipes, minutes) if train else ():
        if plan not in recorded:
            click.echo(f"{plan.name}, epochs: {plan.config.training.epochs}")
            record = plan.conduct(runs)
            recorded = {**read_records(out / RECORDS, quick), plan: record}  # others may have written in the meantime
            files.write_json(out / RECORDS, {each.name: recorded[each] for each in plans(quick) if each in recorded})
            _write_page(recorded, out, quick)
    return _write_page(recorded, out, quick)


def read_records(path: Path, quick: bool) -> dict[Plan, dict[str, Any]]:
    """The records of the runs of the page. Those of recipes that have changed since are left out, with a message."""
    records = files.read_json(path) if path.exists() else {}
    recorded = {plan: records[plan.name] for plan in plans(quick) if plan.name in records}
    for plan in [plan for plan, record in recorded.items() if not plan.describes(record)]:
        click.echo(f"{plan.name}: not on the page and no longer recorded: the recipe was changed after its run.")
        del recorded[plan]
    return recorded


def _write_page(recorded: dict[Plan, dict[str, Any]], out: Path, quick: bool) -> Path:
    measured = [(plan, result_of(recorded[plan])) for plan in plans(quick) if plan in recorded]
    if timed(measured):
        _draw_curve(timed(measured), out / CURVE)
    files.write_text(out / PAGE, page(measured, quick))
    return out / PAGE


def result_of(record: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a record."""
    times = {"processor": record["processor_seconds"], "clock": record["seconds"]}
    return {
        **record["evaluation"],
        **times,
        "epochs": record["config"]["training"]["epochs"],
        "machine": record["machine"],
    }


Measured = Sequence[tuple[Plan, dict[str, Any]]]


def nll(result: dict[str, Any]) -> float:
    """The bound of -log p(x), in nats per image."""
    return -result["log_likelihood"]


def timed(measured: Measured) -> Measured:
    """The runs whose processor seconds are known."""
    return [(plan, result) for plan, result in measured if result["processor"] is not None]


def of(measured: Measured, recipe: str | None, budget: Budget) -> list[dict[str, Any]]:
    """The results of one recipe and one budget, one for each seed."""
    return [result for plan, result in measured if (plan.recipe, plan.budget) == (recipe, budget)]


def machine() -> str:
    """The machine, in words."""
    details = processor.describe()
    cores = " with ".join(filter(None, [f"{details['cores']} cores of {details['cpu']}", details["vectors"]]))
    gpus = len(tf.config.list_physical_devices("GPU"))
    return f"{cores}, {platform.system()}, TensorFlow {tf.__version__}, {f'{gpus} GPUs' if gpus else 'no GPU'}"


def page(measured: Measured, quick: bool) -> str:
    """The page, in Markdown."""
    lines = [
        "# Published likelihoods",
        "",
        "Written by `python tools/reproduce.py --page results`, which trains the recipes. What was measured is kept in "
        f"[{RECORDS}]({RECORDS}), and these runs are not trained again.",
        "",
    ]
    if quick:
        lines += ["**A quick run** on 500 embedded digits, which only shows that everything works.", ""]
    lines += [
        "All numbers are upper bounds of -log p(x) in nats per image; lower is better. The model is that of Burda, "
        "Grosse and Salakhutdinov, *Importance Weighted Autoencoders* (2016), with one stochastic layer: "
        "784-200-200-50, tanh. Pixels are drawn anew in every epoch, with the grey value as the probability of 1.",
        "",
        *_main_table(measured),
        "",
        *([] if quick else [*_reached(measured), ""]),
        "- paper: table 1 of Burda et al. (2016); TensorFlow 2: the [README of "
        "nbip/IWAE](https://github.com/nbip/IWAE), also for DReG (Tucker et al. 2019). Both train for 3,280 epochs "
        "with batches of 20, and measure the bound with 5,000 draws on the 10,000 test images.",
        "- Ours: the recipes of kvae, and the mean over the seeds with their range. Each time is a training of its own "
        f"with a full schedule. A recipe has the epochs of about 10 minutes on two cores{_half(measured)}; 60 and 120 "
        "minutes are 6 and 12 times as many. The last table has what each run took: many ran on one core or beside "
        "other work, and so longer by the clock.",
        "- How the schedules were chosen, and what else was tried: "
        "[PERFORMANCE.md](PERFORMANCE.md#the-schedule-of-the-published-likelihoods).",
        "- Published bounds for the file of MNIST that Larochelle binarized once are not compared: it was not at hand, "
        "and numbers of another binarization do not belong in a column with these.",
        *_protocol(measured),
        "",
    ]
    if timed(measured):
        lines += [
            "## Against processor time",
            "",
            f'<img src="{CURVE}" width="640" alt="Bound of -log p(x) against processor minutes of the training">',
            "",
            "One point per run, and a line through the means of the runs of each machine. Dotted lines: the paper, or "
            "the implementation in TensorFlow 2 where the paper has no number.",
            "",
        ]
    lines += _runs_table(measured)
    return "\n".join(lines).rstrip() + "\n"


def _main_table(measured: Measured) -> list[str]:
    titles = [f"{budget.minutes} minutes" for budget in BUDGETS]
    lines = [
        "| model | recipe | paper | TensorFlow 2 | " + " | ".join(titles) + " |",
        "|---|---|" + "---:|" * (2 + len(BUDGETS)),
    ]
    for method in METHODS:
        published = [f"{value:.2f}" if value is not None else "" for value in (method.paper, method.tensorflow)]
        ours = [_cell(of(measured, method.recipe, budget)) if method.recipe else "" for budget in BUDGETS]
        recipe = f"`{method.recipe}`" if method.recipe else ""
        lines.append("| " + " | ".join([method.name, recipe, *published, *ours]) + " |")
    return lines


def _cell(found: Sequence[dict[str, Any]]) -> str:
    """The mean of the seeds with their range, or that nothing was run."""
    values = [nll(result) for result in found]
    if not values:
        return NOT_RUN
    text = f"{np.mean(values):.2f}"
    return text if len(values) == 1 else f"{text} ({min(values):.2f} to {max(values):.2f}, {len(values)} seeds)"


def _half(measured: Measured) -> str:
    """How long the shortest runs take on two cores, by their processor time."""
    times = [result["processor"] / 120 for plan, result in timed(measured) if plan.budget == BUDGETS[0]]
    if not times:
        return ""
    return f" ({min(times):.0f} to {max(times):.0f}, half of the processor minutes of the last table)"


def _reached(measured: Measured) -> list[str]:
    """For each recipe, the epochs with which the mean over the seeds is as good as a published number."""
    lines = []
    for method in METHODS:
        found = {budget.minutes: of(measured, method.recipe, budget) for budget in BUDGETS if method.recipe}
        means = {minutes: np.mean([nll(each) for each in runs]) for minutes, runs in found.items() if runs}
        for source, published in (("the paper", method.paper), ("TensorFlow 2", method.tensorflow)):
            if means and published is not None:
                first = next((minutes for minutes, mean in means.items() if mean <= published), None)
                best = min(means, key=means.__getitem__)
                error = found[best][0]["log_likelihood_standard_error"]
                away = f"not reached: {means[best] - published:.2f} ± {error:.2f} nats are missing"
                reached = away if first is None else f"reached with the epochs of {first} minutes"
                lines.append(f"- {method.name}: the {published:.2f} of {source} is {reached}.")
    return lines


def _protocol(measured: Measured) -> list[str]:
    """What is common to our numbers: data, draws, machines."""
    if not measured:
        return []
    protocol = measured[0][1]["protocol"]
    return [
        f"- Data: {protocol['dataset']}; {protocol['train']}; {protocol['test']}, binarized: "
        f"{protocol['evaluation_binarization']}; bound with {protocol['importance_samples']:,} draws.",
        *(f"- Machine {letter}: {name}." for name, letter in _letters(measured).items()),
        "- Processor minutes are summed over the cores. They depend on the machine, but little on what else it does; "
        "minutes by the clock do. A run whose minutes by the clock are those of the processor had one core.",
    ]


def _letters(measured: Measured) -> dict[str, str]:
    """The letter of each machine."""
    return dict(zip(dict.fromkeys(result["machine"] for _, result in measured), string.ascii_uppercase, strict=False))


def _runs_table(measured: Measured) -> list[str]:
    if not measured:
        return []
    lines = [
        "## Every run",
        "",
        "± is everywhere the standard error over the test images.",
        "",
        "| recipe | minutes | seed | epochs | bound | negative ELBO | KL | active units | processor minutes "
        "| by the clock | machine |",
        "|---|" + "---:|" * 9 + "---|",
    ]
    letters = _letters(measured)
    for plan, result in sorted(measured, key=lambda each: RECIPES.index(each[0].recipe)):
        cells = [
            f"`{plan.recipe}`",
            plan.budget.minutes,
            plan.seed,
            f"{result['epochs']:,}",
            f"{nll(result):.2f} ± {result['log_likelihood_standard_error']:.2f}",
            f"{-result['elbo']:.2f}",
            f"{result['kl']:.2f}",
            f"{result['active_units']} of {result['latent_dim']}",
            *("" if result[kind] is None else f"{result[kind] / 60:.1f}" for kind in ("processor", "clock")),
            letters[result["machine"]],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _places(results: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """The processor minutes and the bound of each result."""
    return [(result["processor"] / 60, nll(result)) for result in results]


def _draw_curve(measured: Measured, path: Path) -> None:
    """Draws the bound against the processor minutes of the training, with a line per recipe and machine."""
    figure = canvas.Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for colour, marker, method in zip(COLOURS, MARKERS, [each for each in METHODS if each.recipe], strict=False):
        singles = [result for budget in BUDGETS for result in of(measured, method.recipe, budget)]
        if not singles:
            continue
        for name in _letters(measured):
            groups = [[each for each in of(measured, method.recipe, b) if each["machine"] == name] for b in BUDGETS]
            means = [np.mean(_places(group), axis=0) for group in groups if group]
            axes.plot(*np.transpose(means), color=colour, lw=1)
        axes.plot(
            *np.transpose(_places(singles)),
            ls="",
            marker=marker,
            ms=4,
            color=colour,
            label=f"{method.name} ({method.recipe})",
        )
        published = method.paper if method.paper is not None else method.tensorflow
        axes.axhline(published, color=colour, ls=":", lw=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("processor minutes of the training")
    axes.set_ylabel("bound of -log p(x), nats per image")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(figure, path)
