"""The `tf.data` pipelines: shuffle over the whole set, batch, then gather and binarize a batch at a time.

An epoch is a function of (seed, epoch number) alone. The number counts up by itself, one an iteration of `Data.train`;
whoever resumes a training sets it (`kvae.training.callbacks.DataEpoch`).
"""

import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from kvae.data.binarization import KINDS, binarize
from kvae.data.in_memory import Resident, shuffled
from kvae.data.split import Source, Split
from kvae.internal.errors import UserError, check_seed, check_whole, unknown
from kvae.internal.tensorflow import tf

CHUNK = 1000  # images binarized at a time outside of training


@dataclass(frozen=True)
class Info:
    """What is known of the data.

    Attributes:
        source: as the user wrote it.
        image_shape: `(H, W, C)`.
        label_names: of the classes, where the source has names.
        sizes: images in `train`, `validation` (0 without one) and `test`.
        protocol: what a number measured on these data must say of them.
    """

    source: str
    image_shape: tuple[int, ...]
    label_names: tuple[str, ...] | None
    sizes: dict[str, int]
    protocol: dict[str, Any]


@dataclass(frozen=True)
class _Recipe:
    """How bytes become model input; the evaluation's is frozen."""

    kind: str
    threshold: float
    seed: int

    def __call__(self, images: tf.Tensor, index: tf.Tensor, epoch: Any = 0) -> tf.Tensor:
        return binarize(self.kind, images, index, seed=self.seed, epoch=epoch, threshold=self.threshold)

    @property
    def binary(self) -> bool:
        return self.kind != "none"

    def frozen(self, seed: int) -> "_Recipe":
        return _Recipe("fixed" if self.kind == "stochastic" else self.kind, self.threshold, seed)


