"""Methods of Keras that a subclass may override, as one does with other models, and that a VAE does not call."""

import warnings
from typing import Any

from kvae.internal.errors import KvaeWarning, stacklevel_of_user
from kvae.internal.tensorflow import keras

HINT = "Define added_losses or added_metrics instead, or your own train_step."


def warn_of_unused_overrides(model: Any) -> None:
    """Warns of each method of the model's class that is overridden without any effect on the training.

    Warns:
        KvaeWarning: if `compute_loss` or `compute_metrics` is overridden, or if `call` adds losses.
    """
    kind = type(model)
    for name in ("compute_loss", "compute_metrics"):
        if getattr(kind, name) is not getattr(keras.Model, name):
            _warn(f"{kind.__name__}.{name} has no effect, because the train_step of a VAE does not call it. {HINT}")
    used = getattr(kind.call, "__code__", None)
    if used is not None and "add_loss" in used.co_names:
        _warn(f"add_loss has no effect in {kind.__name__}.call, which only predict calls. {HINT}")


def _warn(text: str) -> None:
    warnings.warn(text, KvaeWarning, stacklevel=stacklevel_of_user())
