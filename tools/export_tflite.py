"""Writes one .tflite decoder of a run: `python tools/export_tflite.py RUN FILE.tflite [--variant int8]`."""

from pathlib import Path

import click

from kvae import export
from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.training.runs import Run


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("path", metavar="FILE.tflite", type=click.Path(path_type=Path))
@click.option("--variant", default="float32", show_default=True, help="float32, float16, int8 or full_int8.")
def main(run_folder: Path, path: Path, variant: str) -> None:
    try:
        content = export.convert(Run.open(run_folder).load_model(), [variant])[variant]
        with files.atomic_file(path) as partial:
            partial.write_bytes(content)
    except UserError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{path}: {len(content):,} bytes; operations: {', '.join(export.operators(content))}")


if __name__ == "__main__":
    main()