class Data:
    """Three pipelines and what is known of them; made by `kvae.data.load`.

    Attributes:
        train: `tf.data.Dataset` of `[B, H, W, C]` float32, or of (x, label `[B]` int64) where labels were asked for, in
            a new order at every iteration.
        validation: the same in a fixed order, or None.
        test: the same in a fixed order.
        info: `Info`.
        epoch: the number of the epoch that the next iteration of `train` gives, an int64 `tf.Variable`.
    """

    def __init__(
        self,
        info: Info,
        splits: dict[str, Split],
        training: _Recipe,
        evaluation: _Recipe,
        batch_size: int,
        drop_remainder: bool,
        labels: bool = False,
    ) -> None:
        self.info = info
        self._splits = splits
        self._recipes = {"train": training, "validation": evaluation, "test": evaluation}
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False, name="epoch")
        given = splits if labels else {part: replace(split, labels=None) for part, split in splits.items()}
        self.train = _training(given["train"], training, self.epoch, batch_size, drop_remainder)
        self.validation = _evaluation(given["validation"], evaluation, batch_size) if "validation" in splits else None
        self.test = _evaluation(given["test"], evaluation, batch_size)

    @cached_property
    def pixel_mean(self) -> np.ndarray:
        """Mean of every pixel over the training images as the model sees them, `[H, W, C]` float32."""
        split, recipe = self._splits["train"], self._recipes["train"].frozen(self._recipes["train"].seed)
        total = np.zeros(split.image_shape, np.float64)
        for batch in _evaluation(replace(split, labels=None), recipe, CHUNK):
            total += np.asarray(batch, np.float64).sum(axis=0)
        return (total / split.count).astype(np.float32)

    def examples(self, part: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """The first images of a split, as the model sees them, and their labels.

        Args:
            part: `train`, `validation` or `test`.
            count: how many; all by default.

        Returns:
            x `[N, H, W, C]` float32 and labels `[N]`, or None where there are none. Training images come in the
            order of the source and in one fixed binarization.
        """
        if part not in self._splits:
            raise unknown("split", part, self._splits)
        split = self._splits[part]
        split = split.slice(0, min(split.count if count is None else count, split.count))
        recipe = self._recipes[part].frozen(self._recipes[part].seed)
        x = np.concatenate([batch.numpy() for batch in _evaluation(replace(split, labels=None), recipe, CHUNK)])
        return x, split.labels

    @property
    def streams(self) -> bool:
        """Whether the training images are read from disk batch by batch."""
        return self._splits["train"].images is None

    def images_at(self, part: str, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at given places of a split, as `examples` shows them; a stream is read up to the last of them.

        Args:
            part: `train`, `validation` or `test`.
            places: from 0.

        Returns:
            x `[N, H, W, C]` float32.

        Raises:
            UserError: an unknown split, no place, or a place outside of the split.
        """
        if part not in self._splits:
            raise unknown("split", part, self._splits)
        split, index = self._splits[part], np.asarray(places, np.int64)
        if not index.size:
            raise UserError(f"Expected at least one place of a {part} image. Received none.")
        wrong = index[(index < 0) | (index >= split.count)]
        if wrong.size:
            raise UserError(f"Expected a place among the {split.count} {part} images, from 0. Received {wrong[0]}.")
        if split.images is None:
            return self.examples(part, int(index.max()) + 1)[0][index]
        recipe = self._recipes[part].frozen(self._recipes[part].seed)
        return recipe(tf.constant(split.images[index]), index + split.start).numpy()

    def labels_at(self, part: str, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """The labels at given places of a split, `[N]`; `UserError` for an unknown split, or one without labels."""
        if part not in self._splits:
            raise unknown("split", part, self._splits)
        labels = self._splits[part].labels
        if labels is None:
            raise UserError(f"Expected {part} images with labels. These have none.")
        return labels[np.asarray(places, np.int64)]

    def places_of(self, part: str, label: int | str, count: int = 1) -> np.ndarray:
        """Places of the first images of a class: at most `count`, from 0.

        Args:
            part: `train`, `validation` or `test`.
            label: its number, or its name where the labels have names.
            count: how many at most.

        Raises:
            UserError: the split has no labels, or none of this class.
        """
        if part not in self._splits:
            raise unknown("split", part, self._splits)
        labels = self._splits[part].labels
        places = np.flatnonzero(labels == self.class_number(part, label))
        return places[:count]

    def class_number(self, part: str, label: int | str) -> int:
        """The number of a class of a split, given by its name (whatever its case) or its number; names come first.

        Raises:
            UserError: the split has no labels, or none of this class.
        """
        labels = self._splits[part].labels
        if labels is None:
            raise UserError(f"Expected labels to find a class by. The {part} images have none; choose by place.")
        names = self.info.label_names or ()
        present = {str(number): int(number) for number in np.unique(labels)}
        named = {names[number].lower(): number for number in present.values() if 0 <= number < len(names)}
        found = named.get(str(label).lower(), present.get(str(label)))
        if found is None:
            shown = [names[number] if 0 <= number < len(names) else str(number) for number in present.values()]
            raise unknown(f"class of the {part} images", label, shown)
        return found

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where it has none."""
        names = self.info.label_names or ()
        return names[number] if 0 <= number < len(names) else str(number)


def make(
    source: Source,
    *,
    train: str,
    validation: str | None,
    test: str,
    binarize: str,
    threshold: float,
    batch_size: int,
    drop_remainder: bool,
    seed: int,
    evaluation_seed: int,
    labels: bool = False,
) -> Data:
    """Pipelines over a source; the arguments are those of `kvae.data.load`."""
    if binarize not in KINDS:
        raise unknown("binarization", binarize, KINDS)
    if not isinstance(threshold, numbers.Real) or not 0 <= threshold < 1:
        raise UserError(f"Expected a threshold in [0, 1). Received {threshold}.")
    splits = {"train": source.select(train), "test": source.select(test)}
    if validation is not None:
        splits["validation"] = source.select(validation)
        if source.overlap(validation, train) or source.overlap(validation, test):
            raise UserError(
                f"Expected validation images apart from those of training and testing. {validation!r} has some of "
                f"{train!r} or {test!r}. To watch the test set while training, pass it to fit (training.monitor_test)."
            )
    check_whole("batch_size", batch_size)
    check_seed("seed", seed)
    check_seed("evaluation_seed", evaluation_seed)
    if batch_size > splits["train"].count:
        raise UserError(
            f"Expected a batch_size of at most the {splits['train'].count} training images of {train!r}. "
            f"Received {batch_size}."
        )
    if labels and any(split.labels is None for split in splits.values()):
        raise UserError(f"Expected a dataset with labels for labels=True. {source.name} has none.")
    training = _Recipe(binarize, threshold, seed)
    evaluation = training.frozen(evaluation_seed)
    protocol: dict[str, Any] = {
        "dataset": source.name,
        "train": f"{train} ({splits['train'].count} images)",
        "validation": None if validation is None else f"{validation} ({splits['validation'].count} images)",
        "test": f"{test} ({splits['test'].count} images)",
        "binarization": f"threshold {threshold:g}" if binarize == "threshold" else binarize,
    }
    if evaluation.kind == "fixed":
        protocol["evaluation_binarization"] = f"drawn once, seed {evaluation_seed}"
    notes = [*source.notes, *(["test images were trained on"] if source.overlap(train, test) else [])]
    if notes:
        protocol["notes"] = notes
    info = Info(
        source.name,
        splits["train"].image_shape,
        source.label_names,
        {part: splits[part].count if part in splits else 0 for part in ("train", "validation", "test")},
        protocol,
    )
    return Data(info, splits, training, evaluation, batch_size, drop_remainder, labels)


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.autotune.enabled = False  # autotune can stall the end of an iteration for seconds
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _workers() -> int:
    return max(2, os.cpu_count() or 2)


def _training(
    split: Split, recipe: _Recipe, epoch: tf.Variable, batch_size: int, drop_remainder: bool
) -> tf.data.Dataset:
    """Batches of one epoch after another, each iteration the next."""
    if split.stream is None:
        order = shuffled(split.count, recipe.seed)
        return in_memory(_resident(split, recipe, batch_size, order=order, epoch=epoch, drop_remainder=drop_remainder))

    @tf.autograph.experimental.do_not_convert
    def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.cast(recipe.seed, tf.int64), number])
        word = tf.random.stateless_uniform([], seed, 0, 2**31 - 1, tf.int64, alg="philox")
        elements = split.stream(split.start, split.start + split.count)
        elements = elements.shuffle(split.shuffle_buffer or split.count, word, reshuffle_each_iteration=False)
        return _decoded(split, elements, recipe, batch_size, number, drop_remainder)

    numbers = tf.data.Dataset.range(1).map(lambda _: epoch.assign_add(1) - 1)
    steps = split.count // batch_size if drop_remainder else -(-split.count // batch_size)
    return _finished(numbers.flat_map(one_epoch), steps, recipe.binary)


