"""Compares the training speed of kvae, Keras, PyTorch, JAX and pythae, each in a separate process.

    python tools/benchmark.py --install                     makes the others' virtual environments under .benchmark
    python tools/benchmark.py                               all installed contenders and sizes: 1 to 2 hours on 2 cores
    python tools/benchmark.py --sizes mlp100 --growth none --contenders limit,kvae,keras_io
    python tools/benchmark.py --dataset mnist5k --rounds 3  without TFDS

It prints one table per size and writes benchmark.json, with all measurements and the protocol, and benchmark.png.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import benchmark_report
import click
import numpy as np
import processor
from contenders.processes import CONTENDERS, LIMIT, Contender, ContenderError, Environment
from contenders.protocol import SIDE, Settings, initial_weights
from contenders.rounds import Plan, measure
from rich.console import Console

from kvae.internal import files
from kvae.internal.errors import UserError, unknown

ROOT = Path(__file__).parent.parent
PROTOCOL = {
    "objective": "Bernoulli with logits, pixels > 0.5, one draw of z per image, analytic KL; nats, summed over pixels, "
    "mean over the batch; Adam 1e-3, float32. `objective` is the loss of the first batch at the common initial weights "
    "with z = mean, and must be the same for all contenders.",
    "networks": "mlp: 784-500-D-500-784, tanh. conv: 3 x 3 convolutions of stride 2 with 32 and 64 filters, a dense "
    "layer of 16 units, and their mirror, ReLU, D = 2. Glorot uniform kernels, zero biases.",
    "epoch": "all images in a new order; the last batch has the remaining images (the limit leaves it out). The "
    "contender itself measures the seconds of one epoch, which is called from Python.",
    "order": "one process per contender and setting; each trains one epoch to warm up. Then, in each round, every "
    "contender trains one epoch, one at a time while the others sleep, in an order that is shuffled for each round.",
    "images_per_second": "median and quartiles over the rounds; ratios are those of medians.",
    "start_up_seconds": "from the start of the process to the end of its first epoch, minus the median of the other "
    "epochs: imports, data, networks, compilation. Compilation caches on disk are off; all libraries were imported "
    "before.",
    "peak_bytes": "largest resident memory of the process (getrusage), including the evaluation of the ELBO.",
    "to_elbo": "the mean ELBO of the test images is computed after every epoch, without being timed, until it passes "
    "the threshold of the size; the number of epochs is interpolated. Training seconds are epochs times the median "
    "epoch.",
    "limit": "the five large matrix products of a step of the mlp, in one XLA loop of TensorFlow.",
    "growth": "the settings of mlp100, of which one is varied, and the batch of conv. But for the curve of images, an "
    "epoch has `images` images; if more images are needed than the training set has, they are repeated.",
}


@dataclass(frozen=True)
class Size:
    """A model and a batch size to measure, and the test ELBO that is to be reached, in nats."""

    network: str = "mlp"
    batch: int = 100
    latent: int = 2
    width: int = 500
    images: int | None = None  # training images; all by default
    threshold: float = -165.0
    layers: int = 1


# The thresholds are the ELBO of MNIST's test set after 4 or 5 epochs, when it still grows faster than its random noise.
SIZES = {
    "mlp100": Size(),
    "mlp512": Size(batch=512, threshold=-180.0),
    "latent50": Size(latent=50, threshold=-97.0),
    "conv": Size("conv", width=16, images=10_000, threshold=-198.0),
}


@dataclass(frozen=True)
class Curve:
    """A setting that is varied while the others are those of a size.

    Attributes:
        field: the attribute of the size.
        values: its values. Those of `images` are times the training set.
        size: the name of the size.
        images: the images of an epoch, as a part of those of the other curves.
    """

    field: str
    values: tuple[float, ...]
    size: str = "mlp100"
    images: float = 1.0


GROWTH = {
    "batch": Curve("batch", (16, 32, 64, 100, 256, 512, 1024)),
    "width": Curve("width", (125, 250, 500, 1000, 2000)),
    "latent": Curve("latent", (2, 10, 50, 200)),
    "images": Curve("images", (1 / 12, 1 / 4, 1, 2)),
    "conv": Curve("batch", (32, 100, 256), size="conv", images=1 / 5),
}


def prepare(size: Size, images: dict[str, np.ndarray], folder: Path, seed: int) -> Settings:
    """Writes the archives that the contenders read.

    Args:
        size: the size, which determines the networks and the number of images.
        images: the images `train` and `test`, uint8 `[N, 28, 28]`. Training images are repeated if the size has more.
        folder: the folder of the archives.
        seed: the seed of the initial weights, and of the order and the noise.

    Returns:
        The settings of the contenders.
    """
    train = images["train"][np.arange(size.images or len(images["train"])) % len(images["train"])]
    data, weights = folder / "data.npz", folder / "weights.npz"
    np.savez(data, x_train=train, x_test=images["test"])
    np.savez(weights, **initial_weights(size.network, size.latent, size.width, seed, size.layers))
    archives = str(data), str(weights)
    return Settings(size.network, size.batch, size.latent, size.width, *archives, seed, layers=size.layers)


def load_images(dataset: str, limit: int | None, binarize: str = "threshold") -> dict[str, np.ndarray]:
    """The images `train` and `test` of a dataset of kvae, uint8 `[N, 28, 28]`: 0 and 255, or grey with `"none"`."""
    from kvae import data

    loaded = data.load(dataset, batch_size=1, binarize=binarize)
    if loaded.info.image_shape != (SIDE, SIDE, 1):
        raise UserError(
            f"Expected images of shape {(SIDE, SIDE, 1)}. Received {dataset!r} with {loaded.info.image_shape}."
        )
    return {part: np.rint(loaded.examples(part, limit)[0][..., 0] * 255).astype(np.uint8) for part in ("train", "test")}


def installed(contenders: Iterable[Contender], timeout: float) -> dict[str, dict[str, Any]]:
    """The versions of packages in each environment, or the reason why it cannot be used and what to do about it."""
    environments: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        environment = contender.environment
        if environment.name in environments:
            continue
        try:
            environments[environment.name] = {"status": "installed", "versions": environment.versions(timeout)}
        except ContenderError as error:
            hint = f"; python tools/benchmark.py --install --contenders {contender.name}"
            reason = f"{error}{hint if environment.requirements.exists() else ''}"
            environments[environment.name] = {"status": "missing", "reason": reason}
    return environments


def growth_sizes(curve: str, images: int, train: int) -> Iterator[tuple[int, Size]]:
    """The points of a curve: the varied value, and the size with it. The batch is not larger than the set of images."""
    varied = GROWTH[curve]
    for value in varied.values:
        point = round(value * train) if varied.field == "images" else int(value)
        size = replace(SIZES[varied.size], **{"images": round(varied.images * images), varied.field: point})
        if size.batch <= size.images:
            yield point, size


def install(environments: Iterable[Environment]) -> None:
    """Makes the virtual environments."""
    for environment in environments:
        try:
            environment.install()
        except subprocess.CalledProcessError as error:
            raise click.ClickException(f"{environment.name} could not be installed: {error}") from error
        click.echo(environment.folder)


class Names(click.ParamType):
    """Names from a list, separated by commas, or `none` for no names."""

    name = "names"

    def __init__(self, kind: str, choices: Iterable[str]) -> None:
        self.kind, self.choices = kind, tuple(choices)

    def convert(self, value: Any, param: Any, context: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in value.split(",") if name.strip() and name.strip() != "none"]
        for name in names:
            if name not in self.choices:
                self.fail(str(unknown(self.kind, name, self.choices)), param, context)
        return tuple(name for name in self.choices if name in names)


def names_option(flag: str, kind: str, choices: Iterable[str], text: str) -> Any:
    choices = tuple(choices)
    return click.option(flag, type=Names(kind, choices), default=",".join(choices), show_default=True, help=text)


@click.command(help=__doc__)
@names_option("--sizes", "size", SIZES, "Sizes to measure.")
@names_option("--contenders", "contender", CONTENDERS, "Contenders to measure.")
@names_option("--growth", "curve", GROWTH, "Settings against which the images per second are measured and drawn.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Number of timed epochs per size.")
@click.option(
    "--growth-rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Number of timed epochs per point of a curve.",
)
@click.option(
    "--growth-images",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Number of images per epoch at the points of a curve.",
)
@click.option(
    "--time-to-elbo/--no-time-to-elbo",
    default=True,
    show_default=True,
    help="Measure the time to the ELBO of each size.",
)
@click.option(
    "--epochs", type=click.IntRange(1), default=20, show_default=True, help="Largest number of epochs until that ELBO."
)
@click.option(
    "--dataset", default="mnist", show_default=True, help="Data with 28 x 28 images, as kvae.data.load takes them."
)
@click.option("--images", type=click.IntRange(1), help="Largest number of training images and of test images.")
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=900.0,
    show_default=True,
    help="Seconds after which a process that does not answer is ended.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the weights, the order of the images and the noise.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "docs" / "performance",
    help="Folder of the results.  [default: docs/performance]",
)
@click.option("--install", "installing", is_flag=True, help="Only make the virtual environments of the contenders.")
def main(
    sizes: tuple[str, ...],
    contenders: tuple[str, ...],
    growth: tuple[str, ...],
    rounds: int,
    growth_rounds: int,
    growth_images: int,
    time_to_elbo: bool,
    epochs: int,
    dataset: str,
    images: int | None,
    timeout: float,
    seed: int,
    out: Path,
    installing: bool,
) -> None:
    chosen = [CONTENDERS[name] for name in contenders]
    if installing:
        install(dict.fromkeys(c.environment for c in chosen if c.environment.requirements.exists()))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    environments = installed(chosen, timeout)
    for name, environment in environments.items():
        if environment["status"] == "missing":
            click.echo(f"{name}: {environment['reason']}", err=True)
    missing = {c.name: environments[c.environment.name] for c in chosen if "reason" in environments[c.environment.name]}
    present = [c for c in chosen if c.name not in missing]
    report: dict[str, Any] = {
        "protocol": PROTOCOL,
        "machine": processor.describe(),
        "environments": environments,
        "contenders": {c.name: c.environment.name for c in chosen},
        "options": {key: value for key, value in click.get_current_context().params.items() if key != "out"},
        "sizes": {},
        "growth": {curve: [] for curve in growth},
    }
    try:
        loaded = load_images(dataset, images)
        count = len(loaded["train"])
        with tempfile.TemporaryDirectory() as folder:

            def run(size: Size, plan: Plan) -> dict[str, Any]:
                suitable = [contender for contender in present if size.network == "mlp" or contender.name != LIMIT]
                measurement = measure(suitable, prepare(size, loaded, Path(folder), seed), plan, Path(folder))
                benchmark_report.derive(measurement["results"], plan.threshold)
                measurement["results"] |= missing
                return {"settings": asdict(size), **measurement}

            def show(text: Any) -> None:
                console.print(text)
                files.write_json(out / "benchmark.json", report)  # so that an interruption loses only one setting

            for name in sizes:
                size = replace(SIZES[name], images=min(SIZES[name].images or count, count))
                if size.batch > count:
                    raise UserError(f"Expected at least {size.batch} training images for {name}. Received {count}.")
                plan = Plan(rounds, size.threshold if time_to_elbo else None, epochs, timeout)
                report["sizes"][name] = run(size, plan)
                show(benchmark_report.table(name, report["sizes"][name]))
            for curve in growth:
                for point, size in growth_sizes(curve, min(growth_images, count), count):
                    report["growth"][curve].append({"value": point, **run(size, Plan(growth_rounds, timeout=timeout))})
                    show(benchmark_report.growth_line(curve, report["growth"][curve][-1]))
        files.write_json(out / "benchmark.json", report)
        with files.atomic_file(out / "benchmark.png") as partial:
            benchmark_report.picture(report, partial)
    except UserError as error:
        raise click.UsageError(str(error)) from error
    click.echo(out / "benchmark.json")
    click.echo(out / "benchmark.png")


if __name__ == "__main__":
    # SIGTERM raises an exception, so that `finally` ends the processes of the contenders.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
