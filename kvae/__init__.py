"""kvae: variational autoencoders with Keras, trained with plain `fit` and measured honestly.

Importing kvae is cheap: its modules, and with them TensorFlow, load when they are first used.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from kvae.hooks import after_imports, when_imported

__version__ = "0.2.0"

# `kvae.VAE` and every module of the package, loaded on first use (PEP 562).
_MODULES = (
    "assembly",
    "callbacks",
    "cluster",
    "compiled",
    "config",
    "data",
    "distributions",
    "evaluation",
    "export",
    "fast_fit",
    "figures",
    "history",
    "inference",
    "latent",
    "likelihoods",
    "loop",
    "masks",
    "networks",
    "noise",
    "objectives",
    "parts",
    "pictures",
    "plots",
    "portable",
    "posteriors",
    "priors",
    "quadrature",
    "runs",
    "runtime",
    "streams",
    "training",
    "vae",
)
__all__ = ["VAE", "__version__", *_MODULES]

if TYPE_CHECKING:
    from kvae.vae import VAE


def __getattr__(name: str) -> Any:
    if name == "VAE":
        return importlib.import_module("kvae.vae").VAE
    if name in _MODULES:
        return importlib.import_module(f"kvae.{name}")
    raise AttributeError(f"module 'kvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


# `keras.saving.load_model` finds a class once its module ran, so wherever both kvae and Keras are imported, in either
# order, kvae's classes have to be.


def _keras_imported(keras: Any) -> None:
    # Where kvae itself is importing Keras, the hook below takes over once that import has ended.
    if "kvae.tensorflow" not in sys.modules and keras.backend.backend() == "tensorflow":
        importlib.import_module("kvae.tensorflow")


def _module_imported() -> None:
    if "kvae.tensorflow" in sys.modules and "kvae.vae" not in sys.modules:
        importlib.import_module("kvae.vae")


after_imports("kvae", _module_imported)
when_imported("keras", _keras_imported)
