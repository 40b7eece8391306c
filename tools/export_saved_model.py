"""Writes the SavedModel of a run: `python tools/export_saved_model.py RUN DIR [--decoder]`."""

from pathlib import Path

import click

from kvae import export
from kvae.internal.errors import UserError
from kvae.training.runs import Run


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--decoder", is_flag=True, help="decode and sample alone, without the encoder's weights.")
@click.option("--overwrite", is_flag=True, help="Replace a SavedModel that stands there.")
def main(run_folder: Path, folder: Path, decoder: bool, overwrite: bool) -> None:
    try:
        names = export.DECODER if decoder else export.ENDPOINTS
        click.echo(export.saved_model(Run.open(run_folder).load_model(), folder, names, overwrite=overwrite))
    except UserError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
