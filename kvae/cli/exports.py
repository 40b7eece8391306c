"""`kvae export`, `kvae sample`, `kvae verify`: a run for elsewhere."""

import sys
from pathlib import Path
from typing import Any

import click

from kvae.cli.shared import quiet_tensorflow
from kvae.internal.errors import UserError, check_seed, check_whole, unknown

MOST = 10_000  # images of one picture


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--formats",
    default="savedmodel,tflite",
    show_default=True,
    help="Of savedmodel, savedmodel_decoder (without the encoder) and tflite, with commas.",
)
@click.option(
    "--variants",
    default="float32,float16,int8",
    show_default=True,
    help="Of the .tflite decoders: float32, float16, int8 (dynamic range), full_int8.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The bundle.  [default: RUN/bundle]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that stands there.")
@click.option(
    "--tolerance",
    "tolerances",
    metavar="VARIANT=ERROR",
    multiple=True,
    help="The greatest error of the means at which the export fails, e.g. int8=0.2; repeatable.",
)
@click.option("--no-evaluation", is_flag=True, help="Leave out the change of the test ELBO, which needs the data.")
def export(
    run_folder: Path,
    formats: str,
    variants: str,
    out: Path | None,
    overwrite: bool,
    tolerances: tuple[str, ...],
    no_evaluation: bool,
) -> None:
    """Turn a run into a bundle that samples anywhere: SavedModel, .tflite decoders, model card."""
    from kvae.training.runs import Run

    limits = dict(_tolerance(text) for text in tolerances)
    trained = Run.open(run_folder)
    quiet_tensorflow()
    from kvae import export as exports

    folder = trained.bundle if out is None else out
    exports.check_options(folder, _listed(formats), _listed(variants), limits, overwrite)
    test = None
    if not no_evaluation:
        try:
            test = exports.test_images(trained)
        except UserError as error:
            raise UserError(f"{error} Without the data, export with --no-evaluation.") from error
    card = exports.bundle_of_run(
        trained,
        folder,
        formats=_listed(formats),
        variants=_listed(variants),
        test=test,
        tolerances=limits,
        overwrite=overwrite,
    )
    print_variants(card)
    click.echo(folder)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-n", "number", type=int, default=10, show_default=True, help="How many images.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "output", type=click.Path(path_type=Path), default=Path("samples.png"), show_default=True)
@click.option("--means", is_flag=True, help="Only the grey means, no draws.")
@click.option("--variant", help="Which decoder of a bundle: float32, float16, int8, full_int8.  [default: float32]")
def sample(path: Path, number: int, seed: int, output: Path, means: bool, variant: str | None) -> None:
    """Draw images from the prior: the means of p(x|z) above draws at the same z.

    PATH: a run, a bundle, the folder of a SavedModel, or a .tflite file. One seed draws the same images from all of
    them. Where there is a .tflite, TensorFlow is not loaded.
    """
    check_whole("-n", number)
    if number > MOST:
        raise UserError(
            f"Expected at most {MOST:,} images in one picture. Received -n {number:,}. For more, take the arrays: "
            "kvae.runtime.load(PATH).sample(seeds)."
        )
    check_seed("--seed", seed)
    write_samples(path, number, seed, output, means, variant)
    click.echo(output)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--no-evaluation", is_flag=True, help="Leave out the test ELBO, which needs the data.")
def verify(path: Path, no_evaluation: bool) -> None:
    """Re-derive what a run or a bundle claims: SHA-256, parity of every variant, test ELBO. Exit status 1 if it fails.

    PATH: a run, with its bundle if it has one, or a bundle.
    """
    quiet_tensorflow()
    from kvae import export as exports

    failed = 0
    for check in exports.verify(path, evaluate=not no_evaluation):
        click.echo(f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.found}")
        failed += not check.passed
    if failed:
        click.echo(f"kvae: {path}: {failed} {'claim does' if failed == 1 else 'claims do'} not hold", err=True)
        sys.exit(1)
    click.echo(f"{path}: everything holds")


COMMANDS = (export, sample, verify)


