"""Shared by several commands: quiet imports, the option --import, and tables."""

import gc
import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click

from kvae.cli import stopping
from kvae.cli.output import say
from kvae.cli.usage import PATH
from kvae.internal import user_files
from kvae.internal.quiet_output import silenced
from kvae.internal.visible import visible

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
quiet_option = click.option("--quiet", is_flag=True, help="Print no progress, only the result.")


def quiet_tensorflow() -> None:
    """Imports TensorFlow without the lines that it writes to file descriptor 2 before its log level takes effect."""
    module = "kvae.internal.tensorflow"
    if module in sys.modules:
        return
    with stopping.importing(), silenced():
        importlib.import_module(module)
    gc.freeze()  # the modules stay until the command ends: no search for garbage needs to look at them again


def import_option() -> click.Option:
    """The option --import of every command that opens a model or data."""

    def run_files(_: Any, __: Any, paths: tuple[Path, ...]) -> None:
        if paths:
            quiet_tensorflow()
        for path in paths:
            user_files.import_file(path)

    return click.Option(
        ["--import"],
        type=PATH,
        metavar="FILE.py",
        multiple=True,
        expose_value=False,
        callback=run_files,
        help="Import a Python file with your own classes, which settings name as MODULE:CLASS. Can be given several "
        "times.",
    )


@contextmanager
def progress(hidden: bool) -> Iterator[int]:
    """What is printed in the block is progress, which can be hidden.

    Yields:
        The argument `verbose` of a training: a bar on a terminal, otherwise one line per epoch.
    """
    if hidden:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            yield 0
    else:
        yield 1 if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else 2


def print_evaluation(result: dict[str, Any]) -> None:
    """Prints an evaluation as a table, with its protocol."""
    from rich.table import Table

    from kvae.evaluation.evaluations import labels
    from kvae.training import wording

    protocol = dict(result["protocol"])
    titled = labels(protocol)
    names: dict[str, str | list[str]] = {**wording.RESULTS, **titled}
    table = Table(title=None)
    table.add_column("result")
    table.add_column("mean, nats per image", justify="right")
    table.add_column("standard error", justify="right")
    for name, value in result.items():
        error = result.get(f"{name}_standard_error", ())
        if isinstance(value, list) and isinstance(error, list) and 1 <= len(value) <= 10:
            titles = names.get(name, name.removesuffix("_per_dimension"))
            if isinstance(titles, str):
                titles = [f"  {titles} of z{dimension}" for dimension in range(1, len(value) + 1)]
            for title, mean, standard_error in zip(titles, value, error, strict=True):
                table.add_row(title, f"{mean:.3f}", three_digits(standard_error))
        elif isinstance(value, float) and not isinstance(error, tuple | list):
            table.add_row(str(names.get(name, name)), f"{value:.3f}", three_digits(error))
        elif isinstance(value, float) and name in titled:  # a number that is no mean over images
            table.add_row(str(titled[name]), f"{value:.4g}", "")
    print_table(table)
    if {"elbo", "reconstruction", "kl"} <= result.keys():
        say(wording.HOW_THE_ELBO_IS_MADE)
        if protocol.get("likelihood") in wording.DENSITIES:
            say(wording.OF_DENSITIES)
    if result.get("unreliable"):
        say(wording.of_unreliable(result["unreliable"], result["latent_dim"]))
    if "active_units" in result:
        protocol["active_units"] = f"{result['active_units']} of {result['latent_dim']}"
    print_protocol({name: value for name, value in protocol.items() if name != "evaluations"})


def console(width: int = 100) -> Any:
    """A console of `rich`, which has the given width if the output is not a terminal, and takes no text as markup."""
    from rich.console import Console

    class Literal(Console):
        def render_str(self, text: str, **options: Any) -> Any:  # every text and every cell of a table passes here
            return super().render_str(visible(text), **options)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # `kvae.cli.entry` handles it, as that of any other output

    return Literal(width=None if sys.stdout.isatty() else width, highlight=False, markup=False, emoji=False)


def print_table(table: Any) -> None:
    """Prints a table of `rich`."""
    console().print(table)


def print_protocol(protocol: dict[str, Any]) -> None:
    """Prints a protocol as an indented list."""
    from kvae.training import wording

    lines = [f"  {name}: {value}" for name, value in wording.of_protocol(protocol).items()]
    console().print("protocol, which says how the numbers were measured:", *lines, sep="\n", soft_wrap=True)


def heading(words: str, width: int = 8) -> Any:
    """The heading of a narrow column, in several lines if it has several words."""
    from rich.text import Text

    return Text("\n".join(textwrap.wrap(words, width, break_long_words=False)))


def three_digits(value: float | None) -> str:
    """A number with three digits after the point; a hyphen for None."""
    return "-" if value is None else f"{value:.3f}"
