"""What several commands share: quiet imports, tables, the data and pictures of a run."""

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvae.internal.quiet import silenced

if TYPE_CHECKING:
    from kvae.plotting.figures import Subject
    from kvae.training.runs import Run

SAVED_MODELS = Path("saved_models")

_printed: set[str] = set()


def one_line(message: Any, category: Any, *_: Any) -> None:
    """Prints a warning of kvae's own as one line, once; those of libraries are for their developers."""
    line = f"kvae: warning: {message}"
    if category is UserWarning and str(message).startswith("Grey pixels") and line not in _printed:
        _printed.add(line)
        print(line, file=sys.stderr)


def quiet_tensorflow() -> None:
    """Imports TensorFlow without the lines that it writes to file descriptor 2 before its log level counts."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silenced():
        importlib.import_module("kvae.internal.tensorflow")


def verbosity() -> int:
    """Keras's progress bar on a terminal, a line an epoch elsewhere."""
    return 1 if sys.stdout.isatty() else 2


def print_evaluation(result: dict[str, Any]) -> None:
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
        table.add_row(shown, f"{result[name]:.3f}", three_digits(result[f"{name}_standard_error"]))
    if 1 <= len(result.get("kl_per_dimension", ())) <= 10:
        pairs = zip(result["kl_per_dimension"], result["kl_per_dimension_standard_error"], strict=True)
        for dimension, (mean, error) in enumerate(pairs, start=1):
            table.add_row(f"  kl of z{dimension}", f"{mean:.3f}", three_digits(error))
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(table)
    protocol = {**result["protocol"], "active_units": f"{result['active_units']} of {result['latent_dim']}"}
    console.print(
        "; ".join(f"{name}: {value}" for name, value in protocol.items() if value is not None), soft_wrap=True
    )


def three_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def subject_of(trained: "Run") -> "Subject":
    """A run as a subject of pictures."""
    from kvae import training
    from kvae.plotting import figures

    held_out = "validation" if trained.config.data.validation else "test"
    data = training.load_data(trained.config)
    return figures.Subject(trained.load_model(), data, trained.history(), held_out)


def draw_plots(trained: "Run", subject: "Subject", kinds: Any, suffix: str, **options: Any) -> Iterator[Path]:
    """Draws the kinds named, or all that suit, into the run's plots."""
    from kvae.plotting import figures

    for kind in kinds or figures.KINDS:
        taken = {name: value for name, value in options.items() if name in figures.options_of(kind)}
        try:
            yield from figures.draw(kind, subject, trained.plots, suffix=suffix, **taken)
        except figures.Unsuitable as error:
            if kinds:
                raise
            click.echo(f"{kind}: left out. {error}")
