"""Keras `fit` and `evaluate` with a fast path, and what of Keras is private and needed for that.

Everything here is about how batches reach `train_step` and `test_step`: which path they take, which places their images
have, how a step's gradients are applied and counted. What a step computes stands in `kvae.model.vae`.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

from kvae.data.in_memory import Resident, as_it_is, shuffled
from kvae.data.pipeline import in_memory
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import networks
from kvae.model.loop import Loop
from kvae.model.places import Placed, as_shared, placed

STEPS_PER_EXECUTION = 50  # where the user leaves it to kvae
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)

Step = TypeVar("Step", bound=Callable[..., Any])


class Batch(NamedTuple):
    """What a step works on."""

    x: tf.Tensor  # [B, *image] float32
    condition: tf.Tensor | None  # [B, ...] float32
    replica: Any  # which of several devices works on it, where its images do not know their places
    place: tf.Tensor  # [B] of every image in the whole batch, or in the whole set where `batch_of` got `before`
    of: tf.Tensor | None  # [B] images of the whole batch, where several devices share one

    def mean(self, losses: tf.Tensor) -> tf.Tensor:
        """This device's share of the mean over the whole batch: gradients are summed over the devices."""
        if self.of is None:
            return tf.reduce_mean(losses) / tf.distribute.get_strategy().num_replicas_in_sync
        return tf.reduce_sum(losses / tf.cast(self.of, tf.float32))


def returns_metrics(step: Step) -> Step:
    """Marks a `train_step` or `test_step` that returns `get_metrics_result()`, which is what makes it fit for a loop.

    A step without the mark, such as a subclass's own, runs on the ordinary path.
    """
    step.returns_metrics = True  # type: ignore[attr-defined]
    return step


