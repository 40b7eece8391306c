"""`kvae.evaluation.encode`: the posterior of each image, in batches of any size."""

import numpy as np
import pytest
from own_parts import GumbelPosterior
from small_models import SHAPE, built

from kvae import evaluation
from kvae.internal.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 2, (7, *SHAPE)).astype(np.float32)


def model(**options):
    return built(latent_dim=3, hidden_units=(8,), **options)


def test_means_and_variances_are_those_of_the_encoder():
    vae = model()
    encoded = evaluation.encode(vae, IMAGES)
    mean, log_var = vae.encode(IMAGES)
    # float32, computed in another order
    np.testing.assert_allclose(encoded.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoded.variance, np.exp(log_var), rtol=1e-5)
    assert encoded.mean_draws is None


@pytest.mark.parametrize("posterior", ["diagonal_gaussian", "gumbel"])
def test_the_batch_size_does_not_change_the_result(posterior):
    vae = model(posterior=GumbelPosterior() if posterior == "gumbel" else posterior)
    whole = evaluation.encode(vae, IMAGES)
    parts = evaluation.encode(vae, iter([IMAGES[:1], IMAGES[1:5], IMAGES[5:]]))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-5, atol=1e-6)


def test_a_posterior_without_a_covariance_has_means_of_draws_and_no_variance():
    encoded = evaluation.encode(model(posterior=GumbelPosterior()), IMAGES)
    assert encoded.mean.shape == (7, 3)
    assert encoded.variance is None
    assert encoded.mean_draws == 64


@pytest.mark.parametrize("images", [IMAGES[:0], IMAGES[:, :4]])
def test_no_images_or_others_are_refused(images):
    with pytest.raises(UserError, match="Expected"):
        evaluation.encode(model(), images)
