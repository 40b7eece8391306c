"""Writes the SavedModel of a run: `python tools/export_saved_model.py RUN DIR [--decoder]`."""

from pathlib import Path

import click

from kvae import cli, export
from kvae.training.runs import Run


@click.command(help=__doc__)
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--decoder", is_flag=True, help="Write only decode and sample, without the encoder's weights.")
@click.option("--overwrite", is_flag=True, help="Replace an existing SavedModel.")
def main(run_folder: Path, folder: Path, decoder: bool, overwrite: bool) -> None:
    endpoints = export.DECODER if decoder else export.ENDPOINTS
    click.echo(export.saved_model(Run.open(run_folder).load_model(), folder, endpoints, overwrite=overwrite))


if __name__ == "__main__":
    cli.run(main, "export_saved_model.py")
