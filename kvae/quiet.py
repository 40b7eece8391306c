"""What C++ libraries write to file descriptor 2 past Python: held back, and shown where something went wrong."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from kvae.errors import UserError


@contextmanager
def silenced() -> Iterator[None]:
    """Holds back the lines that are written to file descriptor 2; they come out where an exception passes.

    But for a `UserError`, which says itself what is wrong.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            sys.stderr.flush()
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
