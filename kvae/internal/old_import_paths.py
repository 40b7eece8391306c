"""The import paths of kvae 0.1 and 0.2. They work for one more version, with a `DeprecationWarning`."""

import importlib
import sys
import types
import warnings
from typing import Any

MOVED = {
    "assembly": "model.assembly",
    "callbacks": "training.callbacks",
    "cluster": "training.distribution",
    "compiled": "model.compiled_functions",
    "config": "training.config",
    "data.delimited": "data.sources.csv",
    "data.folder": "data.sources.images",
    "data.idx": "data.sources.idx",
    "data.npz": "data.sources.npz",
    "data.resident": "data.in_memory",
    "data.tfds": "data.sources.tfds",
    "distributions": "model.densities",
    "errors": "internal.errors",
    "fast_fit": "model.fast_fit",
    "figures": "plotting.figures",
    "files": "internal.files",
    "footprint": "runtime.footprint",
    "history": "training.history",
    "inference": "completion",
    "inference.baselines": "completion.baselines",
    "inference.completion": "completion.completions",
    "inference.images": "completion.masked_images",
    "inference.prediction": "completion.prediction",
    "inference.proposals": "evaluation.mixture_proposals",
    "inference.scoring": "completion.scoring",
    "inference.variational": "completion.variational_inference",
    "latent": "runtime.latent_points",
    "likelihoods": "model.likelihoods",
    "loop": "model.loop",
    "masks": "completion.masks",
    "networks": "model.networks",
    "objectives": "model.objectives",
    "parts": "model.parts",
    "pictures": "internal.pictures",
    "plots": "plotting.drawing",
    "portable": "noise.portable",
    "posteriors": "model.posteriors",
    "priors": "model.priors",
    "quadrature": "evaluation.evidence",
    "quiet": "internal.quiet_output",
    "runs": "training.runs",
    "streams": "noise.streams",
    "tensorflow": "internal.tensorflow",
    "vae": "model.vae",
}


class _MovedModule(types.ModuleType):
    """A module at its old path. It gives the names of the new module, with a warning."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"Moved to {new}.")
        self.__dict__["_new"] = new

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself reads these; this is not a use of the module
            raise AttributeError(name)
        value = getattr(importlib.import_module(self._new), name)
        warnings.warn(
            f"{self.__name__} has moved: use {self._new}. kvae 0.4 removes the old path.",
            DeprecationWarning,
            stacklevel=2,
        )
        return value


def keep_old_paths() -> None:
    """Makes `import kvae.vae` and the other old paths work.

    The modules are entered in `sys.modules`; they import nothing before their first use.
    """
    for old, new in MOVED.items():
        sys.modules[f"kvae.{old}"] = _MovedModule(f"kvae.{old}", f"kvae.{new}")
