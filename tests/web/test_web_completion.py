"""Completion in the page: the posterior over the latent plane against quadrature in NumPy and in kvae."""

import json
from pathlib import Path

import numpy as np
import pytest
from node import NODE, javascript
from web_pages import MODELS, write_page

from kvae import completion
from kvae.evaluation import quadrature
from kvae.model import likelihoods
from kvae.model.vae import VAE
from kvae.runtime.keras import load_model
from kvae.runtime.web import WebDecoder

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed")
ROOT = Path(__file__).parents[2]


def completed(folder, page, images, shown):
    """What the page computes for images `[B, P]` and their masks: a list of its answers."""
    code = f"""
    const answers = [];
    const images = {json.dumps(images.tolist())}, masks = {json.dumps(shown.astype(int).tolist())};
    for (let b = 0; b < images.length; b++) {{
      let found;
      const tell = (part) => {{ if ("log" in part) found = part; }};
      const last = await complete({{ x: Float32Array.from(images[b]), shown: masks[b], seed: b }}, tell);
      const draws = found.draws.map(({{ z, mean, drawn }}) => [z, mean, drawn].map((each) => Array.from(each)));
      answers.push({{ ...found, ...last, mean: Array.from(found.mean), draws }});
    }}
    console.log(JSON.stringify(answers));
    """
    return javascript(folder, page, code)


LIKELIHOODS = {
    "bernoulli": "bernoulli",
    "continuous_bernoulli": "continuous_bernoulli",
    "gaussian": likelihoods.Gaussian(0.05),
    "squared_error": "squared_error",
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_it_agrees_with_quadrature_in_numpy(name, tmp_path):
    from small_models import built
    from web_pages import lively

    vae: VAE = lively(built((6, 5, 1), latent_dim=2, hidden_units=(8,), likelihood=LIKELIHOODS[name]))
    page, rng = write_page(vae, tmp_path), np.random.default_rng(0)
    images = vae.generate(4, seed=1).numpy().reshape(4, 30)
    shown = rng.random((4, 30)) < np.array([[0.5], [0.2], [0.0], [0.9]])
    side = np.linspace(-8, 8, 161)
    z = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    decoded = WebDecoder(page).decode(z)
    pixels = np.concatenate(
        [vae.likelihood.log_prob_of_pixels(image[None], decoded.logits.reshape(len(z), 1, 30)) for image in images], 1
    )
    log_prior = -0.5 * (z**2).sum(1) - np.log(2 * np.pi)
    cell = np.log((side[1] - side[0]) ** 2)
    for b, answer in enumerate(completed(tmp_path, page, images, shown)):
        log_joint = log_prior + (pixels[:, b] * shown[b]).sum(1)
        log_observed = np.logaddexp.reduce(log_joint) + cell
        log_whole = np.logaddexp.reduce(log_prior + pixels[:, b].sum(1)) + cell
        assert answer["log"] == pytest.approx(log_observed, abs=2e-3)  # both have errors below 1e-3
        assert answer["score"] == pytest.approx(log_whole - log_observed, abs=2e-3)
        weights = np.exp(log_joint + cell - log_observed)
        mean = np.where(shown[b], images[b], weights @ decoded.means.reshape(len(z), 30))
        assert np.abs(np.array(answer["mean"]) - 255 * mean).max() <= 0.5 + 255 * 2e-3
        np.testing.assert_allclose(answer["centre"], weights @ z, atol=5e-3)
        spread = np.sqrt(weights @ (z - weights @ z) ** 2)
        np.testing.assert_allclose(answer["deviations"], spread, atol=5e-3)
        for _, draw_mean, drawn in answer["draws"]:
            kept = np.rint(255 * images[b])[shown[b]]
            assert np.abs(np.array(draw_mean)[shown[b]] - kept).max(initial=0) <= 1
            assert np.array_equal(np.array(draw_mean)[shown[b]], np.array(drawn)[shown[b]])


def test_draws_of_z_have_the_mean_and_the_spread_of_the_posterior(tmp_path):
    page = write_page(MODELS["mlp"](), tmp_path)
    code = """
    const x = new Float32Array(30).fill(1), observed = [0, 7, 12], hidden = [1, 2];
    const { nodes } = await posterior(x, observed, { stale: () => false, progress: () => {} });
    const mean = [0, 1].map((d) => nodes.reduce((sum, { point, weight }) => sum + weight * point.z[d], 0));
    const square = [0, 1].map((d) => nodes.reduce((sum, { point, weight }) => sum + weight * point.z[d] ** 2, 0));
    const draws = Array.from(seedsOf(4000, 3), (seed) => Array.from(completionDraw(nodes, x, hidden, seed).z));
    console.log(JSON.stringify({ mean, square, draws }));
    """
    result = javascript(tmp_path, page, code)
    draws = np.array(result["draws"])
    deviation = np.sqrt(np.array(result["square"]) - np.square(result["mean"]))
    # Four standard errors of a mean and of a standard deviation of 4,000 draws.
    np.testing.assert_allclose(draws.mean(0), result["mean"], atol=4 * deviation.max() / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(0), deviation, rtol=4 / np.sqrt(2 * 4000) * 1.5)


@pytest.mark.slow
def test_log_densities_of_mnist_agree_with_those_of_kvae_completion(tmp_path, digits):
    """Every digit with its own mask: halves, and random pixels."""
    vae = load_model(ROOT / "saved_models" / "mnist_2d" / "model.keras")
    page, x = write_page(vae, tmp_path), digits[:4]
    rows = np.arange(28)[:, None] + 0 * np.arange(28)
    masks = [rows < 14, rows >= 14, rows.T < 14, np.random.default_rng(0).random((28, 28)) < 0.1]
    shown = np.stack([masks[b % 4] for b in range(len(x))])[..., None]
    answers = completed(tmp_path, page, x.reshape(len(x), 784), shown.reshape(len(x), 784))
    expected = completion.quadrature_score(vae, x, shown)
    observed = quadrature.log_evidence(vae, x, shown)
    np.testing.assert_allclose([each["log"] for each in answers], observed.log_value, rtol=0, atol=0.01)
    np.testing.assert_allclose([each["score"] for each in answers], expected.log_value, rtol=0, atol=0.01)
    assert max(each["error"] for each in answers) <= 1e-3
