"""`kvae encode`: the latent representation of images, as a file."""

import json
from pathlib import Path
from typing import Any

import click

from kvae.cli.output import say
from kvae.cli.shared import json_option, print_protocol, quiet_tensorflow
from kvae.cli.shell import RUN, SOURCE
from kvae.cli.usage import PATH, Choice, command
from kvae.internal.errors import check_whole


@command(
    examples=(
        "kvae encode saved_models/demo -o z.npz",
        "kvae encode saved_models/demo mnist5k --split train -n 100 -o z.csv",
    )
)
@click.argument("run_folder", metavar="RUN", type=RUN)
@click.argument("dataset", metavar="[SOURCE]", type=SOURCE, required=False)
@click.option("-o", "output", type=PATH, required=True, help="The file to write: FILE.npz or FILE.csv.")
@click.option(
    "--split",
    type=Choice(("train", "test", "all")),  # encodings.SPLITS, whose module needs TensorFlow
    default="test",
    show_default=True,
    help="The images to encode; all: training, validation and test images. If a source has no test split, a random "
    "tenth of its images is the test split.",
)
@click.option("-n", "number", type=int, help="Number of images to encode, from the start of the split.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@json_option
def encode(
    run_folder: Path,
    dataset: str | None,
    output: Path,
    split: str,
    number: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the mean and variance of q(z|x) for each image.

    q(z|x) is the distribution of z for one image, which the encoder predicts.

    SOURCE: mnist5k, a TFDS dataset, idx:DIR, csv:FILE, npz:FILE or images:DIR, whose images are binarized as the run's
    own are.  [default: the run's own data]

    A .npz file has the arrays index, label, mean, variance, label_names and protocol; a .csv file has the columns
    index, label, label_name, mean_1, mean_2, ..., variance_1, variance_2, ... What the source does not have, such as
    labels, is left out. For images:DIR, both have file, the path of each picture in DIR; with --split all, both have
    split as well.
    """
    from kvae.training.runs import Run

    if number is not None:
        check_whole("-n", number)
    trained = Run.open(run_folder)
    quiet_tensorflow()
    from kvae.training import encodings

    encodings.check_output(output, overwrite)
    encoded = encodings.encode(trained, dataset, split=split, number=number)
    encodings.save(encoded, output, overwrite=overwrite)
    images, latent_dim = encoded.posterior.mean.shape
    summary = {
        "file": str(output),
        "images": images,
        "latent_dim": latent_dim,
        "variance": encoded.posterior.variance is not None,
        "mean_draws": encoded.posterior.mean_draws,
        "labels": encoded.labels is not None,
        "files": encoded.files is not None,
        "protocol": encoded.protocol,
    }
    if as_json:
        print(json.dumps(summary))
    else:
        _report(summary)


def _report(summary: dict[str, Any]) -> None:
    """Prints what was written, and what is not in the file."""
    protocol = summary["protocol"]
    split = protocol["split"]
    which = "images" if split == "all" else f"{split} images"
    others = "" if split == "all" else " (--split all for the other images as well)"
    say(
        f"{summary['file']}: {summary['images']:,} {which} of {protocol['dataset']}, {summary['latent_dim']} latent "
        f"dimensions{others}"
    )
    if not summary["labels"]:
        classes = " In a folder of pictures, each sub-folder would be a class." if summary["files"] else ""
        say(f"The images have no labels, and so the file has none.{classes}")
    if summary["mean_draws"] is not None:
        say(f"Each mean is the average of {summary['mean_draws']} draws, because this posterior has no formula for it.")
    if not summary["variance"]:
        say("The file has no variances, because this posterior has no formula for them.")
    print_protocol({name: value for name, value in protocol.items() if name not in ("train", "validation", "test")})


COMMANDS = (encode,)
