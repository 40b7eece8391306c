"""`kvae export`, `kvae sample`, `kvae verify`: bundles, images and checks."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import click

from kvae.cli.output import complain, say
from kvae.cli.shared import heading, json_option, print_table, progress, quiet_option, quiet_tensorflow
from kvae.cli.shell import RUN, RUN_OR_NAME
from kvae.cli.usage import PATH, command
from kvae.internal import memory, missing_packages, pictures, quantities, replacing
from kvae.internal.errors import UserError, check_seed, check_whole

MOST = 10_000  # the largest number of images in one picture


@command(
    examples=(
        "kvae export saved_models/demo",
        "kvae export saved_models/demo --quick --overwrite",
        "kvae export saved_models/demo --formats tflite --variants float32 --out bundle --no-evaluation",
    )
)
@click.argument("run_folder", metavar="RUN", type=RUN)
@click.option(
    "--formats",
    help="Any of savedmodel, savedmodel_decoder (without the encoder), tflite, onnx and web, separated by commas.  "
    "[default: savedmodel, tflite, and web if the web page knows the model]",
)
@click.option(
    "--variants",
    default="float32,float16,int8",
    show_default=True,
    help="Variants of the .tflite decoder: any of float32, float16, int8 (dynamic range) and full_int8; and of "
    "the web page: web_int8 and web_float32.",
)
@click.option("--out", type=PATH, help="Folder of the bundle.  [default: RUN/bundle]")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option(
    "--tolerance",
    "tolerances",
    metavar="VARIANT=ERROR",
    multiple=True,
    help="Largest permitted error of the means, e.g. int8=0.2; with a larger error the export fails. Can be given "
    "several times.",
)
@click.option("--no-evaluation", is_flag=True, help="Do not measure the change of the test ELBO, which needs the data.")
@click.option(
    "--licence", metavar="TEXT", help="Licence of the model for its card, e.g. CC-BY-4.0.  [default: it is not stated]"
)
@click.option(
    "--data-licence",
    metavar="TEXT",
    help="Licence of the data for the card.  [default: that of MNIST or Fashion-MNIST; of others it is not stated]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Compare a tenth of the samples, measure times with 1 thread alone, and do not measure the change of the test "
    "ELBO.",
)
@quiet_option
@json_option
def export(
    run_folder: Path,
    formats: str | None,
    variants: str,
    out: Path | None,
    overwrite: bool,
    tolerances: tuple[str, ...],
    no_evaluation: bool,
    licence: str | None,
    data_licence: str | None,
    quick: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Export a run as SavedModel, .tflite decoders and a web page.

    They are written into a bundle, a folder with a model card, a script that draws images, and README.md, which says
    which file is for what and has code for apps. Each step is printed as it begins. With --quiet, only this folder is
    printed.
    """
    from kvae.runtime import cards
    from kvae.training.runs import Run

    limits = _tolerances(tolerances)
    trained = Run.open(run_folder)
    # What can be found before TensorFlow is loaded.
    replacing.check_free(trained.bundle if out is None else out, overwrite, noun="a bundle", strangers=cards.strangers)
    if "onnx" in _names(formats or ""):
        missing_packages.check_onnx()
    quiet_tensorflow()
    from kvae import export as exports

    folder = trained.bundle if out is None else out
    chosen = None if formats is None else _names(formats)
    exports.check_options(folder, chosen, _names(variants), limits, overwrite, licence, data_licence)
    data = None
    if not no_evaluation:
        try:
            data = exports.data_of(trained)
        except UserError as error:
            raise UserError(f"{error} To export without the data, use --no-evaluation.") from error
    with progress(quiet or as_json) as verbose:
        card = exports.bundle_of_run(
            trained,
            folder,
            data=data,
            formats=chosen,
            variants=_names(variants),
            tolerances=limits,
            overwrite=overwrite,
            licence=licence,
            data_licence=data_licence,
            quick=quick,
            verbose=verbose,
            **({"test": None} if quick else {}),
        )
    if as_json:
        print(json.dumps({"bundle": str(folder), "model_card": card}))
        return
    if not quiet:
        print_variants(card)
        say("README.md in the bundle says which file is for what, and how to use it.")
    say(folder)


