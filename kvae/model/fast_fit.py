"""Keras `fit` and `evaluate` with a fast path for images in memory.

This module decides how batches reach `train_step` and `test_step`: on which path, and with which places of their
images. `kvae.model.given_images` reads what users pass as images, `kvae.model.grouped_steps` makes Keras count the
steps of several batches in one call, `kvae.model.loop` runs them, and `kvae.model.compiling` compiles them. What a
step computes is in `kvae.model.vae`.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from kvae.data.in_memory import ImageDataset, ImagesInMemory, as_float32, shuffled
from kvae.internal.errors import KvaeWarning, UserError, stacklevel_of_user
from kvae.internal.quiet_output import without_tensorflow_reports
from kvae.internal.tensorflow import check_process, keras, tf
from kvae.model import conditions, fit_checks, given_images
from kvae.model.compiling import Compiling, arguments
from kvae.model.grouped_steps import DistributedGroups, GroupCallbacks, GroupedDataset
from kvae.model.image_places import Batch, Placed, add_places
from kvae.model.keras_privates import has_compiled_metrics, is_called_by_fit
from kvae.model.pixel_check import PixelCheck, check_pixels
from kvae.model.unused_overrides import warn_of_unused_overrides


class FastFit(Compiling):
    """A Keras model of images whose `fit` and `evaluate` use the fast path if they can.

    The fast path is for arrays, and for the datasets of `kvae.data.load` with images in memory. The ordinary path
    trains alike, and is used for other datasets, with `run_eagerly`, and for images that do not fit on a GPU. Under
    `tf.distribute`, the images stay in the memory of the host. docs/KERAS.md says what each entry point of Keras does.
    """

    seed: int  # also the seed for the order of arrays
    image_shape: Any
    condition_shape: Any
    likelihood: Any
    objective: Any
    _further_metrics: dict[str, Any]
    posterior: Any

    def __init__(self, **kwargs: Any) -> None:
        check_process()
        super().__init__(**kwargs)
        # Keras must not track these: they are neither layers nor weights.
        self.__dict__.update(_further_metrics={})

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_further_metrics":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # Fitting and evaluating

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `fit`. `x` is an array of images `[N, *image]`, or a dataset, loader or generator of batches.

        Batches are x or (x, y). y is the condition of a conditional model, or its labels; other models ignore it. Grey
        images may be `[N, H, W]`. Arrays, and the datasets of `kvae.data.load` with images in memory, use the fast
        path: the batches are made on the device, and `steps_per_execution` of them run in one compiled loop.

        A training that diverges goes on to its end, as with Keras, and a warning then names the first epoch and step
        whose loss was NaN or infinite. `keras.callbacks.TerminateOnNaN()` stops such a training at the end of its group
        of steps, and `kvae train` stops by itself.

        Raises:
            UserError: if x has no images, if pixels lie outside of the likelihood's support, sample or class weights
                are given, the model was compiled with a loss or metrics, or a model that needs a condition receives
                none.

        Warns:
            KvaeWarning: if pixels are grey under a Bernoulli likelihood, if the images do not fit on the device, if a
                subclass overrides a method that `fit` does not call, if the posterior has collapsed, or if the loss or
                weights did not stay finite.
        """
        if x is None:
            raise UserError("Expected images: an array [N, ...] in [0, 1], or a tf.data.Dataset. Received None.")
        options = arguments(keras.Model.fit, self, x, *args, **kwargs)
        self._check_call(options)
        warn_of_unused_overrides(self)
        x, y = self._read_set(options.pop("x"), options.pop("y", None))
        held_out = self._read_held_out(options.get("validation_data"))
        known = check_pixels(self.likelihood, x)
        check_pixels(self.likelihood, held_out[0] if isinstance(held_out, tuple) else held_out)
        self._take_steps_of_optimizer()
        if self.compiled and isinstance(x, np.ndarray | tf.Tensor):
            x, held_out, options = self._images_of_array(x, y, held_out, options)
        elif y is not None:
            options["y"] = y  # Keras refuses it beside a dataset.
        if not isinstance(x, keras.utils.PyDataset):
            options["shuffle"] = False  # With its default of True, Keras would warn that it does not shuffle a dataset.
        size = options.get("validation_batch_size") or options.get("batch_size") or 32
        options["validation_data"] = self._prepare("test", held_out, options.get("validation_steps"), size)
        in_memory = _in_memory(x)
        self.objective.build(None if in_memory is None else len(in_memory.images))
        x = self._prepare("train", x, options.get("steps_per_epoch"))
        fit_checks.before(self, options.get("callbacks"))
        self._loss_watch.begin()
        if self.compiled and not self._is_distributed():
            self._pixel_check.begin(known=known)
        with self._counting_steps_one_by_one(), self._pixel_check.raising_user_errors():
            history = super().fit(x, **_grouped("train", x, options))
        self._pixel_check.warn_of_grey()
        return fit_checks.after(self, history)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `evaluate`: means over the set with K draws per image, the same for every call and batch size.

        Only the loss and the terms of an objective that compares the images of a batch depend on the batch size.
        For a number to publish, with its standard error and protocol, see `kvae.evaluation`.

        Raises:
            UserError: as `fit`.

        Warns:
            KvaeWarning: as `fit`.
        """
        if is_called_by_fit(kwargs):  # `fit` has already checked and prepared x.
            return super().evaluate(x, **_grouped("test", x, kwargs))
        options = arguments(keras.Model.evaluate, self, x, *args, **kwargs)
        self._check_call(options)
        x, y = self._read_set(options.pop("x"), options.pop("y", None))
        known = check_pixels(self.likelihood, x)
        if y is not None:
            x = (x, y)
        x = self._prepare("test", x, options.get("steps"), options.get("batch_size") or 32)
        if isinstance(x, tf.data.Dataset):
            options["batch_size"] = None
        if self.compiled and not self._is_distributed():
            self._pixel_check.begin(known=known)
        with self._counting_steps_one_by_one(), self._pixel_check.raising_user_errors():
            results = super().evaluate(x, **_grouped("test", x, options))
        self._pixel_check.warn_of_grey()
        return results

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras `predict`: E[x|z] at the posterior mean of each image, `[N, *image]`.

        A conditional model takes (x, y), or batches (x, y).

        Raises:
            UserError: as `fit`.
        """
        options = arguments(keras.Model.predict, self, x, *args, **kwargs)
        x, y = self._read(options.pop("x"), None)
        known = check_pixels(self.likelihood, x)
        if y is not None:
            size = options.pop("batch_size", None) or 32
            x = ImagesInMemory(x, as_float32, size, condition=y).dataset()
        if self._is_distributed() and not self.built:  # within the replicas it would be too late
            self._build_for(x.element_spec if isinstance(x, tf.data.Dataset) else x)
        before = self._checks_predicted
        self.__dict__["_checks_predicted"] = not known
        try:
            with self._counting_steps_one_by_one(), self._pixel_check.raising_user_errors():
                return super().predict(x, **options)
        finally:
            self.__dict__["_checks_predicted"] = before

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Keras `predict_on_batch`: as `predict`, for the batch x, or (x, y) for a conditional model."""
        x, y = self._read(x, None)
        check_pixels(self.likelihood, x)
        if y is None:
            return super().predict_on_batch(x)
        self.make_predict_function()
        return np.asarray(self.predict_function([(tf.convert_to_tensor(x), tf.convert_to_tensor(y))]))

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `train_on_batch`: one step on the batch x, or (x, y). Raises `UserError` as `fit`."""
        options = arguments(keras.Model.train_on_batch, self, x, y, *args, **kwargs)
        return super().train_on_batch(**self._read_batch(options))

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras `test_on_batch`: the results on the batch x, or (x, y). Raises `UserError` as `fit`."""
        options = arguments(keras.Model.test_on_batch, self, x, y, *args, **kwargs)
        return super().test_on_batch(**self._read_batch(options))

    @cached_property
    def _pixel_check(self) -> PixelCheck:
        """The check of batches that `check_pixels` could not check."""
        return PixelCheck(self.likelihood, self.condition_shape)

    @property
    def _known_image_shape(self) -> Any:
        """The image shape of the model; before it is built, that of an encoder with a declared input."""
        if self.image_shape is not None:
            return self.image_shape
        declared = getattr(self.encoder, "inputs", None)
        shape = tuple(declared[0].shape[1:]) if declared else None
        return None if shape is None or None in shape else shape

    def _read(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The images and the conditions that a user passed, as arrays, or as a dataset or generator of batches."""
        check_process()
        shape = self._known_image_shape
        x, y = given_images.as_pair(x, y, shape, conditional=self.condition_shape is not None)
        x = given_images.as_batches(x, shape)
        if isinstance(x, np.ndarray | tf.Tensor):
            y = conditions.in_memory(y, self.condition_shape, len(x))
        elif isinstance(x, ImageDataset) and x.in_memory is not None:
            conditions.check_labels(x.in_memory.condition, self.condition_shape)
        return x, y

    def _read_set(self, x: Any, y: Any) -> tuple[Any, Any]:
        """As `_read`, for images that `ImagesInMemory` will hold."""
        x, y = self._read(x, y)
        return given_images.as_bytes_if_binary(x), y

    def _read_held_out(self, held_out: Any) -> Any:
        """The validation data: None, a dataset or generator, or the tuple of arrays (x, y)."""
        if held_out is None:
            return None
        if isinstance(held_out, list) and 0 < len(held_out) < given_images.FEWEST_IMAGES:
            held_out = tuple(held_out)  # Keras reads the list [x, y] so.
        if isinstance(held_out, tuple) and len(held_out) == 3:
            if held_out[2] is not None:
                raise given_images.no_weights()
            held_out = held_out[:2]
        x, y = self._read_set(held_out, None)
        return (x, y) if isinstance(x, np.ndarray | tf.Tensor) else x

    def _read_batch(self, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a method for one batch, with its images and conditions as arrays."""
        self._check_call(options)
        x, y = self._read(options["x"], options.get("y"))
        return {**options, "x": x, "y": y}

    def _check_call(self, options: dict[str, Any]) -> None:
        # Without labels Keras silently drops these weights before they reach a training step.
        if options.get("sample_weight") is not None or options.get("class_weight") is not None:
            raise given_images.no_weights()
        if getattr(self, "loss", None) is not None or has_compiled_metrics(self):
            raise UserError(
                "Expected compile(optimizer=...) without loss= and metrics=, because a VAE defines these itself. "
                "Received one of them. Compile the model again without it."
            )

    def _images_of_array(
        self, x: Any, condition: Any, held_out: Any, options: dict[str, Any]
    ) -> tuple[ImagesInMemory, Any, dict[str, Any]]:
        """The images of an array, the validation data, and the arguments of `fit` that remain.

        The order of the images depends on the seed of the model; with Keras alone it depends on the global seed.
        """
        options = dict(options)
        batch_size = options.pop("batch_size", None) or 32
        options.setdefault("validation_batch_size", batch_size)
        fraction = options.pop("validation_split", 0.0)
        if fraction and held_out is None:  # Like Keras, hold out the last images.
            kept = math.floor(len(x) * (1 - fraction))
            if not 0 < kept < len(x):
                raise UserError(
                    f"Expected a validation_split that leaves images for training and for validation. Received "
                    f"{fraction} for {len(x)} images."
                )
            x, held_out = x[:kept], (x[kept:], None if condition is None else condition[kept:])
            condition = None if condition is None else condition[:kept]
        order: dict[str, Any] = {}
        if options.get("shuffle", True):
            # Each call of fit has other orders, because the number of steps made before it is part of the seed.
            order = {"order": shuffled(len(x), (self.seed * 1_000_003 + int(np.asarray(self.steps))) % 2**31)}
            order["epoch"] = tf.Variable(0, dtype=tf.int64, trainable=False)
        return ImagesInMemory(x, as_float32, batch_size, condition=condition, **order), held_out, options

    def _prepare(self, kind: str, x: Any, steps: int | None, batch_size: int = 32) -> Any:
        """What Keras iterates in place of `x`: a `GroupedDataset` if several steps can run in one call, or batches."""
        x, condition = x if isinstance(x, tuple) else (x, None)
        if isinstance(x, np.ndarray | tf.Tensor):
            x = ImagesInMemory(x, as_float32, batch_size, condition=condition)
        in_memory = _in_memory(x)
        distributed = self._is_distributed()
        in_groups = self.compiled and not (self.run_eagerly or tf.config.functions_run_eagerly())
        if in_groups and in_memory is not None and (distributed or in_memory.fits_on_device):
            self._build_for_batches(tuple(in_memory.images.shape))
            grouped = DistributedGroups if distributed else GroupedDataset
            return grouped(in_memory, self.steps_per_execution, _most_steps(steps))
        if isinstance(x, ImagesInMemory):
            x = x.dataset()
        if not isinstance(x, tf.data.Dataset):
            return self._built_for_first(x) if distributed else x
        if self.compiled:
            self._build_for(x.element_spec)
        if distributed:
            specs = keras.utils.unpack_x_y_sample_weight(x.element_spec)[1:]
            self._check_parts(*(None if type(spec).__name__ == "NoneTensorSpec" else spec for spec in specs))
            conditional = self.condition_shape is not None
            return add_places(x, in_set=kind == "test", conditional=conditional, check=self._pixel_check.refuse_batch)
        if not in_groups:
            return x
        if in_memory is not None:
            message = (
                "The images do not fit into the memory of the device together with the model, so they are copied to it "
                "batch by batch. The result is the same, but the training takes longer."
            )
            warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())
        return GroupedDataset(x, self.steps_per_execution, _most_steps(steps))

    def _build_for_batches(self, shape: given_images.Shape) -> None:
        """Builds the model and its optimizer for batches of a shape, unless a side of the images is unknown."""
        if None not in shape[1:]:
            self._build_all(given_images.shape_with_channels(shape, self._known_image_shape)[1:])

    def _built_for_first(self, batches: Any) -> Any:
        """The same batches, after the model was built for the first: Keras would call it without a condition.

        Of a generator it would lose this batch.
        """
        if isinstance(batches, keras.utils.PyDataset) and not self.built and len(batches):
            self._build_for(batches[0])
        return self._with_first(batches) if hasattr(batches, "__next__") else batches

    def _with_first(self, batches: Iterator[Any]) -> Iterator[Any]:
        first = next(batches, None)
        if first is not None:
            self._build_for(first)
            yield first
        yield from batches

    @contextmanager
    def _counting_steps_one_by_one(self) -> Iterator[None]:
        """Makes Keras count the steps one by one; `GroupedDataset` runs them in groups."""
        size = getattr(self, "steps_per_execution", 1)
        self.steps_per_execution = 1
        try:
            with without_tensorflow_reports():
                yield
        finally:
            self.steps_per_execution = size

    def _build_for(self, data: Any) -> None:
        """Builds the model and its optimizer for a batch or its spec, if they are not built."""
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        if hasattr(x, "shape") and not isinstance(x, dict | list | tuple):
            self._build_for_batches(tuple(x.shape))

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
            condition = None
            if self.condition_shape is not None:
                condition = conditions.check_condition(data.condition, self.condition_shape, tf.shape(data.x)[0])
            x = tf.cast(given_images.with_channels(data.x, self._known_image_shape), tf.float32)
            return Batch(x, condition, 0, data.place, data.global_batch_size)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self._check_parts(y, sample_weight)
        if self._is_distributed() and tf.is_tensor(x):
            x, y = self._pixel_check.refuse_batch((x, y))
        if isinstance(x, dict | list | tuple):
            raise UserError(
                f"Expected batches x or (x, y), where x is a tensor. Received x of type {type(x).__name__}. Use map to "
                "change the elements of the dataset."
            )
        condition = None
        if self.condition_shape is not None:
            condition = conditions.check_condition(y, self.condition_shape, tf.shape(x)[0])
        x = given_images.with_channels(tf.convert_to_tensor(x), self._known_image_shape)
        if not self.built:
            self.build(x.shape)
        x = tf.ensure_shape(x, [None, *self.image_shape])  # A generator may not tell the sides of its images.
        place = tf.range(tf.shape(x)[0])
        if before is not None:
            place += tf.cast(tf.convert_to_tensor(before), tf.int32)
        return Batch(tf.cast(x, tf.float32), condition, _replica(), place, None)

    def _check_parts(self, y: Any, sample_weight: Any) -> None:
        """Raises `UserError` if batches have weights, or lack the condition of the model."""
        if sample_weight is not None:
            raise given_images.no_weights()
        if self.condition_shape is not None and y is None:
            raise UserError("Expected batches (x, y), because y is the condition of this model. Received batches x.")

    def _apply_gradients(self, tape: tf.GradientTape, losses: list[tf.Tensor]) -> None:
        """Applies the gradients of a step.

        Args:
            tape: the tape on which the losses were computed.
            losses: one scalar for all weights; or two, the first for encoder and posterior, the second for all other
                weights.
        """
        fit_checks.check_trainable(self)  # again, because the model may be built only now
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

    def _build_all(self, image_shape: Any) -> None:
        """Builds the model and its optimizer, because variables cannot be created inside a compiled loop."""
        with self.distribute_strategy.scope():
            if not self.built:
                self.build((None, *image_shape))
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)


def _in_memory(x: Any) -> ImagesInMemory | None:
    """The images in memory, if `x` is made of them."""
    return x if isinstance(x, ImagesInMemory) else x.in_memory if isinstance(x, ImageDataset) else None


def _most_steps(steps: int | None) -> int | None:
    """The steps that Keras will ask for per epoch: `steps`, or fewer if Keras is told so for all models."""
    most = keras.config.max_steps_per_epoch()
    return most if most and (steps is None or most < steps) else steps


def _grouped(kind: str, x: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of Keras's `fit` or `evaluate`, with callbacks that are called once per group of steps."""
    if not isinstance(x, GroupedDataset):
        return options
    callbacks = GroupCallbacks(kind, x, options.get("callbacks"), options.get("verbose", "auto"))
    given = options.get("callbacks")
    if isinstance(given, keras.callbacks.CallbackList):
        # Keras adds nothing to such a list.
        return {**options, "callbacks": keras.callbacks.CallbackList([callbacks], model=given.model, **given.params)}
    return {**options, "callbacks": [callbacks], "verbose": 0}


def _replica() -> Any:
    """The index of this replica under `tf.distribute`, which gives each replica its own noise; otherwise 0."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0
