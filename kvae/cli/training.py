"""`kvae demo`, `kvae recipes`, `kvae train`: from a recipe to a run folder."""

import re
import sys
import time
from pathlib import Path
from typing import Any

import click

from kvae.cli.exports import print_variants, write_samples
from kvae.cli.shared import SAVED_MODELS, print_evaluation, quiet_tensorflow, verbosity
from kvae.internal.errors import UserError


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: saved_models/demo, replaced]")
def demo(out: Path | None) -> None:
    """Train, evaluate, plot, export and sample on the embedded digits."""
    quiet_tensorflow()
    from kvae import export, training
    from kvae.training import results
    from kvae.training.config import RunConfig, load_values
    from kvae.training.runs import check_free

    config = RunConfig.from_dict(load_values("digits_2d"))
    overwrite = out is None
    out = out or SAVED_MODELS / "demo"
    check_free(out, overwrite)
    start = time.monotonic()
    click.echo(f"1. Training {config.name} in {out}: {config.description}")
    trained = training.train(config, out, overwrite=overwrite, verbose=verbosity())
    click.echo(f"   {time.monotonic() - start:.0f} s\n2. Evaluating on the 1,000 test digits")
    print_evaluation(results.evaluate(trained, samples=500))
    click.echo("3. Plotting")
    for path in results.draw(trained):
        click.echo(f"   {path}")
    click.echo(f"4. Exporting to {trained.bundle}")
    print_variants(export.bundle_of_run(trained, test=export.test_images(trained)))
    click.echo("5. Sampling")
    write_samples(out, 10, 0, out / "samples.png", means_only=False)
    click.echo(f"   {out / 'samples.png'}")
    click.echo(
        f"\nDone in {time.monotonic() - start:.0f} s. The model: {out / 'model.keras'}\n"
        f"Next: kvae train --recipe mnist_2d    kvae sample {out} -n 64 -o grid.png"
    )


@click.command()
def recipes() -> None:
    """List the recipes that ship."""
    from kvae.training.config import RunConfig, load_values
    from kvae.training.config import recipes as shipped

    width = max(len(name) for name in shipped())
    for name in shipped():
        click.echo(f"{name:{width}}  {RunConfig.from_dict(load_values(name)).description}")


@click.command()
@click.option("--recipe", metavar="NAME|FILE.toml", help="What to train; `kvae recipes` lists those that ship.")
@click.option("--dataset", metavar="SOURCE", help="mnist5k, a TFDS dataset, idx:DIR, csv:FILE, npz:FILE, images:DIR.")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: saved_models/<recipe>]")
@click.option("--resume", is_flag=True, help="Go on where this run was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace a run that stands there.")
@click.option(
    "--distribute",
    type=click.Choice(("mirrored", "multiworker")),  # distribution.KINDS, whose module takes 0.2 s to import
    help="Train on all devices of this machine, or on the workers of TF_CONFIG (then run it on each of them).",
)
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
    distribute: str | None,
    **short: Any,
) -> None:
    """Train a model and leave a run folder."""
    from kvae.internal.files import read_json
    from kvae.training import distribution
    from kvae.training.config import RunConfig, load_values, override, parse_setting
    from kvae.training.runs import Run, check_free

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
    chief = distribution.is_chief(distribute)
    if chief and not resume:
        check_free(folder, overwrite)

    start = time.monotonic()
    quiet_tensorflow()
    from kvae import training

    try:
        if resume:
            trained = training.resume(folder, config, verbose=verbosity(), distribute=distribute)
        else:
            trained = training.train(config, folder, overwrite=overwrite, verbose=verbosity(), distribute=distribute)
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. Go on with: kvae train --resume --out {folder}")
    if not chief:
        click.echo(f"Trained in {time.monotonic() - start:.0f} s; the chief writes {trained.folder}.")
        return
    print_evaluation(read_json(trained.folder / "evaluation.json"))
    click.echo(f"{trained.folder}: trained and evaluated in {time.monotonic() - start:.0f} s")


COMMANDS = (demo, recipes, train)
