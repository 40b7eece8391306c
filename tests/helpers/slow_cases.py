"""Cases of a parametrized test that run with the longer checks only."""

from typing import Any

import pytest


def slow(*cases: Any) -> list[Any]:
    """The cases, marked as slow: further members of a kind whose first members run by default."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]
