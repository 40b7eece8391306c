"""The places of images in their batch, which decide their noise, also under `tf.distribute`.

What an image contributes to a training step depends on its place in the whole batch, not on the device that works on
it. So the number of devices changes a training run by rounding errors only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from kvae.internal.tensorflow import tf, unconverted


class Placed(NamedTuple):
    """A batch with the place of each image, for a strategy that splits the batch among replicas."""

    x: Any  # [B, *image]
    condition: Any  # [B, ...], or () if the model takes no condition
    place: Any  # [B] int32, index of each image in the whole batch or in the whole set
    global_batch_size: Any  # [B] int32, number of images in the whole batch, the same for each image


class Batch(NamedTuple):
    """The part of a batch that one device works on in a step."""

    x: tf.Tensor  # [B, *image] float32
    condition: tf.Tensor | None  # [B, ...] float32
    replica: Any  # index of the device among the replicas; 0 if `place` counts over all of them
    place: tf.Tensor  # [B] int32, index of each image in the whole batch or in the whole set
    global_batch_size: tf.Tensor | None  # [B] number of images in the whole batch, if several devices share it

    def mean(self, losses: tf.Tensor) -> tf.Tensor:
        """This device's contribution to the mean over the whole batch; Keras sums gradients over the devices."""
        if self.global_batch_size is None:
            return tf.reduce_mean(losses) / tf.distribute.get_strategy().num_replicas_in_sync
        return tf.reduce_sum(losses / tf.cast(self.global_batch_size, tf.float32))


def add_places(
    dataset: tf.data.Dataset, *, in_set: bool, conditional: bool, check: Callable[[Any], Any]
) -> tf.data.Dataset:
    """A dataset of `Placed` batches.

    Args:
        dataset: dataset of batches x, (x, y) or [x, y].
        in_set: whether places count through the whole set, as for evaluation; otherwise they start at 0 in each
            batch, as for training.
        conditional: whether to keep y as the condition; otherwise y is dropped.
        check: function that returns a batch (x,) or (x, y), or fails if it cannot be trained on.
    """

    @unconverted
    def place(start: Any, *batch: Any) -> Any:
        images, *rest = check(batch)
        count = tf.shape(images)[0]
        condition = rest[0] if conditional else ()
        return start + count, Placed(images, condition, start + tf.range(count), tf.fill([count], count))

    # Dataset.map and Dataset.scan pass the parts of a tuple as separate arguments.
    if in_set:
        numbered = dataset.scan(0, unconverted(lambda start, batch: place(start, *tf.nest.flatten(batch))))
    else:
        numbered = dataset.map(unconverted(lambda *batch: place(0, *batch)[1]))
    policies = tf.data.experimental.AutoShardPolicy
    if dataset.options().experimental_distribute.auto_shard_policy == policies.AUTO:
        # Each worker must read all batches and work on its part of each; sharding by files would give it other batches.
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = policies.DATA
        numbered = numbered.with_options(options)
    return numbered


def reducible(results: dict[str, Any]) -> dict[str, Any]:
    """The results of a step, reshaped to `[1]` if several workers train.

    Keras reduces them over the workers by a mean over axis 0, which scalars do not have.
    """
    if not isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return results
    return {name: tf.reshape(value, [1]) for name, value in results.items()}


def mean_over_replicas(results: Any, strategy: Any) -> Any:
    """What a step returned on each replica, as one number for each result: the mean, as Keras computes it."""

    def mean(values: Any) -> tf.Tensor:
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return strategy.reduce("MEAN", values, axis=0)
        local = strategy.experimental_local_results(values)
        return local[0] if len(local) == 1 else tf.reduce_mean(tf.stack(local), axis=0)

    return tf.nest.map_structure(mean, results)
