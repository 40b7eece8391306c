"""Exports of models whose decoders return several numbers per pixel: one seed, one image, and refusals by name."""

import numpy as np
import pytest
from small_models import built

from kvae.export import convert, litert, web
from kvae.model import likelihoods
from kvae.noise import portable
from kvae.runtime.litert import LiteRTDecoder

SHAPE = (8, 9, 3)
LIKELIHOODS = {
    "discretized_logistic": likelihoods.DiscretizedLogistic,
    "discretized_logistic of few levels": lambda: likelihoods.DiscretizedLogistic(4),
    "categorical": lambda: likelihoods.Categorical(5),
    "gaussian_per_pixel": likelihoods.GaussianPerPixel,
    "laplace": lambda: likelihoods.Laplace(0.01),
    "student_t": lambda: likelihoods.StudentT(0.01),
}
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name != "discretized_logistic")) for name in LIKELIHOODS]


def made(name):
    vae = built(SHAPE, latent_dim=3, hidden_units=(20,), likelihood=LIKELIHOODS[name]())
    rng = np.random.default_rng(0)
    for variable in vae.decoder.variables:
        variable.assign(variable + rng.normal(0, 0.3, variable.shape))
    return vae


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_one_seed_is_one_image_in_litert(name, tmp_path, monkeypatch):
    monkeypatch.setattr(litert, "BATCH_SIZES", (None,))  # a third of the time of a conversion
    vae, seeds = made(name), portable.seeds(50, 1)
    (tmp_path / "decoder.tflite").write_bytes(convert(vae, ["float32"])["float32"])
    decoder = LiteRTDecoder(tmp_path / "decoder.tflite")
    drawn, found = vae.sample(seeds), decoder.sample(seeds)
    images = vae.likelihood.as_bytes(drawn.images).numpy()
    np.testing.assert_allclose(found.z, drawn.z, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found.means, drawn.means, rtol=0, atol=1e-5)  # float32 in another order
    step = 255 if vae.likelihood.levels is None else 255 // (vae.likelihood.levels - 1)
    difference = np.abs(np.int32(found.images) - np.int32(images))
    # Rounding decides between two neighbouring bytes or levels for very few pixels.
    assert (difference > 0).mean() < 1e-3
    assert difference.max() <= (1 if step == 255 else step)
    parameters = np.asarray(vae.decode(drawn.z))
    np.testing.assert_allclose(decoder.decode(drawn.z).parameters, parameters, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_page_refuses_likelihoods_that_it_does_not_know_by_name(name):
    vae = made(name)
    assert web.unknown(vae) == [f"the likelihood {type(vae.likelihood).__name__}"]
