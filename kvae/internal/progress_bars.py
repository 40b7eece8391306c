"""The bar in a terminal for what takes long, and in other output a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

SECONDS = 10.0  # between two lines


def bar(before: str, after: str, file: TextIO | None = None) -> Any:
    """The bars of `rich`, in the form of kvae.

    Args:
        before: the text before a bar, in which `{task}` is its task.
        after: the text after it.
        file: where they are shown. Standard output by default.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    where: dict[str, Any] = {} if file is None else {"console": Console(file=file)}
    return Progress(
        TextColumn(before, markup=False),
        BarColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn(after, markup=False),
        refresh_per_second=4,
        speed_estimate_period=600,  # seconds; what follows takes as long as what was before
        **where,
    )


@contextmanager
def counted(
    verbose: int, what: str, unit: str, total: int | None, file: TextIO | None = None
) -> Iterator[Callable[..., None]]:
    """Shows how far a computation in the block is.

    Args:
        verbose: 0 for nothing, 1 for a bar in a terminal, 2 for a line every `SECONDS` seconds.
        what: what is computed.
        unit: what is counted, in the plural.
        total: the number of them, or None if it is not known.
        file: where a bar is shown. Standard output by default.

    Yields:
        A function to call when one more is done, or with the number of those that are.
    """
    of = f" of {total}" if total is not None else ""
    if verbose == 1:
        with bar("{task.description}", f"{{task.completed}}{of} {unit}", file) as bars:
            task = bars.add_task(what, total=total)
            yield lambda count=1: bars.advance(task, count)
        return
    done, last = 0, time.monotonic()

    def advance(count: int = 1) -> None:
        nonlocal done, last
        done += count
        if verbose == 2 and time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            print(f"{what}: {done}{of} {unit}", flush=True)

    yield advance
