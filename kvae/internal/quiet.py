"""What C++ libraries write to file descriptor 2 past Python: held back, and shown where something went wrong."""

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
    """Holds back the lines that are written to file descriptor 2; they come out where an exception passes.

    But for a `UserError`, which says itself what is wrong.
    """
    with _LOCK:  # the descriptor belongs to the whole process
        try:
            kept = os.dup(2)
        except OSError:  # closed, as under a daemon: nothing to hold back
            yield
            return
        _flush()
        with tempfile.TemporaryFile() as chatter:
            os.dup2(chatter.fileno(), 2)
            try:
                yield
            except UserError:
                raise
            except BaseException:
                _flush()
                chatter.seek(0)
                os.write(kept, chatter.read())
                raise
            finally:
                _flush()
                os.dup2(kept, 2)
                os.close(kept)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
