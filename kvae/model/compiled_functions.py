"""Functions of a model that are compiled once per model, as Keras does with its `predict_function`."""

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from kvae.internal.quiet_output import may_retrace
from kvae.internal.tensorflow import tf


def compiled(function: Callable[..., Any] | None = None, *, xla: bool = False) -> Any:
    """Compiles `function(model, ...)` to one `tf.function` per model, which is deleted together with the model.

    It is traced again for other Python arguments or tensor types. It is compiled again if the model has a new
    objective, because the draws depend on it.

    Args:
        function: a function whose first argument is a `kvae.VAE`; the others are tensors and hashable Python values.
        xla: whether to compile with XLA if that is faster for the model, see `kvae.VAE.xla_pays`. False by default.
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
            reference = weakref.ref(model)  # the graph must not keep the model alive

            @functools.wraps(function)
            def call_with_model(*args: Any, **kwargs: Any) -> Any:
                return function(reference(), *args, **kwargs)

            call_with_model.__signature__ = without_model  # type: ignore[attr-defined]
            graph = tf.function(call_with_model, reduce_retracing=True, jit_compile=xla and model.xla_pays)
            may_retrace(graph)
            graphs[model] = (model.objective, graph)
        return graph(*args, **kwargs)

    return call
