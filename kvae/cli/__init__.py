"""The command `kvae`: parsing and printing. Each command imports TensorFlow only when it needs it."""

from kvae.cli.entry import run
from kvae.internal.lazy_imports import lazy

_MODULES = (
    "commands",
    "comparing",
    "encoding",
    "entry",
    "exports",
    "output",
    "pretrained",
    "results",
    "settings",
    "shared",
    "shell",
    "stopping",
    "sweeping",
    "training",
    "usage",
)
__getattr__, __dir__ = lazy(
    __name__, {"main": f"{__name__}.commands:main", **{name: f"{__name__}.{name}" for name in _MODULES}}
)
__all__ = ["run"]
