"""Functions of a model that are compiled once per model, as Keras does with its `predict_function`."""

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from kvae.internal import xla_cache
from kvae.internal.quiet_output import may_retrace
from kvae.internal.tensorflow import tf
from kvae.model import compiling
from kvae.model.xla_refusals import is_refusal, leave_xla


def compiled(function: Callable[..., Any] | None = None, *, xla: bool = False) -> Any:
    """Compiles `function(model, ...)` to one `tf.function` per model, which is deleted together with the model.

    It is traced again for other Python arguments or tensor types. It is compiled again if the model has a new
    objective, because the draws depend on it, or other variables, because a layer was quantized or got LoRA.

    Args:
        function: a function whose first argument is a `kvae.VAE`; the others are tensors and hashable Python values.
        xla: whether to compile with XLA if that is faster for the model, see `kvae.model.compiling.xla_pays`. False by
            default.
    """
    if function is None:
        return functools.partial(compiled, xla=xla)
    graphs: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
    signature = inspect.signature(function)
    without_model = signature.replace(parameters=list(signature.parameters.values())[1:])

    @functools.wraps(function)
    def call(model: Any, *args: Any, **kwargs: Any) -> Any:
        uses = [model.objective, *model.variables]
        known, graph = graphs.get(model, ([], None))
        if len(uses) != len(known) or any(use is not old for use, old in zip(uses, known, strict=True)):
            reference = weakref.ref(model)  # the graph must not keep the model alive

            @xla_cache.named_alike
            @functools.wraps(function)
            def call_with_model(*args: Any, **kwargs: Any) -> Any:
                return function(reference(), *args, **kwargs)

            call_with_model.__signature__ = without_model  # type: ignore[attr-defined]
            # As in the steps of Keras, Python is not translated by AutoGraph, which would take most of the tracing.
            options = {"autograph": False, "jit_compile": xla and compiling.xla_pays(model)}
            graph = tf.function(call_with_model, reduce_retracing=True, **options)
            may_retrace(graph)
            graphs[model] = (uses, graph)
        try:
            return graph(*args, **kwargs)
        except tf.errors.OpError as error:
            if not (xla and is_refusal(error) and leave_xla(model, error)):
                raise
        del graphs[model]
        return call(model, *args, **kwargs)

    return call