@command(
    examples=(
        "kvae sample mnist_2d",
        "kvae sample saved_models/demo",
        "kvae sample saved_models/demo -n 64 --seed 3 -o grid.png",
        "kvae sample saved_models/demo -n 64 --seed 3 --draws -o draws.png",
        "kvae sample saved_models/demo/bundle/decoder.tflite -o device.png",
    )
)
@click.argument("path", type=RUN_OR_NAME)
@click.option("-n", "number", type=int, default=10, show_default=True, help="Number of images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the images.")
@click.option(
    "-o",
    "output",
    type=PATH,
    default=Path("samples.png"),
    show_default=True,
    help="File of the picture. An existing one is replaced.",
)
@click.option(
    "--means/--draws",
    "means",
    default=True,
    show_default=True,
    help="Show the mean of every pixel, or a draw of it, which looks noisy.",
)
@click.option(
    "--label",
    metavar="CLASS,...",
    help="For a conditional model, the classes of the images, by number or name; several are taken in turn.  [default: "
    "all classes]",
)
@click.option(
    "--variant",
    help="Decoder of a bundle: float32, float16, int8, full_int8, onnx, web_int8, ...  [default: the first of them]",
)
@json_option
def sample(
    path: Path,
    number: int,
    seed: int,
    output: Path,
    means: bool,
    label: str | None,
    variant: str | None,
    as_json: bool,
) -> None:
    """Draw new images with a trained model.

    The picture shows the means of p(x|z) for random z: the expected value of every pixel. With --draws, it shows images
    drawn from p(x|z) at the same z. They look noisy, because every pixel is drawn by itself, independently of its
    neighbours.

    PATH: a run, a bundle, the folder of a SavedModel, a .tflite, .onnx or .html file, or a name that `kvae pretrained`
    lists. With the same seed, all forms of one model draw the same images. If there is a .tflite file, TensorFlow is
    not loaded.
    """
    check_whole("-n", number)
    if number > MOST:
        raise UserError(
            f"Expected at most {MOST:,} images in one picture. Received -n {number:,}. To draw more, use Python: "
            "kvae.runtime.load(PATH).sample(seeds)."
        )
    check_seed("--seed", seed)
    pictures.check_picture_file(output)
    write_samples(path, number, seed, output, means, variant, label)
    if as_json:
        print(json.dumps({"file": str(output), "images": number, "seed": seed}))
    else:
        say(output)


@command(examples=("kvae verify saved_models/demo", "kvae verify saved_models/demo/bundle --no-evaluation --json"))
@click.argument("path", type=RUN_OR_NAME)
@click.option("--no-evaluation", is_flag=True, help="Do not check the test ELBO, which needs the data.")
@click.option(
    "--only", metavar="NAME,...", help="Evaluations to compute again.  [default: elbo, the one that is not slow]"
)
@quiet_option
@json_option
def verify(path: Path, no_evaluation: bool, only: str | None, quiet: bool, as_json: bool) -> None:
    """Check what a run or a bundle claims.

    The claims are the SHA-256 of each file, the parity, which is the agreement of the exported decoders with the Keras
    model, and the ELBO of the test images.

    Each line is a claim: "ok" if it holds, "FAIL" if it does not, and "-" if it cannot be computed again. The
    exit status is 1 if a claim does not hold. With --quiet, the lines are those of the claims that do not hold, and
    the last one.

    PATH: a run, with its bundle if it has one, a bundle, or a name that `kvae pretrained` lists.
    """
    quiet_tensorflow()
    from kvae import export as exports

    claims = []
    marks = {True: "ok  ", False: "FAIL", None: "-   "}
    for check in exports.verify(path, evaluate=not no_evaluation, only=None if only is None else _names(only)):
        claims.append(check)
        if not as_json and (check.passed is False or not quiet):
            say(f"{marks[check.passed]} {check.name}: {check.detail}")
    failed = sum(check.passed is False for check in claims)
    if as_json:
        print(json.dumps({"path": str(path), "failed": failed, "claims": [check._asdict() for check in claims]}))
    if failed:
        complain(f"kvae: {path}: {failed} {'claim does' if failed == 1 else 'claims do'} not hold")
        sys.exit(1)
    if not as_json:
        unchecked = any(check.passed is None for check in claims)
        say(f"{path}: all claims hold" + (", except for those not checked (-)" if unchecked else ""))


