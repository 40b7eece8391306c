"""From a recipe to a run folder, and what a finished run is used for.

`config.py` says what a recipe may hold, `build.py` makes the model of it, `train_resume.py` trains and resumes.
`callbacks.py` plugs into Keras `fit`, `cluster.py` is for several devices. `runs.py` knows the files of a run, and
`results.py` evaluates, completes and draws with a finished one.
"""

from kvae.internal.lazy import lazy

_BUILD = ("build_model", "build_optimizer", "steps_an_epoch")
_TRAIN = ("load_data", "protocol", "resume", "train")
_MODULES = ("build", "callbacks", "cluster", "config", "history", "results", "runs", "tables", "train_resume")
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
