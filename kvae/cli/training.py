"""`kvae demo`, `kvae train`: from a recipe to a run folder."""

import json
import time
from pathlib import Path
from typing import Any

import click

from kvae.cli import stopping
from kvae.cli.exports import print_variants, write_samples
from kvae.cli.output import say, say_next
from kvae.cli.shared import json_option, print_evaluation, progress, quiet_option, quiet_tensorflow
from kvae.cli.shell import BINARIZATION, LIKELIHOOD, NETWORK, RECIPE_OR_FILE, SAVED_MODELS, SETTING, SOURCE
from kvae.cli.usage import PATH, Choice, command
from kvae.internal import user_files
from kvae.internal.errors import UserError
from kvae.internal.next_command import kvae_command

KEYS = {  # the keys of a configuration that options are short for
    "dataset": "data.source",
    "epochs": "training.epochs",
    "batch_size": "data.batch_size",
    "latent_dim": "model.latent_dim",
    "beta": "model.beta",
    "seed": "seed",
    "learning_rate": "training.learning_rate",
    "network": "model.network",
    "likelihood": "model.likelihood",
    "binarize": "data.binarize",
    "conditional": "data.condition",
    "early_stopping": "training.early_stopping",
    "tensorboard": "training.tensorboard",
}


@command(examples=("kvae demo", "kvae demo --out my_demo --quiet"))
@click.option(
    "--out",
    type=PATH,
    help="Folder of the run.  [default: saved_models/demo, which is replaced]",
)
@quiet_option
@json_option
def demo(out: Path | None, quiet: bool, as_json: bool) -> None:
    """Train, evaluate, plot, export and sample on 5,000 digits.

    The handwritten digits are part of kvae, so that nothing is downloaded.
    """
    from kvae.training.config import RunConfig, load_values
    from kvae.training.runs import check_free

    config = RunConfig.from_dict(load_values("digits_2d"))
    overwrite = out is None
    out = out or SAVED_MODELS / "demo"
    check_free(out, overwrite)
    quiet_tensorflow()
    from kvae import export, training
    from kvae.training import results

    start, plots, samples = time.monotonic(), [], out / "exported_samples.png"
    with progress(quiet or as_json) as verbose:
        say(f"1. Training {config.name} in {out}: {config.description}")
        with stopping.training(out):
            trained = training.train(config, out, overwrite=overwrite, verbose=verbose)
        say(f"   {time.monotonic() - start:.0f} s", "2. Evaluating on the 1,000 test digits")
        evaluation = results.evaluate(trained, samples=500, verbose=verbose)
        print_evaluation(evaluation)
        say("3. Plotting")
        for path in results.draw(trained):
            say(f"   {path}")
            plots.append(str(path))
        say(f"4. Exporting to {trained.bundle}")
        print_variants(export.bundle_of_run(trained, data=export.data_of(trained)))
        say("5. Sampling from the exported file: the first ten digits of plots/samples.png again")
        write_samples(out, 10, 0, samples)
        say(f"   {samples}", "")
    seconds = time.monotonic() - start
    if as_json:
        made = {"evaluation": evaluation, "plots": plots, "bundle": str(trained.bundle), "samples": str(samples)}
        print(json.dumps({"run": str(out), "seconds": round(seconds, 1), **made}))
        return
    say(f"Done in {seconds:.0f} s. The model is {out / 'model.keras'}")
    if not quiet:
        _say_what_follows_the_demo(out)


def _say_what_follows_the_demo(run: Path) -> None:
    """Names the pictures to open, and commands for the embedded digits that take seconds."""
    other = run.parent / f"{run.name}_10d"
    replace = ["--overwrite"] if other.exists() else []
    say(
        f"Open {run / 'plots' / 'map.png'}: the images that the model makes of each point of the plane, and where it "
        f"puts the test digits. {run / 'plots' / 'reconstructions.png'} compares digits with what the model makes of "
        "them.",
        f"For your own pictures: {kvae_command('train', '--dataset', 'images:FOLDER')}",
    )
    say_next(
        "draw 64 digits; complete a digit of which only the top is seen; train 5 epochs with 10 latent dimensions in "
        "place of 2, and compare the two models.",
        ("sample", run, "-n", 64, "-o", "digits.png"),
        ("complete", run, "--digit", 3, "--observed", "top"),
        ("train", "--recipe", "digits_2d", "--latent-dim", 10, "--epochs", 5, "--out", other, *replace),
        ("compare", run, other),
    )


