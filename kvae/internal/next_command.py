"""A command of kvae as the user must type it, for every message that tells what to do next.

`kvae` alone does not work where the virtual environment is not activated, as after `make demo`. The command therefore
begins as the one that runs now: `kvae`, `.venv/bin/kvae` or `python -m kvae`.
"""

import os
import sys
from pathlib import Path

NAME = "kvae"


def kvae_command(*words: object) -> str:
    """A command of kvae that can be copied into the shell, in the folder in which kvae was started.

    Args:
        words: what stands after `kvae`, each as one argument, such as `"evaluate", folder`. They are quoted where the
            shell needs it.
    """
    return quoted(*_program(), *map(str, words))


def quoted(*words: str) -> str:
    """Arguments as they are typed into the shell, with quotes where it needs them."""
    import shlex  # not above: kvae.cli.entry imports little
    import subprocess

    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _program() -> list[str]:
    """The words that start kvae. In a Python program that is not the command `kvae`, just its name."""
    import shutil

    started = Path(sys.argv[0] if sys.argv else "")
    if started.name == "__main__.py" and started.parent.name == NAME:  # python -m kvae
        return sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    script = shutil.which(sys.argv[0]) if started.stem == NAME else None  # on Windows with the suffix that it lacks
    on_the_path = shutil.which(NAME)
    if script is None or (on_the_path is not None and os.path.samefile(script, on_the_path)):
        return [NAME]
    path = Path(script)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return [str(path) if len(path.parts) > 1 else os.path.join(os.curdir, path)]
