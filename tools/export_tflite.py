"""Writes one .tflite decoder of a run: `python tools/export_tflite.py RUN FILE.tflite [--variant int8]`."""

from pathlib import Path

import click
import numpy as np

from kvae import cli, export
from kvae.internal import files
from kvae.training.runs import Run


@click.command(help=__doc__)
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("path", metavar="FILE.tflite", type=click.Path(path_type=Path))
@click.option("--variant", default="float32", show_default=True, help="float32, float16, int8 or full_int8.")
def main(run_folder: Path, path: Path, variant: str) -> None:
    vae = Run.open(run_folder).load_model()
    shape = vae.condition_shape or ()
    conditions = np.eye(shape[0], dtype=np.float32) if len(shape) == 1 else None  # each class
    content = export.convert(vae, [variant], conditions=conditions)[variant]
    with files.atomic_file(path) as partial:
        partial.write_bytes(content)
    click.echo(f"{path}: {len(content):,} bytes; operations: {', '.join(export.operators(content))}")


if __name__ == "__main__":
    cli.run(main, "export_tflite.py")
