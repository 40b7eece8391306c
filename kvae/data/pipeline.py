"""The `tf.data` pipelines: shuffle the whole set, batch, then gather and binarize one batch at a time.

An epoch depends on (seed, epoch number) alone. Each iteration of `Data.train` increases the epoch number by one; to
resume a training run, set it (`kvae.training.callbacks.DataEpoch`).
"""

import copy
import numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kvae.data.binarization import KINDS, binarize
from kvae.data.decoded_once import decoded_once
from kvae.data.in_memory import WORKERS, ImageDataset, ImagesInMemory, shuffled
from kvae.data.split import Source, Split
from kvae.internal.errors import UserError, check_seed, check_whole, unknown
from kvae.internal.tensorflow import tf, unconverted

ORDERS = ("shuffled", "source")
CONDITIONS = ("label",)
BATCH = 100  # Number of images per batch if no number is given and there are so many.
CHUNK = 1000  # Number of images that are binarized at a time outside of training.


@dataclass(frozen=True)
class Info:
    """Facts about the data.

    Attributes:
        source: the source as the user wrote it.
        image_shape: `(H, W, C)`.
        label_names: names of the classes, or None if the source has no names.
        sizes: number of images in `train`, `validation` (0 without one) and `test`.
        protocol: the facts about these data that belong to every number measured on them.
        classes: number of classes, C: one more than the largest label of the source, or the number of names if that is
            larger; None if there are no labels, or if a label is negative.
    """

    source: str
    image_shape: tuple[int, ...]
    label_names: tuple[str, ...] | None
    sizes: dict[str, int]
    protocol: dict[str, Any]
    classes: int | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each class: its number if it has no other."""
        names, classes = self.label_names or (), self.classes or 0
        return (*names[:classes], *map(str, range(len(names), classes)))


@dataclass(frozen=True)
class _Binarization:
    """`kvae.data.binarization.binarize` with its settings; hashable, so that equal ones share a compiled loop."""

    kind: str
    threshold: float
    seed: int

    def __call__(self, images: tf.Tensor, index: tf.Tensor, epoch: Any = 0) -> tf.Tensor:
        return binarize(self.kind, images, index, seed=self.seed, epoch=epoch, threshold=self.threshold)

    @property
    def binary(self) -> bool:
        return self.kind != "none"

    def same_in_every_epoch(self, seed: int) -> "_Binarization":
        return _Binarization("fixed" if self.kind == "stochastic" else self.kind, self.threshold, seed)


class Data:
    """The pipelines for training, validation and testing, with facts about the data; `kvae.data.load` returns it.

    Attributes:
        train: `tf.data.Dataset` of batches x `[B, H, W, C]` float32, in a new order in every iteration. Batches are (x,
            label `[B]` int64) if labels were requested.
        validation: the same in a fixed order, or None.
        test: the same in a fixed order.
        info: facts about the data.
        epoch: number of the epoch that the next iteration of `train` will give, an int64 `tf.Variable`.
    """

    def __init__(
        self,
        info: Info,
        splits: dict[str, Split],
        training: _Binarization,
        evaluation: _Binarization,
        batch_size: int,
        drop_remainder: bool,
        labels: bool = False,
    ) -> None:
        self.info = info
        self._splits = splits
        self._binarizations = {"train": training, "validation": evaluation, "test": evaluation}
        self._batch_size = batch_size
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False, name="epoch")
        self._drop_remainder = drop_remainder
        # The splits as the datasets give them.
        self._given = splits if labels else {part: replace(split, labels=None) for part, split in splits.items()}

    @cached_property
    def train(self) -> ImageDataset:
        split, binarization = self._given["train"], self._binarizations["train"]
        with tf.init_scope():  # as if it had been made together with these data
            return _training_dataset(split, binarization, self.epoch, self._batch_size, self._drop_remainder)

    @cached_property
    def validation(self) -> ImageDataset | None:
        return self._evaluation_batches("validation") if "validation" in self._given else None

    @cached_property
    def test(self) -> ImageDataset:
        return self._evaluation_batches("test")

    def _evaluation_batches(self, part: str) -> ImageDataset:
        with tf.init_scope():
            return _evaluation_dataset(self._given[part], self._binarizations[part], self._batch_size)

    @cached_property
    def pixel_mean(self) -> np.ndarray:
        """Mean of each pixel over the training images as the model sees them, `[H, W, C]` float32."""
        split = self._split("train")
        total = np.zeros(split.image_shape, np.float64)
        for batch in self.batches("train"):
            total += np.asarray(batch, np.float64).sum(axis=0)
        return (total / split.count).astype(np.float32)

    def examples(self, part: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """The first images of a split, as the model sees them, and their labels.

        Args:
            part: `train`, `validation` or `test`.
            count: number of images; all by default.

        Returns:
            x `[N, H, W, C]` float32 and labels `[N]`, or None if there are no labels. Training images come in the
            order of the source and with one fixed binarization.

        Raises:
            UserError: if the split does not exist.
        """
        x = np.concatenate([batch.numpy() for batch in self.batches(part, count)])
        return x, self._split(part).slice(0, len(x)).known_labels

    def batches(self, part: str, count: int | None = None, batch_size: int = CHUNK) -> Iterator[tf.Tensor]:
        """The images of `examples` in batches, so that few of them are in memory at a time.

        Args:
            part: `train`, `validation` or `test`.
            count: number of images; all by default.
            batch_size: number of images per batch.

        Yields:
            x `[B, H, W, C]` float32.

        Raises:
            UserError: if the split does not exist.
        """
        split = self._split(part)
        split = split.slice(0, min(split.count if count is None else count, split.count))
        with self._damage_named(part):
            yield from _evaluation_dataset(replace(split, labels=None), self._fixed_binarization(part), batch_size)

    def check(self, *parts: str) -> None:
        """Reads every image of streamed splits once. Images in memory were checked when they were read.

        The validation and test images of a stream are checked when it is opened, so that a damaged one is not found
        only after the training.

        Args:
            *parts: `train`, `validation` or `test`; all by default.

        Raises:
            UserError: if an image is damaged. The message names its file or its split.
        """
        for split in map(self._split, parts or self._splits):
            if split.check is not None:
                split.check(split.start, split.start + split.count)

    @contextmanager
    def _damage_named(self, part: str) -> Iterator[None]:
        """After an error of TensorFlow in the block, raises the `UserError` for a damaged image if there is one."""
        try:
            yield
        except tf.errors.OpError:
            self.check(part)
            raise

    @property
    def streams(self) -> bool:
        """Whether the training images are read from disk batch by batch."""
        return self._splits["train"].images is None

    def images_at(self, part: str, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images of a split with given indices, as the model sees them; binarized as in `examples`.

        If the images stream from disk, all images up to the largest index are read.

        Args:
            part: `train`, `validation` or `test`.
            places: indices of the images in the split `[N]`, from 0.

        Returns:
            x `[N, H, W, C]` float32.

        Raises:
            UserError: if the split does not exist, no index is given, or an index is outside of the split.
        """
        split = self._split(part)
        if not len(places):
            raise UserError(f"Expected at least one index of a {part} image. Received none.")
        wrong = [place for place in places if not 0 <= place < split.count]
        if wrong:
            raise UserError(f"Expected indices of {part} images from 0 to {split.count - 1}. Received {wrong[0]}.")
        index = np.asarray(places, np.int64)
        if split.images is None:
            return self.examples(part, int(index.max()) + 1)[0][index]
        return self._fixed_binarization(part)(tf.constant(split.images[index]), index + split.start).numpy()

    def has_labels(self, part: str) -> bool:
        """Whether the images of a split have labels; raises `UserError` if the split does not exist."""
        return self._split(part).has_labels

    def labelled_test(self) -> tf.data.Dataset:
        """The batches of `test` as (x, label), also where labels were not requested.

        Raises:
            UserError: if the test images have no labels.
        """
        if not self.has_labels("test"):
            raise UserError("Expected test images with labels. These images have none. Choose a source with labels.")
        split = self._split("test")
        labelled = replace(split, labels=split.known_labels)
        return _evaluation_dataset(labelled, self._binarizations["test"], self._batch_size)

    def originals_at(self, part: str, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images of a split with given indices before they are binarized: their grey values or colours.

        Args:
            part: `train`, `validation` or `test`.
            places: indices of the images in the split `[N]`, from 0.

        Returns:
            `[N, H, W, C]` float32 in [0, 1].

        Raises:
            UserError: as `images_at`.
        """
        unchanged = copy.copy(self)
        unchanged._binarizations = dict.fromkeys(self._binarizations, _Binarization("none", 0.0, 0))
        return unchanged.images_at(part, places)

    def labels_at(self, part: str, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """The labels `[N]` of the images of a split with given indices.

        Args:
            part: `train`, `validation` or `test`.
            places: indices of the images in the split `[N]`, from 0.

        Raises:
            UserError: if the split does not exist or has no labels.
        """
        labels = self._split(part).known_labels
        if labels is None:
            raise UserError(f"Expected {part} images with labels. These images have none.")
        return labels[np.asarray(places, np.int64)]

    def files_at(self, part: str, places: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """The files `[N]` of the images of a split with given indices, relative to the folder of the source.

        Args:
            part: `train`, `validation` or `test`.
            places: indices of the images in the split `[N]`, from 0.

        Returns:
            The paths, or None if images of this source have no files of their own.

        Raises:
            UserError: if the split does not exist.
        """
        files = self._split(part).files
        return None if files is None else files[np.asarray(places, np.int64)]

    def places_of(self, part: str, label: int | str, count: int = 1) -> np.ndarray:
        """The indices in a split, from 0, of the first images of a class.

        Args:
            part: `train`, `validation` or `test`.
            label: number of the class, or its name if the classes have names.
            count: largest number of indices to return.

        Raises:
            UserError: if the split does not exist, has no labels, or has no image of this class.
        """
        labels = self._split(part).known_labels
        places = np.flatnonzero(labels == self.class_number(part, label))
        return places[:count]

    def class_number(self, part: str, label: int | str) -> int:
        """The number of a class.

        Args:
            part: `train`, `validation` or `test`.
            label: name of the class, in upper or lower case, or its number. Names are tried first.

        Raises:
            UserError: if the split does not exist, has no labels, or has no image of this class.
        """
        labels = self._split(part).known_labels
        if labels is None:
            raise UserError(
                f"Expected labels, to find the images of a class. The {part} images have none. Choose images by their "
                "index."
            )
        names = self.info.label_names or ()
        present = {str(number): int(number) for number in np.unique(labels)}
        named = {names[number].lower(): number for number in present.values() if 0 <= number < len(names)}
        found = named.get(str(label).lower(), present.get(str(label)))
        if found is None:
            shown = [names[number] if 0 <= number < len(names) else str(number) for number in present.values()]
            raise unknown(f"class of the {part} images", label, shown)
        return found

    def class_name(self, number: int) -> str:
        """The name of a class, or its number if it has no name."""
        names = self.info.label_names or ()
        return names[number] if 0 <= number < len(names) else str(number)

    def _split(self, part: str) -> Split:
        if part not in self._splits:
            raise unknown("split", part, self._splits)
        return self._splits[part]

    def _fixed_binarization(self, part: str) -> _Binarization:
        """The binarization of images that are shown or measured: in training data, too, the same in every epoch."""
        binarization = self._binarizations[part]
        return binarization.same_in_every_epoch(binarization.seed)


def build_data(
    source: Source,
    *,
    train: str,
    validation: str | None,
    test: str,
    binarize: str | None,
    threshold: float,
    batch_size: int | None,
    drop_remainder: bool,
    seed: int,
    evaluation_seed: int,
    order: str = "shuffled",
    labels: bool = False,
    condition: str | None = None,
    decode_once: bool = False,
) -> Data:
    """Builds the pipelines for a source. `decode_once` is for `streaming="decoded"` of `kvae.data.load`."""
    if order not in ORDERS:
        raise unknown("order of images", order, ORDERS)
    source = source.shuffled() if order == "shuffled" else source
    if binarize is not None and binarize not in KINDS:
        raise unknown("binarization", binarize, KINDS)
    if not isinstance(threshold, numbers.Real) or not 0 <= threshold < 1:
        raise UserError(f"Expected a threshold in [0, 1). Received {threshold}.")
    if condition is not None and condition not in CONDITIONS:
        raise unknown("condition", condition, CONDITIONS)
    slices = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    splits = {part: source.select(name) for part, name in slices.items()}
    if validation is not None and (source.overlap(validation, train) or source.overlap(validation, test)):
        raise UserError(
            f"Expected validation images that are separate from the training and test images. {validation!r} "
            f"shares images with {train!r} or {test!r}. To watch the test set during training, pass it to fit "
            "(training.monitor_test)."
        )
    if binarize is None:  # a threshold would leave eight colours of a picture
        binarize = "threshold" if splits["train"].image_shape[-1] == 1 else "none"
    batch_size = min(BATCH, splits["train"].count) if batch_size is None else check_whole("batch_size", batch_size)
    check_seed("seed", seed)
    check_seed("evaluation_seed", evaluation_seed)
    if batch_size > splits["train"].count:
        raise UserError(
            f"Expected a batch_size of at most {splits['train'].count}, the number of training images of {train!r}. "
            f"Received {batch_size}."
        )
    labels = labels or condition == "label"
    parts = [source.resolve(name)[0] for name in slices.values()]
    source = decoded_once(source, parts) if decode_once else source
    source = source.labelled(parts) if labels else source
    splits = {part: source.select(name) for part, name in slices.items()}
    if labels and any(split.labels is None for split in splits.values()):
        why = "the label is the condition of the model" if condition else "of labels=True"
        raise UserError(f"Expected a dataset with labels, because {why}. {source.name} has none.")
    classes = _classes(source)
    if condition == "label" and classes is None:
        raise UserError(f"Expected labels that number the classes from 0. {source.name} has negative ones.")
    training = _Binarization(binarize, threshold, seed)
    evaluation = training.same_in_every_epoch(evaluation_seed)
    protocol: dict[str, Any] = {
        "dataset": source.name,
        "train": f"{train} ({splits['train'].count} images)",
        "validation": None if validation is None else f"{validation} ({splits['validation'].count} images)",
        "test": f"{test} ({splits['test'].count} images)",
        "binarization": f"threshold {threshold:g}" if binarize == "threshold" else binarize,
    }
    if evaluation.kind == "fixed":
        protocol["evaluation_binarization"] = f"drawn once, seed {evaluation_seed}"
    if condition is not None:
        protocol["condition"] = condition
    notes = [*source.notes, *(["test images were trained on"] if source.overlap(train, test) else [])]
    if notes:
        protocol["notes"] = notes
    info = Info(
        source.name,
        splits["train"].image_shape,
        source.label_names,
        {part: splits[part].count if part in splits else 0 for part in ("train", "validation", "test")},
        protocol,
        classes,
    )
    data = Data(info, splits, training, evaluation, batch_size, drop_remainder, labels)
    data.check(*(part for part in splits if part != "train"))
    return data


def _classes(source: Source) -> int | None:
    """The number of classes of a source, as `Info` has it."""
    labels = [split.labels for split in source.splits.values() if split.labels is not None and len(split.labels)]
    if not labels or min(part.min() for part in labels) < 0:
        return None
    return max(int(max(part.max() for part in labels)) + 1, len(source.label_names or ()))


def _training_dataset(
    split: Split, binarization: _Binarization, epoch: tf.Variable, batch_size: int, drop_remainder: bool
) -> ImageDataset:
    """Training batches. Each iteration is the next epoch, in an order of its own."""
    if split.stream is None:
        order = shuffled(split.count, binarization.seed)
        images = _images_in_memory(
            split, binarization, batch_size, order=order, epoch=epoch, drop_remainder=drop_remainder
        )
        return images.dataset()

    @unconverted
    def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.cast(binarization.seed, tf.int64), number])
        word = tf.random.stateless_uniform([], seed, 0, 2**31 - 1, tf.int64, alg="philox")
        elements = split.stream(split.start, split.start + split.count)
        # A seed that the user sets for TensorFlow or Keras would otherwise count as well.
        tf.compat.v1.get_default_graph().seed = None
        elements = elements.shuffle(split.shuffle_buffer or split.count, word, reshuffle_each_iteration=False)
        return _decoded_batches(split, elements, binarization, batch_size, number, drop_remainder)

    numbers = tf.data.Dataset.range(1).map(unconverted(lambda _: epoch.assign_add(1) - 1))
    steps = split.count // batch_size if drop_remainder else -(-split.count // batch_size)
    return ImageDataset(numbers.flat_map(one_epoch), steps, binary=binarization.binary)


def _evaluation_dataset(split: Split, binarization: _Binarization, batch_size: int) -> ImageDataset:
    """Batches in the order of the source."""
    if split.stream is None:
        return _images_in_memory(split, binarization, batch_size).dataset()
    elements = split.stream(split.start, split.start + split.count)
    batches = _decoded_batches(split, elements, binarization, batch_size, 0)
    return ImageDataset(batches, -(-split.count // batch_size), binary=binarization.binary)


def _decoded_batches(
    split: Split,
    elements: tf.data.Dataset,
    binarization: _Binarization,
    batch_size: int,
    epoch: Any,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches of model input from the elements (index, encoded image) of a stream."""
    decode = unconverted(lambda index, encoded: (index, split.decode(encoded)))
    decoded = elements.map(decode, num_parallel_calls=WORKERS)
    batches = decoded.batch(batch_size, drop_remainder)
    labels = None if split.labels is None else tf.constant(split.labels)

    @unconverted
    def finish(index: tf.Tensor, images: tf.Tensor) -> Any:
        x = binarization(images, index, epoch)
        return x if labels is None else (x, tf.gather(labels, index - split.start))

    return batches.map(finish, num_parallel_calls=WORKERS)


def _images_in_memory(split: Split, binarization: _Binarization, batch_size: int, **options: Any) -> ImagesInMemory:
    options.update(start=split.start, binary=binarization.binary, condition=split.labels)
    return ImagesInMemory(split.images, binarization, batch_size, **options)
