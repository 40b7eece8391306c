"""`kvae sweep`: one training for each point of a grid of settings."""

from pathlib import Path
from typing import Any

import click

from kvae.cli import stopping
from kvae.cli.output import say
from kvae.cli.shared import SAVED_MODELS, print_table, quiet_tensorflow, verbosity
from kvae.cli.usage import PATH, command
from kvae.internal import user_files
from kvae.internal.errors import UserError


@command()
@click.option("--recipe", metavar="NAME|FILE.toml", help="The recipe of all trainings.  [default: digits_2d]")
@click.option("--dataset", metavar="SOURCE", help="Short for --set data.source=...")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE[,VALUE...]",
    multiple=True,
    help="Values of a key. All combinations are trained; repeatable.",
)
@click.option("--out", type=PATH, help="Folder of the sweep.  [default: saved_models/<name of the recipe>_sweep]")
@click.option("--resume", is_flag=True, help="Continue a sweep that was interrupted: give --out and no other option.")
def sweep(recipe: str | None, dataset: str | None, settings: tuple[str, ...], out: Path | None, resume: bool) -> None:
    """Train a grid of settings and draw the rate-distortion curve.

    \b
    Example:
      kvae sweep --recipe digits_2d --set model.beta=0.5,1,2,4 --out saved_models/betas
    """
    if resume and (recipe is not None or dataset is not None or settings or out is None):
        raise UserError("Expected --resume with --out FOLDER alone: a sweep keeps its settings.")
    quiet_tensorflow()
    from kvae.training import sweeps
    from kvae.training.config import load_values

    if resume:
        assert out is not None
        made = sweeps.Sweep.open(out)
    else:
        values = load_values(recipe or "digits_2d")
        further = [] if dataset is None else [f"data.source={_quoted(dataset)}"]
        points = sweeps.plan(values, [*further, *settings])
        made = sweeps.Sweep.create(out or SAVED_MODELS / f"{values['name']}_sweep", points)

    def begin(number: int, point: Any) -> None:
        say(f"{number} of {len(made.points)}: {point.name}")

    files = [word for path in user_files.imported() for word in ("--import", str(path))]
    with stopping.sweep(made.folder, files):
        errors = made.train(verbose=verbosity(), begin=begin)
    _print(made.rows(), list(made.points[0].settings))
    if errors:
        name, error = next(iter(errors.items()))
        raise UserError(f"{len(errors)} of {len(made.points)} trainings failed. {name}: {error}")
    say(made.folder / "sweep.csv", made.folder / "rate_distortion.png")


def _quoted(text: str) -> str:
    """A text as a value of TOML, of which no comma separates values."""
    import json

    return json.dumps(text)


def _print(rows: list[dict[str, Any]], keys: list[str]) -> None:
    from rich.table import Table

    if not rows:
        return
    from kvae.training.sweeps import short_names

    table = Table()
    for title in (*short_names(keys).values(), "ELBO", "standard error", "reconstruction", "KL", "active", "epochs"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            *(str(row[key]) for key in keys),
            *(f"{row[name]:.2f}" for name in ("elbo", "elbo_standard_error", "reconstruction", "kl")),
            f"{row['active_units']} of {row['latent_dim']}",
            str(row["epochs"]),
        )
    print_table(table)


COMMANDS = (sweep,)
