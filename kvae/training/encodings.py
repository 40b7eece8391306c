"""The latent representation of images by the model of a run, as a file for further work: .npz or .csv."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae import evaluation
from kvae.evaluation import Encoded
from kvae.internal import files
from kvae.internal.errors import UserError, check_whole, unknown
from kvae.training.runs import Run
from kvae.training.train_resume import load_data, protocol

SPLITS = ("train", "test")
SUFFIXES = (".npz", ".csv")
BATCH = 100  # images per call of the encoder


class Encodings(NamedTuple):
    """The posteriors of the first images of a split."""

    posterior: Encoded
    labels: np.ndarray | None  # [N]
    label_names: tuple[str, ...] | None
    protocol: dict[str, Any]


def encode(
    run: Run, dataset: str | None = None, *, split: str = "test", number: int | None = None, batch_size: int = BATCH
) -> Encodings:
    """Encodes the images of a source with the model of a run.

    Args:
        run: a run that has finished.
        dataset: the name of the source, whose images are binarized as the run's data are. By default the run's own data
            are used.
        split: `train` or `test`. A source without a test split has a tenth of its images in `test`.
        number: the number of images, which are the first of the split. By default all.
        batch_size: the number of images per call of the encoder. It does not change the result.

    Raises:
        UserError: if the training has not finished, if the images cannot be read or have another shape than the
            model's, or if an argument is not valid.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if number is not None:
        check_whole("number", number)
    vae, config = run.load_model(), run.config
    if dataset is not None:  # batches of 1 are possible for sets of any size
        changes: dict[str, Any] = {
            "source": dataset,
            "train": "train",
            "validation": None,
            "test": "test",
            "batch_size": 1,
        }
        changes["streaming"] = False  # which not every source permits
        config = config.model_copy(update={"data": config.data.model_copy(update=changes)})
    data = load_data(config)
    if tuple(data.info.image_shape) != tuple(vae.image_shape):
        raise UserError(
            f"Expected images of {_shape(vae.image_shape)}, like those that the run was trained on. Received images of "
            f"{_shape(data.info.image_shape)} in {data.info.source}. Resize them, or choose another run."
        )
    posterior = evaluation.encode(vae, data.batches(split, number, batch_size))
    count = len(posterior.mean)
    labels = data.labels_at(split, np.arange(count)) if data.has_labels(split) else None
    stated = {**protocol(data), "split": split, "images": count}
    if split == "train" and "evaluation_binarization" in stated:
        stated["evaluation_binarization"] = f"drawn once, seed {config.seed}"
    return Encodings(posterior, labels, data.info.label_names if labels is not None else None, stated)


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))


def check_output(path: Path, overwrite: bool) -> None:
    """Checks that encodings may be written to a file.

    Raises:
        UserError: if the suffix is neither .npz nor .csv, or if the file exists and `overwrite` is False.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"Expected a file that ends with .npz or .csv. Received {str(path)!r}.")
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{str(path)!r} exists. Replace it with --overwrite, or choose another file.")


def save(encodings: Encodings, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes encodings to a file.

    A .npz file has the arrays `index` [N], `mean` [N, D], `variance` [N, D] if it is known, `label` [N] and
    `label_names` if there are any, and the text `protocol`, which is JSON. A .csv file has the columns `index`, `label`
    if there are labels, `mean_1` to `mean_D`, and `variance_1` to `variance_D` if the variance is known. The index of
    an image counts from 0 within its split.

    Args:
        encodings: what `encode` returned.
        path: the file, which ends with .npz or .csv.
        overwrite: whether to replace an existing file. False by default.

    Raises:
        UserError: as `check_output`, or if the file cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite)
    columns: dict[str, np.ndarray] = {"index": np.arange(len(encodings.posterior.mean))}
    if encodings.labels is not None:
        columns["label"] = encodings.labels
    columns["mean"] = encodings.posterior.mean
    if encodings.posterior.variance is not None:
        columns["variance"] = encodings.posterior.variance
    if path.suffix.lower() == ".csv":
        files.write_text(path, _csv(columns))
        return
    if encodings.label_names is not None:
        columns["label_names"] = np.array(encodings.label_names)
    with files.atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **columns, protocol=np.array(json.dumps(encodings.protocol)))  # type: ignore[arg-type]


def _csv(columns: dict[str, np.ndarray]) -> str:
    """The arrays as text, with one row per image. Numbers keep all digits of float32."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names: list[str] = []
    for name, values in columns.items():
        names += [name] if values.ndim == 1 else [f"{name}_{number + 1}" for number in range(values.shape[1])]
    writer.writerow(names)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([str(number) for values in row for number in np.atleast_1d(values)])
    return text.getvalue()
