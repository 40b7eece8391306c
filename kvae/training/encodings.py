"""The latent representation of images by the model of a run, as a file for further work: .npz or .csv."""

import csv
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae import evaluation
from kvae.data.pipeline import Data
from kvae.evaluation import Encoded
from kvae.internal import files
from kvae.internal.errors import UserError, check_whole, unknown
from kvae.internal.visible import visible
from kvae.training.runs import Run
from kvae.training.train_resume import data_for, protocol

ALL = "all"
SPLITS = ("train", "test", ALL)
SUFFIXES = (".npz", ".csv")
PARTS = ("train", "validation", "test")
BATCH = 100  # images per call of the encoder


class Encodings(NamedTuple):
    """The posteriors of the first images of a split, or of all splits."""

    posterior: Encoded
    places: np.ndarray  # [N], the index of each image in its split
    split: np.ndarray | None  # [N], the name of the split of each image, if all splits were encoded
    labels: np.ndarray | None  # [N]
    label_names: tuple[str, ...] | None
    protocol: dict[str, Any]
    files: np.ndarray | None = None  # [N], the file of each image, relative to the folder of the source


def encode(
    run: Run, dataset: str | None = None, *, split: str = "test", number: int | None = None, batch_size: int = BATCH
) -> Encodings:
    """Encodes the images of a source with the model of a run.

    Args:
        run: a run that has finished.
        dataset: the name of the source, whose images are binarized as the run's data are. By default the run's own data
            are used.
        split: `train`, `test`, or `all` for the training, validation and test images, in this order. A source without a
            test split has a tenth of its images in `test`.
        number: the number of images, which are the first. By default all.
        batch_size: the number of images per call of the encoder. It does not change the result.

    Raises:
        UserError: if the training has not finished, if the images cannot be read or have another shape than the
            model's, if the model takes a condition and the images have no labels, or if an argument is not valid.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if number is not None:
        check_whole("number", number)
    vae = run.load_model()
    data = data_for(run, vae, dataset)
    parts = [part for part in PARTS if data.info.sizes[part]] if split == ALL else [split]
    places = _places(data, parts, number)
    labels = None
    if all(map(data.has_labels, places)):
        labels = np.concatenate([data.labels_at(part, index) for part, index in places.items()])
    elif vae.condition_shape is not None:
        raise UserError(
            "Expected images with labels, which are the condition of this model. Received images without labels. "
            "Choose another source."
        )
    named = [names for part, index in places.items() if (names := data.files_at(part, index)) is not None]
    posterior = evaluation.encode(vae, _batches(data, places, batch_size, labels=vae.condition_shape is not None))
    stated = {**protocol(data), "split": split, "images": len(posterior.mean)}
    if "evaluation_binarization" in stated and split != "test":
        of_training = f"drawn once, seed {run.config.seed}"
        both = f"{of_training}, for the training images, and {stated['evaluation_binarization']}, for the others"
        stated["evaluation_binarization"] = both if split == ALL else of_training
    return Encodings(
        posterior,
        places=np.concatenate(list(places.values())),
        split=np.repeat(list(places), [len(index) for index in places.values()]) if split == ALL else None,
        labels=labels,
        label_names=None if labels is None else data.info.label_names,
        protocol=stated,
        files=np.concatenate(named) if len(named) == len(places) else None,
    )


def _places(data: Data, parts: Sequence[str], number: int | None) -> dict[str, np.ndarray]:
    """The indices of the first images of some splits, by split."""
    places, left = {}, sum(data.info.sizes.values()) if number is None else number
    for part in parts:
        count = min(left, data.info.sizes[part])
        if count:
            places[part] = np.arange(count)
        left -= count
    return places


def _batches(data: Data, places: dict[str, np.ndarray], batch_size: int, *, labels: bool) -> Iterator[Any]:
    """Batches x of images, or (x, label) for a model whose condition is the label."""
    for part, index in places.items():
        start = 0
        for x in data.batches(part, len(index), batch_size):
            yield (x, data.labels_at(part, index[start : start + len(x)])) if labels else x
            start += len(x)


def check_output(path: Path, overwrite: bool) -> None:
    """Checks that encodings may be written to a file.

    Raises:
        UserError: if the suffix is neither .npz nor .csv, or if the file exists and `overwrite` is False, or
            if it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"Expected a file that ends with .npz or .csv. Received {str(path)!r}.")
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{str(path)!r} exists. Replace it with --overwrite, or choose another file.")
    files.check_file(path)


def save(encodings: Encodings, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes encodings to a file.

    A .npz file has the arrays `index` [N], `mean` [N, D], `variance` [N, D] if it is known, `label` [N] and
    `label_names` if there are any, and the text `protocol`, which is JSON. A .csv file has the columns `index`, `label`
    if there are labels, `label_name` if these have names, `mean_1` to `mean_D`, and `variance_1` to `variance_D` if the
    variance is known. The index of an image counts from 0 within its split. If the images are files, both have the
    `file` of each, relative to the folder of the source. If all splits were encoded, both have the name of the `split`
    as well.

    Args:
        encodings: what `encode` returned.
        path: the file, which ends with .npz or .csv.
        overwrite: whether to replace an existing file. False by default.

    Raises:
        UserError: as `check_output`, or if the file cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite)
    columns: dict[str, np.ndarray] = {"index": encodings.places}
    if encodings.files is not None:
        columns["file"] = encodings.files
    if encodings.split is not None:
        columns["split"] = encodings.split
    if encodings.labels is not None:
        columns["label"] = encodings.labels
    is_csv, names = path.suffix.lower() == ".csv", encodings.label_names
    if is_csv and names is not None and encodings.labels is not None:
        columns["label_name"] = np.array([_name_of(names, label) for label in encodings.labels])
    columns["mean"] = encodings.posterior.mean
    if encodings.posterior.variance is not None:
        columns["variance"] = encodings.posterior.variance
    if is_csv:
        files.write_text(path, _csv(columns))
        return
    if names is not None:
        columns["label_names"] = np.array(names)
    columns["protocol"] = np.array(json.dumps(encodings.protocol))
    with files.atomic_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, values in columns.items():  # np.savez accepts no array of the name `file`
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def _name_of(names: Sequence[str], label: int) -> str:
    """The name of a class; an empty text for a label outside of the names."""
    return names[label] if 0 <= label < len(names) else ""


def _csv(columns: dict[str, np.ndarray]) -> str:
    """The arrays as text, with one row per image. Numbers keep all digits of float32."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names: list[str] = []
    for name, values in columns.items():
        names += [name] if values.ndim == 1 else [f"{name}_{number + 1}" for number in range(values.shape[1])]
    writer.writerow(names)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([visible(number) for values in row for number in np.atleast_1d(values)])
    return text.getvalue()
