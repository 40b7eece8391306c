"""Measures the seconds until a VAE of MNIST has a test ELBO or a likelihood: `kvae train`, and others as published.

    python tools/benchmark.py --install      makes the others' virtual environments under .benchmark
    python tools/time_to_number.py           both goals, an hour and a half on 2 cores
    python tools/time_to_number.py --goals elbo

Goals: `elbo`, the ELBO of 784-500-2-500-784 on images binarized at 0.5; `likelihood`, the bound of log p(x) with 500
draws of 784-200-200-50-200-200-784 on images that are drawn anew in every epoch. All train the same network and start
from a new process, with nothing compiled. What is counted is everything until the model is there: imports, compilation
and training. `kvae train` is told the number of epochs, which its schedule needs, and its final evaluation of the ELBO
counts. The others are measured after an epoch, which does not count; they end at the last ELBO, or after the epochs
that they publish. The bound is computed only for the epochs that a bisection needs, so it is taken to grow with the
epochs. It prints a table for each goal, and writes time_to_elbo.json and time_to_likelihood.json.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bisect
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import processor
from benchmark import ROOT, Size, installed, load_images, names_option, prepare
from contenders.processes import CONTENDERS, ContenderError, Worker
from contenders.protocol import Settings
from rich.console import Console
from rich.table import Table

from kvae.internal import files

DRAWS = 500  # of the bound of log p(x)


@dataclass(frozen=True)
class Goal:
    """A model, numbers that its test images are to reach, and how `kvae train` reaches them.

    Attributes:
        measure: what is to reach the numbers, by its name in the results of kvae: `elbo` or `log_likelihood`.
        size: the network.
        binarize: how the pixels become 0 and 1, as in `contenders.protocol.Settings`.
        recipe: the recipe of kvae.
        epochs: the epochs of kvae for each number in nats per image, which were chosen on the last 10,000 training
            images.
        settings: settings of the recipe that are changed.
    """

    measure: str
    size: Size
    binarize: str
    recipe: str
    epochs: dict[float, int]
    settings: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers to reach, in nats per image, the smallest first."""
        return tuple(self.epochs)

    @property
    def kept(self) -> str:
        """How the pixels of its images are kept: grey, if a training draws them anew."""
        return "none" if self.binarize == "stochastic" else self.binarize


GOALS = {
    "elbo": Goal(
        "elbo",
        Size(),
        "threshold",
        "mnist_2d",
        {-155.0: 3, -150.0: 5, -147.0: 10},
        ("training.learning_rate=0.01",),
    ),
    "likelihood": Goal(
        "log_likelihood",
        Size(latent=50, width=200, layers=2),
        "stochastic",
        "iwae_vae",
        {-90.0: 50, -88.0: 120, -87.0: 260},
    ),
}


@dataclass(frozen=True)
class Published:
    """The settings that a library or an example publishes.

    Attributes:
        contender: the name of its contender in the benchmark.
        epochs: the number of epochs that it trains.
        source: where the settings are published.
        batch, learning_rate, decay: as in `contenders.protocol.Settings`.
    """

    contender: str
    batch: int
    learning_rate: float
    epochs: int
    source: str
    decay: float = 1.0


PUBLISHED = {
    "keras.io": Published("keras_io", 128, 1e-3, 30, "https://keras.io/examples/generative/vae"),
    "pythae": Published("pythae", 100, 1e-4, 100, "Chadebec et al. (2022), https://arxiv.org/abs/2206.08309"),
    "PyTorch-VAE": Published(
        "pytorch_eager", 64, 5e-3, 100, "https://github.com/AntixK/PyTorch-VAE/blob/master/configs/vae.yaml", 0.95
    ),
}


def seconds_to(number: float, seconds: Sequence[float], values: Mapping[int, float]) -> float | None:
    """The seconds at the end of the first epoch whose value is at least a number; None if there is none.

    Args:
        number: the value to reach, in nats.
        seconds: the seconds from the start of the process to the end of each epoch.
        values: the values after epochs 1, 2, ..., as far as they were measured.
    """
    return next((seconds[epoch - 1] for epoch in sorted(values) if values[epoch] >= number), None)


