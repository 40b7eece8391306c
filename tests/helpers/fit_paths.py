"""Which path of `fit` and `evaluate` a model takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kvae.model.loop import StepFunction, StepsInMemory


@contextmanager
def recorded_paths() -> Iterator[list[str]]:
    """A list to which each call of compiled steps adds its path: "fast" for a group in memory, else "ordinary"."""
    taken: list[str] = []
    call = StepFunction.__call__

    def recorded(self, iterator):
        if not isinstance(iterator, StepsInMemory):
            taken.append("ordinary")
        elif iterator.ahead == 0:
            taken.append("fast")
        return call(self, iterator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepFunction, "__call__", recorded)
        yield taken
