"""Images from where they lie to batches that a model trains on.

`load` is the door: a source (`mnist5k`, any TFDS image dataset, `idx:DIR`, `csv:FILE`, `npz:FILE`, `images:DIR`),
a binarization, and three `tf.data` pipelines with what is known of them.
"""

from pathlib import Path

from kvae.data.pipeline import Data, Info, make
from kvae.data.sources import csv, idx, images, npz, tfds
from kvae.data.split import Source
from kvae.internal.errors import UserError

__all__ = ["Data", "Info", "load", "open_source"]

FILE_SOURCES = ("idx", "csv", "npz", "images")
MNIST5K = Path(__file__).parent / "mnist5k.npz"


def open_source(source: str, streaming: bool = False) -> Source:
    """The splits of a source, in memory, or streaming from disk where `streaming` (TFDS and `images:` only).

    Raises:
        UserError: an unknown source, or one whose content cannot be read; each reader says what it expects.
    """
    if not isinstance(source, str):
        raise UserError(f"Expected the name of a dataset such as mnist5k, mnist or csv:FILE. Received {source!r}.")
    kind, colon, place = source.partition(":")
    if not source or (colon and kind in FILE_SOURCES and not place):
        raise UserError(f"Expected a dataset such as mnist5k, mnist, idx:DIR or csv:FILE. Received {source!r}.")
    streamable = not (source == "mnist5k" or kind in ("idx", "csv", "npz"))
    if streaming and not streamable:
        raise UserError(
            f"Expected a TFDS dataset or images:DIR for streaming. {source!r} is read into memory as a whole."
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
        source: `mnist5k` (embedded, no network), a TFDS image dataset, `idx:DIR`, `csv:FILE` or `csv:TRAIN,TEST`,
            `npz:FILE`, `images:DIR`.
        train: a split or a slice of one: `train`, `train[:10000]`, `train[:90%]`.
        validation: likewise, e.g. `train[90%:]`; no validation data by default.
        test: likewise.
        binarize: `threshold`, `stochastic` (a fresh draw every epoch), `fixed` (one draw) or `none`; see
            `kvae.data.binarization`. Validation and test data under `stochastic` are drawn once, from
            `evaluation_seed`.
        threshold: in [0, 1), for `binarize="threshold"`.
        batch_size: images a batch, over all replicas where a `tf.distribute` strategy is in use.
        drop_remainder: leave the ragged last batch of every training epoch out.
        streaming: read from disk batch by batch (TFDS and `images:`), not from memory.
        seed: of the order and of the stochastic binarization of the training data; each epoch has its own draw.
        evaluation_seed: of the binarization of validation and test data.
        labels: whether batches are (x, label) in place of x: the condition of a model with a `condition_shape`. Other
            models ignore it.

    Returns:
        `Data` with `.train`, `.validation` (or None), `.test` (`tf.data.Dataset` of `[B, H, W, C]` float32) and
        `.info`.

    Raises:
        UserError: whatever is wrong with the source or an argument.
    """
    return make(
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
