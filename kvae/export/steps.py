"""What an export says while it works: a line for each step as it begins, with a bar in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from kvae.internal.progress_bars import bar
from kvae.internal.visible import visible

Begin = Callable[[str], None]  # to call with the words of a step that begins


def silent(words: str) -> None:
    """Says nothing of a step."""


def line(words: str) -> None:
    """Says something that is no step."""
    print(visible(words), flush=True)


@contextmanager
def told(verbose: int, total: int) -> Iterator[Begin]:
    """Says which step begins in the block.

    Args:
        verbose: 0 for nothing, 1 for lines above a bar, as in a terminal, 2 for lines alone.
        total: the number of steps.

    Yields:
        A function to call with the words of each step.
    """
    begun = 0
    with bar("{task.description}", "") if verbose == 1 else nullcontext() as bars:
        task = None if bars is None else bars.add_task("exporting", total=total)

        def begin(words: str) -> None:
            nonlocal begun
            if bars is not None:
                bars.update(task, completed=begun)
            begun += 1
            print(f"step {begun} of {total}: {visible(words)}", flush=True)

        yield begin if verbose else silent
        if bars is not None:
            bars.update(task, completed=total)
