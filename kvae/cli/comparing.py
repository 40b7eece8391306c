"""`kvae list` and `kvae compare`: what runs there are, and which is better. Neither imports TensorFlow."""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from kvae.cli.output import say
from kvae.cli.shared import console, heading, json_option, print_table
from kvae.cli.shell import RUN, SAVED_MODELS
from kvae.cli.usage import PATH, command
from kvae.internal import files, quantities
from kvae.internal.errors import UserError
from kvae.internal.next_command import kvae_command
from kvae.internal.visible import shortened, visible

SHOWN = 5  # folders without runs that are named
LONGEST = 30  # characters of a dataset in a table, which may be a path


@command("list", examples=("kvae list", "kvae list saved_models --json"))
@click.argument("folder", metavar="[DIR]", type=PATH, default=SAVED_MODELS)
@json_option
def list_(folder: Path, as_json: bool) -> None:
    """List the runs in a folder and their state.

    The state is finished, training, interrupted, not evaluated or damaged.

    The ELBO is that of the last `kvae evaluate`, in nats per image (1 nat = 1.44 bits), with its standard error.

    DIR: the folder. The folders in it are searched as well.  [default: saved_models]
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
        say(f"There are no runs in {str(folder)!r}. To train one: {kvae_command('demo')}, or {recipe}")
    else:
        _print_runs(runs)
        say(*(f"{run.name}: {run.remark}" for run in runs if run.remark))
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        say(f"These folders are not runs: {', '.join(path.name for path in others[:SHOWN])}{more}")


def _print_runs(runs: list[Any]) -> None:
    """Prints runs as a table in a terminal, and otherwise as one aligned line per run."""
    headings = ("run", "state", "dataset", "recipe", "epochs", "ELBO in nats", "size", "exported", "changed")
    rows = [
        (
            run.name,
            run.state,
            shortened(run.dataset or "", LONGEST),
            run.recipe or "",
            _epochs(run),
            _elbo(run),
            quantities.size(run.bytes),
            "yes" if run.bundle else "no",
            _when(run.changed),
        )
        for run in runs
    ]
    if sys.stdout.isatty():
        from rich.table import Table

        table = Table(title=None)
        for title in headings:
            table.add_column(title, justify="right" if title in ("epochs", "ELBO in nats", "size") else "left")
        for row in rows:
            table.add_row(*row)
        print_table(table)
        return
    lines = [[visible(cell) or "-" for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _when(seconds: float | None) -> str:
    """The time of a day that is today, otherwise the date."""
    if seconds is None:
        return ""
    then, now = time.localtime(seconds), time.localtime()
    return time.strftime("today %H:%M" if then[:3] == now[:3] else "%Y-%m-%d", then)


def _epochs(run: Any) -> str:
    if run.epochs is None:
        return ""
    return str(run.epochs) if run.epochs == run.planned_epochs else f"{run.epochs} of {run.planned_epochs}"


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
    """Compare evaluated runs in a table and a figure.

    The best run is the first in the table. The figure shows the ELBO of each run after each epoch.

    RUN: a run, or a folder of runs. The numbers are those that `kvae evaluate` has written; nothing is computed again.
    Runs that were measured by different protocols (dataset, split, binarization, samples, seed) are marked and not
    ranked. Likelihoods of normalized densities, such as a Gaussian and a continuous Bernoulli, can be compared on the
    same pixels; a Bernoulli, levels of grey and squared_error cannot be compared with them.
    """
    from kvae.training import comparison

    files.check_folder(out)
    compared = comparison.compare(folders, any_protocol=any_protocol)
    if not as_json:
        _print_comparison(compared)
    facts = {
        "runs": comparison.rows(compared),
        "differing": list(compared.differing),
        "close_to_best": compared.close,
        "left_out": compared.left_out,
    }
    if not compared.ranked:
        if as_json:
            print(json.dumps({**facts, "files": []}))
        raise UserError(
            f"Expected runs that were measured by the same protocol. These differ: {compared.differences()}. Compare "
            "only runs with the same letter in the column protocol, or rank all of them with --any-protocol."
        )
    written = [str(path) for path in comparison.save(compared, out)]
    if as_json:
        print(json.dumps({**facts, "files": written}))
    else:
        say(*written)


def _comparison_table(headings: list[str], rows: list[list[str]], lines: int) -> Any:
    """A table of runs, in which an estimate and its standard error stand in one line or in two."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from kvae.training.comparison import ESTIMATES, HEADINGS

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in headings:
        left = title in ("run", "protocol", "further result")
        whole = title in HEADINGS and title != "run"  # the name of a run can have any length
        table.add_column(heading(title, 6), justify="left" if left else "right", no_wrap=whole, overflow="fold")
    for row in rows:
        cells = zip(headings, row, strict=True)
        table.add_row(
            *(
                Text(re.sub(" (?=[±(])", "\n", text)) if lines > 1 and title in ESTIMATES else text
                for title, text in cells
            )
        )
    return table


def _comparison_tables(headings: list[str], rows: list[list[str]]) -> Iterator[Any]:
    """One table of runs, or several with a part of the columns each, so that no cell is cut."""
    fit = [table for lines in (1, 2) if _fits(table := _comparison_table(headings, rows, lines))]
    if fit:
        yield fit[0]
        return
    shown = [0]  # the name of the run is in every table
    for column in range(1, len(headings)):
        if len(shown) > 1 and not _fits(_part_of_table(headings, rows, [*shown, column])):
            yield _part_of_table(headings, rows, shown)
            shown = [0]
        shown.append(column)
    yield _part_of_table(headings, rows, shown)


def _part_of_table(headings: list[str], rows: list[list[str]], columns: list[int]) -> Any:
    return _comparison_table([headings[c] for c in columns], [[row[c] for c in columns] for row in rows], lines=2)


def _fits(table: Any) -> bool:
    output = console()
    return bool(output.measure(table, options=output.options.update(max_width=1000)).maximum <= output.width)


def _print_comparison(compared: Any) -> None:
    """Prints a comparison as a table, with what belongs to it."""
    from kvae.training import comparison

    headings, rows = comparison.cells(compared)
    for table in _comparison_tables(headings, rows):
        print_table(table)
    headings, rows = comparison.further_cells(compared)
    for table in _comparison_tables(headings, rows) if rows else ():
        print_table(table)
    say(comparison.key(compared), *compared.notes())
    for letter, protocol in comparison.protocols(compared).items():
        say(f"Protocol{f' {letter}' if compared.differing else ''}: {protocol}")


COMMANDS = (list_, compare)
