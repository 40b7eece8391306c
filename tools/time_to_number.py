"""Measures the seconds until a VAE of MNIST has a test ELBO: `kvae train`, and others with the settings they publish.

    python tools/benchmark.py --install      makes the others' virtual environments under .benchmark
    python tools/time_to_number.py           half an hour on 2 cores

All train the same network on the same binarized images, and start from a new process, with nothing compiled. What is
counted is everything until the model is there: imports, compilation and training. `kvae train` is told the number of
epochs, which its schedule needs, and its final evaluation counts. The others are evaluated after every epoch, which
does not count; they end at the last ELBO, or after the epochs that they publish. It prints a table, and writes
time_to_number.json.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import processor
from benchmark import ROOT, Size, installed, load_images, prepare
from contenders.processes import CONTENDERS, ContenderError, Worker
from contenders.protocol import Settings
from rich.console import Console
from rich.table import Table

from kvae.internal import files

NUMBERS = (-155.0, -150.0, -147.0)  # the test ELBO to reach, in nats per image
LEARNING_RATE = 0.01  # of kvae, chosen among 0.003 to 0.02 by the ELBO of the last 10,000 training images
EPOCHS = {-155.0: 3, -150.0: 5, -147.0: 10}  # of kvae, chosen in the same way


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


def seconds_to(number: float, seconds: Iterable[float], elbos: Iterable[float]) -> float | None:
    """The seconds at the end of the first epoch whose ELBO is at least a number; None if there is none.

    Args:
        number: the ELBO to reach, in nats.
        seconds: the seconds from the start of the process to the end of each epoch.
        elbos: the ELBO after each epoch.
    """
    return next((second for second, elbo in zip(seconds, elbos, strict=True) if elbo >= number), None)


def train_kvae(settings: Settings, number: float, folder: Path) -> dict[str, Any]:
    """Runs `kvae train` with the epochs for a number. Returns its seconds, and the test ELBO that it states."""
    run = folder / "run"
    options = [f"training.learning_rate={LEARNING_RATE}", "training.monitor_test=false"]
    command = ["train", "--recipe", "mnist_2d", "--dataset", f"npz:{settings.data}", "--binarize", "threshold"]
    command += ["--epochs", str(EPOCHS[number]), "--seed", str(settings.seed), "--out", str(run), "--overwrite"]
    command += ["--quiet", *(word for option in options for word in ("--set", option))]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "kvae", *command],
        env={**os.environ, "KVAE_CACHE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise click.ClickException(f"kvae train ended with {done.returncode}: {done.stderr[-1000:]}")
    elbo = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["elbo"]
    return {"number": number, "epochs": EPOCHS[number], "seconds": seconds, "elbo": elbo}


def train_other(published: Published, settings: Settings, folder: Path, timeout: float) -> dict[str, Any]:
    """Trains until the last number or the last epoch. Returns the seconds and the test ELBO at the end of each epoch.

    Raises:
        ContenderError: if the process ends or does not answer in time.
    """
    settings = replace(settings, batch=published.batch, learning_rate=published.learning_rate, decay=published.decay)
    start, seconds, elbos = time.perf_counter(), [], []
    worker = Worker(CONTENDERS[published.contender], settings, folder, timeout)
    try:
        worker.hear()
        seconds.append(time.perf_counter() - start)
        elbos.append(worker.ask("elbo")["elbo"])
        while max(elbos) < max(NUMBERS) and len(elbos) < published.epochs:
            seconds.append(seconds[-1] + worker.ask("epoch")["seconds"])
            elbos.append(worker.ask("elbo")["elbo"])
    finally:
        worker.close()
    return {"seconds": seconds, "elbo": elbos}


def table(report: dict[str, Any]) -> Table:
    """The medians over the rounds of the seconds to each number."""
    shown = Table(title="seconds from the start of the process to a test ELBO, nats per image")
    for heading in ("", *(f"{number:g}" for number in NUMBERS), "epochs", "best ELBO"):
        shown.add_column(heading, justify="left" if not heading else "right")
    ours = report["kvae"]
    passed = [
        [run["seconds"] if run["elbo"] >= number else None for run in ours if run["number"] == number]
        for number in NUMBERS
    ]
    epochs = ", ".join(str(EPOCHS[number]) for number in NUMBERS)
    shown.add_row("kvae", *map(_median, passed), epochs, f"{max(run['elbo'] for run in ours):.1f}")
    for name, runs in report["others"].items():
        found = [[seconds_to(number, run["seconds"], run["elbo"]) for run in runs] for number in NUMBERS]
        best = max(max(run["elbo"]) for run in runs)
        shown.add_row(name, *map(_median, found), str(max(len(run["elbo"]) for run in runs)), f"{best:.1f}")
    return shown


def _median(seconds: list[float | None]) -> str:
    known = [each for each in seconds if each is not None]
    return f"{np.median(known):.0f}" if len(known) == len(seconds) else "not reached"


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Number of trainings of each.")
@click.option("--others", default=",".join(PUBLISHED), show_default=True, help="Whose settings to run, or none.")
@click.option("--dataset", default="mnist", show_default=True, help="Data with 28 x 28 images.")
@click.option("--images", type=click.IntRange(1), help="Largest number of training images and of test images.")
@click.option("--timeout", type=click.FloatRange(1), default=900.0, show_default=True, help="Seconds for an epoch.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "docs" / "performance",
    help="Folder of the result.  [default: docs/performance]",
)
def main(rounds: int, others: str, dataset: str, images: int | None, timeout: float, out: Path) -> None:
    names = [name for name in others.split(",") if name not in ("", "none")]
    if unknown := [name for name in names if name not in PUBLISHED]:
        raise click.UsageError(f"Expected names among {', '.join(PUBLISHED)}. Received {unknown[0]}.")
    environments = installed([CONTENDERS[PUBLISHED[name].contender] for name in names], timeout)
    for name in list(names):
        environment = environments[CONTENDERS[PUBLISHED[name].contender].environment.name]
        if "reason" in environment:
            click.echo(f"{name}: {environment['reason']}", err=True)
            names.remove(name)
    report: dict[str, Any] = {
        "protocol": __doc__,
        "machine": processor.describe(),
        "environments": environments,
        "published": {name: asdict(PUBLISHED[name]) for name in names},
        "dataset": {"name": dataset, "images": images, "binarization": "threshold 0.5"},
        "kvae": [],
        "others": {name: [] for name in names},
    }
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(rounds):
            settings = prepare(Size(), load_images(dataset, images), Path(folder), seed)
            for name in chance.sample(["kvae", *names], 1 + len(names)):
                if name == "kvae":
                    report["kvae"] += [train_kvae(settings, number, Path(folder)) for number in NUMBERS]
                    continue
                try:
                    run = train_other(PUBLISHED[name], settings, Path(folder), timeout)
                except ContenderError as error:
                    raise click.ClickException(f"{name}: {error}") from error
                report["others"][name].append(run)
    files.write_json(out / "time_to_number.json", report)
    Console(width=None if sys.stdout.isatty() else 140).print(table(report))
    click.echo(out / "time_to_number.json")


if __name__ == "__main__":
    main()
