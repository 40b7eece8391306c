"""Estimates of memory: what cannot fit into this machine is refused before it is computed, and not killed while it is.

The estimates count only what must be in memory at one time, so nothing that fits is refused.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from kvae.internal.errors import UserError

NUMBER = 4  # bytes of a float32
# The memory of a GPU is not known before TensorFlow uses it. No GPU has more than this.
LARGEST_GPU = 512 * 10**9
# The limits that Linux sets for the processes of a container, by version of its control groups.
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def _of_machine() -> int:
    """The memory of this machine in bytes. Without psutil, which the runtime alone does not need, as POSIX tells it."""
    try:
        import psutil
    except ModuleNotFoundError:
        if not hasattr(os, "sysconf"):  # Windows
            return sys.maxsize
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return psutil.virtual_memory().total


def available() -> int:
    """The memory of this machine, or of the container that this process is in, in bytes."""
    limits = [_of_machine()]
    for file in CONTAINER_LIMITS:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # there is no container, or its limit is "max"
            continue
    return min(limits)


def check(needed: int, what: str, advice: str, gpus: int = 0) -> None:
    """Raises `UserError` if something needs more memory than this machine has.

    Args:
        needed: the memory that it needs at least, in bytes.
        what: what needs it, e.g. `"a lattice of 100 x 100 images"`.
        advice: a sentence that says what to do instead.
        gpus: the number of GPUs, whose memory is counted as well.
    """
    limit = available()
    if needed > limit + gpus * LARGEST_GPU:
        raise UserError(
            f"Expected {what} to fit into the memory of this machine, {limit / 1e9:,.1f} GB. It needs at least "
            f"{needed / 1e9:,.1f} GB. {advice}"
        )


@dataclass
class _Training:
    """What a training keeps in memory, as far as it is known."""

    copies: int  # of each weight: itself, its gradient, and what the optimizer stores
    per_output: int  # bytes for each output of a layer: those of all images of a batch
    draws: int  # of z per image
    gpus: int
    weights: int = 0
    needed: int = 0


_TRAINING: ContextVar[_Training | None] = ContextVar("_TRAINING", default=None)


@contextmanager
def training(slots: int, batch: int, draws: int, number: int = NUMBER, gpus: int = 0) -> Iterator[None]:
    """The networks that are built in the block will be trained.

    Args:
        slots: the number of values that the optimizer stores for each weight.
        batch: the number of images in a batch.
        draws: the number of draws of z per image.
        number: the size of a number between two layers, in bytes.
        gpus: the number of GPUs.
    """
    token = _TRAINING.set(_Training(2 + slots, batch * number, draws, gpus))
    try:
        yield
    finally:
        _TRAINING.reset(token)


def claim(weights: int, outputs: int, decodes: bool) -> None:
    """Counts a layer that is about to be built; raises `UserError` if the layers so far cannot fit.

    Args:
        weights: the number of its weights.
        outputs: the number of its outputs per image or, if it decodes, per draw of z.
        decodes: whether it is a layer of a decoder.
    """
    plan = _TRAINING.get() or _Training(copies=1, per_output=0, draws=1, gpus=0)
    plan.weights += weights
    plan.needed += weights * plan.copies * NUMBER + outputs * plan.per_output * (plan.draws if decodes else 1)
    what = f"a model of at least {plan.weights:,} weights" + (", with its training," if plan.per_output else "")
    check(
        plan.needed,
        what,
        "Choose smaller layers, a smaller latent_dim, or fewer images per batch and draws per image.",
        plan.gpus,
    )
