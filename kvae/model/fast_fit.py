"""Keras `fit` and `evaluate` with a fast path for images in memory.

This module decides how batches reach `train_step` and `test_step`: on which path, and with which places of their
images. What a step computes is in `kvae.model.vae`.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from kvae.data.in_memory import ImageDataset, ImagesInMemory, Placeholder, as_float32, shuffled
from kvae.internal.errors import KvaeWarning, UserError
from kvae.internal.quiet_output import without_tensorflow_reports
from kvae.internal.tensorflow import keras, tf
from kvae.model import networks
from kvae.model.image_places import Batch, Placed, add_places, reducible
from kvae.model.keras_privates import has_compiled_metrics, is_called_by_fit, layers_of
from kvae.model.loop import Loop
from kvae.model.step_counter import StepCounter

STEPS_PER_EXECUTION = 50  # used for "auto"
CONVOLUTIONAL = (
    networks.ConvEncoder,  # A network of kvae may not have made its layers yet.
    networks.ConvDecoder,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)

Step = TypeVar("Step", bound=Callable[..., Any])


def returns_metrics(step: Step) -> Step:
    """Marks a `train_step` or `test_step` that returns `get_metrics_result()`, and so can run in a compiled loop.

    A step without the mark, for example one that a subclass defines, runs on the ordinary path.
    """
    step.returns_metrics = True  # type: ignore[attr-defined]
    return step


class FastFit(StepCounter):
    """A Keras model of images whose `fit` and `evaluate` use the fast path if they can.

    The fast path is for arrays, and for the datasets of `kvae.data.load` with images in memory. The ordinary path
    trains alike, and is used for other datasets, with `run_eagerly`, `steps_per_epoch` or `tf.distribute`, for steps
    without the mark `returns_metrics`, and for images that do not fit on a GPU. A warning gives the reason if it lies
    in the model or in the call.
    """

    seed: int  # also the seed for the order of arrays
    condition_shape: Any
    likelihood: Any
    objective: Any
    further_metrics: dict[str, Any]
    train_function: Any
    test_function: Any
    encoder: Any
    decoder: Any
    posterior: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Keras must not track these: they are neither layers nor weights. `_in_memory` has the images of which the
        # train and test functions make batches at the moment.
        self.__dict__.update(further_metrics={}, _in_memory={"train": None, "test": None})

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "further_metrics":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # Compiling

    def compile(self, optimizer: Any = "adam", *args: Any, **kwargs: Any) -> None:
        """Keras `compile` with an optimizer, but without loss and metrics, which a VAE defines itself.

        By default, `jit_compile="auto"` compiles with XLA if that is faster (`xla_pays`), and
        `steps_per_execution="auto"` is 50: batch callbacks are then called once per 50 batches. Pass 1 for a call per
        batch. Under `tf.distribute` and with `run_eagerly`, "auto" is 1.

        Raises:
            UserError: if `steps_per_execution` is not 1 under `tf.distribute`.
        """
        options = _arguments(keras.Model.compile, self, optimizer, *args, **kwargs)
        eager = options.get("run_eagerly", False)
        if options.get("steps_per_execution", "auto") == "auto":
            options["steps_per_execution"] = 1 if eager or self._is_distributed() else STEPS_PER_EXECUTION
        if options["steps_per_execution"] != 1 and self._is_distributed():  # Keras would raise an obscure error.
            raise UserError(
                "Expected steps_per_execution=1 under tf.distribute. "
                f"Received {options['steps_per_execution']}. Pass 1, or leave it out."
            )
        if options.get("jit_compile", "auto") == "auto":
            options["jit_compile"] = not eager and self.xla_pays
        super().compile(**options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def forget_compiled(self) -> None:
        """Makes Keras trace the train and test functions again; needed after a change of anything that they use."""
        self.train_function = self.test_function = None

    @property
    def xla_pays(self) -> bool:
        """Whether XLA makes this model faster: not for convolutions on a CPU, and not under `tf.distribute`."""
        if self._is_distributed():
            return False
        parts = [network for network in (self.encoder, self.decoder) if network is not None]
        return bool(tf.config.list_logical_devices("GPU")) or not any(map(convolves, parts))

    # Fitting and evaluating

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `fit`. `x` is an array of images `[N, *image]`, or a `tf.data.Dataset` of batches x or (x, y).

        y is the condition of a model with a `condition_shape`; other models ignore it. Arrays, and the datasets of
        `kvae.data.load` with images in memory, use the fast path: the batches are made on the device, and
        `steps_per_execution` of them run in one compiled loop.

        Raises:
            UserError: if pixels lie outside of the likelihood's support, sample or class weights are given, the model
                was compiled with a loss or metrics, or a model that needs a condition receives none.

        Warns:
            KvaeWarning: if pixels are grey under a Bernoulli likelihood, or the model or the call prevents the fast
                path.
        """
        if x is None:
            raise UserError("Expected images: an array [N, ...] in [0, 1], or a tf.data.Dataset. Received None.")
        options = _arguments(keras.Model.fit, self, x, *args, **kwargs)
        self._check_call(options)
        x, held_out = options.pop("x"), options.get("validation_data")
        self.check_pixels(x)
        self.check_pixels(held_out[0] if isinstance(held_out, tuple | list) else held_out)
        self._take_steps_of_optimizer()
        if self.compiled and isinstance(x, np.ndarray | tf.Tensor):
            x, held_out, options = self._dataset_of_array(x, held_out, options)
        if isinstance(x, tf.data.Dataset):
            options["shuffle"] = False  # With its default of True, Keras would warn that it does not shuffle a dataset.
        size = options.get("validation_batch_size") or options.get("batch_size") or 32
        options["validation_data"] = self._prepare("test", held_out, options.get("validation_steps"), size)
        in_memory = x.in_memory if isinstance(x, ImageDataset) else None
        self.objective.build(None if in_memory is None else len(in_memory.images))
        x = self._prepare("train", x, options.get("steps_per_epoch"))
        with self._making_batches("train", x):
            return super().fit(x, **options)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `evaluate`: means over the set with K draws per image, the same for every call and batch size.

        For a number to publish, with its standard error and protocol, see `kvae.evaluation`.

        Raises:
            UserError: as `fit`.

        Warns:
            KvaeWarning: as `fit`.
        """
        if is_called_by_fit(kwargs):  # `fit` has already checked and prepared x.
            with self._making_batches("test", x):
                return super().evaluate(x, *args, **kwargs)
        options = _arguments(keras.Model.evaluate, self, x, *args, **kwargs)
        self._check_call(options)
        self.check_pixels(x)
        x, y = options.pop("x"), options.pop("y", None)
        if y is not None and isinstance(x, np.ndarray | tf.Tensor):
            x = (x, y)
        x = self._prepare("test", x, options.get("steps"), options.get("batch_size") or 32)
        if isinstance(x, tf.data.Dataset):
            options["batch_size"] = None
        with self._making_batches("test", x):
            return super().evaluate(x, **options)

    def check_pixels(self, x: Any) -> None:
        """Checks the pixels of an array, or of the first batch of a dataset that does not tell whether it is binary.

        Raises:
            UserError: if pixels lie outside of the likelihood's support.

        Warns:
            KvaeWarning: if pixels are grey under a likelihood of whole numbers.
        """
        stacklevel = 4  # Warnings point to the caller of fit, evaluate or an estimate.
        if isinstance(x, ImageDataset) and x.binary is not None:
            if not x.binary and self.likelihood.support[2]:
                self.likelihood.warn_of_grey(stacklevel)
            return
        if isinstance(x, tf.data.Dataset):
            x = next(iter(x.take(1)), None)
            x = keras.utils.unpack_x_y_sample_weight(x)[0]
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            self.likelihood.check_pixels(x, stacklevel)

    def _check_call(self, options: dict[str, Any]) -> None:
        # Without labels Keras silently drops these weights before they reach a training step.
        if options.get("sample_weight") is not None or options.get("class_weight") is not None:
            raise _no_weights()
        if getattr(self, "loss", None) is not None or has_compiled_metrics(self):
            raise UserError(
                "Expected compile(optimizer=...) without loss= and metrics=, because a VAE defines these itself. "
                "Received one of them. Compile the model again without it."
            )

    def _dataset_of_array(
        self, x: Any, held_out: Any, options: dict[str, Any]
    ) -> tuple[ImageDataset, Any, dict[str, Any]]:
        """A dataset of an array, the validation data, and the arguments of `fit` that remain.

        The order of the images depends on the seed of the model; with Keras alone it depends on the global seed.
        """
        options = dict(options)
        y = options.pop("y", None)
        condition = None if self.condition_shape is None else y
        batch_size = options.pop("batch_size", None) or 32
        options.setdefault("validation_batch_size", batch_size)
        fraction = options.pop("validation_split", 0.0)
        if fraction and held_out is None:  # Like Keras, hold out the last images.
            kept = math.floor(len(x) * (1 - fraction))
            x, held_out = x[:kept], x[kept:]
            if condition is not None:
                condition, held_out = condition[:kept], (held_out, condition[kept:])
        order: dict[str, Any] = {}
        if options.get("shuffle", True):
            # Each call of fit has other orders, because the number of steps made before it is part of the seed.
            made = max(int(self.steps), int(self.optimizer.iterations))  # A user's train_step may not count its steps.
            order = {"order": shuffled(len(x), (self.seed * 1_000_003 + made) % 2**31)}
            order["epoch"] = tf.Variable(0, dtype=tf.int64, trainable=False)
        return ImagesInMemory(x, as_float32, batch_size, condition=condition, **order).dataset(), held_out, options

    def _prepare(self, kind: str, x: Any, steps: int | None, batch_size: int = 32) -> Any:
        """What Keras iterates in place of `x`: a `Placeholder` on the fast path, otherwise batches."""
        y = None
        if isinstance(x, tuple | list) and len(x) <= 2 and isinstance(x[0], np.ndarray | tf.Tensor):
            x, y = x[0], x[1] if len(x) == 2 and self.condition_shape is not None else None
        if isinstance(x, np.ndarray | tf.Tensor):
            x = ImagesInMemory(x, as_float32, batch_size, condition=y).dataset()
        if self._is_distributed() and isinstance(x, tf.data.Dataset):
            self._build_all(keras.utils.unpack_x_y_sample_weight(x.element_spec)[0].shape[1:])
            return add_places(x, in_set=kind == "test", conditional=self.condition_shape is not None)
        in_memory = x.in_memory if isinstance(x, ImageDataset) else None
        if in_memory is None or not self.compiled or self.run_eagerly or tf.config.functions_run_eagerly():
            return x
        obstacle = self._obstacle_to_fast_path(kind, in_memory, steps)
        if obstacle:
            message = f"This {type(self).__name__} cannot use kvae's fast path, because {obstacle}."
            warnings.warn(message, KvaeWarning, stacklevel=3)
            return x
        self._build_all(in_memory.images.shape[1:])
        return in_memory.placeholder

    def _obstacle_to_fast_path(self, kind: str, in_memory: ImagesInMemory, steps: int | None) -> str:
        """Why images in memory cannot use the fast path; empty if they can."""
        if not hasattr(getattr(type(self), f"{kind}_step"), "returns_metrics"):
            return (
                f"it defines its own {kind}_step. To add a term to the loss or a metric, define added_losses or "
                "added_metrics instead. If the step returns get_metrics_result(), mark it with "
                "kvae.model.fast_fit.returns_metrics"
            )
        if steps is not None:
            return "a number of steps was given, and Keras then counts the steps one by one"
        if not in_memory.fits_on_device:
            return "the images are too large for the device that holds the model"
        return ""

    @contextmanager
    def _making_batches(self, kind: str, x: Any) -> Iterator[None]:
        """Makes the loop take its batches from the images behind `x`, if `x` is a `Placeholder`."""
        self._in_memory[kind] = x.in_memory if isinstance(x, Placeholder) else None
        try:
            with without_tensorflow_reports():
                yield
        finally:
            self._in_memory[kind] = None

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is None or force:
            super().make_train_function(force=True)
            self.train_function = self._loop("train", self.train_step, self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = self._loop("test", self.test_step, self.test_function)

    def _loop(self, kind: str, step: Any, ordinary: Any) -> Loop:
        images = self._in_memory
        return Loop(
            step, self.get_metrics_result, lambda: images[kind], ordinary, self.steps_per_execution, self.jit_compile
        )

    # Called by the steps

    def batch_of(self, data: Any, before: Any = None) -> Batch:
        """Reads the data that Keras passes to a step.

        Args:
            data: batch x, (x, y) or `Placed`.
            before: number of images in earlier batches of the set, as for evaluation. By default, places start at 0 in
                each batch.

        Raises:
            UserError: if the batch has weights, x is not a tensor, or the condition of the model is missing.
        """
        if isinstance(data, Placed):
            condition = None if self.condition_shape is None else tf.cast(data.condition, tf.float32)
            return Batch(tf.cast(data.x, tf.float32), condition, 0, data.place, data.global_batch_size)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if sample_weight is not None:
            raise _no_weights()
        if isinstance(x, dict | list | tuple):
            raise UserError(
                f"Expected batches x or (x, y), where x is a tensor. Received x of type {type(x).__name__}. Use map to "
                "change the elements of the dataset."
            )
        condition = None
        if self.condition_shape is not None:
            if y is None:
                raise UserError(
                    "Expected batches (x, y), because y is the condition of this model. Received batches x."
                )
            condition = tf.cast(y, tf.float32)
        if not self.built:
            self.build(x.shape)
        place = tf.range(tf.shape(x)[0])
        if before is not None:
            place += tf.cast(tf.convert_to_tensor(before), tf.int32)
        return Batch(tf.cast(x, tf.float32), condition, _replica(), place, None)

    def apply(self, tape: tf.GradientTape, losses: list[tf.Tensor]) -> None:
        """Applies the gradients of a step.

        Args:
            tape: the tape on which the losses were computed.
            losses: one scalar for all weights; or two, the first for encoder and posterior, the second for all other
                weights.
        """
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

    def shared_results(self) -> dict[str, tf.Tensor]:
        """`get_metrics_result()`, in the shape that Keras needs if several workers train."""
        return reducible(self.get_metrics_result())

    def _build_all(self, image_shape: Any) -> None:
        """Builds the model and its optimizer, because variables cannot be created inside a compiled loop."""
        with self.distribute_strategy.scope():
            if not self.built:
                self.build((None, *image_shape))
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)


def convolves(network: keras.Model) -> bool:
    """Whether a network has convolutions, or will have them once it is built."""
    return any(isinstance(layer, CONVOLUTIONAL) for layer in layers_of(network))


def _arguments(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, without `self` and without defaults."""
    return {
        name: value
        for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items()
        if name != "self"
    }


def _replica() -> Any:
    """The index of this replica under `tf.distribute`, which gives each replica its own noise; otherwise 0."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def _no_weights() -> UserError:
    return UserError(
        "Expected no sample_weight or class_weight, because the ELBO is a plain mean over images. Received one of "
        "them. To give images other weights, repeat or sample them in the tf.data pipeline."
    )
