"""`kvae sweep`: one training for each point of a grid of settings."""

import json
from pathlib import Path
from typing import Any

import click

from kvae.cli import stopping
from kvae.cli.output import say, say_next
from kvae.cli.shared import heading, json_option, print_table, progress, quiet_option, quiet_tensorflow
from kvae.cli.shell import RECIPE_OR_FILE, SAVED_MODELS, SETTING, SOURCE
from kvae.cli.usage import PATH, command
from kvae.internal import user_files
from kvae.internal.errors import UserError


@command(
    examples=(
        "kvae sweep --recipe digits_2d --set model.beta=0.5,1,2,4 --out saved_models/betas",
        "kvae sweep --resume --out saved_models/betas",
    )
)
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    type=RECIPE_OR_FILE,
    help="The recipe of all trainings.  [default: digits_2d]",
)
@click.option("--dataset", metavar="SOURCE", type=SOURCE, help="Train on these data and not on those of the recipe.")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE[,VALUE...]",
    type=SETTING,
    multiple=True,
    help="Values of a key that `kvae keys` lists. All combinations are trained. Can be given several times.",
)
@click.option("--out", type=PATH, help="Folder of the sweep.  [default: saved_models/<name of the recipe>_sweep]")
@click.option("--resume", is_flag=True, help="Continue a sweep that was interrupted: give --out and no other option.")
@quiet_option
@json_option
def sweep(
    recipe: str | None,
    dataset: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train one model for each combination of settings.

    At the end, the rate-distortion curve is drawn: the KL term of each model against its reconstruction error.
    """
    if resume and (recipe is not None or dataset is not None or settings or out is None):
        raise UserError("Expected --resume with --out FOLDER and nothing else, because a sweep keeps its settings.")
    quiet_tensorflow()
    from kvae.training import data_defaults, sweeps
    from kvae.training.config import RunConfig, load_values
    from kvae.training.names import name_of_source
    from kvae.training.wording import DENSITIES, OF_DENSITIES

    explained: set[str] = set()

    def following_the_data(values: dict[str, Any]) -> RunConfig:
        followed = data_defaults.follow(values)
        if followed.explanation and followed.explanation not in explained and not (quiet or as_json):
            explained.add(followed.explanation)
            say(followed.explanation)
        return followed.config

    if resume:
        assert out is not None
        made = sweeps.Sweep.open(out)
    else:
        follows = recipe is None and dataset is not None  # as in `kvae train`
        values = {"name": name_of_source(dataset)} if dataset and follows else load_values(recipe or "digits_2d")
        folder = out or SAVED_MODELS / f"{values['name']}_sweep"
        sweeps.check_new(folder)  # before the data are read
        # In quotes, so that no comma of the dataset separates values.
        further = [] if dataset is None else [f"data.source={json.dumps(dataset, ensure_ascii=False)}"]
        points = sweeps.plan(values, [*further, *settings], following_the_data if follows else RunConfig.from_dict)
        made = sweeps.Sweep.create(folder, points)

    def begin(number: int, point: Any) -> None:
        say(f"{number} of {len(made.points)}: {point.name}")

    files = [word for path in user_files.imported() for word in ("--import", str(path))]
    with stopping.sweep(made.folder, files), progress(quiet or as_json) as verbose:
        errors = made.train(verbose=verbose, begin=begin)
    rows = made.rows()
    if as_json:
        print(json.dumps({"sweep": str(made.folder), "runs": rows, "errors": {k: str(v) for k, v in errors.items()}}))
    else:
        _print(rows, list(made.points[0].settings))
        if any(point.config.model.likelihood.kind in DENSITIES for point in made.points):
            say(OF_DENSITIES)
    if errors:
        name, error = next(iter(errors.items()))
        raise UserError(f"{len(errors)} of {len(made.points)} trainings failed. The first of these is {name}: {error}")
    if not as_json:
        say(made.folder / "sweep.csv", made.folder / "rate_distortion.png")
        if not quiet:
            say_next("compare the models in one table.", ("compare", made.folder, "--out", made.folder / "comparison"))


def _print(rows: list[dict[str, Any]], keys: list[str]) -> None:
    from rich.table import Table

    if not rows:
        return
    from kvae.training.sweeps import short_names

    table = Table()
    titles = ("ELBO", "standard error", "reconstruction error", "KL term", "active latent dimensions", "epochs")
    for title in (*short_names(keys).values(), *titles):
        table.add_column(heading(title), justify="right")
    for row in rows:
        table.add_row(
            *(str(row[key]) for key in keys),
            *(_two_digits(row[name]) for name in ("elbo", "elbo_standard_error", "reconstruction", "kl")),
            "-" if row["active_units"] is None else f"{row['active_units']} of {row['latent_dim']}",
            str(row["epochs"]),
        )
    print_table(table)
    if without := [row["run"] for row in rows if row["kl"] is None]:
        say(
            f"Without an ELBO in their last evaluation, and not in the curve: {', '.join(without)}. "
            "To measure it: kvae evaluate with the folder of the run."
        )
    say("The ELBO, its terms and its standard error are in nats per image, on the test images; 1 nat = 1.44 bits.")


def _two_digits(value: float | None) -> str:
    """A number with two digits after the point; a hyphen for None, such as the standard error of a single image."""
    return "-" if value is None else f"{value:.2f}"


COMMANDS = (sweep,)
