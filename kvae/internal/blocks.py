"""Arrays a part at a time: what is computed of a part stays in the cache of the processor."""

import math
from collections.abc import Iterator
from typing import Any

VALUES_AT_ONCE = 2**16


def blocks_of(array: Any) -> Iterator[Any]:
    """The parts of an array or tensor `[N, ...]` along its first axis, in order; one row at least in each."""
    step = max(1, VALUES_AT_ONCE // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):
        yield array[start : start + step]
