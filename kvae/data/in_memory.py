"""Dataset classes that tell `fit` and `evaluate` about their images, and the images that are held in memory.

An `ImageDataset` is an ordinary `tf.data.Dataset` of batches. If its images are in memory, its attribute `in_memory`
holds them, and `kvae.model.loop` can make the same batches on the device, in the same order. Images in a file that is
mapped into memory (`kvae.data.mapped`) are used in the same way.
"""

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from kvae.data.mapped import MappedImages, can_map
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf, unconverted

DEVICE_BYTES = 2**30  # Larger sets of images are not copied to a GPU, which also has to hold the model.
WORKERS = max(2, os.cpu_count() or 2)

Prepare = Callable[[tf.Tensor, tf.Tensor, Any], tf.Tensor]


class DatasetWithAttributes(tf.data.Dataset):
    """The same elements as another dataset; subclasses add attributes.

    A dataset that is derived from this one, for example by `map` or `take`, is an ordinary `tf.data.Dataset` without
    these attributes.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self._wrapped = dataset
        super().__init__(tf.data.experimental.to_variant(dataset))

    @property
    def element_spec(self) -> Any:
        return self._wrapped.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        # TensorFlow's only private name here: every dataset must define it, and it passes the options on.
        # tests/model/test_keras_privates.py fails if TensorFlow changes it.
        return [self._wrapped]


class ImageDataset(DatasetWithAttributes):
    """Batches of images, with what `fit` and `evaluate` need to know about them.

    Args:
        batches: dataset of x `[B, *image]` or (x, condition).
        steps: number of batches per iteration.
        binary: whether all pixels are 0 or 1; None if this is unknown.
        in_memory: the images of these batches, or None if they are not in memory.
    """

    def __init__(
        self,
        batches: tf.data.Dataset,
        steps: int,
        *,
        binary: bool | None,
        in_memory: "ImagesInMemory | None" = None,
    ) -> None:
        options = tf.data.Options()
        options.autotune.enabled = False  # Autotuning can delay the end of an iteration by seconds.
        options.deterministic = True
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        counted = batches.apply(tf.data.experimental.assert_cardinality(steps))
        super().__init__(counted.prefetch(8).with_options(options))
        self.binary = binary
        self.in_memory = in_memory


class MakeBatch(NamedTuple):
    """Function that makes a batch: it gathers images and conditions by their indices and prepares the images."""

    prepare: Prepare
    start: int  # number of the first image, as `prepare` counts them
    first: int  # place of the first image in the tensor

    def __call__(self, arrays: tuple[tf.Tensor, ...], indices: tf.Tensor, epoch: Any) -> Any:
        images, *condition = arrays
        places = indices + self.first if self.first else indices
        x = self.prepare(tf.gather(images, places), indices + self.start, epoch)
        return (x, tf.gather(condition[0], indices)) if condition else x


class ImagesInMemory:
    """A set of images in memory, or in a file that is mapped into memory.

    Args:
        images: array `[N, *image]`.
        prepare: function of (images `[B, *image]`, index `[B]`, epoch) that returns the model input `[B, *image]`. It
            must be hashable, and its result must depend on these arguments alone.
        batch_size: number of images per step.
        start: index of the first image, 0 by default. Random binarization depends on the index of an image.
        drop_remainder: whether to leave out the last images of an epoch if they do not fill a batch.
        order: function of the epoch number that returns the indices `[n]` int64 of the images of that epoch, in their
            order. By default all images, in the order of `images`.
        epoch: counter of the iterations; its value is the number of the next epoch. Only needed if `order` or
            `prepare` depends on the epoch, which is always 0 without it.
        binary: whether all pixels of the model input are 0 or 1; None if this is unknown.
        condition: array `[N, ...]` with the condition of each image. Batches are then (x, condition).

    Attributes:
        images: as given, in the memory of the host.
        arrays: the tensors that `make_batch` takes: images, and the condition if there is one.
        make_batch: function of (arrays, indices `[B]` of images, epoch) that returns a batch.
        batch_size: as given.
        binary: as given.
        steps_per_epoch: number of batches per epoch.

    Raises:
        UserError: if `condition` does not have one entry per image.
    """

    def __init__(
        self,
        images: Any,
        prepare: Prepare,
        batch_size: int,
        *,
        start: int = 0,
        drop_remainder: bool = False,
        order: Callable[[tf.Tensor], tf.Tensor] | None = None,
        epoch: tf.Variable | None = None,
        binary: bool | None = None,
        condition: Any = None,
    ) -> None:
        with tf.device("CPU"):  # A tensor that is made inside a graph would become a constant of that graph.
            self._mapped = MappedImages(images) if can_map(images) else None
            tensor = self._mapped.tensor if self._mapped else tf.convert_to_tensor(images)
            conditions = () if condition is None else (tf.convert_to_tensor(condition),)
        self.arrays: tuple[tf.Tensor, ...] = (tensor, *conditions)
        for y in conditions:
            if len(y) != len(images):
                raise UserError(
                    f"Expected one y per image, {len(images)} in all. Received {len(y)}. Pass x and y of the same "
                    "length."
                )
        self.images = images if self._mapped else tensor
        self.batch_size = batch_size
        self.binary = binary
        first = self._mapped.first if self._mapped else 0
        self.make_batch = MakeBatch(prepare, start, first)  # Equal for equal arguments.
        count = len(images)
        self.steps_per_epoch = count // batch_size if drop_remainder else -(-count // batch_size)
        self._images_per_epoch = min(count, self.steps_per_epoch * batch_size)
        self._order = order
        self._epoch = epoch

    @property
    def condition(self) -> tf.Tensor | None:
        """The condition of each image, `[N, ...]`, or None if there is none."""
        return self.arrays[1] if len(self.arrays) > 1 else None

    @property
    def fits_on_device(self) -> bool:
        """Whether the images are small enough to be copied to the device that holds the model."""
        size = self.arrays[0].dtype.size * np.prod(self.arrays[0].shape)
        return not tf.config.list_logical_devices("GPU") or bool(size <= DEVICE_BYTES)

    @cached_property
    def on_device(self) -> tuple[tf.Tensor, ...]:
        """The images, and their conditions if there are any, on the device that computes; no copy without a GPU."""
        return tuple(tf.identity(array) for array in self.arrays)

    def will_need(self, indices: tf.Tensor) -> None:
        """Begins to read the images with these indices, `[n]`, if their file may not be in memory."""
        if self._mapped is not None:
            self._mapped.will_need(indices.numpy())

    def dataset(self) -> ImageDataset:
        """A dataset of the batches x `[B, *image]` or (x, condition). Each iteration is the next epoch."""
        arrays, make_batch = self.arrays, self.make_batch

        @unconverted
        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            indices = tf.data.Dataset.from_tensor_slices(self._indices_of_epoch(number)).batch(self.batch_size)
            return indices.map(lambda some: make_batch(arrays, some, number), num_parallel_calls=WORKERS)

        epoch = self._epoch
        if epoch is None:
            batches = one_epoch(tf.constant(0, tf.int64))
        else:
            batches = tf.data.Dataset.range(1).map(unconverted(lambda _: epoch.assign_add(1) - 1)).flat_map(one_epoch)
        return ImageDataset(batches, self.steps_per_epoch, binary=self.binary, in_memory=self)

    def next_epoch(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Begins the next epoch. Returns its number and the indices `[n]` int64 of its images, in their order."""
        number = tf.constant(0, tf.int64) if self._epoch is None else self._epoch.assign_add(1) - 1
        return number, self._indices_of_epoch(number)

    def _indices_of_epoch(self, number: tf.Tensor) -> tf.Tensor:
        if self._order is None:
            return tf.range(self._images_per_epoch, dtype=tf.int64)
        return self._order(number)[: self._images_per_epoch]


def as_float32(images: tf.Tensor, index: tf.Tensor, epoch: Any) -> tf.Tensor:
    """`prepare` for images that are model input already."""
    return tf.cast(images, tf.float32)


def shuffled(count: int, seed: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """`order` for `ImagesInMemory`: a random permutation of 0..count-1 that depends on (seed, epoch) alone."""

    def order(epoch: tf.Tensor) -> tf.Tensor:
        words = tf.stack([tf.cast(seed, tf.int64), epoch])
        return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), words, alg="philox")

    return order
