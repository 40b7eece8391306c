"""Steps under `tf.distribute`: several of them in one call if the images are in memory, otherwise one, by Keras.

Each process has all images. It gathers its part of each batch, so that no batch is sent from one process to another.
"""

from collections.abc import Callable
from typing import Any

from kvae.data.in_memory import ImagesInMemory, MakeBatch
from kvae.internal.quiet_output import may_retrace
from kvae.internal.tensorflow import tf
from kvae.model.image_places import Placed, mean_over_replicas, reducible
from kvae.model.loop import Logs, Model, StepFunction, Steps


class ReplicatedSteps(StepFunction):
    """Runs steps of a model under a strategy, which splits each batch among its replicas.

    Args:
        model: the model.
        step: function that takes a part of a batch, a `Placed`: `train_step` or `test_step`.
        returns_metrics: whether `step` returns `get_metrics_result()`. Other steps run one at a time.
        look: function that looks at the results of each training step. None for evaluation, where the places of images
            count through the whole set; for training they start at 0 in each batch.
        strategy: the strategy.
        of_keras: the function of Keras, which runs one step on a batch that is not in memory.
    """

    def __init__(
        self,
        model: Model,
        step: Callable[[Any], Logs],
        *,
        returns_metrics: bool,
        look: Callable[[Any], None] | None,
        strategy: Any,
        of_keras: Callable[[Any], Logs],
    ) -> None:
        self._look = look
        self._strategy = strategy
        self._of_keras = of_keras
        super().__init__(model, step, returns_metrics=returns_metrics)

    def _compile_all(self) -> None:
        self._loops = {}

    def __call__(self, iterator: Any) -> Logs:
        return iterator.next_logs(self) if isinstance(iterator, Steps) else self._of_keras(iterator)

    def run_in_memory(
        self, images: ImagesInMemory, indices: tf.Tensor, rows: int, epoch: tf.Tensor, before: int
    ) -> Logs:
        size = images.batch_size
        several, one = self._loop(images.make_batch)
        arrays = images.arrays
        first = tf.constant(before, tf.int32)
        full = len(indices) // size if self._returns_metrics else 0
        logs = None
        if full:
            table = tf.reshape(tf.pad(indices[: full * size], [[0, (rows - full) * size]]), [rows, size])
            logs = several(arrays, table, tf.constant(full), epoch, first)
        for start in range(full * size, len(indices), size):
            logs = one(arrays, indices[start : start + size], epoch, first + start)
        return logs

    def _loop(self, make_batch: MakeBatch) -> tuple[Any, Any]:
        """The function of several full batches, and that of one batch of any size."""
        if make_batch in self._loops:
            return self._loops[make_batch]

        def run_step(arrays: Any, indices: tf.Tensor, epoch: tf.Tensor, before: tf.Tensor) -> Logs:
            def run_part() -> Logs:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                count, parts = tf.size(indices), self._strategy.num_replicas_in_sync
                start, end = count * replica // parts, count * (replica + 1) // parts
                with tf.device("CPU"):  # Otherwise each step would copy all images to the device of its replica.
                    batch = make_batch(arrays, indices[start:end], epoch)
                x, condition = batch if isinstance(batch, tuple) else (batch, ())
                place = tf.range(start, end) + (before if self._look is None else 0)
                return self._step(Placed(x, condition, place, tf.fill([end - start], count)))

            results = self._strategy.run(run_part)
            if self._look is not None:
                local = self._strategy.experimental_local_results
                self._look(tf.nest.map_structure(lambda each: tf.stack(local(each)), results))
            return results

        def run_full_batches(
            arrays: Any, table: tf.Tensor, full: tf.Tensor, epoch: tf.Tensor, before: tf.Tensor
        ) -> Logs:
            def body(done: tf.Tensor) -> tuple[tf.Tensor]:
                run_step(arrays, table[done], epoch, before + done * tf.shape(table)[1])
                return (done + 1,)

            tf.while_loop(lambda done: done < full, body, [tf.constant(0)], parallel_iterations=1)
            results = self._strategy.run(lambda: reducible(self._model.get_metrics_result()))
            return mean_over_replicas(results, self._strategy)

        def run_one_batch(arrays: Any, indices: tf.Tensor, epoch: tf.Tensor, before: tf.Tensor) -> Logs:
            return mean_over_replicas(run_step(arrays, indices, epoch, before), self._strategy)

        self._loops[make_batch] = tuple(
            may_retrace(tf.function(function, autograph=False, reduce_retracing=True))
            for function in (run_full_batches, run_one_batch)
        )
        return self._loops[make_batch]
