"""Training: from a recipe to a run folder, and the use of a finished run.

`config.py` defines what a recipe may contain, `part_tables.py` its section [model], `keys.py` lists its keys with their
meaning, and `build.py` makes the model from it; `data_defaults.py` chooses settings that suit the data.
`train_resume.py` trains and resumes, with the Keras callbacks in `callbacks.py` and `checkpoints.py`; `progress.py`
shows how far it is, `divergence.py` ends a training that diverges, `outcome.py` says when one has learned nothing, and
`distribution.py` supports several devices. `sweeps.py` trains a grid of settings. `runs.py` reads and writes the files
of a run, `history.py` its history.csv, and `results.py` evaluates a finished run, completes its test images and draws
its figures; `encodings.py` encodes images with it. `run_list.py` finds runs and their state, and `comparison.py`
compares them; `wording.py` has the words of their tables.
"""

from kvae.internal.lazy_imports import lazy

_BUILD = ("build_model", "build_optimizer", "steps_per_epoch")
_TRAIN = ("load_data", "protocol", "resume", "train")
_MODULES = (
    "build",
    "callbacks",
    "checkpoints",
    "comparison",
    "config",
    "data_defaults",
    "distribution",
    "divergence",
    "encodings",
    "history",
    "keys",
    "part_tables",
    "progress",
    "results",
    "run_list",
    "runs",
    "sweeps",
    "train_resume",
    "wording",
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