COMMANDS = (export, sample, verify)


def print_variants(card: dict[str, Any]) -> None:
    """Prints the parity report of a model card as a table of at most 100 columns, with its protocol."""
    from rich.table import Table

    from kvae.training import wording

    table = Table(title=None, pad_edge=False)
    pixels = next(iter(card["variants"].values()))["pixels"]
    changes = {name: report.get("elbo_change") for name, report in card["variants"].items()}
    measured = any(change is not None for change in changes.values())
    for title in (
        "variant",
        "size",
        "largest error of a mean",
        "differing pixels",
        *(["change of test ELBO in nats"] if measured else []),
        "ms for 1 image",
        "ms for 64 images",
        "start in s",
        "memory in MB",
    ):
        if title == "variant":
            table.add_column(title, no_wrap=True, min_width=max(map(len, card["variants"])))
        else:
            table.add_column(heading(title, 7), justify="right")
    for name, report in card["variants"].items():
        change = changes[name]
        microseconds, megabytes = report["latency_us"]["1 threads"], report["peak_memory_mb"]
        table.add_row(
            name,
            quantities.size(report["bytes"]),
            f"{report['means_error_greatest']:.1e}",
            f"{report['pixels_differing']:,}",
            *(["" if change is None else f"{change:+.4f}"] if measured else []),
            f"{microseconds['1'] / 1000:.2f}",
            f"{microseconds['64'] / 1000:.2f}",
            f"{report['load_seconds']:.2f}",
            "" if megabytes is None else f"{megabytes:.0f}",
        )
    of_page = any(report.get("format") == "web" for report in card["variants"].values())
    print_table(table)
    say(
        f"A mean is that of a pixel, from 0 to 1. Differing pixels: of {pixels:,} that were drawn with the same seeds.",
        f"Errors: {wording.of_comparison(card['protocol']['parity'], measured)}.",
        f"Times and memory: with 1 thread on {card['protocol']['costs'].partition(';')[0]}; the start is that of a new "
        "process." + (" Those of a web page are those of NumPy, which reads the decoder from it." if of_page else ""),
    )


def write_samples(
    path: Path,
    number: int,
    seed: int,
    output: Path,
    means: bool = True,
    variant: str | None = None,
    label: str | None = None,
) -> None:
    """Writes one picture of the means or, at the same z, of the draws.

    The images of a conditional model are of the classes in `label`, or of all its classes, in turn.
    """
    from kvae import runtime

    decoder = runtime.load(path, variant)
    # the images, their means, and one picture of either
    memory.check(6 * number * math.prod(decoder.image_shape), f"{number:,} images", "Choose a smaller -n.")
    samples = decoder.sample(runtime.seeds(number, seed), _labels(decoder, label, number))
    runtime.save_picture(output, runtime.sheet(samples.means if means else samples.images))


def _labels(decoder: Any, label: str | None, number: int) -> list[int] | None:
    """The class of each of some images; None without --label for a model whose classes have no names."""
    if label is None:
        labels = list(range(len(decoder.class_names or ())))
        if not labels and decoder.condition_shape is not None:
            raise UserError(
                "Expected --label, because this decoder draws images of classes whose names are not known: their model "
                "card is not beside it. Give one number from 0 or several, such as --label 0,1,2."
            )
    else:
        labels = [decoder.label(name) for name in _names(label)]
        if not labels:
            raise UserError("Expected --label with a class. Received none.")
    return [labels[index % len(labels)] for index in range(number)] if labels else None


def _names(text: str) -> list[str]:
    """The names in `NAME,NAME,...`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _tolerances(texts: tuple[str, ...]) -> dict[str, float]:
    """`VARIANT=ERROR` for several variants, as numbers by variant."""
    limits: dict[str, float] = {}
    for text in texts:
        variant, _, value = (part.strip() for part in text.partition("="))
        if variant in limits:
            raise UserError(f"Expected one --tolerance for {variant}. Received two.")
        try:
            limits[variant] = float(value)
        except ValueError:
            raise UserError(f"Expected --tolerance VARIANT=ERROR, e.g. int8=0.2. Received {text!r}.") from None
    return limits
