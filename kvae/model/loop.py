"""The `train_function` and `test_function` that Keras calls: one step, or several steps in one compiled function.

Keras's `fit` calls the train function once for each step, with the iterator of its dataset. kvae gives Keras a dataset
whose iterator is a `Steps`, which knows how many steps may run in one call (`kvae.model.grouped_steps`). If the images
are in memory (`kvae.data.in_memory`), the host only has to send the indices of the next images: one compiled loop
gathers and binarizes the images, and runs the same `train_step` for each batch. Otherwise the loop draws the batches
from the iterator of the dataset. Any other iterator that the function is handed gives one step.
"""

from collections.abc import Callable
from typing import Any, Protocol

from kvae.data.in_memory import ImagesInMemory, MakeBatch
from kvae.internal import xla_cache
from kvae.internal.quiet_output import may_retrace
from kvae.internal.tensorflow import tf
from kvae.model.pixel_check import PixelCheck
from kvae.model.xla_refusals import is_refusal, leave_xla, user_decided

Logs = Any  # what a step returns: a dict of scalars


class Model(Protocol):
    """What the step function needs to know about its model."""

    jit_compile: Any
    run_eagerly: Any
    _pixel_check: PixelCheck

    def get_metrics_result(self) -> Any: ...
    def _build_for(self, data: Any) -> None: ...


class StepFunction:
    """Runs steps of a model, compiled as Keras would do it.

    Args:
        model: the model.
        step: function that takes a batch and updates the variables: `train_step` or `test_step`.
        returns_metrics: whether `step` returns `get_metrics_result()`. The results are then computed once per call.
    """

    def __init__(self, model: Model, step: Callable[[Any], Logs], *, returns_metrics: bool) -> None:
        self._model = model
        self._step = step
        self._returns_metrics = returns_metrics
        self._last_logs: Logs = None  # of the first steps that ran; None before them
        self._compile_all()

    def _compile_all(self) -> None:
        self._loops: dict[MakeBatch, tuple[Any, Any]] = {}
        # An inlined step could begin before its batch is checked.
        options = {"reduce_retracing": True, "experimental_attributes": {"_noinline": True}}
        step = self._step if self._model.run_eagerly else self._compile(self._step, **options)

        def one_step(data: Any) -> Logs:
            return step(self._model._pixel_check(data))

        def several_steps(iterator: Any, wanted: tf.Tensor) -> tuple[Logs, tf.Tensor]:
            """Between one step and `wanted` steps: as many as there are batches."""

            def following(done: Any) -> Any:
                ends = tf.experimental.Optional.empty(iterator.element_spec)
                return tf.cond(done < wanted, iterator.get_next_as_optional, lambda: ends)

            def body(done: Any, logs: Any, batch: Any) -> Any:
                logs = one_step(batch.get_value())
                return done + 1, logs, following(done + 1)

            first = (tf.constant(1), one_step(next(iterator)), following(tf.constant(1)))
            done, logs, _ = tf.while_loop(lambda done, logs, batch: batch.has_value(), body, first)
            return logs, done

        outside_of_xla = {"jit_compile": False, "reduce_retracing": True}
        self._one_step = one_step if self._model.run_eagerly else self._compile(one_step, **outside_of_xla)
        self._several_steps = self._compile(several_steps, **outside_of_xla)

    def __call__(self, iterator: Any) -> Logs:
        if isinstance(iterator, Steps):
            return iterator.next_logs(self)
        return self.run_batch(next(iterator))

    def run_batch(self, data: Any) -> Logs:
        """Runs one step on a batch."""
        # Keras marks a part of a batch that is absent by an empty Optional.
        data = tf.nest.map_structure(lambda part: None if isinstance(part, tf.experimental.Optional) else part, data)
        self._model._build_for(data)
        first = self._last_logs is None
        self._last_logs = self._run(lambda: self._one_step(data))
        if first:
            self._model._pixel_check.warn_of_grey()
        return self._last_logs

    def run_dataset(self, iterator: Any, wanted: int) -> tuple[Logs, int]:
        """Runs up to `wanted` steps on batches of a `tf.data` iterator. Returns the logs and the number of steps.

        Raises:
            StopIteration: if there is no batch.
        """
        done, logs = 0, self._last_logs
        if logs is None:
            # The first step runs alone, with its batch at hand: if XLA refuses the model, the batch is not lost.
            logs, done = self.run_batch(next(iterator)), 1
        if done < wanted:
            try:
                logs, more = self._run(lambda: self._several_steps(iterator, tf.constant(wanted - done)))
            except tf.errors.OutOfRangeError:
                if not done:
                    raise StopIteration from None
            else:
                done += int(more)
        return logs, done

    def run_in_memory(
        self, images: ImagesInMemory, indices: tf.Tensor, rows: int, epoch: tf.Tensor, before: int
    ) -> Logs:
        """Runs a step for each `batch_size` indices, and one for the remaining ones.

        Args:
            images: the images of which the batches are made.
            indices: indices of the images, at least one, `[n]` int64.
            rows: greatest number of steps in any call; one shape needs one compilation.
            epoch: number of the epoch.
            before: number of images in earlier batches of the epoch. Only steps on several devices need it, because
                `test_step` counts the images itself otherwise.
        """
        arrays, make_batch, size = images.on_device, images.make_batch, images.batch_size
        logs = None
        if not self._returns_metrics and self._last_logs is None:
            # What a step of a subclass returns is known after its first call, which may also make variables.
            logs, indices = self.run_batch(make_batch(arrays, indices[:size], epoch)), indices[size:]
        full, remainder = divmod(len(indices), size)
        table = tf.reshape(tf.pad(indices, [[0, rows * size - len(indices)]]), [rows, size])
        if full:
            logs = self._run(lambda: self._loop(make_batch)[0](arrays, table, tf.constant(full), epoch))
        if remainder:
            logs = self._run(lambda: self._loop(make_batch)[1](arrays, table[full, :remainder], epoch))
        return logs

    def _loop(self, make_batch: MakeBatch) -> tuple[Any, Any]:
        """The compiled loop over the full batches, and the compiled step for a last batch that is smaller."""
        if make_batch not in self._loops:

            def run_full_batches(arrays: Any, table: tf.Tensor, full: tf.Tensor, epoch: tf.Tensor) -> Logs:
                def body(done: tf.Tensor, logs: Any) -> tuple[Any, Any]:
                    returned = self._step(make_batch(arrays, table[done], epoch))
                    return done + 1, () if self._returns_metrics else returned

                logs = () if self._returns_metrics else tf.nest.map_structure(tf.zeros_like, self._last_logs)
                first = (tf.constant(0), logs)
                _, logs = tf.while_loop(lambda done, _: done < full, body, first, parallel_iterations=1)
                return self._model.get_metrics_result() if self._returns_metrics else logs

            def run_last_batch(arrays: Any, indices: tf.Tensor, epoch: tf.Tensor) -> Logs:
                return self._step(make_batch(arrays, indices, epoch))

            # For one step per epoch, a second compilation by XLA would take longer than it saves.
            of_last = {} if user_decided(self._model) else {"jit_compile": False}
            self._loops[make_batch] = (self._compile(run_full_batches), self._compile(run_last_batch, **of_last))
        return self._loops[make_batch]

    def _compile(self, function: Callable[..., Any], **options: Any) -> Any:
        options = {"jit_compile": self._model.jit_compile, **options}
        return may_retrace(tf.function(xla_cache.named_alike(function), autograph=False, **options))

    def _run(self, call: Callable[[], Any]) -> Any:
        """Calls compiled functions. If XLA cannot compile the model and was not asked for, they run as graphs."""
        try:
            return call()
        except tf.errors.OpError as error:
            self._model._pixel_check.raise_if_failed(error)
            if not (is_refusal(error) and leave_xla(self._model, error)):
                raise
        self._compile_all()
        return call()


