"""Hides messages about the inner working of kvae: those that C++ libraries write, and reports of TensorFlow."""

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvae.internal.errors import UserError

_LOCK = threading.RLock()
# Where a SavedModel was written, which may be a temporary folder; and that the step functions of Keras were traced
# again, as they are for every model.
_REPORTS = re.compile(r"Assets written to: |.* TensorFlowTrainer\._?make_.* triggered tf\.function retracing")


@contextmanager
def silenced() -> Iterator[None]:
    """Captures everything that is written to file descriptor 2 in the block.

    If the block raises an exception, the captured lines are written after all, because they may explain it. A
    `UserError` and an interruption explain themselves, so they are dropped.
    """
    with _LOCK:  # the descriptor belongs to the whole process
        try:
            standard_error = os.dup(2)
        except OSError:  # the descriptor is closed, as in a daemon, so there is nothing to capture
            yield
            return
        _flush()
        try:
            captured = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
        except OSError:  # nothing can be written anywhere, so the lines are shown
            os.close(standard_error)
            yield
            return
        with captured:
            os.dup2(captured.fileno(), 2)
            try:
                yield
            except (UserError, KeyboardInterrupt):
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


@contextmanager
def without_tensorflow_reports() -> Iterator[None]:
    """Drops what TensorFlow logs in the block, in this thread, about files and functions that the user did not make.

    All other records of its logger pass, for example those about a `tf.function` of the user.
    """
    thread = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.thread != thread or not _REPORTS.match(record.getMessage())

    logger = logging.getLogger("tensorflow")
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def may_retrace(function: Any) -> Any:
    """The `tf.function`, without TensorFlow's warning that it is traced often: for functions that kvae makes."""
    function._omit_frequent_tracing_warning = True  # private: a test fails if TensorFlow changes it
    return function
