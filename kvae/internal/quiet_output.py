"""Hides the messages that C++ libraries write to standard error, unless an error occurs."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kvae.internal.errors import UserError

_LOCK = threading.RLock()


@contextmanager
def silenced() -> Iterator[None]:
    """Captures everything that is written to file descriptor 2 in the block.

    If the block raises an exception, the captured lines are written after all, because they may explain it. A
    `UserError` explains itself, so they are dropped.
    """
    with _LOCK:  # the descriptor belongs to the whole process
        try:
            standard_error = os.dup(2)
        except OSError:  # the descriptor is closed, as in a daemon, so there is nothing to capture
            yield
            return
        _flush()
        with tempfile.TemporaryFile() as captured:
            os.dup2(captured.fileno(), 2)
            try:
                yield
            except UserError:
                raise
            except BaseException:
                _flush()
                captured.seek(0)
                os.write(standard_error, captured.read())
                raise
            finally:
                _flush()
                os.dup2(standard_error, 2)
                os.close(standard_error)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
