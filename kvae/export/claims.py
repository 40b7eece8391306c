"""Compares what a file states with what was computed again, value by value.

A file and what is expected of it are trees of dictionaries and lists. An expected value is the value itself, or a
`Judge` that knows how far the stated value may be from it. A value that is stated but not expected is not checked, and
its result says so.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from kvae.internal.errors import UserError

Path = tuple[str | int, ...]


class Judge(Protocol):
    """What is expected of a value."""

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        """Whether a stated value holds, None if that cannot be said, and why not."""


class Exactly(NamedTuple):
    """This value itself."""

    value: Any

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        same = stated == self.value and isinstance(stated, bool) == isinstance(self.value, bool)
        return same, f"computed {_short(self.value)}, stated {_short(stated)}"


class Near(NamedTuple):
    """A number that may differ by a tolerance."""

    value: float
    tolerance: float

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        if not is_number(stated):
            return False, f"computed {self.value:.6g}, stated {_short(stated)}"
        within = abs(stated - self.value) <= self.tolerance
        return within, f"computed {self.value:.6g}, stated {stated:.6g} (tolerance {self.tolerance:.2g})"


class Similar(NamedTuple):
    """A number that another machine may measure larger or smaller by a factor, apart from rounding."""

    value: float
    factor: float
    rounding: float

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        if not is_number(stated):
            return False, f"computed {self.value:.6g}, stated {_short(stated)}"
        told = f"computed {self.value:.6g}, stated {stated:.6g}"
        if self.value > self.factor * stated + self.rounding:
            return False, f"{told}, which is too small"
        return stated <= self.factor * self.value + self.rounding, f"{told}, which is too large"


class Usually(NamedTuple):
    """A value that the person who made the file may have chosen differently."""

    value: Any
    why: str

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        if isinstance(self.value, float) and not is_number(stated):
            return False, f"expected a number, stated {_short(stated)}"
        why = f"usually {_short(self.value)}, stated {_short(stated)}; {self.why}"
        return True if stated == self.value else None, why


class Unknown(NamedTuple):
    """A value that must be there and cannot be computed again."""

    why: str

    def judge(self, stated: Any) -> tuple[bool | None, str]:
        return None, self.why


class Result(NamedTuple):
    """One stated value and whether it holds."""

    path: Path
    passed: bool | None  # None if it was not checked
    detail: str

    @property
    def place(self) -> str:
        """Where the value is, e.g. `variants.float32.pixels`."""
        return ".".join(map(str, self.path))


def compare(stated: Any, expected: Any) -> list[Result]:
    """Judges every value of a tree, and every expected value that it lacks.

    Args:
        stated: what a file states: dictionaries, lists, texts, numbers, booleans and None.
        expected: a tree of the same form, whose leaves are values or judges.

    Returns:
        One result per value, in the order of the file.
    """
    values, judges = dict(leaves(stated)), dict(leaves(expected))
    results = []
    for path, value in values.items():
        expectation = judges.get(path, Unknown("it cannot be computed again"))
        judge = expectation if hasattr(expectation, "judge") else Exactly(expectation)
        results.append(Result(path, *judge.judge(value)))
    missing = [path for path in judges if path not in values]
    return results + [Result(path, False, "the file does not state it") for path in missing]


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The values of a tree with their paths. An empty dictionary or list is a value."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, (*path, name))
    elif isinstance(tree, list) and tree:
        for index, value in enumerate(tree):
            yield from leaves(value, (*path, index))
    else:
        yield path, tree


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, name: str) -> float:
    """A value that must be a finite number; raises `UserError` otherwise."""
    if not is_number(value):
        raise UserError(f"Expected a number for {name}. Received {_short(value)}.")
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
