"""Images in memory and the order in which an epoch visits them: what a compiled loop needs to make its own batches.

`Resident.batches` is the ordinary `tf.data` pipeline; `Resident.visit` tells only which images come when, for
`kvae.model.loop`, which gathers them on the device. Both visit the same images in the same order.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf

DEVICE_BYTES = 2**30  # images that may lie on an accelerator beside the model; host memory holds them anyway

Prepare = Callable[[tf.Tensor, tf.Tensor, Any], tf.Tensor]


class Make(NamedTuple):
    """How a batch comes from all images: gathered, then prepared, with their conditions beside them."""

    prepare: Prepare
    start: int

    def __call__(self, sources: tuple[tf.Tensor, ...], places: tf.Tensor, epoch: Any) -> Any:
        images, *condition = sources
        x = self.prepare(tf.gather(images, places), places + self.start, epoch)
        return (x, tf.gather(condition[0], places)) if condition else x


class Resident:
    """A set of images in memory.

    Args:
        images: `[N, *image]`.
        prepare: (images `[B, *image]`, index `[B]`, epoch) -> model input; hashable, a function of its arguments alone.
        batch_size: images a step.
        start: index of the first image, which a draw of pixels depends on.
        drop_remainder: leave out the last images of an epoch where they do not fill a batch.
        order: what one epoch visits, epoch number -> places `[n]` int64; by default all, as they lie.
        epoch: counts the iterations, where the order depends on their number; the next one gives its value.
        binary: whether all pixels of the model input are 0 or 1; None where nobody knows.
        condition: `[N, ...]`, what goes with every image as y; batches are then (x, condition).
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
        with tf.device("CPU"):  # made outside of any graph: inside one it would become its constant
            self.images = tf.convert_to_tensor(images)
            self._sources = (self.images,) if condition is None else (self.images, tf.convert_to_tensor(condition))
        if len(self._sources[-1]) != len(self.images):
            raise UserError(f"Expected one y an image: {len(self.images)}. Received {len(self._sources[-1])}.")
        self.prepare = prepare
        self.batch_size = batch_size
        self.start = start
        self.binary = binary
        count = len(images)
        self.steps = count // batch_size if drop_remainder else -(-count // batch_size)
        self._visited = min(count, self.steps * batch_size)
        self._order = order
        self._epoch = epoch

    @property
    def fits(self) -> bool:
        """Whether the images may lie beside the model on its device."""
        size = self.images.dtype.size * np.prod(self.images.shape)
        return not tf.config.list_logical_devices("GPU") or bool(size <= DEVICE_BYTES)

    @cached_property
    def on_device(self) -> tuple[tf.Tensor, ...]:
        """The images where the model computes, and their conditions; without accelerators they are there already."""
        return tuple(tf.identity(source) for source in self._sources)

    @property
    def make(self) -> Make:
        """(what `on_device` is, places `[B]`, epoch) -> a batch; equal where `prepare` and `start` are."""
        return Make(self.prepare, self.start)

    def batches(self, workers: int) -> tf.data.Dataset:
        """Batches x `[B, *image]` or (x, condition), made by `workers` threads."""
        sources, make = self._sources, self.make

        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            places = tf.data.Dataset.from_tensor_slices(self._places_of(number)).batch(self.batch_size)
            return places.map(lambda places: make(sources, places, number), num_parallel_calls=workers)

        epoch = self._epoch
        if epoch is None:
            return one_epoch(tf.constant(0, tf.int64))
        return tf.data.Dataset.range(1).map(lambda _: epoch.assign_add(1) - 1).flat_map(one_epoch)

    def visit(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Begins an epoch: its number, and the places `[n]` int64 of its images in their order."""
        number = tf.constant(0, tf.int64) if self._epoch is None else self._epoch.assign_add(1) - 1
        return number, self._places_of(number)

    @cached_property
    def clock(self) -> tf.data.Dataset:
        """A dataset of nothing that Keras counts as `steps` batches, for a train function that makes its own."""
        dataset = tf.data.Dataset.range(1).apply(tf.data.experimental.assert_cardinality(self.steps))
        dataset.clock_of = self
        return dataset

    def _places_of(self, number: tf.Tensor) -> tf.Tensor:
        if self._order is None:
            return tf.range(self._visited, dtype=tf.int64)
        return self._order(number)[: self._visited]


def as_it_is(images: tf.Tensor, index: tf.Tensor, epoch: Any) -> tf.Tensor:
    """What prepares images that are model input already."""
    return tf.cast(images, tf.float32)


def shuffled(count: int, seed: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """An order for `Resident`: every permutation of 0..count-1 alike, a function of (seed, epoch)."""

    def order(epoch: tf.Tensor) -> tf.Tensor:
        words = tf.stack([tf.cast(seed, tf.int64), epoch])
        return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), words, alg="philox")

    return order
