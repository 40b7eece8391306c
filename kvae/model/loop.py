"""Many steps in one compiled loop over images that lie on the device.

Keras draws a batch, calls the compiled step, and comes back to the host for the next one. Where the images are in
memory (`kvae.data.in_memory`), nothing but the places of the next images has to come from the host: the loop gathers
and binarizes them itself, and runs the very `train_step` that the ordinary path runs.
"""

from collections.abc import Callable
from typing import Any

from kvae.data.in_memory import Make, Resident
from kvae.internal.tensorflow import tf


class Loop:
    """What Keras calls as its `train_function` or `test_function`.

    Args:
        step: a batch, as the ordinary path has it -> anything; updates the variables.
        results: () -> what Keras shows after a step, from the variables.
        resident: () -> the images to make batches of, or None where the iterator gives batches.
        ordinary: Keras's own function, for those.
        steps: batches a call.
        jit_compile: whether XLA compiles the loop.
    """

    def __init__(
        self,
        step: Callable[[Any], Any],
        results: Callable[[], dict[str, tf.Tensor]],
        resident: Callable[[], Resident | None],
        ordinary: Callable[[Any], Any],
        steps: int,
        jit_compile: bool,
    ) -> None:
        self._step = step
        self._results = results
        self._resident = resident
        self._ordinary = ordinary
        self._steps = steps
        self._jit_compile = jit_compile
        self._compiled: dict[Make, tuple[Any, Any]] = {}
        self._iterator: Any = None
        self._epoch: Any = None
        self._places: Any = None

    def __call__(self, iterator: Any) -> Any:
        resident = self._resident()
        if resident is None:
            return self._ordinary(iterator)
        if iterator is not self._iterator:  # Keras makes one an epoch, of `Resident.clock`
            self._iterator = iterator
            self._epoch, self._places = resident.visit()
        batch = resident.batch_size
        rows = min(self._steps, resident.steps)
        places, self._places = self._places[: rows * batch], self._places[rows * batch :]
        steps, rest = divmod(len(places), batch)
        filled = tf.pad(places, [[0, rows * batch - len(places)]])  # one shape, and so one compilation
        table = tf.reshape(filled, [rows, batch])
        images, (many, one) = resident.on_device, self._functions(resident.make)
        logs = many(images, table, tf.constant(steps), self._epoch) if steps else None
        return one(images, table[steps, :rest], self._epoch) if rest else logs

    def _functions(self, make: Make) -> tuple[Any, Any]:
        """The loop over the first batches of a table of places, and the step on a ragged last batch."""
        if make not in self._compiled:

            def many(images: Any, table: tf.Tensor, steps: tf.Tensor, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
                def body(done: tf.Tensor) -> tuple[tf.Tensor]:
                    self._step(make(images, table[done], epoch))
                    return (done + 1,)

                tf.while_loop(lambda done: done < steps, body, (tf.constant(0),), parallel_iterations=1)
                return self._results()

            def one(images: Any, places: tf.Tensor, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
                self._step(make(images, places, epoch))
                return self._results()

            self._compiled[make] = (self._compile(many), self._compile(one))
        return self._compiled[make]

    def _compile(self, function: Callable[..., Any]) -> Any:
        return tf.function(function, jit_compile=self._jit_compile, autograph=False)