class FastFit(keras.Model):
    """A Keras model of images whose `fit` and `evaluate` take the fast path where they can.

    Arrays, and the datasets of `kvae.data.load` where its images are in memory, do. Other datasets, `run_eagerly`,
    `steps_per_epoch`, `tf.distribute`, steps without the mark `returns_metrics`, and images that do not fit on a GPU
    take the ordinary path, and train alike; a warning says why where the model or a call is what leaves it.

    Attributes:
        steps: training steps that the model has made, an integer variable. It decides noise, order and schedules, and
            is saved with the model.
    """

    seed: int  # of the order of arrays
    condition_shape: Any
    likelihood: Any
    objective: Any
    further_metrics: dict[str, Any]
    train_function: Any
    test_function: Any
    encoder: Any
    decoder: Any
    posterior: Any
    steps: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Attributes that Keras must not track: they are neither layers nor weights. The counter is saved by this class
        # itself, so that a file without one loads, and `get_weights` is what it is for every Keras model.
        counter = keras.Variable(0, dtype="int64", trainable=False, name="steps", aggregation="only_first_replica")
        untracked = {
            "steps": counter,
            "further_metrics": {},
            "_residents": {"train": None, "test": None},  # what the two functions are to make batches of
            "_counts_from_optimizer": False,  # a file of version 0.1 holds no steps but those of its optimizer
        }
        self.__dict__.update(untracked)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "further_metrics":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # Compiling

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

    def forget_compiled(self) -> None:
        """Has the train and test function traced again, after something changed that they were traced with."""
        self.train_function = self.test_function = None

    @property
    def xla_pays(self) -> bool:
        """Whether XLA makes this model faster here: not for convolutions on a CPU, and not under `tf.distribute`."""
        if self._is_distributed():
            return False
        parts = [network for network in (self.encoder, self.decoder) if network is not None]
        return bool(tf.config.list_logical_devices("GPU")) or not any(map(convolves, parts))

    # Fitting and evaluating

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `fit`. `x` is an array of images, or a `tf.data.Dataset` of batches x or (x, y).

        y is ignored, but for a model with a `condition_shape`, whose condition it is. Arrays, and the datasets of
        `kvae.data.load` where its images are in memory, take the fast path: the batches are made on the device, and
        `steps_per_execution` of them run in one compiled loop.

        Raises:
            UserError: pixels that the likelihood has no density for, sample or class weights, a model compiled with a
                loss of its own, or no condition for a model that needs one.

        Warns:
            UserWarning: grey pixels under a Bernoulli likelihood, or a model or call that leaves the fast path.
        """
        if x is None:
            raise UserError("Expected images to fit: an array [N, ...] in [0, 1] or a tf.data.Dataset. Received None.")
        options = _arguments(keras.Model.fit, self, x, *args, **kwargs)
        self._check_call(options)
        x, held_out = options.pop("x"), options.get("validation_data")
        self.check_pixels(x)
        self.check_pixels(held_out[0] if isinstance(held_out, tuple | list) else held_out)
        self._take_steps_of_optimizer()
        if self.compiled and isinstance(x, np.ndarray | tf.Tensor):
            x, held_out, options = self._batches(x, held_out, options)
        if isinstance(x, tf.data.Dataset):
            options["shuffle"] = False  # Keras's default of True would warn that a dataset is not shuffled
        size = options.get("validation_batch_size") or options.get("batch_size") or 32
        options["validation_data"] = self._prepared("test", held_out, options.get("validation_steps"), size)
        resident = getattr(x, "resident", None)
        self.objective.build(None if resident is None else len(resident.images))
        x = self._prepared("train", x, options.get("steps_per_epoch"))
        with self._looping("train", x):
            return super().fit(x, **options)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `evaluate`: means over the set with K draws an image, the same at every call and batch size.

        For a number to publish, with its standard error and protocol, see `kvae.evaluation`.
        """
        if _is_call_of_fit(kwargs):  # which has checked and prepared x
            with self._looping("test", x):
                return super().evaluate(x, *args, **kwargs)
        options = _arguments(keras.Model.evaluate, self, x, *args, **kwargs)
        self._check_call(options)
        self.check_pixels(x)
        x, y = options.pop("x"), options.pop("y", None)
        if y is not None and isinstance(x, np.ndarray | tf.Tensor):
            x = (x, y)
        x = self._prepared("test", x, options.get("steps"), options.get("batch_size") or 32)
        if isinstance(x, tf.data.Dataset):
            options["batch_size"] = None
        with self._looping("test", x):
            return super().evaluate(x, **options)

    def check_pixels(self, x: Any) -> None:
        """Raises `UserError` for pixels that the likelihood has no density for; warns of grey ones under a Bernoulli.

        Looks at arrays, and at the first batch of a dataset that does not say itself whether it is binary.
        """
        stacklevel = 4  # the caller of fit, evaluate or an estimate
        if isinstance(x, tf.data.Dataset):
            binary = getattr(x, "binary", None)
            if binary is not None:
                if not binary and self.likelihood.support[2]:
                    self.likelihood.warn_of_grey(stacklevel)
                return
            x = next(iter(x.take(1)), None)
            x = keras.utils.unpack_x_y_sample_weight(x)[0]
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            self.likelihood.check_pixels(x, stacklevel)

    def _check_call(self, options: dict[str, Any]) -> None:
        # Keras drops the weights of examples without labels before they would reach a training step.
        if options.get("sample_weight") is not None or options.get("class_weight") is not None:
            raise _no_weights()
        if getattr(self, "loss", None) is not None or _has_metrics_of_compile(self):
            raise UserError("Expected compile(optimizer=...) without loss= and metrics=: a VAE brings its own.")

    def _batches(self, x: Any, held_out: Any, options: dict[str, Any]) -> tuple[tf.data.Dataset, Any, dict[str, Any]]:
        """Batches of an array, in an order that the model's seed decides (Keras's: the global one), and the rest."""
        options = dict(options)
        y = options.pop("y", None)
        condition = None if self.condition_shape is None else y
        batch_size = options.pop("batch_size", None) or 32
        options.setdefault("validation_batch_size", batch_size)
        fraction = options.pop("validation_split", 0.0)
        if fraction and held_out is None:  # as Keras does: the last images
            kept = math.floor(len(x) * (1 - fraction))
            x, held_out = x[:kept], x[kept:]
            if condition is not None:
                condition, held_out = condition[:kept], (held_out, condition[kept:])
        order: dict[str, Any] = {}
        if options.get("shuffle", True):
            # Later calls of fit go on with other orders: the step at which each starts is part of its seed.
            made = max(int(self.steps), int(self.optimizer.iterations))  # a train_step of a user's may not count
            order = {"order": shuffled(len(x), (self.seed * 1_000_003 + made) % 2**31)}
            order["epoch"] = tf.Variable(0, dtype=tf.int64, trainable=False)
        return in_memory(Resident(x, as_it_is, batch_size, condition=condition, **order)), held_out, options

    def _prepared(self, kind: str, x: Any, steps: int | None, batch_size: int = 32) -> Any:
        """What Keras is to iterate in place of `x`: the clock of the fast path, or batches."""
        y = None
        if isinstance(x, tuple | list) and len(x) <= 2 and isinstance(x[0], np.ndarray | tf.Tensor):
            x, y = x[0], x[1] if len(x) == 2 and self.condition_shape is not None else None
        if isinstance(x, np.ndarray | tf.Tensor):
            x = in_memory(Resident(x, as_it_is, batch_size, condition=y))
        if self._is_distributed() and isinstance(x, tf.data.Dataset):
            self._build_all(keras.utils.unpack_x_y_sample_weight(x.element_spec)[0].shape[1:])
            return placed(x, in_set=kind == "test", conditional=self.condition_shape is not None)
        resident = getattr(x, "resident", None)
        if resident is None or not self.compiled or self.run_eagerly or tf.config.functions_run_eagerly():
            return x
        reason = self._leaves_fast_path(kind, resident, steps)
        if reason:
            warnings.warn(f"This {type(self).__name__} leaves kvae's fast path: {reason}.", UserWarning, stacklevel=3)
            return x
        self._build_all(resident.images.shape[1:])
        return resident.clock

    def _leaves_fast_path(self, kind: str, resident: Resident, steps: int | None) -> str:
        """Why images in memory cannot take the fast path, or nothing."""
        if not hasattr(getattr(type(self), f"{kind}_step"), "returns_metrics"):
            return (
                f"it has a {kind}_step of its own. To add a term to the loss or a metric, the methods added_losses and "
                "added_metrics keep the path; a step that returns get_metrics_result() may be marked with "
                "kvae.model.fast_fit.returns_metrics"
            )
        if steps is not None:
            return "a number of steps was asked for, which Keras counts one by one"
        if not resident.fits:
            return "the images do not fit beside the model on its device"
        return ""

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

    # What a step needs

    def batch_of(self, data: Any, before: Any = None) -> Batch:
        """The images of a batch, and their places: within the batch, or in the set after `before` images."""
        if isinstance(data, Placed):
            condition = None if self.condition_shape is None else tf.cast(data.condition, tf.float32)
            return Batch(tf.cast(data.x, tf.float32), condition, 0, data.place, data.of)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise _no_weights()
        if isinstance(x, dict | list | tuple):
            raise UserError(
                f"Expected batches x or (x, y). Received x of type {type(x).__name__}; map the dataset first."
            )
        condition = None
        if self.condition_shape is not None:
            if y is None:
                raise UserError("Expected batches (x, y): y is the condition of this model. Received batches x.")
            condition = tf.cast(y, tf.float32)
        if not self.built:
            self.build(x.shape)
        place = tf.range(tf.shape(x)[0])
        if before is not None:
            place += tf.cast(tf.convert_to_tensor(before), tf.int32)
        return Batch(tf.cast(x, tf.float32), condition, _replica(), place, None)

    def apply(self, tape: tf.GradientTape, losses: list[tf.Tensor]) -> None:
        """Applies the gradient of one loss, or of two: the first then is for encoder and posterior, the second for all
        other weights."""
        variables = self.trainable_variables
        gradients = tape.gradient(losses[-1], variables)
        if len(losses) == 2:
            own = {id(variable) for part in (self.encoder, self.posterior) for variable in part.trainable_variables}
            first = iter(tape.gradient(losses[0], [variable for variable in variables if id(variable) in own]))
            gradients = [
                next(first) if id(variable) in own else gradient
                for variable, gradient in zip(variables, gradients, strict=True)
            ]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def count_step(self) -> None:
        """Adds one to `steps`: what a `train_step` of yours that calls `draw` with them does at its end."""
        self.steps.assign_add(1)

    def shared_results(self) -> dict[str, tf.Tensor]:
        """`get_metrics_result()`, in the shape that Keras needs where several workers train."""
        return as_shared(self.get_metrics_result())

    # Saving the counter

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["steps"] = np.asarray(self.steps)

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables({name: store[name] for name in store.keys() if name != "steps"})  # noqa: SIM118
        self.__dict__["_counts_from_optimizer"] = "steps" not in store.keys()  # noqa: SIM118
        if not self._counts_from_optimizer:
            self.steps.assign(int(np.asarray(store["steps"])))

    def _take_steps_of_optimizer(self) -> None:
        if self._counts_from_optimizer and self.optimizer is not None:
            self.steps.assign(int(self.optimizer.iterations))
        self.__dict__["_counts_from_optimizer"] = False

    def _build_all(self, image_shape: Any) -> None:
        """The model and its optimizer, whose variables cannot be made within a loop."""
        with self.distribute_strategy.scope():
            if not self.built:
                self.build((None, *image_shape))
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    # What of Keras is private. tests/test_keras_privates.py fails where Keras changes one of these.

    def _is_distributed(self) -> bool:
        # The strategy that the model was made under; Keras's public property makes a default one where there is none.
        return self._distribute_strategy is not None or tf.distribute.has_strategy()

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Under a strategy Keras draws a batch here to learn the shapes, and reduces it over the replicas: that counts
        # as an epoch of the data, and fails where several workers train.
        if not self.built:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)


