"""Cases of a parametrized test that run with the longer checks only."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*cases: Any) -> list[Any]:
    """The cases, marked as slow: further members of a kind whose first members run by default."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


def some(cases: Iterable[Any], step: int, first: int = 0) -> list[Any]:
    """Each `step`-th of the cases, from number `first`; the others are marked as slow."""
    return [case if number % step == first else slow(case)[0] for number, case in enumerate(cases)]