def print_variants(card: dict[str, Any]) -> None:
    """Prints the parity report of a bundle as a table, with its protocol."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=None)
    for title in ("variant", "bytes", "error of means", "mean", "pixels", "ELBO", "us, 1", "us, 64", "load, s", "MB"):
        table.add_column(title, justify="left" if title == "variant" else "right")
    for name, report in card["variants"].items():
        change = report.get("elbo_change")
        one, two = report["latency_us"]["1 threads"], report["latency_us"]["2 threads"]
        memory = report["peak_memory_mb"]
        table.add_row(
            name,
            f"{report['bytes']:,}",
            f"{report['means_error_greatest']:.1e}",
            f"{report['means_error_mean']:.1e}",
            f"{report['pixels_differing']:,}",
            "" if change is None else f"{change:+.4f}",
            f"{one['1']:.0f} / {two['1']:.0f}",
            f"{one['64']:.0f} / {two['64']:.0f}",
            f"{report['load_seconds']:.2f}",
            "" if memory is None else f"{memory:.0f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table)
    pixels = next(iter(card["variants"].values()))["pixels"]
    console.print(
        f"Errors {card['protocol']['parity']}; pixels: that differ, of {pixels:,}; us: on 1 / 2 threads; load: from "
        f"the start of the process; MB: its peak memory. Costs on {card['protocol']['costs']}",
        soft_wrap=True,
    )


def write_samples(
    path: Path, number: int, seed: int, output: Path, means_only: bool, variant: str | None = None
) -> None:
    """Writes one picture: a sheet of means and, unless `means_only`, the sheet of draws at the same z beneath it."""
    import numpy as np

    from kvae.internal import pictures
    from kvae.noise import portable

    drawn = _decoder(path, variant).sample(portable.seeds(number, seed))
    columns = 10 if number <= 10 else None
    sheets = [pictures.tile(np.clip(drawn.means, 0, 1), columns, gap=1)]
    if not means_only:
        draws = pictures.tile(drawn.images / np.float32(255), columns, gap=1)
        sheets += [np.ones((3, *draws.shape[1:]), np.float32), draws]
    pictures.save_picture(output, pictures.enlarge(np.concatenate(sheets)))


def _decoder(path: Path, variant: str | None) -> Any:
    """What draws the images of a path, without TensorFlow where there is a .tflite."""
    from kvae import runtime

    if variant is not None and variant not in runtime.VARIANTS:
        raise unknown("variant", variant, runtime.VARIANTS)
    saved_model = next((folder for folder in _saved_models(path) if (folder / "saved_model.pb").is_file()), None)
    if (path / "config.json").is_file():
        if variant is None and not _has_decoder(path):
            quiet_tensorflow()
            from kvae.export.parity import KerasDecoder
            from kvae.training.runs import Run

            return KerasDecoder(Run.open(path).load_model())
    elif saved_model is not None and variant is None:
        quiet_tensorflow()
        from kvae.export import SavedModelDecoder

        return SavedModelDecoder(saved_model)
    if variant is not None and (path.is_file() or saved_model == path):
        raise UserError(f"Expected --variant with a bundle or a run. {str(path)!r} is one decoder.")
    return runtime.load(path, variant)


def _saved_models(path: Path) -> list[Path]:
    """Where the SavedModel of a path would be: the folder itself, or in a bundle without .tflite decoders."""
    return [path] if any(path.glob("*.tflite")) else [path, path / "saved_model", path / "saved_model_decoder"]


def _has_decoder(run: Path) -> bool:
    """Whether a run has a bundle of its present model, with a .tflite."""
    from kvae import runtime

    bundle = runtime.find_bundle(run)
    if bundle is None:
        return False
    if not runtime.is_fresh(run, runtime.read_card(bundle)):
        click.echo(f"kvae: warning: {bundle} is of another model than {run / runtime.MODEL}: not sampled.", err=True)
        return False
    return any(bundle.glob("*.tflite"))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _tolerance(text: str) -> tuple[str, float]:
    variant, _, value = text.partition("=")
    try:
        return variant.strip(), float(value)
    except ValueError:
        raise UserError(f"Expected --tolerance VARIANT=ERROR, e.g. int8=0.2. Received {text!r}.") from None
