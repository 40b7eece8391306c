"""Training: from a recipe to a run folder, and the use of a finished run.

`config.py` defines what a recipe may contain, `part_tables.py` its section [model], and `build.py` makes the model from
it; `data_defaults.py` chooses settings that suit the data. `train_resume.py` trains and resumes, with the Keras
callbacks in `callbacks.py` and `checkpoints.py`; `divergence.py` ends a training that diverges, `outcome.py` says when
one has learned nothing, and `distribution.py` supports several devices. `runs.py` reads and writes the files of a run,
`history.py` its history.csv, and `results.py` evaluates a finished run, completes its test images and draws its
figures.
"""

from kvae.internal.lazy_imports import lazy

_BUILD = ("build_model", "build_optimizer", "steps_per_epoch")
_TRAIN = ("load_data", "protocol", "resume", "train")
_MODULES = (
    "build",
    "callbacks",
    "checkpoints",
    "config",
    "data_defaults",
    "distribution",
    "divergence",
    "history",
    "part_tables",
    "results",
    "runs",
    "train_resume",
)
__getattr__, __dir__ = lazy(
    __name__,
    {
        **{name: f"{__name__}.build:{name}" for name in _BUILD},
        **{name: f"{__name__}.train_resume:{name}" for name in _TRAIN},
        **{name: f"{__name__}.{name}" for name in _MODULES},
        "Run": f"{__name__}.runs:Run",
        "RunConfig": f"{__name__}.config:RunConfig",
    },
)
