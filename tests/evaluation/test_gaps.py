"""`kvae.evaluation.gaps` against the closed forms of linear Gaussian models, and quadrature."""

import numpy as np
import pytest
from oracles import LinearModel, Plane
from small_models import scaled_decoder, tiny

from kvae import evaluation
from kvae.evaluation import inference_gaps, variational_fits
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf

pytestmark = pytest.mark.usefixtures("without_xla")
SHIFT = 0.3  # of the encoder's mean from the best one


def kl_of_gaussians(mean, covariance, p_mean, p_covariance):
    precision, difference = np.linalg.inv(p_covariance), mean - p_mean
    logs = np.linalg.slogdet(p_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return (np.trace(precision @ covariance) + difference @ precision @ difference - len(mean) + logs) / 2


class Case:
    """A linear model whose posterior is correlated, and whose encoder is wrong by a known shift and the deviation."""

    def __init__(self, latent_dim=2, alike=False, **options):
        rng = np.random.default_rng(5)
        weights = rng.normal(size=(6, latent_dim))
        if alike:  # the latent dimensions do nearly the same, so that the posterior is far from factorized
            weights[:, 1] = weights[:, 0] + 0.2 * weights[:, 1]
        self.linear = LinearModel(weights, np.full(6, 0.5), 0.8, (3, 2, 1), **options)
        self.x = rng.uniform(size=(3, 6)).astype(np.float32)
        self.images = self.x.reshape(3, 3, 2, 1)
        self.posteriors = [self.linear.posterior(image) for image in self.x]


@pytest.mark.slow
def test_both_gaps_of_a_factorized_gaussian_have_closed_forms():
    case = Case(alike=True)
    covariance = case.posteriors[0].covariance
    gain = covariance @ case.linear.weights.T / case.linear.s**2  # the posterior mean is linear in x
    bias = -gain @ case.linear.bias + SHIFT
    case.linear.vae.encoder.set_weights([gain.T, bias, np.zeros((6, 2)), np.full(2, -3.0)])
    found = evaluation.gaps(case.linear.vae, case.images, draws=400)
    # The best factorized q has the mean and the diagonal of the precision: Bishop (2006), section 10.1.2.
    best = np.diag(1 / np.diag(np.linalg.inv(covariance)))
    approximation = kl_of_gaussians(np.zeros(2), best, np.zeros(2), covariance)
    encoders = kl_of_gaussians(np.full(2, SHIFT), np.exp(-3.0) * np.eye(2), np.zeros(2), covariance)
    assert approximation > 0.5  # else it would not be tested
    # 400 draws of a reconstruction term whose deviation is about a nat.
    np.testing.assert_allclose(found.approximation_gap.per_example, approximation, rtol=0, atol=0.15)
    np.testing.assert_allclose(found.amortization_gap.per_example, encoders - approximation, rtol=0, atol=0.15)
    assert found.approximation_gap.mean == pytest.approx(approximation, abs=0.08)
    assert found.gaps_log_evidence == "quadrature"
    total = found.best_elbo.per_example + found.approximation_gap.per_example
    np.testing.assert_allclose(total, [case.linear.log_evidence(image) for image in case.x], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("latent_dim", "method"), [(2, "quadrature"), (4, "defensive")])
def test_a_family_that_has_the_posterior_has_no_approximation_gap(latent_dim, method):
    case = Case(latent_dim, posterior="full_covariance", kl="sampled")
    found = evaluation.gaps(case.linear.vae, case.images, steps=200)
    # With the exact q and a sampled KL term every draw of the ELBO is log p(x), so it has no noise but the estimate's.
    np.testing.assert_allclose(found.approximation_gap.per_example, 0, atol=0.02 if method == "quadrature" else 0.2)
    assert found.amortization_gap.mean > 0.5
    assert found.gaps_log_evidence == method


@pytest.mark.slow
def test_the_sum_of_the_gaps_is_what_the_elbo_loses():
    vae = scaled_decoder(tiny(seed=1), (3, 2, 1), 3.0)
    x = vae.generate(4, seed=3).numpy()
    found = evaluation.gaps(vae, x, steps=60)
    lost = Plane(vae, x).log_evidence() - evaluation.elbo(vae, x, draws=2000).elbo.per_example
    # 64 draws with a deviation of about a nat.
    np.testing.assert_allclose(
        (found.approximation_gap.per_example + found.amortization_gap.per_example), lost, atol=0.6
    )
    assert (found.approximation_gap.per_example > -0.3).all()
    assert (found.amortization_gap.per_example > -0.3).all()
    batches = evaluation.gaps(vae, x[1:2], steps=60)  # another index, so other draws of the same gaps
    assert batches.best_elbo.mean == pytest.approx(found.best_elbo.per_example[1], abs=0.6)


@pytest.mark.parametrize("diverged", [0, 1])
def test_a_fit_that_diverged_does_not_replace_a_good_one(monkeypatch, diverged):
    """Of the two fits, from the encoder's q and from that of a mode."""
    case, fits = Case(), []

    def fit(*args, **options):
        found = variational_fits.fit(*args, **options)
        fits.append(found)
        if len(fits) - 1 == diverged:
            nowhere = tf.nest.map_structure(lambda part: part * np.nan, found.parameters)
            found = found._replace(parameters=nowhere, losses=found.losses * np.nan)
        return found

    monkeypatch.setattr(inference_gaps, "fit", fit)
    found = evaluation.gaps(case.linear.vae, case.images, steps=1, draws=2)
    assert np.isfinite(found.best_elbo.per_example).all()


@pytest.mark.parametrize("options", [{"draws": 0}, {"steps": 0}, {"seed": -1}])
def test_other_numbers_are_refused(options):
    case = Case()
    with pytest.raises(UserError, match=next(iter(options))):
        evaluation.gaps(case.linear.vae, case.images, **options)
