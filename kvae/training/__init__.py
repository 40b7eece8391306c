"""From a recipe to a run folder: `train_resume.py` trains and goes on, `config.py` says what a recipe may hold,
`runs.py` what a run leaves behind, `callbacks.py` what plugs into Keras `fit`, `cluster.py` several devices."""

from kvae.internal.lazy import lazy

_FUNCTIONS = ("build_model", "build_optimizer", "load_data", "protocol", "resume", "steps_an_epoch", "train")
_MODULES = ("callbacks", "cluster", "config", "history", "runs", "train_resume")
__getattr__, __dir__ = lazy(
    __name__,
    {
        **{name: f"{__name__}.train_resume:{name}" for name in _FUNCTIONS},
        **{name: f"{__name__}.{name}" for name in _MODULES},
        "Run": f"{__name__}.runs:Run",
        "RunConfig": f"{__name__}.config:RunConfig",
    },
)
