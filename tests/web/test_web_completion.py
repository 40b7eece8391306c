"""Completion in the page: the posterior over the latent plane against quadrature in NumPy and in kvae."""

import json
from pathlib import Path

import numpy as np
import pytest
from node import NODE, javascript
from small_models import built
from web_pages import MODELS, described, lively, write_page

from kvae import completion
from kvae.evaluation import evidence
from kvae.export import web_network
from kvae.model import likelihoods, networks, sampling
from kvae.model.vae import VAE
from kvae.runtime.keras import KerasDecoder, load_model
from kvae.runtime.web import WebDecoder

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed")
ROOT = Path(__file__).parents[2]


def completed(folder, page, images, shown, labels=None):
    """What the page computes for images `[B, P]`, their masks, and their classes if there are any: its answers."""
    code = f"""
    const answers = [];
    const images = {json.dumps(images.tolist())}, masks = {json.dumps(shown.astype(int).tolist())};
    const labels = {json.dumps(labels or [])};
    for (let b = 0; b < images.length; b++) {{
      let found;
      const tell = (part) => {{ if ("log" in part) found = part; }};
      const question = {{ x: Float32Array.from(images[b]), shown: masks[b], seed: b, label: labels[b] }};
      const last = await complete(question, tell);
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


@pytest.mark.parametrize(
    "name", ["bernoulli", *(pytest.param(name, marks=pytest.mark.slow) for name in LIKELIHOODS if name != "bernoulli")]
)
def test_it_agrees_with_quadrature_in_numpy(name, tmp_path):
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


@pytest.mark.parametrize(("variance", "tells"), [(1e-4, False), (1e-5, True)])
def test_a_narrow_posterior_is_integrated_or_its_error_is_told(variance, tells, tmp_path):
    """Its standard deviations are 0.004 and 0.001; the finest grid has a distance of 0.0017."""
    likelihood = likelihoods.Gaussian(variance)
    vae = lively(built((16, 16, 1), latent_dim=2, hidden_units=(64,), likelihood=likelihood))
    page, rng = write_page(vae, tmp_path), np.random.default_rng(0)
    decoder = WebDecoder(page)
    mean = decoder.decode(np.array([[0.3, -0.7]], np.float32)).means.reshape(1, 256)
    image = np.clip(mean + np.sqrt(variance) * rng.normal(size=mean.shape), 0, 1)
    answer = completed(tmp_path, page, image, np.ones((1, 256), bool))[0]
    around = np.linspace(-8, 8, 201)  # standard deviations of the posterior
    z = np.stack(np.meshgrid(around, around), axis=-1).reshape(-1, 2) * answer["deviations"] + answer["centre"]
    decoded = decoder.decode(z.astype(np.float32))
    log_joint = vae.likelihood.log_prob_of_pixels(image, decoded.logits.reshape(-1, 256)).numpy().astype(float).sum(1)
    log_joint += -0.5 * (z**2).sum(1) - np.log(2 * np.pi)
    cell = np.prod(answer["deviations"]) * (around[1] - around[0]) ** 2
    expected = np.logaddexp.reduce(log_joint) + np.log(cell)
    assert abs(answer["log"] - expected) <= max(answer["error"], 2e-3)
    assert (answer["error"] > 0.01) == tells


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
    observed = evidence.log_evidence(vae, x, shown)
    np.testing.assert_allclose([each["log"] for each in answers], observed.log_value, rtol=0, atol=0.01)
    np.testing.assert_allclose([each["score"] for each in answers], expected.log_value, rtol=0, atol=0.01)
    assert max(each["error"] for each in answers) <= 4e-3  # at which the page stops to refine its grid


@pytest.mark.parametrize(
    "name", ["classes", "flow", *(pytest.param(name, marks=pytest.mark.slow) for name in ("classes_conv", "mixture"))]
)
def test_it_agrees_with_draws_from_the_prior_given_the_class(name, tmp_path):
    vae, shown = MODELS[name](), np.arange(30) % 3 > 0
    labels = None if vae.condition_shape is None else [2, 0, 2, 1]
    page, decoder = write_page(vae, tmp_path), KerasDecoder(vae)
    images = vae.generate(4, seed=1, condition=labels).numpy().reshape(4, 30)
    z = sampling.draw_z(vae, 10_000, 0, None if labels is None else np.zeros(10_000, int)).numpy()
    answers = completed(tmp_path, page, images, np.tile(shown, (4, 1)), labels)
    for image, label, answer in zip(images, labels or [None] * 4, answers, strict=True):
        logits = decoder.decode(z, label).logits.reshape(len(z), 30).astype(float)
        p = np.exp(((image * logits - np.logaddexp(0, logits)) * shown).sum(1))
        error = np.hypot(p.std() / p.mean() / np.sqrt(len(p)), answer["error"])
        assert error < 0.1
        assert answer["log"] == pytest.approx(np.log(p.mean()), abs=4 * error)  # four standard errors


def test_the_class_is_given_to_the_encoder(tmp_path):
    vae, labels = MODELS["classes_conv"](), np.array([2, 0, 1])
    vae.encoder.set_weights([value + 0.03 for value in vae.encoder.get_weights()])
    x = vae.generate(3, seed=1, condition=labels).numpy()
    pixels = json.dumps(x.reshape(3, -1).tolist())
    code = f"console.log(JSON.stringify({pixels}.map((x, b) => encode(x, [2, 0, 1][b]))))"
    result = javascript(tmp_path, write_page(vae, tmp_path), code)
    mean, _ = vae.encode(x, labels)
    np.testing.assert_allclose([each["mean"] for each in result], mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow", "hierarchical"])
def test_the_log_density_of_a_prior_is_that_of_the_model(name, tmp_path):
    vae = MODELS[name]()
    z = 3 * np.random.default_rng(0).normal(size=(20, vae.latent_dim)).astype(np.float32)
    code = f"console.log(JSON.stringify({json.dumps(z.tolist())}.map((each) => logPrior(model, each))))"
    found = javascript(tmp_path, write_page(vae, tmp_path), code)
    np.testing.assert_allclose(found, vae.prior.log_prob(z), rtol=1e-4, atol=1e-4)  # the model computes in float32


@pytest.mark.parametrize("encoder", ["mlp", "log_sigma", "conv"])
def test_the_encoder_of_a_page_is_that_of_the_model(encoder, tmp_path):
    make = {
        "mlp": lambda: built((7, 5, 1), latent_dim=3, hidden_units=(9, 8)),
        "log_sigma": lambda: built((7, 5, 1), encoder=networks.MLPEncoder(3, (9,), scale="log_sigma")),
        "conv": lambda: built((7, 5, 1), encoder=networks.ConvEncoder(3, filters=(4, 3), dense_units=6)),
    }
    vae, rng = make[encoder](), np.random.default_rng(0)
    vae.encoder.set_weights([value + 0.3 * rng.normal(size=value.shape) for value in vae.encoder.get_weights()])
    x = vae.generate(5, seed=0).numpy()
    code = f"console.log(JSON.stringify({json.dumps(x.reshape(5, -1).tolist())}.map(encode)))"
    result = javascript(tmp_path, write_page(vae, tmp_path), code)
    mean, log_var = vae.encode(x)
    # float32 sums of up to 35 products
    np.testing.assert_allclose([each["mean"] for each in result], mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose([each["logVariance"] for each in result], log_var, rtol=0, atol=2e-5)


def test_an_encoder_with_other_heads_or_of_another_kind_is_left_out(tmp_path):
    vae = built((6, 5, 1), latent_dim=3, hidden_units=(8,), activation="gelu")
    assert web_network.encoder_layers(vae.encoder) is None
    assert "encoder" in described(write_page(built((6, 5, 1), latent_dim=3, hidden_units=(8,)), tmp_path))


@pytest.mark.slow
def test_importance_sampling_agrees_with_a_sum_over_a_grid_of_three_dimensions(tmp_path):
    vae, rng = MODELS["flat"](), np.random.default_rng(0)
    page = write_page(vae, tmp_path)
    images = vae.generate(3, seed=1).numpy().reshape(3, 30)
    shown = rng.random((3, 30)) < np.array([[0.5], [0.1], [0.9]])
    side = np.linspace(-6, 6, 49)
    z = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    decoded = WebDecoder(page).decode(z)
    logits, means = (part.reshape(len(z), 30).astype(float) for part in (decoded.logits, decoded.means))
    log_prior = -0.5 * (z**2).sum(1) - 1.5 * np.log(2 * np.pi) + 3 * np.log(side[1] - side[0])
    for b, answer in enumerate(completed(tmp_path, page, images, shown)):
        pixels = images[b] * logits - np.logaddexp(0, logits)
        log_joint = log_prior + (pixels * shown[b]).sum(1)
        log_observed = np.logaddexp.reduce(log_joint)
        log_whole = np.logaddexp.reduce(log_prior + pixels.sum(1))
        assert answer["effective"] > 100
        assert answer["error"] < 0.1
        # Four standard errors; a fault of the weights is many times as large.
        assert answer["log"] == pytest.approx(log_observed, abs=4 * answer["error"])
        assert answer["score"] == pytest.approx(log_whole - log_observed, abs=4 * answer["scoreError"])
        mean = np.where(shown[b], images[b], np.exp(log_joint - log_observed) @ means)
        assert np.abs(np.array(answer["mean"]) - 255 * mean).max() < 4 * 0.5 / np.sqrt(answer["effective"]) * 255
