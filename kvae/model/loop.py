"""Many steps in one compiled loop over images that are held on the device.

On Keras's ordinary path the host draws each batch and calls the compiled step. If the images are in memory
(`kvae.data.in_memory`), the host only has to send the indices of the next images: the loop itself gathers and binarizes
the images, and runs the same `train_step` as the ordinary path.
"""

from collections.abc import Callable
from typing import Any

from kvae.data.in_memory import ImagesInMemory, MakeBatch
from kvae.internal.quiet_output import may_retrace
from kvae.internal.tensorflow import tf


class Loop:
    """The `train_function` or `test_function` that Keras calls.

    Args:
        step: function that takes a batch, as on the ordinary path, and updates the variables.
        results: function without arguments that returns what Keras shows after a step, computed from the variables.
        images: function without arguments that returns the images for the batches, or None if the iterator gives the
            batches.
        ordinary: Keras's own function, used if the iterator gives the batches.
        steps_per_execution: number of batches per call.
        jit_compile: whether XLA compiles the loop.
    """

    def __init__(
        self,
        step: Callable[[Any], Any],
        results: Callable[[], dict[str, tf.Tensor]],
        images: Callable[[], ImagesInMemory | None],
        ordinary: Callable[[Any], Any],
        steps_per_execution: int,
        jit_compile: bool,
    ) -> None:
        self._step = step
        self._results = results
        self._images = images
        self._ordinary = ordinary
        self._steps_per_execution = steps_per_execution
        self._jit_compile = jit_compile
        self._compiled: dict[MakeBatch, tuple[Any, Any]] = {}
        self._iterator: Any = None
        self._epoch: Any = None
        self._indices: Any = None  # of the images that remain in this epoch

    def __call__(self, iterator: Any) -> Any:
        images = self._images()
        if images is None:
            return self._ordinary(iterator)
        if iterator is not self._iterator:  # Keras makes a new iterator of the placeholder for each epoch.
            self._iterator = iterator
            self._epoch, self._indices = images.next_epoch()
        size = images.batch_size
        rows = min(self._steps_per_execution, images.steps_per_epoch)
        indices, self._indices = self._indices[: rows * size], self._indices[rows * size :]
        full, remainder = divmod(len(indices), size)
        padded = tf.pad(indices, [[0, rows * size - len(indices)]])  # One shape needs one compilation.
        table = tf.reshape(padded, [rows, size])
        run_full_batches, run_last_batch = self._functions(images.make_batch)
        arrays = images.on_device
        logs = run_full_batches(arrays, table, tf.constant(full), self._epoch) if full else None
        return run_last_batch(arrays, table[full, :remainder], self._epoch) if remainder else logs

    def _functions(self, make_batch: MakeBatch) -> tuple[Any, Any]:
        """The compiled loop over the full batches, and the compiled step for a last batch that is smaller."""
        if make_batch not in self._compiled:

            def run_full_batches(arrays: Any, table: tf.Tensor, full: tf.Tensor, epoch: tf.Tensor) -> Any:
                def body(done: tf.Tensor) -> tuple[tf.Tensor]:
                    self._step(make_batch(arrays, table[done], epoch))
                    return (done + 1,)

                tf.while_loop(lambda done: done < full, body, (tf.constant(0),), parallel_iterations=1)
                return self._results()

            def run_last_batch(arrays: Any, indices: tf.Tensor, epoch: tf.Tensor) -> Any:
                self._step(make_batch(arrays, indices, epoch))
                return self._results()

            self._compiled[make_batch] = (self._compile(run_full_batches), self._compile(run_last_batch))
        return self._compiled[make_batch]

    def _compile(self, function: Callable[..., Any]) -> Any:
        return may_retrace(tf.function(function, jit_compile=self._jit_compile, autograph=False))
