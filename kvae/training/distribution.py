"""Training on several devices or machines: the `tf.distribute` strategy, the workers, and which of them is the chief.

What an image contributes to a step depends on its place in the whole batch, not on the device that works on it. So the
number of workers changes a training run by rounding errors only.
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
    """The content of the environment variable TF_CONFIG: the addresses of all workers, and the task of this process."""

    cluster: _Cluster
    task: _Task

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run: it is the task `chief`, or the first worker if there is no chief."""
        return self.task.type == "chief" or (not self.cluster.chief and self.task.index == 0)


def workers() -> Workers:
    """Reads the environment variable TF_CONFIG.

    Raises:
        UserError: if the variable is not set, is not JSON of the expected form, or names a task that is not in its
            cluster.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        result = Workers.model_validate_json(text)
    except ValidationError as error:
        mistake = error.errors()[0]
        key = ".".join(str(part) for part in mistake["loc"])
        reason = "not set" if not text else f"{key}: {mistake['msg']}" if key else mistake["msg"]
        raise UserError(
            f"--distribute multiworker needs a valid TF_CONFIG ({reason}). Expected for example {EXAMPLE}."
        ) from None
    addresses = getattr(result.cluster, result.task.type)
    if result.task.index >= len(addresses):
        raise UserError(
            f"Expected a task index in TF_CONFIG below {len(addresses)}, the number of addresses of type "
            f"{result.task.type}. Received {result.task.index}."
        )
    return result


def is_chief(kind: str | None) -> bool:
    """Whether this process writes the run. In multi-worker training only one of the processes does.

    Args:
        kind: how the training is distributed: one of `KINDS`, or None.

    Raises:
        UserError: if TF_CONFIG is needed, but not valid.
    """
    return kind != "multiworker" or workers().is_chief


def strategy(kind: str | None) -> Any:
    """The `tf.distribute` strategy in which a model is built, compiled and trained.

    Args:
        kind: `"mirrored"` to train on all devices of this machine; `"multiworker"` to train on those of all machines in
            TF_CONFIG, which waits for the other workers and must be called before any other use of TensorFlow; or None
            for TensorFlow's default strategy.

    Raises:
        UserError: if the kind is unknown, or TF_CONFIG is not valid.
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
    """Whether an error in multi-worker training probably means that another worker has ended."""
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
