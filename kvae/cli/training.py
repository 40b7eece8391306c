"""`kvae demo`, `kvae recipes`, `kvae train`: from a recipe to a run folder."""

import time
from pathlib import Path
from typing import Any

import click

from kvae.cli import stopping
from kvae.cli.exports import print_variants, write_samples
from kvae.cli.output import say
from kvae.cli.shared import SAVED_MODELS, print_evaluation, quiet_tensorflow, verbosity
from kvae.cli.usage import PATH, command
from kvae.internal import user_files
from kvae.internal.errors import UserError

KEYS = {  # the keys of a configuration that options are short for
    "dataset": "data.source",
    "epochs": "training.epochs",
    "batch_size": "data.batch_size",
    "latent_dim": "model.latent_dim",
    "beta": "model.beta",
    "seed": "seed",
    "learning_rate": "training.learning_rate",
}


@command()
@click.option(
    "--out",
    type=PATH,
    help="Folder of the run.  [default: saved_models/demo, which is replaced]",
)
def demo(out: Path | None) -> None:
    """Train, evaluate, plot, export and sample with the digits that kvae contains."""
    from kvae.training.config import RunConfig, load_values
    from kvae.training.runs import check_free

    config = RunConfig.from_dict(load_values("digits_2d"))
    overwrite = out is None
    out = out or SAVED_MODELS / "demo"
    check_free(out, overwrite)
    quiet_tensorflow()
    from kvae import export, training
    from kvae.training import results

    start = time.monotonic()
    say(f"1. Training {config.name} in {out}: {config.description}")
    with stopping.training(out):
        trained = training.train(config, out, overwrite=overwrite, verbose=verbosity())
    say(f"   {time.monotonic() - start:.0f} s", "2. Evaluating on the 1,000 test digits")
    print_evaluation(results.evaluate(trained, samples=500))
    say("3. Plotting")
    for path in results.draw(trained):
        say(f"   {path}")
    say(f"4. Exporting to {trained.bundle}")
    print_variants(export.bundle_of_run(trained, test=export.test_images(trained)))
    say("5. Sampling")
    write_samples(out, 10, 0, out / "samples.png", means_only=False)
    say(f"   {out / 'samples.png'}")
    say(
        "",
        f"Done in {time.monotonic() - start:.0f} s. The model is {out / 'model.keras'}",
        f"Next: kvae train --recipe mnist_2d    kvae sample {out} -n 64 -o grid.png",
    )


@command()
def recipes() -> None:
    """List the recipes of kvae."""
    from kvae.training import config
    from kvae.training.config import RunConfig, load_values

    names = list(config.recipes())
    width = max(map(len, names))
    for name in names:
        say(f"{name:{width}}  {RunConfig.from_dict(load_values(name)).description}")


@command()
@click.option("--recipe", metavar="NAME|FILE.toml", help="A recipe of kvae, as `kvae recipes` lists them, or a file.")
@click.option(
    "--dataset",
    metavar="SOURCE",
    help="The data: mnist5k, a TFDS dataset, idx:DIR, csv:FILE, npz:FILE or images:DIR.",
)
@click.option("--out", type=PATH, help="Folder of the run.  [default: saved_models/<name of the recipe>]")
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
    from kvae.training import distribution
    from kvae.training.config import RunConfig, collected, load_values, override, parse_setting
    from kvae.training.names import name_of_source
    from kvae.training.runs import Run, check_free

    short["dataset"] = dataset
    given = [
        (f"--{name.replace('_', '-')} {value}", KEYS[name], value) for name, value in short.items() if value is not None
    ]
    given += [(f"--set {text}", *parse_setting(text)) for text in settings]
    if resume and overwrite:
        raise UserError("Expected --resume or --overwrite. Received both.")
    if recipe is not None:
        values = load_values(recipe)
    elif resume:
        if out is None:
            raise UserError("Expected --resume with --out RUN or --recipe NAME, which name the run. Received neither.")
        values = Run.open(out).config.to_dict()
    else:
        values = load_values("digits_2d") if dataset is None else {"name": name_of_source(dataset)}
    values = override(values, collected(given))
    config = RunConfig.from_dict(values)
    folder = out or SAVED_MODELS / config.name
    chief = distribution.is_chief(distribute)
    if chief and not resume:
        check_free(folder, overwrite)

    start = time.monotonic()
    further = ["--distribute", distribute] if distribute else []
    further += [word for path in user_files.imported() for word in ("--import", str(path))]
    with stopping.training(folder, resume, further):
        quiet_tensorflow()
        from kvae import training

        options: dict[str, Any] = {"verbose": verbosity(), "distribute": distribute}
        if resume:
            trained = training.resume(folder, config, **options)
        else:
            follows = recipe is None and dataset is not None
            trained = training.train(values if follows else config, folder, overwrite=overwrite, **options)
    if not chief:
        say(f"Trained in {time.monotonic() - start:.0f} s. The chief writes {trained.folder}.")
        return
    print_evaluation(trained.evaluation())
    say(f"{trained.folder}: trained and evaluated in {time.monotonic() - start:.0f} s")


COMMANDS = (demo, recipes, train)