def train_kvae(goal: Goal, number: float, settings: Settings, folder: Path) -> dict[str, Any]:
    """Runs `kvae train` with the epochs for a number. Returns its seconds, and the value of the test images."""
    run, epochs = folder / "run", goal.epochs[number]
    command = ["train", "--recipe", goal.recipe, "--dataset", f"npz:{settings.data}", "--binarize", goal.binarize]
    command += ["--epochs", str(epochs), "--seed", str(settings.seed), "--out", str(run), "--overwrite", "--quiet"]
    for setting in ("training.monitor_test=false", *goal.settings):
        command += ["--set", setting]
    start = time.perf_counter()
    _kvae(*command)
    seconds = time.perf_counter() - start
    if goal.measure == "log_likelihood":
        _kvae("evaluate", str(run), "--only", goal.measure, "--samples", str(DRAWS), "--quiet")
    value = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))[goal.measure]
    return {"number": number, "epochs": epochs, "seconds": seconds, "value": value}


def _kvae(*command: str) -> None:
    """Runs a command of kvae that keeps nothing from an earlier one."""
    program, environment = [sys.executable, "-m", "kvae"], {**os.environ, "KVAE_CACHE": ""}
    done = subprocess.run([*program, *command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"kvae {command[0]} ended with {done.returncode}: {done.stderr[-1000:]}")


def train_other(goal: Goal, published: Published, settings: Settings, folder: Path, timeout: float) -> dict[str, Any]:
    """Trains until the last ELBO, or for the published epochs.

    Returns:
        `seconds` from the start to the end of each epoch, and `values` of the test images by epoch.

    Raises:
        ContenderError: if the process ends or does not answer in time.
    """
    settings = replace(settings, batch=published.batch, learning_rate=published.learning_rate, decay=published.decay)
    seconds: list[float] = []
    elbos: list[float] = []
    weights: list[dict[str, np.ndarray]] = []
    start = time.perf_counter()
    worker = Worker(CONTENDERS[published.contender], settings, folder, timeout)
    try:
        worker.hear()
        seconds.append(time.perf_counter() - start)
        while True:
            if goal.measure == "log_likelihood":
                with np.load(worker.ask("weights")["path"]) as archive:
                    weights.append(dict(archive))
            else:
                elbos.append(worker.ask("elbo")["elbo"])
            if len(seconds) == published.epochs or (elbos and max(elbos) >= max(goal.numbers)):
                break
            seconds.append(seconds[-1] + worker.ask("epoch")["seconds"])
    finally:
        worker.close()
    values = bounds(goal, settings, weights) if weights else dict(enumerate(elbos, 1))
    return {"seconds": seconds, "values": values}


def bounds(goal: Goal, settings: Settings, weights: Sequence[Mapping[str, np.ndarray]]) -> dict[int, float]:
    """The bound of log p(x) of the test images after some epochs: the last one, and those that a bisection needs.

    Args:
        goal: the goal, with the numbers whose first epochs are looked for.
        settings: the settings of the training.
        weights: the weights after each epoch.

    Returns:
        The bounds by epoch, in nats per image.
    """
    import kvae

    found: dict[int, float] = {}
    data = kvae.data.load(f"npz:{settings.data}", binarize=goal.binarize)
    hidden_units = (settings.width,) * settings.layers
    vae = kvae.VAE(settings.latent, hidden_units=hidden_units, activation="tanh")
    vae.build((None, *data.info.image_shape))

    def bound(epoch: int) -> float:
        if epoch not in found:
            for part, network in (("encoder", vae.encoder), ("decoder", vae.decoder)):
                network.set_weights([value for name, value in weights[epoch - 1].items() if name.startswith(part)])
            found[epoch] = float(kvae.evaluation.log_likelihood(vae, data.test, samples=DRAWS).mean)
        return found[epoch]

    epochs = range(1, len(weights) + 1)
    bound(epochs[-1])
    for number in goal.numbers:
        bisect.bisect_left(epochs, True, key=lambda epoch, number=number: bound(epoch) >= number)
    return found


def table(goal: Goal, report: dict[str, Any]) -> Table:
    """The medians over the rounds of the seconds to each number."""
    names = {"elbo": "a test ELBO", "log_likelihood": f"a bound of log p(x) with {DRAWS} draws"}
    shown = Table(title=f"seconds from the start of the process to {names[goal.measure]}, nats per image")
    for heading in ("", *(f"{number:g}" for number in goal.numbers), "epochs", "best value"):
        shown.add_column(heading, justify="left" if not heading else "right")
    ours = report["kvae"]
    passed = [
        [run["seconds"] if run["value"] >= number else None for run in ours if run["number"] == number]
        for number in goal.numbers
    ]
    epochs = ", ".join(str(epochs) for epochs in goal.epochs.values())
    shown.add_row("kvae", *map(_median, passed), epochs, f"{max(run['value'] for run in ours):.1f}")
    for name, runs in report["others"].items():
        found = [[seconds_to(number, run["seconds"], run["values"]) for run in runs] for number in goal.numbers]
        best = max(max(run["values"].values()) for run in runs)
        shown.add_row(name, *map(_median, found), str(max(len(run["seconds"]) for run in runs)), f"{best:.1f}")
    return shown


def _median(seconds: list[float | None]) -> str:
    known = [each for each in seconds if each is not None]
    return f"{np.median(known):.0f}" if len(known) == len(seconds) else "not reached"


@click.command(help=__doc__)
@names_option("--goals", "goal", GOALS, "Goals to measure.")
@names_option("--others", "other", PUBLISHED, "Whose settings to run, or none.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Number of trainings of each.")
@click.option("--dataset", default="mnist", show_default=True, help="Data with 28 x 28 images.")
@click.option("--images", type=click.IntRange(1), help="Largest number of training images and of test images.")
@click.option("--timeout", type=click.FloatRange(1), default=900.0, show_default=True, help="Seconds for an epoch.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "docs" / "performance",
    help="Folder of the results.  [default: docs/performance]",
)
def main(
    goals: tuple[str, ...],
    others: tuple[str, ...],
    rounds: int,
    dataset: str,
    images: int | None,
    timeout: float,
    out: Path,
) -> None:
    environments = installed([CONTENDERS[PUBLISHED[name].contender] for name in others], timeout)
    reasons = {name: environments[CONTENDERS[PUBLISHED[name].contender].environment.name] for name in others}
    for name in others:
        if "reason" in reasons[name]:
            click.echo(f"{name}: {reasons[name]['reason']}", err=True)
    names = [name for name in others if "reason" not in reasons[name]]
    for kind in goals:
        goal = GOALS[kind]
        report: dict[str, Any] = {
            "protocol": __doc__,
            "goal": asdict(goal),
            "machine": processor.describe(),
            "environments": environments,
            "published": {name: asdict(PUBLISHED[name]) for name in names},
            "dataset": {"name": dataset, "images": images},
            **measure(goal, names, rounds, load_images(dataset, images, goal.kept), timeout),
        }
        files.write_json(out / f"time_to_{kind}.json", report)
        Console(width=None if sys.stdout.isatty() else 140).print(table(goal, report))
        click.echo(out / f"time_to_{kind}.json")


def measure(
    goal: Goal, names: Sequence[str], rounds: int, images: dict[str, np.ndarray], timeout: float
) -> dict[str, Any]:
    """Trains each as often as there are rounds, in another order in each round. Returns the trainings of each."""
    report: dict[str, Any] = {"kvae": [], "others": {name: [] for name in names}}
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(rounds):
            settings = replace(prepare(goal.size, images, Path(folder), seed), binarize=goal.binarize)
            for name in chance.sample(["kvae", *names], 1 + len(names)):
                if name == "kvae":
                    report["kvae"] += [train_kvae(goal, number, settings, Path(folder)) for number in goal.numbers]
                    continue
                try:
                    run = train_other(goal, PUBLISHED[name], settings, Path(folder), timeout)
                except ContenderError as error:
                    raise click.ClickException(f"{name}: {error}") from error
                report["others"][name].append(run)
    return report


if __name__ == "__main__":
    main()
