"""Reads images from a source and makes batches for training and evaluation.

The interface is `load`. It takes a source (`mnist5k`, any TFDS image dataset, `idx:DIR`, `csv:FILE`, `npz:FILE`,
`images:DIR`) and a binarization, and returns `tf.data` pipelines for training, validation and testing, with facts about
the data.
"""

from kvae.data.pipeline import Data, Info, build_data
from kvae.data.sources import open_source
from kvae.data.split import Source, Split
from kvae.internal.errors import UserError

__all__ = ["Data", "Info", "Source", "Split", "load", "open_source"]


def load(
    source: str | Source,
    *,
    train: str = "train",
    validation: str | None = None,
    test: str = "test",
    binarize: str | None = None,
    threshold: float = 0.5,
    batch_size: int | None = None,
    drop_remainder: bool = False,
    streaming: bool | str = False,
    seed: int = 0,
    evaluation_seed: int = 0,
    order: str = "shuffled",
    labels: bool = False,
    condition: str | None = None,
) -> Data:
    """Opens a source and makes its pipelines.

    Args:
        source: `mnist5k` (part of kvae, needs no network), the name of a TFDS image dataset, `idx:DIR`, `csv:FILE`,
            `csv:TRAIN,TEST`, `npz:FILE`, `images:DIR`, `MODULE:FUNCTION:PLACE` for a reader of your own, or a `Source`.
        train: split for training, or a slice of a split: `train`, `train[:10000]`, `train[:90%]`.
        validation: split or slice for validation, e.g. `train[90%:]`. None by default.
        test: split or slice for testing.
        binarize: kind of binarization: `threshold`, `stochastic` (drawn anew in every epoch), `fixed` (drawn once) or
            `none`; see `kvae.data.binarization`. By default `threshold` for grey images and `none` for colour images.
            For `stochastic`, validation and test data are drawn once, from `evaluation_seed`.
        threshold: grey value in [0, 1) above which a pixel becomes 1, for `binarize="threshold"`.
        batch_size: number of images per batch; under a `tf.distribute` strategy, over all replicas together.
            By default 100, or all training images if there are fewer.
        drop_remainder: whether to leave out the last batch of each training epoch if it is not full.
        streaming: whether to read the images from disk batch by batch instead of into memory. Only TFDS datasets and
            `images:DIR` can do so. `"decoded"`: they are decoded once, into a file that is mapped into memory, with a
            byte for each value; from then on they are trained on as if they were in memory.
        seed: seed for the order and the stochastic binarization of the training data, which differ in every epoch.
        evaluation_seed: seed for the binarization of validation and test data.
        order: `shuffled`: if the order of the images means nothing, they are put into a random order before slices are
            taken, the same order in every run and on every machine. This holds for pictures of a folder, and for all
            data without a test split, of which a tenth is held out. `source`: the order of the files.
        labels: whether batches are (x, label) instead of x. The label is the condition of a conditional model; other
            models ignore it.
        condition: `"label"` for the batches (x, label) of a model of classes, `VAE(condition=data.info.classes)`, with
            labels that number the classes from 0. None by default.

    Returns:
        `Data` with `.train`, `.validation` (or None) and `.test`, each a `tf.data.Dataset` of `[B, H, W, C]` float32,
        or of (x, label) with `labels` or `condition`; and `.info`.

    Raises:
        UserError: if the source cannot be read, or an argument is not as described.
    """
    if streaming not in (False, True, "decoded"):
        raise UserError(f"Expected streaming=False, True or 'decoded'. Received {streaming!r}.")
    return build_data(
        open_source(source, bool(streaming)),
        train=train,
        validation=validation,
        test=test,
        binarize=binarize,
        threshold=threshold,
        batch_size=batch_size,
        drop_remainder=drop_remainder,
        seed=seed,
        evaluation_seed=evaluation_seed,
        order=order,
        labels=labels,
        condition=condition,
        decode_once=streaming == "decoded",
    )
