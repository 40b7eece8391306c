"""Several devices and several machines: which `tf.distribute` strategy, who is the chief, who draws what.

What an image contributes to a step depends on its place in the whole batch, never on the device that works on it, so
the number of workers changes a training by rounding alone.
"""

import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from kvae.internal.errors import UserError, unknown

KINDS = ("mirrored", "multiworker")
EXAMPLE = '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}'


class _Cluster(BaseModel):
    chief: list[str] = []
    worker: list[str] = []


class _Task(BaseModel):
    type: Literal["chief", "worker"]
    index: Annotated[int, Field(ge=0)]


class Workers(BaseModel):
    """What the environment variable TF_CONFIG says: the addresses of all workers, and which of them this process is."""

    cluster: _Cluster
    task: _Task

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run: the task `chief`, or the first worker where there is none."""
        return self.task.type == "chief" or (not self.cluster.chief and self.task.index == 0)


def workers() -> Workers:
    """The workers of `TF_CONFIG`.

    Raises:
        UserError: it is missing, is no such JSON, or names a task that its cluster does not have.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        found = Workers.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        reason = "not set" if not text else f"{where}: {fault['msg']}" if where else fault["msg"]
        raise UserError(f"--distribute multiworker needs TF_CONFIG ({reason}). Expected such as {EXAMPLE}.") from None
    addresses = getattr(found.cluster, found.task.type)
    if found.task.index >= len(addresses):
        raise UserError(
            f"Expected a task among the {len(addresses)} of type {found.task.type} in TF_CONFIG. "
            f"Received index {found.task.index}."
        )
    return found


def is_chief(kind: str | None) -> bool:
    """Whether this process writes: all do but the further ones of a multi-worker training."""
    return kind != "multiworker" or workers().is_chief


def strategy(kind: str | None) -> Any:
    """The `tf.distribute` strategy to build, compile and fit a model in; the default one for None.

    `"mirrored"` trains on all devices of this machine, `"multiworker"` on those of all machines in TF_CONFIG; the
    latter waits for the other workers, and must be made before anything else of TensorFlow is used.

    Raises:
        UserError: an unknown kind, or a TF_CONFIG that cannot be used.
    """
    from kvae.internal.tensorflow import tf

    if kind is None:
        return tf.distribute.get_strategy()
    if kind not in KINDS:
        raise unknown("way to distribute", kind, KINDS)
    if kind == "mirrored":
        return tf.distribute.MirroredStrategy()
    workers()
    return tf.distribute.MultiWorkerMirroredStrategy()


def lost_worker(strategy: Any, error: Exception) -> bool:
    """Whether an error in a multi-worker training means that another worker is gone, so far as TensorFlow tells."""
    from kvae.internal.tensorflow import tf

    errors = tf.errors
    kinds = (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.InternalError,
        errors.DeadlineExceededError,
        errors.FailedPreconditionError,
        errors.UnknownError,
    )
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and isinstance(error, kinds)