@command(
    examples=(
        "kvae train --recipe digits_2d",
        "kvae train --recipe digits_2d --epochs 10 --latent-dim 5 --out runs/five",
        "kvae train --dataset mnist5k --network conv --binarize none --likelihood continuous_bernoulli --epochs 1",
        "kvae train --early-stopping 5 --set 'data.train=train[:90%]' --set 'data.validation=train[90%:]'",
        "kvae train --recipe digits_2d --seed 1 --tensorboard --quiet --out runs/logged",
        "kvae train --recipe digits_2d --conditional --epochs 10 --out runs/conditional",
        "kvae train --resume --out runs/five",
    )
)
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    type=RECIPE_OR_FILE,
    help="The settings: a recipe that `kvae recipes` lists, or a file of your own.",
)
@click.option(
    "--dataset",
    metavar="SOURCE",
    type=SOURCE,
    help="The data: mnist5k, a TFDS dataset, idx:DIR, csv:FILE, npz:FILE or images:DIR.",
)
@click.option("--out", type=PATH, help="Folder of the run.  [default: saved_models/<name of the recipe>]")
@click.option("--resume", is_flag=True, help="Continue a run that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
@click.option(
    "--distribute",
    type=Choice(("mirrored", "multiworker")),  # distribution.KINDS, whose module takes 0.2 s to import
    help="mirrored: train on all devices of this machine. multiworker: train on all machines in TF_CONFIG; run this "
    "command on each of them.",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    type=SETTING,
    multiple=True,
    help="Set any key that `kvae keys` lists, e.g. model.beta=1.5. Can be given several times. The options below are "
    "short for the commonest keys.",
)
@click.option("--epochs", type=int, help="Number of epochs (training.epochs).")
@click.option("--batch-size", type=int, help="Images per batch (data.batch_size).")
@click.option("--latent-dim", type=int, help="Number of latent dimensions (model.latent_dim).")
@click.option("--beta", type=float, help="Weight of the KL term in the loss (model.beta).")
@click.option("--seed", type=int, help="Seed of all random numbers of the training (seed).")
@click.option("--learning-rate", type=float, help="Learning rate (training.learning_rate).")
@click.option(
    "--network", metavar="KIND", type=NETWORK, help="Encoder and decoder: mlp, conv or residual (model.network)."
)
@click.option(
    "--likelihood",
    metavar="KIND",
    type=LIKELIHOOD,
    help="p(x|z): bernoulli, gaussian, discretized_logistic or another of `kvae keys likelihood` (model.likelihood).",
)
@click.option(
    "--binarize",
    metavar="KIND",
    type=BINARIZATION,
    help="How grey pixels become 0 or 1: threshold, stochastic, fixed or none (data.binarize).",
)
@click.option(
    "--conditional",
    flag_value="label",
    default=None,
    help="Train a model of the images of each class, whose condition is the label (data.condition=label).",
)
@click.option(
    "--early-stopping",
    metavar="EPOCHS",
    type=int,
    help="Stop after this number of epochs without a better ELBO of the validation images (training.early_stopping). "
    "It needs data.validation.",
)
@click.option(
    "--tensorboard",
    is_flag=True,
    default=None,
    help="Write logs for TensorBoard into the folder of the run (training.tensorboard).",
)
@quiet_option
@json_option
def train(
    recipe: str | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    settings: tuple[str, ...],
    dataset: str | None,
    distribute: str | None,
    quiet: bool,
    as_json: bool,
    **short: Any,
) -> None:
    """Train a model and write its run folder.

    Without --recipe and --dataset, the recipe digits_2d is used, which trains on the digits that are part of kvae.
    """
    from kvae.training import distribution
    from kvae.training.config import RunConfig, collected, load_values, override, parse_setting
    from kvae.training.names import name_of_source
    from kvae.training.runs import Run, check_free

    short["dataset"] = dataset
    given = [(_as_typed(name, value), KEYS[name], value) for name, value in short.items() if value is not None]
    given += [(f"--set {text}", *parse_setting(text)) for text in settings]
    if resume and overwrite:
        raise UserError("Expected --resume or --overwrite. Received both. Leave one of them out.")
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
    with stopping.training(folder, resume, further), progress(quiet or as_json) as verbose:
        quiet_tensorflow()
        from kvae import training

        options: dict[str, Any] = {"verbose": verbose, "distribute": distribute}
        complete = _digest(folder) if resume and chief else None
        if resume:
            trained = training.resume(folder, config, **options)
        else:
            follows = recipe is None and dataset is not None
            trained = training.train(values if follows else config, folder, overwrite=overwrite, **options)
    seconds = time.monotonic() - start
    if as_json:
        evaluation = trained.evaluation() if chief else None
        print(json.dumps({"run": str(trained.folder), "seconds": round(seconds, 1), "evaluation": evaluation}))
    elif chief:
        print_evaluation(trained.evaluation())
        say(*_epochs_in_words(trained))
        if complete is not None and trained.model_digest() == complete:
            say(f"{trained.folder}: the training was complete already, so nothing was trained")
        else:
            say(f"{trained.folder}: trained and evaluated in {seconds:.0f} s")
        if not quiet:
            sample = ("sample", trained.folder, "-o", trained.folder / "samples.png")
            say_next(
                "draw pictures of the run, and images from it; compute a closer bound of log p(x).",
                ("plot", trained.folder),
                sample,
                ("evaluate", trained.folder, "--samples", 500),
            )
    else:
        say(f"Trained in {seconds:.0f} s. The chief worker writes {trained.folder}.")


def _digest(folder: Path) -> str | None:
    """SHA-256 of the model of a run that is finished; otherwise None."""
    from kvae.training.runs import Run

    run = Run.open(folder)
    return run.model_digest() if run.finished else None


def _epochs_in_words(run: Any) -> list[str]:
    """Which epoch's weights the run has, where that is not simply the last; one sentence or none."""
    from kvae.training import history

    if run.config.data.validation is None or not run.history_file.is_file():
        return []
    columns, training = run.history(), run.config.training
    best = history.best_epoch(columns)
    if best is None:
        return []
    epochs = len(columns["epoch"])
    if training.early_stopping is None:
        if best == epochs:
            return []
        return [
            f"trained {epochs} epochs; the validation ELBO was best after epoch {best}. To keep the weights of the "
            "best epoch: --early-stopping EPOCHS"
        ]
    ended = "stopped after" if epochs < training.epochs else "trained"
    return [f"{ended} {epochs} of {training.epochs} epochs; weights of epoch {best} kept"]


def _as_typed(name: str, value: Any) -> str:
    """An option as the user has given it."""
    option = f"--{name.replace('_', '-')}"
    return option if value is True or name == "conditional" else f"{option} {value}"


COMMANDS = (demo, train)
