"""Puts the pictures of two folders side by side: `python tools/contact_sheet.py BEFORE AFTER SHEET.png`.

Both folders are searched for PNG files. Pictures with the same path lie in one row; one that a folder lacks is said to
be new or left out.
"""

from pathlib import Path

import click
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from kvae import cli
from kvae.internal import picture_files
from kvae.internal.errors import UserError
from kvae.internal.files import atomic_file

HEADING, GAP = 18, 12  # pixels
GREY = "#595959"
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def sheet(before: Path, after: Path, width: int, height: int) -> Image.Image:
    """The pictures of two folders, one row per path.

    Args:
        before: the folder of the left column.
        after: the folder of the right column.
        width: the width of a column in pixels.
        height: the greatest height of a picture in pixels.

    Raises:
        UserError: if there is no picture in the two folders, or if one cannot be read.
    """
    names = sorted({path.relative_to(folder) for folder in (before, after) for path in folder.rglob("*.png")})
    if not names:
        raise UserError(f"Expected folders with PNG files. Received {before} and {after}, which have none.")
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)
    rows = [_row(name, (before / name, after / name), width, height, font) for name in names]
    result = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        result.paste(row, (0, top))
        top += row.height
    return result


def _row(name: Path, paths: tuple[Path, Path], width: int, height: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One picture before and after, below its name."""
    pictures = [_small(path, width, height) if path.is_file() else None for path in paths]
    tall = max(picture.height for picture in pictures if picture is not None)
    row = Image.new("RGB", (2 * width + 3 * GAP, HEADING + tall + GAP), "white")
    pen = ImageDraw.Draw(row)
    for column, (picture, label, absent) in enumerate(
        zip(pictures, ("before", "after"), ("new", "left out"), strict=True)
    ):
        left = GAP + column * (width + GAP)
        pen.text((left, 1), f"{name.with_suffix('')}, {label}", fill="black", font=font)
        if picture is None:
            pen.text((left, HEADING + 4), absent, fill=GREY, font=font)
        else:
            row.paste(picture, (left, HEADING))
    return row


def _small(path: Path, width: int, height: int) -> Image.Image:
    """A picture, reduced to at most this size."""
    picture = picture_files.read(path, dict.fromkeys(MODES, "RGB"))
    picture.thumbnail((width, height), Image.Resampling.LANCZOS)
    return picture


FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(help=__doc__)
@click.argument("before", metavar="BEFORE", type=FOLDER)
@click.argument("after", metavar="AFTER", type=FOLDER)
@click.argument("path", metavar="SHEET.png", type=click.Path(path_type=Path))
@click.option(
    "--width", default=440, show_default=True, type=click.IntRange(50, 4000), help="Width of a column in pixels."
)
@click.option(
    "--height",
    default=330,
    show_default=True,
    type=click.IntRange(50, 4000),
    help="Largest height of a picture in pixels.",
)
def main(before: Path, after: Path, path: Path, width: int, height: int) -> None:
    picture = sheet(before, after, width, height).quantize(method=Image.Quantize.MAXCOVERAGE)  # a third of the bytes
    with atomic_file(path) as partial:
        picture.save(partial, "PNG", optimize=True)
    click.echo(f"{path}: {picture.width} x {picture.height} pixels, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    cli.run(main, "contact_sheet.py")
