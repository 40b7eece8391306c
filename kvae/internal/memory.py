"""The memory of this machine, by which the size of what is read into it is limited."""

from pathlib import Path

from kvae.internal.errors import UserError

# The limits that Linux sets for the processes of a container, by version of its control groups.
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def total() -> int:
    """The memory that processes of this machine, or of this container, can have together, in bytes."""
    import psutil

    limits = [psutil.virtual_memory().total]
    for file in CONTAINER_LIMITS:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # there is no container, or its limit is "max"
            continue
    return min(limits)


def check(needed: int, what: str, advice: str = "") -> None:
    """Raises `UserError` if something needs more memory than this machine has.

    Args:
        needed: the number of bytes, as far as it can be estimated.
        what: what needs them, as the subject of a sentence.
        advice: what the user can do instead, as a sentence.
    """
    most = total()
    if needed > most:
        raise UserError(f"{what} needs about {_gib(needed)} of memory. This machine has {_gib(most)}. {advice}".strip())


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
