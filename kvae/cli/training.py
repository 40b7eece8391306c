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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the run.  [default: saved_models/demo, which is replaced]",
)
def demo(out: Path | None) -> None:
    """Train, evaluate, plot, export and sample with the digits that kvae contains."""
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
        f"\nDone in {time.monotonic() - start:.0f} s. The model is {out / 'model.keras'}\n"
        f"Next: kvae train --recipe mnist_2d    kvae sample {out} -n 64 -o grid.png"
    )


@click.command()
def recipes() -> None:
    """List the recipes of kvae."""
    from kvae.training import config
    from kvae.training.config import RunConfig, load_values

    names = list(config.recipes())
    width = max(map(len, names))
    for name in names:
        click.echo(f"{name:{width}}  {RunConfig.from_dict(load_values(name)).description}")


@click.command()
@click.option("--recipe", metavar="NAME|FILE.toml", help="A recipe of kvae, as `kvae recipes` lists them, or a file.")
@click.option(
    "--dataset",
    metavar="SOURCE",
    help="The data: mnist5k, a TFDS dataset, idx:DIR, csv:FILE, npz:FILE or images:DIR.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: saved_models/<recipe>]")
@click.option("--resume", is_flag=True, help="Continue a run that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
@click.option(
    "--distribute",
    type=click.Choice(("mirrored", "multiworker")),  # distribution.KINDS, whose module takes 0.2 s to import
    help="Train on all devices of this machine, or on the workers in TF_CONFIG; then call this on each of them.",
)
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key, e.g. model.beta=1.5; repeatable.")
@click.option("--epochs", type=int, help="Short for --set training.epochs=...")
@click.option("--batch-size", type=int, help="Short for --set data.batch_size=...")
@click.option("--latent-dim", type=int, help="Short for --set model.latent_dim=...")
@click.option("--beta", type=float, help="Short for --set model.beta=...")
@click.option("--seed", type=int, help="Short for --set seed=...")
@click.option("--learning-rate", type=float, help="Short for --set training.learning_rate=...")
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
    """Train a model and write its run folder."""
    from kvae.internal import sealed
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
    overrides = {keys[name]: value for name, value in short.items() if value is not None}
    if dataset is not None:
        overrides["data.source"] = dataset
    overrides.update(parse_setting(setting) for setting in settings)
    if resume and overwrite:
        raise UserError("Expected --resume or --overwrite. Received both.")
    if resume and out is None and recipe is None:
        raise UserError("Expected --resume with --out RUN or --recipe NAME, which name the run. Received neither.")
    if recipe is not None:
        values = load_values(recipe)
    elif dataset is not None:
        values = {"name": re.sub(r"\W+", "_", dataset).strip("_")}
    else:
        values = {} if resume else load_values("digits_2d")
    folder = out or SAVED_MODELS / values["name"]

    if resume and recipe is None:
        values = Run.open(folder).config.to_dict()
    config = RunConfig.from_dict(override(values, overrides))
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
        print(f"\nInterrupted. To continue: kvae train --resume --out {folder}", file=sys.stderr)
        sys.exit(130)
    if not chief:
        click.echo(f"Trained in {time.monotonic() - start:.0f} s. The chief writes {trained.folder}.")
        return
    print_evaluation(sealed.read(trained.folder / "evaluation.json"))
    click.echo(f"{trained.folder}: trained and evaluated in {time.monotonic() - start:.0f} s")


COMMANDS = (demo, recipes, train)
