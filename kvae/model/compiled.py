"""Functions of a model, compiled once a model and dropped with it, as Keras keeps its `predict_function`."""

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from kvae.internal.tensorflow import tf


def compiled(function: Callable[..., Any] | None = None, *, xla: bool = False) -> Any:
    """Makes `function(model, ...)` a `tf.function` a model: traced again for other Python arguments or tensor types.

    It is made anew where the model's objective is another one, which its draws depend on.

    Args:
        function: whose first argument is a `kvae.VAE`; tensors and hashable Python values follow.
        xla: whether XLA compiles it where that pays for the model, `kvae.VAE.xla_pays`.
    """
    if function is None:
        return functools.partial(compiled, xla=xla)
    graphs: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
    signature = inspect.signature(function)
    without_model = signature.replace(parameters=list(signature.parameters.values())[1:])

    @functools.wraps(function)
    def call(model: Any, *args: Any, **kwargs: Any) -> Any:
        objective, graph = graphs.get(model, (None, None))
        if graph is None or objective is not model.objective:
            reference = weakref.ref(model)  # the graph keeps the model's variables, and must not keep the model

            @functools.wraps(function)
            def of_this_model(*args: Any, **kwargs: Any) -> Any:
                return function(reference(), *args, **kwargs)

            of_this_model.__signature__ = without_model  # type: ignore[attr-defined]
            graph = tf.function(of_this_model, reduce_retracing=True, jit_compile=xla and model.xla_pays)
            graphs[model] = (model.objective, graph)
        return graph(*args, **kwargs)

    return call
