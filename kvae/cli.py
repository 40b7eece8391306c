"""The `kvae` command: parsing and wiring. Heavy rooms are imported by the commands that need them."""

import importlib
import json
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvae import __version__
from kvae.errors import UserError, check_seed, check_whole

if TYPE_CHECKING:
    from kvae.figures import Subject
    from kvae.runs import Run
    from kvae.vae import VAE

SAVED_MODELS = Path("saved_models")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="--debug, anywhere on the line, shows the traceback of an error.",
)
@click.version_option(__version__)
def main() -> None:
    """Variational autoencoders with Keras: train, evaluate, plot, complete, sample."""


def run() -> None:
    """The console command: exit status 0 on success, 2 for a user's mistake, 1 for anything else."""
    debug = "--debug" in sys.argv
    warnings.showwarning = _one_line  # type: ignore[assignment]
    try:
        main([argument for argument in sys.argv[1:] if argument != "--debug"], "kvae", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit("Interrupted.")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; nothing is wrong
        sys.exit(0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        if debug:
            raise
        print(f"kvae: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        print(f"kvae: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        sys.exit(1)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: saved_models/demo, replaced]")
def demo(out: Path | None) -> None:
    """Train, evaluate, plot and sample on the embedded digits."""
    _quiet_tensorflow()
    from kvae import evaluation, figures, training
    from kvae.config import RunConfig, load_values
    from kvae.files import read_json
    from kvae.runs import check_free

    config = RunConfig.from_dict(load_values("digits_2d"))
    overwrite = out is None
    out = out or SAVED_MODELS / "demo"
    check_free(out, overwrite)
    start = time.monotonic()
    click.echo(f"1. Training {config.name} in {out}: {config.description}")
    trained = training.train(config, out, overwrite=overwrite, verbose=_verbosity())
    click.echo(f"   {time.monotonic() - start:.0f} s\n2. Evaluating on the 1,000 test digits")
    vae, data = trained.load_model(), training.load_data(config)
    trained.write_evaluation(evaluation.evaluate(vae, data.test, samples=500, protocol=training.protocol(data)))
    _report(read_json(trained.folder / "evaluation.json"))
    click.echo("3. Plotting")
    subject = figures.Subject(vae, data, trained.history(), "test")
    for path in _plots(trained, subject, (), ".png"):
        click.echo(f"   {path}")
    click.echo("4. Sampling")
    _sample(vae, 10, 0, out / "samples.png", means_only=False)
    click.echo(f"   {out / 'samples.png'}")
    click.echo(
        f"\nDone in {time.monotonic() - start:.0f} s. The model: {out / 'model.keras'}\n"
        f"Next: kvae train --recipe mnist_2d    kvae sample {out} -n 64 -o grid.png"
    )


@main.command()
def recipes() -> None:
    """List the recipes that ship."""
    from kvae.config import RunConfig, load_values
    from kvae.config import recipes as shipped

    width = max(len(name) for name in shipped())
    for name in shipped():
        click.echo(f"{name:{width}}  {RunConfig.from_dict(load_values(name)).description}")


@main.command()
@click.option("--recipe", metavar="NAME|FILE.toml", help="What to train; `kvae recipes` lists those that ship.")
@click.option("--dataset", metavar="SOURCE", help="mnist5k, a TFDS dataset, idx:DIR, csv:FILE, npz:FILE, images:DIR.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: saved_models/<recipe>]")
@click.option("--resume", is_flag=True, help="Go on where this run was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace a run that stands there.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key, e.g. model.beta=1.5; repeatable.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--latent-dim", type=int)
@click.option("--beta", type=float)
@click.option("--seed", type=int)
@click.option("--learning-rate", type=float)
def train(
    recipe: str | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    settings: tuple[str, ...],
    dataset: str | None,
    **short: Any,
) -> None:
    """Train a model and leave a run folder."""
    from kvae.config import RunConfig, load_values, override, parse_setting
    from kvae.files import read_json
    from kvae.runs import Run, check_free

    keys = {
        "epochs": "training.epochs",
        "batch_size": "data.batch_size",
        "latent_dim": "model.latent_dim",
        "beta": "model.beta",
        "seed": "seed",
        "learning_rate": "training.learning_rate",
    }
    asked = {keys[name]: value for name, value in short.items() if value is not None}
    if dataset is not None:
        asked["data.source"] = dataset
    asked.update(parse_setting(setting) for setting in settings)
    if resume and overwrite:
        raise UserError("Expected --resume or --overwrite. Received both.")
    if resume and out is None and recipe is None:
        raise UserError("Expected --out RUN (or --recipe NAME) to know which run to resume.")
    if recipe is not None:
        values = load_values(recipe)
    elif dataset is not None:
        values = {"name": re.sub(r"\W+", "_", dataset).strip("_")}
    else:
        values = {} if resume else load_values("digits_2d")
    folder = out or SAVED_MODELS / values["name"]

    if resume and recipe is None:
        values = Run.open(folder).config.to_dict()
    config = RunConfig.from_dict(override(values, asked))
    if not resume:
        check_free(folder, overwrite)

    start = time.monotonic()
    _quiet_tensorflow()
    from kvae import training

    try:
        if resume:
            trained = training.resume(folder, config, verbose=_verbosity())
        else:
            trained = training.train(config, folder, overwrite=overwrite, verbose=_verbosity())
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. Go on with: kvae train --resume --out {folder}")
    _report(read_json(trained.folder / "evaluation.json"))
    click.echo(f"{trained.folder}: trained and evaluated in {time.monotonic() - start:.0f} s")


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--dataset", metavar="SOURCE", help="Other data than the run's own, binarized the same way.")
@click.option("--samples", metavar="K", type=int, help="Add the importance-weighted bound of log p(x) with K samples.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def evaluate(run_folder: Path, dataset: str | None, samples: int | None, seed: int, as_json: bool) -> None:
    """Test ELBO, its terms and their standard errors."""
    from kvae.runs import Run

    check_seed("--seed", seed)
    if samples is not None:
        check_whole("--samples", samples)
    trained = Run.open(run_folder)
    _quiet_tensorflow()
    from kvae import evaluation, training

    vae = trained.load_model()
    config = trained.config
    if dataset is not None:  # of any size, so in batches that no set is too small for
        data_section = config.data.model_copy(
            update={"source": dataset, "train": "train", "validation": None, "test": "test", "batch_size": 1}
        )
        config = config.model_copy(update={"data": data_section})
    data = training.load_data(config)
    images = data.test if dataset is None else data.test.rebatch(100)
    verbose = int(not as_json and sys.stdout.isatty())
    protocol = training.protocol(data)
    if dataset is not None:
        protocol["train"] = f"{trained.config.data.train} of {trained.config.data.source}"
    result = evaluation.evaluate(vae, images, samples=samples, seed=seed, protocol=protocol, verbose=verbose)
    trained.write_evaluation(result)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _report(result)


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("kinds", metavar="[KIND ...]", nargs=-1)
@click.option("-n", type=int, help="samples, latent_scatter: how many; lattice: images a side.")
@click.option("--seed", type=int, help="Of all draws.  [default: 0]")
@click.option("--extent", type=float, help="lattice: of the square [-extent, extent]^2.  [default: 2]")
@click.option("--quantiles", is_flag=True, default=None, help="lattice: points of equal prior probability.")
@click.option(
    "--pair", "pairs", metavar="A,B", multiple=True, help="interpolation: from class A to class B; repeatable."
)
@click.option("--between", metavar="I,J", multiple=True, help="interpolation: from test image I to J; repeatable.")
@click.option("--steps", type=int, help="interpolation: images from one end to the other.  [default: 10]")
@click.option("--spherical", is_flag=True, default=None, help="interpolation: along great circles.")
@click.option("--observed", metavar="MASK", help="completion, posterior_contours: as in `kvae complete`.")
@click.option(
    "--index", "places", type=int, multiple=True, help="completion, posterior_contours: test image; repeatable."
)
@click.option("--plain", is_flag=True, default=None, help="completion, posterior_contours: the article's inference.")
@click.option("--format", "suffix", type=click.Choice(["png", "svg", "pdf"]), default="png", show_default=True)
def plot(run_folder: Path, kinds: tuple[str, ...], suffix: str, **options: Any) -> None:
    """Draw pictures of a run into RUN/plots: those named, or all that suit it.

    KIND: samples, reconstructions, latent_scatter, lattice, interpolation, learning_curves, completion,
    posterior_contours.
    """
    from kvae.runs import Run

    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in {"pairs", "between"} & given.keys():
        given[name] = [_pair(text, int if name == "between" else str) for text in given[name]]
    trained = Run.open(run_folder)
    _quiet_tensorflow()
    from kvae import figures

    figures.check_kinds(kinds)
    for name in given:
        if not any(name in figures.options_of(kind) for kind in kinds or figures.KINDS):
            takers = [kind for kind in figures.KINDS if name in figures.options_of(kind)]
            raise UserError(f"None of {', '.join(kinds)} takes that option: it belongs to {', '.join(takers)}.")
    for path in _plots(trained, _subject(trained), kinds, f".{suffix}", **given):
        click.echo(path)


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--observed",
    metavar="MASK",
    default="top",
    show_default=True,
    help="top, bottom, left, right, random, random:FRACTION, or a picture, white where observed.",
)
@click.option("--digit", metavar="CLASS", help="The first test image of a class, by number or name; -n for more.")
@click.option("--index", type=int, help="The test image at this place, from 0.")
@click.option("-n", "number", type=int, help="How many test images.  [default: 100, or 1 with --digit]")
@click.option("--samples", metavar="K", type=int, default=500, show_default=True, help="Draws of z an image.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--plain", is_flag=True, help="The article's inference: 200 plain gradient steps from (2, -2).")
@click.option(
    "--exact", is_flag=True, help="Add the value by quadrature (2 latent dimensions; half a second an image)."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where the pictures and complete.json go.  [default: RUN/plots]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def complete(
    run_folder: Path,
    observed: str,
    digit: str | None,
    index: int | None,
    number: int | None,
    samples: int,
    seed: int,
    plain: bool,
    exact: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Complete test images from the pixels that a mask leaves, and score it: log p(missing | observed)."""
    from kvae.runs import Run

    check_seed("--seed", seed)
    check_whole("--samples", samples, least=3)
    if number is not None:
        check_whole("-n", number)
    if index is not None and (digit is not None or number is not None):
        raise UserError("Expected --index alone, or --digit and -n. Received --index with another.")
    trained = Run.open(run_folder)
    _quiet_tensorflow()
    import numpy as np

    from kvae import figures, files, inference, plots, training

    subject = _subject(trained)
    vae, data = subject.vae, subject.test()
    if index is not None:
        places = np.array([index])
    elif digit is not None:
        places = data.places_of("test", digit, number or 1)
    else:
        places = np.arange(min(number or 100, data.info.sizes["test"]))
    x = data.images_at("test", places)
    options = inference.article_options(vae) if plain else {}
    start = time.monotonic()
    found = inference.complete(vae, x, observed, samples=samples, seed=seed, **options)
    seconds = time.monotonic() - start
    result = inference.evaluate(
        vae,
        x,
        found,
        pixel_mean=data.pixel_mean,
        training_images=data.info.sizes["train"],
        samples=samples,
        seed=seed,
        exact=exact,
    )
    which = f"the first {len(x)}" if index is None else f"the one at place {index}, from 0"
    result["protocol"] = {
        **training.protocol(data),
        "test_images": which if digit is None else f"{which} of class {digit}",
        "observed": observed,
        "inference": f"{found.inferred.losses.shape[1]} {'plain' if plain else 'Adam'} steps",
        "latent_samples": samples,
        "seed": seed,
        "units": "nats per image",
    }
    out = out or trained.plots
    drawings = {"complete": figures.completion_rows(x[:10], found.head(10))}
    if vae.latent_dim == 2:
        drawings["complete_contours"] = figures.contour_panels(vae, x[0], found.observed[0], found.inferred)
    for name, drawing in drawings.items():
        plots.save(drawing, out / f"{name}.png")
    files.write_json(out / "complete.json", result)
    if as_json:
        click.echo(json.dumps(result))
        return
    if plain:
        losses = found.inferred.losses.mean(axis=0)
        for step in range(10, len(losses) + 1, 10):
            click.echo(f"step {step:3}: loss {losses[step - 1]:.2f}")
    _report_completion(result, len(x), float(found.inferred.losses[:, -1].mean()), seconds)
    for name in (*(f"{name}.png" for name in drawings), "complete.json"):
        click.echo(out / name)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-n", "number", type=int, default=10, show_default=True, help="How many images.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "output", type=click.Path(path_type=Path), default=Path("samples.png"), show_default=True)
@click.option("--means", is_flag=True, help="Only the grey means, no draws.")
def sample(path: Path, number: int, seed: int, output: Path, means: bool) -> None:
    """Draw images from the prior: the means of p(x|z) above draws at the same z."""
    from kvae.runs import Run

    check_whole("-n", number)
    check_seed("--seed", seed)
    trained = Run.open(path)
    _quiet_tensorflow()
    _sample(trained.load_model(), number, seed, output, means)
    click.echo(output)


_printed: set[str] = set()


def _one_line(message: Any, category: Any, *_: Any) -> None:
    """Prints a warning of kvae's own as one line, once; those of libraries are for their developers."""
    line = f"kvae: warning: {message}"
    if category is UserWarning and str(message).startswith("Grey pixels") and line not in _printed:
        _printed.add(line)
        print(line, file=sys.stderr)


def _quiet_tensorflow() -> None:
    """Imports TensorFlow without the lines that it writes to file descriptor 2 before its log level counts."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            importlib.import_module("kvae.tensorflow")
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _verbosity() -> int:
    """Keras's progress bar on a terminal, a line an epoch elsewhere."""
    return 1 if sys.stdout.isatty() else 2


def _report(result: dict[str, Any]) -> None:
    """Prints an evaluation as a table, with its protocol."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=None)
    table.add_column("nats per example")
    table.add_column("mean", justify="right")
    table.add_column("standard error", justify="right")
    names = [name for name in ("elbo", "reconstruction", "kl", "log_likelihood") if name in result]
    for name in names:
        shown = f"{name} (bound, K = {result['protocol']['importance_samples']})" if name == "log_likelihood" else name
        table.add_row(shown, f"{result[name]:.3f}", _three_digits(result[f"{name}_standard_error"]))
    if len(result["kl_per_dimension"]) <= 10:
        pairs = zip(result["kl_per_dimension"], result["kl_per_dimension_standard_error"], strict=True)
        for dimension, (mean, error) in enumerate(pairs, start=1):
            table.add_row(f"  kl of z{dimension}", f"{mean:.3f}", _three_digits(error))
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(table)
    protocol = {**result["protocol"], "active_units": f"{result['active_units']} of {len(result['kl_per_dimension'])}"}
    console.print(
        "; ".join(f"{name}: {value}" for name, value in protocol.items() if value is not None), soft_wrap=True
    )


def _report_completion(result: dict[str, Any], images: int, loss: float, seconds: float) -> None:
    """Prints the scores of completions as a table, with their protocol."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=None)
    table.add_column("log p(missing | observed), nats per image")
    table.add_column("mean", justify="right")
    table.add_column("standard error", justify="right")
    names = {
        "kvae": "kvae, importance sampling",
        "quadrature": "kvae, exact by quadrature",
        "zero_filled": "baseline: encoding the image with zeros",
        "pixel_means": "baseline: independent pixel means",
    }
    for name, title in names.items():
        if name in result:
            table.add_row(title, f"{result[name]['mean']:.3f}", _three_digits(result[name]["standard_error"]))
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(table)
    own = result["kvae"]
    console.print(
        f"loss of the inference {loss:.2f} nats, {result['converged']} of {images} converged; Monte-Carlo standard "
        f"error of an image {own['monte_carlo_standard_error']:.3f} nats, {own['effective_samples']:.0f} effective "
        f"samples in the median; inference and prediction {seconds:.1f} s",
        soft_wrap=True,
    )
    said = [f"{name}: {value}" for name, value in result["protocol"].items() if value is not None]
    console.print("; ".join(said), soft_wrap=True)


def _three_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _pair(text: str, kind: type) -> tuple[Any, Any]:
    """`A,B` as two values."""
    parts = [part.strip() for part in text.split(",")]
    try:
        first, second = (kind(part) for part in parts)
    except ValueError:
        what = "two places, e.g. 3,17" if kind is int else "two classes, e.g. 0,5"
        raise UserError(f"Expected {what}. Received {text!r}.") from None
    return first, second


def _subject(trained: "Run") -> "Subject":
    """A run as a subject of pictures."""
    from kvae import figures, training

    held_out = "validation" if trained.config.data.validation else "test"
    data = training.load_data(trained.config)
    return figures.Subject(trained.load_model(), data, trained.history(), held_out)


def _plots(trained: "Run", subject: "Subject", kinds: Any, suffix: str, **options: Any) -> Iterator[Path]:
    """Draws the kinds named, or all that suit, into the run's plots."""
    from kvae import figures

    for kind in kinds or figures.KINDS:
        taken = {name: value for name, value in options.items() if name in figures.options_of(kind)}
        try:
            yield from figures.draw(kind, subject, trained.plots, suffix=suffix, **taken)
        except figures.Unsuitable as error:
            if kinds:
                raise
            click.echo(f"{kind}: left out. {error}")


def _sample(vae: "VAE", number: int, seed: int, output: Path, means_only: bool) -> None:
    """Writes one picture: a sheet of means and, unless `means_only`, the sheet of draws at the same z beneath it."""
    import numpy as np

    from kvae import pictures

    columns = 10 if number <= 10 else None
    sheets = [pictures.tile(vae.generate_means(number, seed), columns, gap=1)]
    if not means_only:
        draws = pictures.tile(vae.generate(number, seed), columns, gap=1)
        sheets += [np.ones((3, *draws.shape[1:]), np.float32), draws]
    pictures.save_picture(output, pictures.enlarge(np.concatenate(sheets)))
