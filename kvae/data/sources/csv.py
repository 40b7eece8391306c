"""`csv:FILE` or `csv:TRAIN,TEST`: text files with one image per row, as on Kaggle.

A file with a header has columns named `pixel...`, numbered without gaps, an optional column `label`, and no others. A
file without a header has a square number of pixels per row, which a label may precede. Compressed files (.gz) are
accepted.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae.data.split import Source, Split, as_labels, hold_out
from kvae.internal import memory, reading
from kvae.internal.errors import UserError, first_line

COLUMNS = 512 * 512 + 1  # the most columns of a file: more take minutes and gigabytes to read
LINE = 16 * COLUMNS  # bytes: the longest first line
# Bytes of memory per byte of text: a cell of two bytes becomes a number of eight, twice.
EXPANSION = 10


def _read_text(path: Path) -> bytes:
    """The content of a file, decompressed; raises `UserError` if it is too large for the memory of this machine."""
    most = memory.available() // EXPANSION
    content = reading.read_bytes(path, most)
    if path.suffix == ".gz":
        _first_line(path, reading.decompressed_start(content, LINE, path))  # a small file can be large and no text
        content = reading.decompressed(content, most, path)
    return content


def _first_line(path: Path, content: bytes) -> list[str]:
    """The cells of the first line."""
    start = content[:LINE]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"Could not read {path}: it is text in UTF-16. Save it as UTF-8.")
    line = re.split(rb"[\r\n]", start, maxsplit=1)[0]
    if len(line) == LINE:
        raise UserError(f"{path}: expected a first line of at most {LINE:,} bytes. Received a longer one.")
    if b"\0" in line:
        raise UserError(f"Could not read {path}: its first line has a NUL byte, so it is not a text file.")
    try:
        first = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"Could not read {path}: {error}. Expected a text file of comma-separated pixels.") from error
    if not first.strip():
        raise UserError(f"{path} is empty. Expected one image per row.")
    cells = [cell.strip().strip('"') for cell in first.split(",")]
    if len(cells) > COLUMNS:
        raise UserError(f"{path}: expected at most {COLUMNS:,} columns. Received {len(cells):,}.")
    return cells


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
    pixels = [column for column, name in enumerate(names) if re.fullmatch(r"pixel[ _]?[0-9]{1,9}", name)]
    others = sorted(set(range(len(names))) - set(pixels) - {names.index("label") if "label" in names else -1})
    unknown = next((first[column] for column in others if names[column] != "label"), None)
    if unknown is not None or not pixels:
        raise UserError(
            f"{path}: expected a header with the columns pixel0, pixel1, ... and optionally label. "
            f"Received {unknown or first[0]!r:.60} among {len(first)} columns."
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
    content = _read_text(path)
    first = _first_line(path, content)
    header, label, pixels = _columns(path, first)
    try:
        table = csv.read_csv(
            # Arrow takes a long first row without an end for an empty file.
            pa.BufferReader(content if content.endswith(b"\n") else content + b"\n"),
            read_options=csv.ReadOptions(
                autogenerate_column_names=True,
                skip_rows=1 if header else 0,
                block_size=2**20 + 32 * len(first),  # a block has to hold a row
            ),
            convert_options=csv.ConvertOptions(strings_can_be_null=False, null_values=[]),
        )
    except (pa.ArrowException, OSError, EOFError, MemoryError) as error:
        raise UserError(f"{path}: expected rows of the same length. {first_line(error)}.") from error
    if table.num_rows == 0:
        raise UserError(f"{path} has no row of pixels. Expected one image per row.")
    if table.num_columns != len(pixels) + (label is not None):
        raise UserError(
            f"{path}: expected {len(pixels) + (label is not None)} columns as in its first line. "
            f"Received {table.num_columns}."
        )
    columns = [_numbers(table.column(column), path, column) for column in pixels]
    images = np.stack(columns, axis=1)
    labels = None
    if label is not None:
        labels = as_labels(_numbers(table.column(label), path, label), len(images), str(path))
    if not header and labels is not None and np.ptp(labels) == 0 and _is_label(images[:, -1], images[:, :-1]):
        raise UserError(
            f"{path}: expected the label in the first column. The last one looks like the label: move it. If it is a "
            "pixel, add a first line with the names of the columns: label, pixel0, pixel1, ..."
        )
    side = math.isqrt(len(pixels))
    return Split.from_arrays(images.reshape(-1, side, side), labels, description=str(path))


def _is_label(last: np.ndarray, others: np.ndarray) -> bool:
    """Whether the last column is one of labels: it has few values, and the pixels have many, or have not these."""
    values, few = np.unique(last), 20
    if not 1 < len(values) <= few:
        return False
    pixels = np.unique(others)
    return len(pixels) > few or not np.isin(values, pixels).all()


def _numbers(column: Any, path: Path, position: int) -> np.ndarray:
    """A column as numbers; raises `UserError` with the row and the text of a cell that is not a number."""
    values = column.to_numpy()
    if values.dtype.kind in "iuf":
        return values
    for row, value in enumerate(values):
        if not _is_number(str(value)):
            raise UserError(
                f"{path}: expected a number in column {position + 1} of row {row + 1}. Received {str(value)[:60]!r}."
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
