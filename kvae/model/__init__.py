"""The model: an encoder, a posterior, a prior, a decoder and a likelihood, and the objective that trains them.

`vae.py` computes with these parts; `assembly.py` puts them together and checks them; `saving.py` saves them;
`sampling.py` draws from a trained model. `fast_fit.py`, `compiling.py`, `grouped_steps.py` and `loop.py` bring the
batches to the training step. Each kind of part has its own file or folder, with a table of the names that a recipe can
use.
"""

from kvae.internal.lazy_imports import lazy

_MODULES = (
    "assembly",
    "compiled_functions",
    "compiling",
    "densities",
    "fast_fit",
    "given_images",
    "grouped_steps",
    "likelihoods",
    "loop",
    "networks",
    "objectives",
    "parts",
    "image_places",
    "posteriors",
    "priors",
    "sampling",
    "saving",
    "vae",
)
__getattr__, __dir__ = lazy(
    __name__, {"VAE": f"{__name__}.vae:VAE", **{name: f"{__name__}.{name}" for name in _MODULES}}
)
