"""Names that `kvae.VAE` had before version 0.3. They work until kvae 0.4, with a `DeprecationWarning`.

They are found by `__getattr__` alone, so that neither `dir` nor the completion of an editor shows them.
"""

import functools
import importlib
import warnings
from typing import Any

# The function that has the model as its first argument instead.
MOVED = {
    "sample_prior": "kvae.sampling.draw_z",
    "generate_batches": "kvae.sampling.image_batches",
    "sample_graph": "kvae.sampling.sample_graph",
    "elbo_terms": "kvae.sampling.elbo_draws",
}


class OldNames:
    """A model whose old methods still work."""

    def __getattr__(self, name: str) -> Any:
        new = MOVED.get(name)
        if new is None:
            # Python also comes here for a property that raises an AttributeError; this raises it once more.
            return object.__getattribute__(self, name)
        arguments = "vae, x" if name == "elbo_terms" else "vae, seeds" if name == "sample_graph" else "vae, n"
        warnings.warn(
            f"VAE.{name} has moved: use {new}({arguments}, ...). kvae 0.4 removes the old name.",
            DeprecationWarning,
            stacklevel=2,
        )
        function = getattr(importlib.import_module("kvae.model.sampling"), new.rpartition(".")[2])
        return functools.partial(function, self)