def place_layer(model: keras.Model, layer: Any, place: int) -> None:
    """Moves a layer that a model made in `build` to where it stands in a model that was given it: the weights then have
    the same order in both, which is how an optimizer's state is saved. Keras orders layers by the time of their making.
    """
    model._layers.remove(layer)
    model._layers.insert(place, layer)


def _is_call_of_fit(options: dict[str, Any]) -> bool:
    """Whether it is `fit` that calls `evaluate`: Keras's fit passes this argument, which it gives to nobody else."""
    return bool(options.get("_use_cached_eval_dataset"))


def _has_metrics_of_compile(model: keras.Model) -> bool:
    """Whether `compile` got metrics, which a step of ours would not update; there is no public way to ask."""
    return getattr(model, "_compile_metrics", None) is not None


def layers_of(model: keras.Model) -> list[Any]:
    """A model and all layers within it, whatever attributes hold them; `Model.layers` has the outermost only."""
    return list(model._flatten_layers(include_self=True))


def convolves(network: keras.Model) -> bool:
    """Whether a network, kvae's or one of the user's, has convolutions; one that is not built may not know yet."""
    kinds = (networks.ConvEncoder, networks.ConvDecoder, *CONVOLUTIONS, *TRANSPOSED)
    return any(isinstance(layer, kinds) for layer in layers_of(network))


def _arguments(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments that were given, by name, without self."""
    return {
        name: value
        for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items()
        if name != "self"
    }


def _replica() -> Any:
    """The index of this replica under `tf.distribute`, so that replicas draw different noise; 0 without it."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def _no_weights() -> UserError:
    return UserError(
        "Expected no sample_weight or class_weight: the ELBO is a mean over images. To weigh images, repeat or "
        "sample them in the tf.data pipeline."
    )
