"""The command `kvae` in a process of its own, and options for a small training."""

import os
import subprocess
import sys
from pathlib import Path

SMALL = [
    "--set=data.train=train[:200]",
    "--set=data.test=test[:60]",
    "--set=model.hidden_units=[16]",
    "--epochs=2",
]


def kvae(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """`kvae` with these arguments, as a user calls it."""
    return subprocess.run(
        [sys.executable, "-m", "kvae", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ},
        check=False,
    )
