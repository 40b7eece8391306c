"""How the steps of a model are compiled: with XLA or as a graph, and how many of them at once."""

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from kvae.internal.tensorflow import keras, tf
from kvae.model import networks, xla_refusals
from kvae.model.keras_privates import forget_loss_and_metrics, layers_of
from kvae.model.loop import StepFunction
from kvae.model.loss_watch import LossWatch
from kvae.model.replicated_steps import ReplicatedSteps
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
    """Marks a `train_step` or `test_step` that returns `get_metrics_result()`.

    A loop then computes the results once, after its last step. A step without the mark, for example one that a subclass
    defines, returns its results from each step.
    """
    step.returns_metrics = True  # type: ignore[attr-defined]
    return step


class Compiling(StepCounter):
    """A Keras model that chooses by itself how its steps are compiled, unless the user says it."""

    train_function: Any
    test_function: Any
    predict_function: Any
    encoder: Any
    decoder: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # `predict` sets the last of these for arrays, whose pixels it has checked.
        self.__dict__.update(_asked_to_compile={}, _xla_refused=False, _checks_predicted=True)

    def compile(self, optimizer: Any = "adam", *args: Any, **kwargs: Any) -> None:
        """Keras `compile` with an optimizer, but without loss and metrics, which a VAE defines itself.

        By default, `jit_compile="auto"` compiles with XLA if that is faster; a model with an operation that XLA does
        not have runs as a graph. `steps_per_execution="auto"` is 50: batch callbacks are then called once per 50
        batches. Pass 1 for a call per batch. With `run_eagerly`, "auto" is 1. Under `tf.distribute`, batches of images
        that are not in memory run one by one, and images in memory are trained on without XLA, also with
        `jit_compile=True`.
        """
        options = arguments(keras.Model.compile, self, optimizer, *args, **kwargs)
        asked = {name: options.get(name, "auto") for name in ("steps_per_execution", "jit_compile")}
        eager = options.get("run_eagerly", False)
        if asked["steps_per_execution"] == "auto":
            options["steps_per_execution"] = 1 if eager else STEPS_PER_EXECUTION
        if asked["jit_compile"] == "auto":
            options["jit_compile"] = not eager and xla_pays(self)
        forget_loss_and_metrics(self)  # of an earlier call, for which `fit` was refused
        super().compile(**options)
        self.__dict__["_asked_to_compile"] = asked

    def get_compile_config(self) -> dict[str, Any]:
        """Keras's configuration with `"auto"` as it was given, so that a file can be loaded on another device."""
        config = super().get_compile_config()
        return {**config, **self._asked_to_compile} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = dict(keras.saving.deserialize_keras_object(config))
        weights = config.pop("optimizer_weights", None)
        self.compile(**config)
        if self.built:
            self._build_optimizer(weights)

    def _forget_compiled(self) -> None:
        """Traces the train and test functions again; needed after a change of anything that they use."""
        if self.train_function is not None:  # A callback may do this while Keras calls the function.
            self.make_train_function(force=True)
        if self.test_function is not None:
            self.make_test_function(force=True)

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is None or force:
            super().make_train_function(force=True)
            self.train_function = self._step_function("train", self._counted_train_step, self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = self._step_function("test", self.test_step, self.test_function)

    def make_predict_function(self, force: bool = False) -> None:
        if self.predict_function is not None and not force:
            return
        super().make_predict_function(force=True)
        of_keras = self.predict_function

        def predict(batches: Any) -> Any:
            if self._checks_predicted:
                for batch in batches:
                    self._pixel_check.check(batch)
            try:
                return of_keras(batches)
            except tf.errors.OpError as error:
                if not (xla_refusals.is_refusal(error) and xla_refusals.leave_xla(self, error)):
                    raise
            self.make_predict_function(force=True)
            return self.predict_function(batches)

        self.predict_function = predict

    def _step_function(self, kind: str, step: Any, of_keras: Any) -> StepFunction:
        marked = hasattr(getattr(type(self), f"{kind}_step"), "returns_metrics")
        if not self._is_distributed():
            return StepFunction(self, step, returns_metrics=marked)
        return ReplicatedSteps(
            self,
            getattr(self, f"{kind}_step"),
            returns_metrics=marked,
            look=self._look_at_loss if kind == "train" else None,
            strategy=self.distribute_strategy,
            of_keras=of_keras,
        )

    def _counted_train_step(self, data: Any) -> Any:
        """`train_step`, after which `steps` is one higher, also if a subclass defines a step that does not count."""
        made = tf.identity(tf.convert_to_tensor(self.steps))
        results = self.train_step(data)
        self.steps.assign(made + 1)
        self._loss_watch.look(made + 1, results)
        return results

    def _look_at_loss(self, results: Any) -> None:
        self._loss_watch.look(tf.convert_to_tensor(self.steps), results)

    @cached_property
    def _loss_watch(self) -> LossWatch:
        """Remembers the first step whose loss was not finite."""
        return LossWatch()


def xla_pays(model: Any) -> bool:
    """Whether XLA makes a `kvae.VAE` faster: not for convolutions on a CPU, and not under `tf.distribute`."""
    if model._is_distributed() or model._xla_refused:
        return False
    parts = [network for network in (model.encoder, model.decoder) if network is not None]
    if not all(layer.supports_jit for part in parts for layer in layers_of(part)):
        return False
    return bool(tf.config.list_logical_devices("GPU")) or not any(map(convolves, parts))


def convolves(network: keras.Model) -> bool:
    """Whether a network has convolutions, or will have them once it is built."""
    return any(isinstance(layer, CONVOLUTIONAL) for layer in layers_of(network))


def arguments(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, without `self` and without defaults."""
    return {
        name: value
        for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items()
        if name != "self"
    }
