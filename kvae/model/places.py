"""The places of images under `tf.distribute`: several devices share a batch, and noise depends on an image's place.

What an image contributes to a step depends on its place in the whole batch, never on the device that works on it, so
the number of devices changes a training by rounding alone.
"""

from typing import Any, NamedTuple

from kvae.internal.tensorflow import tf


class Placed(NamedTuple):
    """A batch whose images know their places, for a strategy that splits it among replicas."""

    x: Any  # [B, *image]
    condition: Any  # [B, ...], or () where the model takes none
    place: Any  # [B] int32, of every image in the whole batch or set
    of: Any  # [B] int32, images of the whole batch


def placed(dataset: Any, *, in_set: bool, conditional: bool) -> Any:
    """A dataset of `Placed` batches.

    Args:
        dataset: of batches x, (x, y) or [x, y].
        in_set: count the places through the whole set, as for evaluation; else within the batch, as for training.
        conditional: keep y, the condition; it is dropped where the model has no use for it.
    """

    def place(start: Any, *batch: Any) -> Any:
        images, *rest = batch
        count = tf.shape(images)[0]
        condition = rest[0] if conditional else ()
        return start + count, Placed(images, condition, start + tf.range(count), tf.fill([count], count))

    # Dataset.map and scan call a function of a tuple with its parts as arguments.
    if in_set:
        numbered = dataset.scan(0, lambda start, batch: place(start, *tf.nest.flatten(batch)))
    else:
        numbered = dataset.map(lambda *batch: place(0, *batch)[1])
    policies = tf.data.experimental.AutoShardPolicy
    if dataset.options().experimental_distribute.auto_shard_policy == policies.AUTO:
        # Every worker reads all batches and works on its part of each; by files they would have other batches.
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = policies.DATA
        numbered = numbered.with_options(options)
    return numbered


def as_shared(results: dict[str, Any]) -> dict[str, Any]:
    """What a step returns, in the shape `[1]` where several workers train.

    Keras reduces a step's results over the workers by a mean over axis 0, which scalars do not have.
    """
    if not isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return results
    return {name: tf.reshape(value, [1]) for name, value in results.items()}
