"""kvae: variational autoencoders with Keras, trained with plain `fit` and measured honestly.

    data = kvae.data.load("mnist", binarize="stochastic")
    vae = kvae.VAE(latent_dim=2)
    vae.compile()
    vae.fit(data.train, validation_data=data.test, epochs=10)

Importing kvae is cheap: its modules, and with them TensorFlow, load when they are first used.
"""

from typing import TYPE_CHECKING

from kvae.internal.lazy_imports import lazy
from kvae.internal.old_import_paths import MOVED, keep_old_paths
from kvae.internal.registration import register_with_keras

__version__ = "0.3.0"

_PUBLIC = {
    "VAE": "kvae.model.vae:VAE",
    "UserError": "kvae.internal.errors:UserError",
    "load": "kvae.runtime:load",
    # The parts of a model.
    "likelihoods": "kvae.model.likelihoods",
    "networks": "kvae.model.networks",
    "objectives": "kvae.model.objectives",
    "posteriors": "kvae.model.posteriors",
    "priors": "kvae.model.priors",
    "sampling": "kvae.model.sampling",
    # The folders.
    "completion": "kvae.completion",
    "data": "kvae.data",
    "evaluation": "kvae.evaluation",
    "export": "kvae.export",
    "model": "kvae.model",
    "noise": "kvae.noise",
    "plotting": "kvae.plotting",
    "runtime": "kvae.runtime",
    "training": "kvae.training",
}
__all__ = ["UserError", "VAE", "__version__", "load", *(name for name in _PUBLIC if name.islower() and name != "load")]

if TYPE_CHECKING:
    from kvae.internal.errors import UserError
    from kvae.model.vae import VAE
    from kvae.runtime import load

keep_old_paths()
register_with_keras()

_OLD = {name: f"kvae.{name}" for name in MOVED if "." not in name}
__getattr__, _ = lazy(__name__, {**_OLD, **_PUBLIC})


def __dir__() -> list[str]:
    return sorted(__all__)
