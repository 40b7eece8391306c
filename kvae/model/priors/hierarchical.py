"""The prior with two layers of latent variables."""

from typing import Any

import numpy as np

from kvae.internal.errors import UserError, check_whole
from kvae.internal.tensorflow import keras
from kvae.model import parts
from kvae.model.priors.flow import Coupling, CouplingPrior, coupling_weights


@keras.saving.register_keras_serializable("kvae")
class Hierarchical(CouplingPrior):
    """Two layers of latent variables in one vector z = (z_1, z_2), of which the upper one decides the lower one.

        p(z) = N(z_2; 0, I) N(z_1; m(z_2), diag(s(z_2)^2))

    Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders" (2016), section 5: models with two stochastic
    layers. Both m and log s, which is kept within -2 and 2, come from a network with one hidden layer of tanh units.
    The last `upper_dim` coordinates of z are z_2. The decoder sees all of z, while that of the paper sees z_1 alone.
    The posterior `BottomUp` draws z_1 before z_2. At the start m = 0 and s = 1, so p(z) is the standard
    normal. The KL term is computed from the draws.

    Args:
        upper_dim: number of dimensions of z_2, below the latent size. By default half of the latent size, rounded down.
        layer_units: width of the hidden layer. 64 by default.

    Raises:
        UserError: if an argument is not a whole number of at least 1; in `build`, if no dimension is left for z_1.
    """

    def __init__(self, upper_dim: int | None = None, layer_units: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.upper_dim = None if upper_dim is None else check_whole("upper_dim", upper_dim)
        self.layer_units = check_whole("layer_units", layer_units)

    def build(self, latent_dim: int, seed: int | None = None) -> None:
        super().build(latent_dim)
        self._kept = upper_layer("prior hierarchical", latent_dim, self.upper_dim)
        self._weights_of_coupling = coupling_weights(self, 0, latent_dim, self.layer_units, next(parts.seeds(seed, 2)))

    @property
    def couplings(self) -> list[Coupling]:
        """One coupling: it keeps z_2 and makes z_1 = m(z_2) + s(z_2) e_1 of the standard normal numbers e_1."""
        return [Coupling.of(self._weights_of_coupling, self._kept)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "upper_dim": self.upper_dim, "layer_units": self.layer_units}


def upper_layer(name: str, latent_dim: int, upper_dim: int | None) -> np.ndarray:
    """Which coordinates of z are the upper layer z_2: `[D]` float32, 1 for these and 0 for those of z_1.

    Args:
        name: the part that has two layers, in words.
        latent_dim: latent size, D.
        upper_dim: number of dimensions of z_2, or None for half of D, rounded down.

    Raises:
        UserError: if one of the layers has no dimension.
    """
    size = latent_dim // 2 if upper_dim is None else upper_dim
    if not 0 < size < latent_dim:
        raise UserError(
            f"Expected a latent size of at least {1 + (upper_dim or 1)} for the {name}, so that both layers have a "
            f"dimension. Received {latent_dim}. Choose a larger latent size{' or a smaller upper_dim' * (size > 1)}."
        )
    return (np.arange(latent_dim) >= latent_dim - size).astype(np.float32)