def _evaluation(split: Split, recipe: _Recipe, batch_size: int) -> tf.data.Dataset:
    """Batches in the order of the source."""
    if split.stream is None:
        return in_memory(_resident(split, recipe, batch_size))
    batches = _decoded(split, split.stream(split.start, split.start + split.count), recipe, batch_size, 0)
    return _finished(batches, -(-split.count // batch_size), recipe.binary)


def _decoded(
    split: Split, elements: tf.data.Dataset, recipe: _Recipe, batch_size: int, epoch: Any, drop_remainder: bool = False
) -> tf.data.Dataset:
    """Batches of model input from (index, encoded) in a stream."""
    decoded = elements.map(lambda index, encoded: (index, split.decode(encoded)), num_parallel_calls=_workers())
    batches = decoded.batch(batch_size, drop_remainder)
    labels = None if split.labels is None else tf.constant(split.labels)

    def finish(index: tf.Tensor, images: tf.Tensor) -> Any:
        x = recipe(images, index, epoch)
        return x if labels is None else (x, tf.gather(labels, index - split.start))

    return batches.map(finish, num_parallel_calls=_workers())


def _resident(split: Split, recipe: _Recipe, batch_size: int, **options: Any) -> Resident:
    options.update(start=split.start, binary=recipe.binary, condition=split.labels)
    return Resident(split.images, recipe, batch_size, **options)


def in_memory(resident: Resident) -> tf.data.Dataset:
    """The batches of images in memory, as any `tf.data.Dataset`.

    Its attribute `resident` tells `VAE.fit` that the batches can as well be made on the device. A dataset that is
    derived of this one, by `map` for example, has none.
    """
    dataset = _finished(resident.batches(_workers()), resident.steps, resident.binary)
    dataset.resident = resident
    return dataset


def _finished(dataset: tf.data.Dataset, steps: int, binary: bool | None) -> tf.data.Dataset:
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(8).with_options(_options())
    dataset.binary = binary  # read by VAE.fit, which then need not look at the pixels
    return dataset
