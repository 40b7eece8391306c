"""Encoders `x [B, *image] -> parameters of q(z|x)` and decoders `z [B, D] -> parameters of p(x|z)`.

There are three pairs: multilayer perceptrons, convolutional networks, and these with residual blocks. Any Keras model
with the same inputs and outputs can be used as well. The posterior decides what its encoder must return, (mean,
log_var) for a diagonal Gaussian. The likelihood decides what its decoder must return, logits of the images for a
Bernoulli. The output layers compute in float32 under every precision policy, and so do the densities.
"""

from kvae.model.networks.base import call, check_mirror, give_condition, mirrored, takes_condition
from kvae.model.networks.convolutional import ConvDecoder, ConvEncoder
from kvae.model.networks.mlp import MLPDecoder, MLPEncoder
from kvae.model.networks.output_bias import ConstantValues, logit_of_mean
from kvae.model.networks.residual import ResidualDecoder, ResidualEncoder

__all__ = [
    "NETWORKS",
    "ConstantValues",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "ResidualDecoder",
    "ResidualEncoder",
    "call",
    "check_mirror",
    "give_condition",
    "logit_of_mean",
    "mirrored",
    "takes_condition",
]

# Encoders by name. The decoder that belongs to an encoder is its `mirror`.
NETWORKS: dict[str, type[MLPEncoder] | type[ConvEncoder]] = {
    "mlp": MLPEncoder,
    "conv": ConvEncoder,
    "residual": ResidualEncoder,
}
