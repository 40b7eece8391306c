"""Keras `fit` and `evaluate` with a fast path: many steps in one compiled loop over images that lie on the device.

Keras draws a batch, calls the compiled step, and comes back to the host for the next one. Where the images are in
memory (`kvae.data.resident`), nothing but the places of the next images has to come from the host: the loop gathers and
binarizes them itself, and runs the very `train_step` that the ordinary path runs.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from kvae import cluster, networks
from kvae.data.pipeline import in_memory
from kvae.data.resident import Make, Resident, shuffled
from kvae.errors import UserError
from kvae.tensorflow import keras, tf

STEPS_PER_EXECUTION = 50  # where the user leaves it to kvae

Step = TypeVar("Step", bound=Callable[..., Any])


class Loop:
    """What Keras calls as its `train_function` or `test_function`.

    Args:
        step: model input `[B, *image]` -> anything; updates the variables.
        results: () -> what Keras shows after a step, from the variables.
        resident: () -> the images to make batches of, or None where the iterator gives batches.
        ordinary: Keras's own function, for those.
        steps: batches a call.
        jit_compile: whether XLA compiles the loop.
    """

    def __init__(
        self,
        step: Callable[[tf.Tensor], Any],
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

            def many(images: tf.Tensor, table: tf.Tensor, steps: tf.Tensor, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
                def body(done: tf.Tensor) -> tuple[tf.Tensor]:
                    self._step(make(images, table[done], epoch))
                    return (done + 1,)

                tf.while_loop(lambda done: done < steps, body, (tf.constant(0),), parallel_iterations=1)
                return self._results()

            def one(images: tf.Tensor, places: tf.Tensor, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
                self._step(make(images, places, epoch))
                return self._results()

            self._compiled[make] = (self._compile(many), self._compile(one))
        return self._compiled[make]

    def _compile(self, function: Callable[..., Any]) -> Any:
        return tf.function(function, jit_compile=self._jit_compile, autograph=False)


def returns_metrics(step: Step) -> Step:
    """Marks a `train_step` or `test_step` that returns `get_metrics_result()`, which is what makes it fit for a loop.

    A step without the mark, such as a subclass's own, runs on the ordinary path.
    """
    step.returns_metrics = True  # type: ignore[attr-defined]
    return step


class LoopedModel(keras.Model):
    """A Keras model of images whose `fit` and `evaluate` take the fast path where they can.

    Arrays, and the datasets of `kvae.data.load` where its images are in memory, do. Other datasets, `run_eagerly`,
    `steps_per_epoch`, `tf.distribute`, steps without the mark `returns_metrics`, and images that do not fit on a GPU
    take the ordinary path, and train alike.
    """

    seed: int  # of the order of arrays
    train_function: Any
    test_function: Any
    encoder: Any
    decoder: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # What the train and test function are to make batches of; not tracked by Keras, for it is no state.
        self.__dict__["_residents"] = {"train": None, "test": None}

    def compile(self, optimizer: Any = "adam", *args: Any, **kwargs: Any) -> None:
        """Keras `compile` with an optimizer and no loss or metrics: a VAE brings its own.

        `jit_compile="auto"`, the default, compiles with XLA where that is faster: not for convolutions on a CPU, and
        not under `tf.distribute`. `steps_per_execution="auto"`, the default, is 50: batch callbacks are then called
        once in 50 batches. Give 1 for one call a batch, which is also what `tf.distribute` gets.
        """
        options = _arguments(keras.Model.compile, self, optimizer, *args, **kwargs)
        eager = options.get("run_eagerly", False)
        if options.get("steps_per_execution", "auto") == "auto":
            options["steps_per_execution"] = 1 if eager or self._is_distributed() else STEPS_PER_EXECUTION
        if options["steps_per_execution"] != 1 and self._is_distributed():  # Keras fails, in words of TensorFlow's
            raise UserError("Expected steps_per_execution=1, or to leave it out, under tf.distribute.")
        if options.get("jit_compile", "auto") == "auto":
            options["jit_compile"] = not eager and self.xla_pays
        super().compile(**options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def xla_pays(self) -> bool:
        """Whether XLA makes this model faster here: not for convolutions on a CPU, and not under `tf.distribute`."""
        if self._is_distributed():
            return False
        parts = [network for network in (self.encoder, self.decoder) if network is not None]
        return bool(tf.config.list_logical_devices("GPU")) or not any(map(networks.convolves, parts))

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        options = _arguments(keras.Model.fit, self, x, *args, **kwargs)
        x, held_out = options.pop("x"), options.get("validation_data")
        if self.compiled and isinstance(x, np.ndarray | tf.Tensor):
            x, held_out, options = self._batches(x, held_out, options)
        if isinstance(x, tf.data.Dataset):
            options["shuffle"] = False  # Keras's default of True would warn that a dataset is not shuffled
        size = options.get("validation_batch_size") or options.get("batch_size") or 32
        options["validation_data"] = self._prepared("test", held_out, options.get("validation_steps"), size)
        x = self._prepared("train", x, options.get("steps_per_epoch"))
        with self._looping("train", x):
            return super().fit(x, **options)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("_use_cached_eval_dataset"):  # it is fit that calls, which has prepared x
            with self._looping("test", x):
                return super().evaluate(x, *args, **kwargs)
        options = _arguments(keras.Model.evaluate, self, x, *args, **kwargs)
        x = self._prepared("test", options.pop("x"), options.get("steps"), options.get("batch_size") or 32)
        if isinstance(x, tf.data.Dataset):
            options.update(y=None, batch_size=None)
        with self._looping("test", x):
            return super().evaluate(x, **options)

    def _batches(self, x: Any, held_out: Any, options: dict[str, Any]) -> tuple[tf.data.Dataset, Any, dict[str, Any]]:
        """Batches of an array in an order that hangs on the model's seed (Keras's on the global one), and the rest."""
        options = {name: value for name, value in options.items() if name != "y"}
        batch_size = options.pop("batch_size", None) or 32
        options.setdefault("validation_batch_size", batch_size)
        fraction = options.pop("validation_split", 0.0)
        if fraction and held_out is None:  # as Keras does: the last images
            kept = math.floor(len(x) * (1 - fraction))
            x, held_out = x[:kept], x[kept:]
        order: dict[str, Any] = {}
        if options.get("shuffle", True):
            # Later calls of fit go on with other orders: the step at which each starts is part of its seed.
            seed = (self.seed * 1_000_003 + int(self.optimizer.iterations)) % 2**31
            order = {"order": shuffled(len(x), seed), "epoch": tf.Variable(0, dtype=tf.int64, trainable=False)}
        return in_memory(Resident(x, _as_it_is, batch_size, **order)), held_out, options

    def _prepared(self, kind: str, x: Any, steps: int | None, batch_size: int = 32) -> Any:
        """What Keras is to iterate in place of `x`: the clock of the fast path, or batches."""
        if isinstance(x, tuple | list) and len(x) <= 2 and isinstance(x[0], np.ndarray | tf.Tensor):
            x = x[0]  # without the labels
        if isinstance(x, np.ndarray | tf.Tensor):
            x = in_memory(Resident(x, _as_it_is, batch_size))
        resident = getattr(x, "resident", None)
        if self._is_distributed() and isinstance(x, tf.data.Dataset):
            self._build_all(keras.utils.unpack_x_y_sample_weight(x.element_spec)[0].shape[1:])
            return cluster.placed(x, in_set=kind == "test")
        step = getattr(type(self), f"{kind}_step")
        eager = not self.compiled or self.run_eagerly or tf.config.functions_run_eagerly()
        loops = hasattr(step, "returns_metrics") and steps is None and not eager and not self._is_distributed()
        if resident is None or not loops or not resident.fits:
            return x
        self._build_all(resident.images.shape[1:])
        return resident.clock

    def _is_distributed(self) -> bool:
        return self._distribute_strategy is not None or tf.distribute.has_strategy()

    def _build_all(self, image_shape: Any) -> None:
        """The model and its optimizer, whose variables cannot be made within a loop."""
        with self.distribute_strategy.scope():
            if not self.built:
                self.build((None, *image_shape))
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a strategy Keras draws a batch here to learn the shapes, and reduces it over the replicas: that counts
        # as an epoch of the data, and fails where several workers train.
        if not self.built:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    @contextmanager
    def _looping(self, kind: str, x: Any) -> Iterator[None]:
        self._residents[kind] = getattr(x, "clock_of", None)
        try:
            yield
        finally:
            self._residents[kind] = None

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is None or force:
            super().make_train_function(force=True)
            self.train_function = self._loop("train", self.train_step, self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = self._loop("test", self.test_step, self.test_function)

    def _loop(self, kind: str, step: Any, ordinary: Any) -> Loop:
        residents = self._residents
        return Loop(
            step, self.get_metrics_result, lambda: residents[kind], ordinary, self.steps_per_execution, self.jit_compile
        )


def _arguments(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments that were given, by name, without self."""
    return {
        name: value
        for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items()
        if name != "self"
    }


def _as_it_is(images: tf.Tensor, index: tf.Tensor, epoch: Any) -> tf.Tensor:
    return tf.cast(images, tf.float32)
