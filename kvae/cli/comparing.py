"""`kvae list` and `kvae compare`: what runs there are, and which is better. Neither imports TensorFlow."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from kvae.cli.output import say
from kvae.cli.shared import json_option, print_table
from kvae.cli.shell import RUN, SAVED_MODELS
from kvae.cli.usage import PATH, command
from kvae.internal import files, quantities
from kvae.internal.errors import UserError
from kvae.internal.next_command import kvae_command
from kvae.internal.visible import shortened, visible

SHOWN = 5  # folders without runs that are named
LONGEST = 40  # characters of a dataset in a table, which may be a path


@command("list", examples=("kvae list", "kvae list saved_models --json"))
@click.argument("folder", metavar="[DIR]", type=PATH, default=SAVED_MODELS)
@json_option
def list_(folder: Path, as_json: bool) -> None:
    """List the runs in a folder and their state: finished, training now, interrupted, or damaged.

    The ELBO is that of `kvae evaluate`, in nats per image, with its standard error.

    DIR: the folder, whose own folders may hold runs as well.  [default: saved_models]
    """
    from kvae.training import run_list

    nothing_yet = folder == SAVED_MODELS and not folder.exists()
    found, others = ([], []) if nothing_yet else run_list.find(folder)
    names = [path.relative_to(folder).as_posix() if path != folder else path.name or "." for path in found]
    runs = [run_list.describe(path, name) for path, name in zip(found, names, strict=True)]
    if as_json:
        listed = [{**run._asdict(), "folder": str(run.folder)} for run in runs]
        print(json.dumps({"folder": str(folder), "runs": listed, "not_runs": [path.name for path in others]}))
        return
    if not runs:
        recipe = kvae_command("train", "--recipe", "NAME")
        say(f"No runs in {str(folder)!r}. To train one: {kvae_command('demo')}, or {recipe}")
    else:
        _print_runs(runs)
        say(*(f"{run.name}: {run.remark}" for run in runs if run.remark))
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        say(f"Not runs: {', '.join(path.name for path in others[:SHOWN])}{more}")


def _print_runs(runs: list[Any]) -> None:
    """Prints runs as a table in a terminal, and otherwise as one aligned line per run."""
    headings = ("run", "state", "dataset", "recipe", "epochs", "ELBO", "size", "bundle", "changed")
    rows = [
        (
            run.name,
            run.state,
            shortened(run.dataset or "", LONGEST),
            run.recipe or "",
            "" if run.epochs is None else f"{run.epochs} of {run.planned_epochs}",
            _elbo(run),
            quantities.size(run.bytes),
            "yes" if run.bundle else "no",
            "" if run.changed is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
        )
        for run in runs
    ]
    if sys.stdout.isatty():
        from rich.table import Table

        table = Table(title=None)
        for heading in headings:
            table.add_column(heading, justify="right" if heading in ("epochs", "ELBO", "size") else "left")
        for row in rows:
            table.add_row(*row)
        print_table(table)
        return
    lines = [[visible(cell) or "-" for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _elbo(run: Any) -> str:
    if run.elbo is None:
        return ""
    return f"{run.elbo:.2f}" if run.elbo_standard_error is None else f"{run.elbo:.2f} ± {run.elbo_standard_error:.2f}"


@command(examples=("kvae compare saved_models/demo saved_models/again", "kvae compare saved_models --out comparison"))
@click.argument("folders", metavar="RUN ...", nargs=-1, required=True, type=RUN)
@click.option(
    "--out",
    type=PATH,
    default=Path("comparison"),
    show_default=True,
    help="Folder of comparison.csv, comparison.md and elbo_curves.png, which replace those of an earlier comparison.",
)
@click.option("--any-protocol", is_flag=True, help="Rank the runs even if their numbers were measured differently.")
@json_option
def compare(folders: tuple[Path, ...], out: Path, any_protocol: bool, as_json: bool) -> None:
    """Compare evaluated runs: a table, the best first, and their ELBO by epoch in one figure.

    RUN: a run, or a folder of runs. The numbers are those of `kvae evaluate`. Nothing is computed again. Runs whose
    protocols differ (dataset, split, binarization, samples, seed) are marked, and not ranked.
    """
    from kvae.training import comparison

    files.check_folder(out)
    compared = comparison.compare(folders, any_protocol=any_protocol)
    if not as_json:
        _print_comparison(compared)
    if not compared.ranked:
        raise UserError(
            f"Expected runs that were evaluated by the same protocol. These differ: {compared.differences()}. Compare "
            "those with the same letter, or rank all of them with --any-protocol."
        )
    written = [str(path) for path in comparison.save(compared, out)]
    if as_json:
        facts = {"runs": comparison.rows(compared), "differing": list(compared.differing)}
        print(json.dumps({**facts, "close_to_best": compared.close, "left_out": compared.left_out, "files": written}))
    else:
        say(*written)


def _print_comparison(compared: Any) -> None:
    """Prints a comparison as a table, with what belongs to it."""
    from rich.table import Table

    from kvae.training import comparison

    headings, rows = comparison.cells(compared)
    table = Table(title=None)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("run", "protocol") else "right")
    for row in rows:
        table.add_row(*row)
    print_table(table, 160)
    say(comparison.KEY, *compared.notes())
    for letter, protocol in comparison.protocols(compared).items():
        say(f"Protocol{f' {letter}' if compared.differing else ''}: {protocol}")


COMMANDS = (list_, compare)