class Steps:
    """What a grouped dataset gives Keras as its iterator: it runs steps in groups, ahead of Keras's count.

    Args:
        size: greatest number of steps in a group.
        asked: number of steps that Keras will ask for per epoch, or None if it takes as many as there are.

    Attributes:
        ahead: number of steps of the current group that Keras has not counted yet.
    """

    def __init__(self, size: int, asked: int | None) -> None:
        self.size = size
        self.asked = asked
        self.ahead = 0
        self._made = 0
        self._logs: Logs = None

    def __iter__(self) -> "Steps":
        return self

    def __next__(self) -> Any:
        raise TypeError("Expected Keras to pass this iterator to a step function. Received a call of next().")

    def next_logs(self, function: StepFunction) -> Logs:
        """Logs of the group to which the next step belongs. Runs the group at its first step."""
        if self.ahead == 0:
            wanted = self.size if self.asked is None else min(self.size, self.asked - self._made % self.asked)
            self._logs, self.ahead = self._run(function, wanted)
            self._made += self.ahead
        self.ahead -= 1
        return self._logs

    def _run(self, function: StepFunction, wanted: int) -> tuple[Logs, int]:
        """Runs between 1 and `wanted` steps. Returns the logs and their number."""
        raise NotImplementedError(f"{type(self).__name__} needs a method _run(function, wanted).")


class StepsOfDataset(Steps):
    """Steps on the batches of a `tf.data` dataset."""

    def __init__(self, dataset: Any, size: int, asked: int | None) -> None:
        super().__init__(size, asked)
        self._dataset = dataset
        self._iterator: Any = None

    def _run(self, function: StepFunction, wanted: int) -> tuple[Logs, int]:
        if self._iterator is None:  # Keras makes more iterators than it uses.
            self._iterator = iter(self._dataset)
        return function.run_dataset(self._iterator, wanted)


class StepsInMemory(Steps):
    """Steps on batches of images in memory, which are made on the device."""

    def __init__(self, images: ImagesInMemory, size: int, asked: int | None) -> None:
        super().__init__(size, asked)
        self._images = images
        self._epoch: Any = None
        self._indices: Any = None  # of the images that remain in this epoch
        self._before = 0  # number of images in earlier batches of this epoch

    def _run(self, function: StepFunction, wanted: int) -> tuple[Logs, int]:
        images = self._images
        if self._indices is None:
            self._epoch, self._indices = images.next_epoch()
            images.will_need(self._indices[: self.size * images.batch_size])
        size, rows = images.batch_size, min(self.size, images.steps_per_epoch)
        indices, self._indices = self._indices[: wanted * size], self._indices[wanted * size :]
        if len(indices) == 0:
            raise StopIteration
        images.will_need(self._indices[: self.size * size])  # of the next group, while this one runs
        logs = function.run_in_memory(images, indices, rows, self._epoch, self._before)
        self._before += len(indices)
        return logs, -(-len(indices) // size)
