"""Small models of every kind of likelihood, to be exported and opened again."""

from small_models import scaled_decoder, tiny

from kvae.model import likelihoods

DECODERS = {
    "bernoulli": {"latent_dim": 2, "likelihood": "bernoulli", "image_shape": (5, 4, 1)},
    "continuous_bernoulli": {"latent_dim": 2, "likelihood": "continuous_bernoulli", "image_shape": (5, 4, 1)},
    "gaussian": {"latent_dim": 3, "likelihood": likelihoods.Gaussian(0.05), "image_shape": (4, 3, 3)},
}


def decoder_model(latent_dim, likelihood, image_shape):
    """An untrained model whose means are not all about 1/2."""
    return scaled_decoder(tiny(latent_dim=latent_dim, likelihood=likelihood), image_shape, 4)
