"""What `fit` checks before and after a training: the callbacks, the weights to train, and what was learned."""

import warnings
from typing import Any

import numpy as np

from kvae.internal import finite
from kvae.internal.errors import KvaeWarning, UserError, stacklevel_of_user, unknown
from kvae.internal.tensorflow import keras
from kvae.model.keras_privates import layers_of

BETTER = {"loss": "min", "elbo": "max", "reconstruction": "min", "kl": "min"}  # in which direction a metric improves
MONITORING = (keras.callbacks.EarlyStopping, keras.callbacks.ModelCheckpoint, keras.callbacks.ReduceLROnPlateau)
COLLAPSED = 0.01  # nats: with a smaller KL term, z tells almost nothing about x


def before(model: Any, callbacks: Any) -> None:
    """Checks a training before its first step, and sets `mode="auto"` of its callbacks to the correct direction.

    It also makes the LoRA of a loaded model trainable. Keras can find the direction only of metrics that `compile`
    received, and would say so after the first epoch.

    Args:
        model: the model that will be trained.
        callbacks: the argument `callbacks` of `fit`.

    Raises:
        UserError: if a callback of Keras with `mode="auto"` monitors a metric whose direction is not known, or if no
            weight of the model trains.
    """
    listed = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
    for callback in keras.tree.flatten(listed):
        if isinstance(callback, MONITORING) and callback.mode == "auto":
            callback.mode = _mode(callback.monitor)
    if model.built:
        check_trainable(model)
        _revive_lora(model)


def check_trainable(model: Any) -> None:
    """Raises `UserError` if no weight of a built model trains."""
    if model.trainable_variables:
        return
    if model.trainable:
        received = "every layer is frozen. Set trainable = True for a part, for example vae.decoder.trainable = True"
    else:
        received = "trainable is False. Set vae.trainable = True, which unfreezes all parts, and freeze some of them"
    raise UserError(
        f"Expected at least one weight that trains. Received a model of which {received}, and call compile again."
    )


def _revive_lora(model: Any) -> None:
    """Gives the LoRA of loaded layers a first matrix again, with which it can train.

    Keras saves a kernel with its LoRA merged, and sets both matrices A and B to zero when it loads the layer. Then the
    gradients of both are zero for ever. The output depends on A B only, so it does not change with A while B is zero.
    """
    for i, layer in enumerate(layers_of(model)):
        if getattr(layer, "lora_enabled", False) and not (np.any(layer.lora_kernel_a) or np.any(layer.lora_kernel_b)):
            initializer = keras.initializers.HeUniform(seed=(model.seed * 1_000_003 + i) % 2**31)
            layer.lora_kernel_a.assign(initializer(layer.lora_kernel_a.shape))


def _mode(monitor: str) -> str:
    name = monitor.removeprefix("val_")
    if name in BETTER:
        return BETTER[name]
    error = unknown("metric", monitor, [*BETTER, *(f"val_{each}" for each in BETTER)])
    raise UserError(f'{error} For another metric, tell the callback its direction: mode="min" or mode="max".')


def after(model: Any, history: Any) -> Any:
    """Looks at the result of a training.

    Args:
        model: the model that was trained.
        history: what Keras `fit` returned.

    Returns:
        `history`.

    Warns:
        KvaeWarning: if the loss or a weight did not stay finite, or if the KL term of the last epoch is within 0.01
            nats of 0.
    """
    kl = history.history.get("kl")
    text = _divergence(model, history) if history.history else None
    if text is None and kl:
        text = collapse(kl[-1], "in the last epoch")
    if text is not None:
        warnings.warn(text, KvaeWarning, stacklevel=stacklevel_of_user())
    return history


def collapse(kl: float, when: str) -> str | None:
    """That the posterior has collapsed, and what to do; None if it has not.

    Args:
        kl: the KL term, nats per image.
        when: when it was measured, in words.
    """
    if abs(kl) >= COLLAPSED:  # A density that is not normalized can make it negative.
        return None
    return (
        f"The posterior has collapsed: {when} the KL term was {kl:.2g} nats per image, so z tells nothing about the "
        "image, and the decoder ignores it. If the training was short, train longer. Otherwise use a smaller beta, let "
        "it grow with beta=kvae.objectives.LinearWarmup(1.0, steps), or give the decoder fewer units."
    )


def _divergence(model: Any, history: Any) -> str | None:
    """That the loss or a weight did not stay finite, and since when; None if all of them are finite."""
    bad = model._loss_watch.found()
    losses = zip(history.epoch, history.history.get("loss", []), strict=False)
    epoch = next((epoch + 1 for epoch, loss in losses if not np.isfinite(loss)), None)
    if bad is not None or epoch is not None:
        terms = "loss" if bad is None else ", ".join(bad.terms)
        where = ("" if epoch is None else f" in epoch {epoch}") + ("" if bad is None else f" at step {bad.step:,}")
        found = f"{where}. These are NaN or infinite since then: {terms}."
    elif names := finite.not_finite(model.weights):
        found = f". These weights are NaN or infinite, although the loss is finite: {finite.listed(names)}."
    else:
        return None
    advice = "Try a lower learning rate. keras.callbacks.TerminateOnNaN() stops a training when its loss is not finite."
    return f"The training diverged{found} {advice}"
