"""`csv:FILE` or `csv:TRAIN,TEST`: text files with one image per row, as on Kaggle.

A file with a header has columns named `pixel...`, numbered without gaps, an optional column `label`, and no others. A
file without a header has a square number of pixels per row, which a label may precede. Compressed files (.gz) are
accepted.
"""

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kvae.data.split import Source, Split, as_bytes, as_labels, hold_out
from kvae.internal.errors import UserError


def _first_line(path: Path) -> list[str]:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            first = lines.readline()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"Could not read {path}: {error}. Expected a text file of comma-separated pixels.") from error
    if not first.strip():
        raise UserError(f"{path} is empty. Expected one image per row.")
    return [cell.strip().strip('"') for cell in first.rstrip("\r\n").split(",")]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class _Columns(NamedTuple):
    """The layout of a file."""

    header: bool  # whether the first line is a header
    label: int | None  # the column of the labels
    pixels: list[int]  # the columns of the pixels, in order


def _columns(path: Path, first: list[str]) -> _Columns:
    """The layout of a file with this first line."""
    if all(_is_number(cell) for cell in first):
        return _columns_without_header(path, len(first))
    names = [cell.lower() for cell in first]
    pixels = [column for column, name in enumerate(names) if re.fullmatch(r"pixel[ _]?\d{1,9}", name)]
    others = [name for name in names if name != "label" and not name.startswith("pixel")]
    if others or not pixels:
        raise UserError(
            f"{path}: expected a header with `pixel...` columns and optionally `label`. "
            f"Received {', '.join(first[:4])}..."
        )
    numbers = sorted(int(re.sub(r"\D", "", names[column])) for column in pixels)
    if len(set(numbers)) != len(numbers) or names.count("label") > 1:
        raise UserError(f"{path}: expected every column once. Received a repeated name.")
    missing = next((n for n, number in enumerate(numbers, start=numbers[0]) if n != number), None)
    if missing is not None:
        raise UserError(f"{path}: the column pixel{missing} is missing.")
    if _side(len(pixels)) is None:
        raise UserError(
            f"{path}: expected a square number of pixel columns. Received {len(pixels)}; some may be missing."
        )
    label = names.index("label") if "label" in names else None
    return _Columns(True, label, sorted(pixels, key=lambda column: int(re.sub(r"\D", "", names[column]))))


def _columns_without_header(path: Path, count: int) -> _Columns:
    if _side(count) is not None:
        return _Columns(False, None, list(range(count)))
    if _side(count - 1) is not None:
        return _Columns(False, 0, list(range(1, count)))
    raise UserError(
        f"{path}: expected a square number of pixels per row, or a label and a square number of pixels. "
        f"Received {count} columns."
    )


def _side(pixels: int) -> int | None:
    """The side of a square image with this number of pixels, or None if there is none."""
    side = math.isqrt(max(pixels, 0))
    return side if side > 0 and side * side == pixels else None


def read_csv(path: str | Path) -> Split:
    """Reads one file.

    Raises:
        UserError: if the file cannot be read, is empty, has rows of different lengths, lacks a column, or has a cell
            that is empty, is not a number, or is out of range. The message names the row if there is one.
    """
    import pyarrow as pa
    from pyarrow import csv

    path = Path(path)
    header, label, pixels = _columns(path, _first_line(path))
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(autogenerate_column_names=True, skip_rows=1 if header else 0),
            convert_options=csv.ConvertOptions(strings_can_be_null=False, null_values=[]),
        )
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise UserError(f"{path}: expected rows of the same length. {str(error).splitlines()[0]}") from error
    if table.num_rows == 0:
        raise UserError(f"{path} has no row of pixels. Expected one image per row.")
    if table.num_columns != len(pixels) + (label is not None):
        raise UserError(
            f"{path}: expected {len(pixels) + (label is not None)} columns as in its first line. "
            f"Received {table.num_columns}."
        )
    columns = [_numbers(table.column(column), path, column) for column in pixels]
    images = as_bytes(np.stack(columns, axis=1), str(path))
    labels = None
    if label is not None:
        labels = as_labels(_numbers(table.column(label), path, label), len(images), str(path))
    if not header and labels is not None and np.ptp(labels) == 0 and 1 < len(np.unique(images[:, -1])) <= 20:
        raise UserError(f"{path}: expected the label in the first column. The last one looks like the label: move it.")
    side = math.isqrt(len(pixels))
    return Split.from_arrays(images.reshape(-1, side, side), labels)


def _numbers(column: "object", path: Path, position: int) -> np.ndarray:
    """A column as numbers; raises `UserError` with the row and the text of a cell that is not a number."""
    values = column.to_numpy()  # type: ignore[attr-defined]
    if values.dtype.kind in "iuf":
        return values
    for row, value in enumerate(values):
        if not _is_number(str(value)):
            raise UserError(
                f"{path}: expected a number in column {position + 1} of row {row + 1}. Received {str(value)!r}."
            )
    return values.astype(np.float64)


def read(files: str) -> Source:
    """Reads the splits `train` and `test`.

    Args:
        files: `FILE`, a part of which becomes the test split, or `TRAIN,TEST`.

    Raises:
        UserError: if there are more than two files, if a file is not valid, or if the sizes of their images differ.
    """
    paths = files.split(",")
    if len(paths) > 2 or not all(paths):
        raise UserError(f"Expected csv:FILE or csv:TRAIN,TEST. Received csv:{files}.")
    splits = [read_csv(path) for path in paths]
    name = f"csv:{files}"
    if len(splits) == 1:
        return hold_out(name, {"train": splits[0]})
    if splits[0].image_shape != splits[1].image_shape:
        raise UserError(
            f"Expected images of one size in {files}. Received {splits[0].image_shape} and {splits[1].image_shape}."
        )
    return Source(name, dict(zip(("train", "test"), splits, strict=True)))
