"""Notices the first training step whose loss is not finite, also within a group of steps that run in one call.

The graph of a step compares a few numbers and remembers the step. The host reads it when it looks, so that no step
waits for the host.
"""

from typing import Any, NamedTuple

import numpy as np

from kvae.internal.tensorflow import tf

MOST_TERMS = 62  # one bit of a number for each


class BadStep(NamedTuple):
    """The first step of a training whose loss was not finite."""

    step: int  # counted as `VAE.steps` counts after it
    terms: tuple[str, ...]  # the results of the step that were not finite, such as "loss" and "kl"


class LossWatch:
    """Remembers the first step since `begin` whose loss was NaN or infinite. -inf counts too."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        with tf.init_scope():
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False)  # 0 as long as there is none
            self._terms = tf.Variable(0, dtype=tf.int64, trainable=False)

    def begin(self) -> None:
        """Forgets earlier trainings."""
        self._step.assign(0)

    def look(self, step: tf.Tensor, results: Any) -> None:
        """Looks at the results of a step, within its graph.

        Args:
            step: number of the step, counted from 1.
            results: what the step returned. It is not looked at if it has no number named `loss`. A mean over the
                epoch does as well as the loss of the step, because it stays NaN or infinite once it is.
        """
        values = {name: value for name, value in results.items() if _is_float(value)} if _has_loss(results) else {}
        if "loss" not in values:
            return
        others = (name for name in values if name not in ("loss", "elbo"))  # elbo is -reconstruction - kl
        self._names = ("loss", *others)[:MOST_TERMS]
        bad = tf.stack([~tf.reduce_all(tf.math.is_finite(values[name])) for name in self._names])
        bits = tf.constant([1 << i for i in range(len(self._names))], tf.int64)
        is_first = (self._step < 1) & bad[0]
        self._terms.assign(tf.where(is_first, tf.reduce_sum(tf.where(bad, bits, 0)), self._terms))
        self._step.assign(tf.where(is_first, step, self._step))

    def found(self) -> BadStep | None:
        """The first step whose loss was not finite, or None."""
        step = int(self._step.numpy())  # a variable made under a strategy has no __int__
        if step == 0:
            return None
        bits = int(self._terms.numpy())
        return BadStep(step, tuple(name for i, name in enumerate(self._names) if bits >> i & 1))


def first_bad_step(model: Any, logs: Any) -> BadStep | None:
    """The first step whose loss was not finite in the training that runs, or None.

    Args:
        model: the `kvae.VAE`, as a callback has it at the end of a batch.
        logs: the logs that the callback received. They tell of a step that Keras runs under `tf.distribute`.
    """
    found = model._loss_watch.found()
    if found or not model._is_distributed():
        return found
    terms = not_finite_in(logs)
    return BadStep(int(np.asarray(model.steps)), terms) if "loss" in terms else None


def not_finite_in(logs: Any) -> tuple[str, ...]:
    """The names of the logs that are not finite."""
    values = {name: value for name, value in (logs or {}).items() if name != "elbo"}
    return tuple(name for name, value in values.items() if not np.isfinite(np.asarray(value)).all())


def _has_loss(results: Any) -> bool:
    return isinstance(results, dict) and "loss" in results


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or (tf.is_tensor(value) and value.dtype.is_floating)
