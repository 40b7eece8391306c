"""history.csv: one row per epoch and one column per metric."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kvae.internal import files, reading
from kvae.internal.errors import UserError, first_line
from kvae.internal.next_command import kvae_command

NEEDED = ("epoch", "loss", "elbo", "reconstruction", "kl")  # the columns of every history


def write(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes history.csv. Numbers keep all digits, so that the files of two runs can be compared byte for byte."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names or ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """The columns of the history by name, each with one value per row, which is NaN if the row has no such value."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


def best_epoch(columns: Mapping[str, np.ndarray]) -> int | None:
    """The first epoch with the highest ELBO of the held-out images, or None if it was never measured.

    It is the epoch whose weights early stopping keeps.

    Args:
        columns: the columns of the history by name.
    """
    values = np.asarray(columns.get("val_elbo", ()))
    return int(columns["epoch"][np.nanargmax(values)]) if np.isfinite(values).any() else None


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads history.csv: its columns by name, each with one value per epoch.

    Raises:
        UserError: if the file is missing or is not the history of a run.
    """
    try:
        lines = csv.DictReader(io.StringIO(reading.read_text(path)), strict=True)
        rows, names = list(lines), list(lines.fieldnames or [])
        columns = {name: np.array([float("nan" if row[name] == "" else row[name]) for row in rows]) for name in names}
        if any(None in row for row in rows):
            raise ValueError("a row has more values than there are columns")
    except UserError as error:
        raise UserError(f"{error} Expected the history.csv of a run.") from error
    except (csv.Error, ValueError, TypeError) as error:
        raise UserError(f"Could not read {path}: {first_line(error)}. Expected the history.csv of a run.") from error
    missing = [name for name in (NEEDED if rows else NEEDED[:1]) if name not in columns]
    if missing or not np.array_equal(columns["epoch"], np.arange(1, len(rows) + 1)):
        reason = f"it has no column {missing[0]}" if missing else "its epochs are not 1, 2, 3, ..."
        again = kvae_command("train", "--resume", "--out", path.parent)
        raise UserError(f"{path} is not the history.csv of a run: {reason}. To write it again: {again}")
    return columns if rows else {}
