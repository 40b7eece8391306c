"""Reads images from a source and makes batches for training and evaluation.

The interface is `load`. It takes a source (`mnist5k`, any TFDS image dataset, `idx:DIR`, `csv:FILE`, `npz:FILE`,
`images:DIR`) and a binarization, and returns `tf.data` pipelines for training, validation and testing, with facts about
the data.
"""

from pathlib import Path

from kvae.data.pipeline import Data, Info, build_data
from kvae.data.sources import csv, idx, images, npz, tfds
from kvae.data.split import Source
from kvae.internal.errors import UserError

__all__ = ["Data", "Info", "load", "open_source"]

FILE_SOURCES = ("idx", "csv", "npz", "images")
MNIST5K = Path(__file__).parent / "mnist5k.npz"


def open_source(source: str, streaming: bool = False) -> Source:
    """Opens a source.

    Args:
        source: name of the source, as for `load`.
        streaming: whether to read the images from disk batch by batch instead of into memory; only for TFDS datasets
            and `images:DIR`.

    Returns:
        The splits of the source.

    Raises:
        UserError: if the source is unknown, or its content cannot be read. Each reader says what it expects.
    """
    if not isinstance(source, str):
        raise UserError(f"Expected the name of a dataset such as mnist5k, mnist or csv:FILE. Received {source!r}.")
    kind, colon, place = source.partition(":")
    if not source or (colon and kind in FILE_SOURCES and not place):
        raise UserError(f"Expected a dataset such as mnist5k, mnist, idx:DIR or csv:FILE. Received {source!r}.")
    streamable = not (source == "mnist5k" or kind in ("idx", "csv", "npz"))
    if streaming and not streamable:
        raise UserError(
            f"Expected a TFDS dataset or images:DIR for streaming. Received {source!r}, which cannot be streamed. "
            "Leave streaming out to read it into memory."
        )
    if source == "mnist5k":
        digits = npz.read(str(MNIST5K))
        return Source("mnist5k", digits.splits, tuple("0123456789"))
    if colon and kind == "idx":
        return idx.read(place)
    if colon and kind == "csv":
        return csv.read(place)
    if colon and kind == "npz":
        return npz.read(place)
    if colon and kind == "images":
        return images.read(place, streaming)
    return tfds.read(source, streaming)


def load(
    source: str,
    *,
    train: str = "train",
    validation: str | None = None,
    test: str = "test",
    binarize: str = "threshold",
    threshold: float = 0.5,
    batch_size: int = 100,
    drop_remainder: bool = False,
    streaming: bool = False,
    seed: int = 0,
    evaluation_seed: int = 0,
    labels: bool = False,
) -> Data:
    """Opens a source and makes its pipelines.

    Args:
        source: `mnist5k` (part of kvae, needs no network), the name of a TFDS image dataset, `idx:DIR`, `csv:FILE`,
            `csv:TRAIN,TEST`, `npz:FILE` or `images:DIR`.
        train: split for training, or a slice of a split: `train`, `train[:10000]`, `train[:90%]`.
        validation: split or slice for validation, e.g. `train[90%:]`. None by default.
        test: split or slice for testing.
        binarize: kind of binarization: `threshold`, `stochastic` (drawn anew in every epoch), `fixed` (drawn once) or
            `none`; see `kvae.data.binarization`. For `stochastic`, validation and test data are drawn once, from
            `evaluation_seed`.
        threshold: grey value in [0, 1) above which a pixel becomes 1, for `binarize="threshold"`.
        batch_size: number of images per batch; under a `tf.distribute` strategy, over all replicas together.
        drop_remainder: whether to leave out the last batch of each training epoch if it is not full.
        streaming: whether to read the images from disk batch by batch instead of into memory; only for TFDS datasets
            and `images:DIR`.
        seed: seed for the order and the stochastic binarization of the training data, which differ in every epoch.
        evaluation_seed: seed for the binarization of validation and test data.
        labels: whether batches are (x, label) instead of x. The label is the condition of a model with a
            `condition_shape`; other models ignore it.

    Returns:
        `Data` with `.train`, `.validation` (or None) and `.test`, each a `tf.data.Dataset` of `[B, H, W, C]` float32,
        and `.info`.

    Raises:
        UserError: if the source cannot be read, or an argument is not as described.
    """
    return build_data(
        open_source(source, streaming),
        train=train,
        validation=validation,
        test=test,
        binarize=binarize,
        threshold=threshold,
        batch_size=batch_size,
        drop_remainder=drop_remainder,
        seed=seed,
        evaluation_seed=evaluation_seed,
        labels=labels,
    )
