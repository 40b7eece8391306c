"""The mixtures of q and the prior as proposals: their draws, their density and their parts that diverged."""

import math

import numpy as np
import pytest
from completion_cases import ROUNDING, same_q_for_all, untrained
from own_parts import Gumbel
from scipy import special, stats

from kvae.evaluation import mixture_proposals
from kvae.internal import batch_sizes
from kvae.model.posteriors import Gaussian
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream


@pytest.fixture(scope="module")
def vae():
    return untrained()


def proposed(vae, components, samples=40, seed=2):
    """All the draws of the mixture of these q and the prior, `[K, B, 2]`, and their log density, `[K, B]`."""
    place = np.arange(5, 5 + len(components[0].mean), dtype=np.int32)
    parts = [*mixture_proposals.draws(vae, components, place, samples, seed, Stream.SCORE)]
    return np.concatenate([some.z for some in parts]), np.concatenate([some.log_proposal for some in parts])


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("samples", [4, 17, 500])
def test_the_prior_gets_a_tenth_of_the_draws_and_the_components_share_the_rest_equally(components, samples):
    *shares, prior = mixture_proposals.draws_per_component(components, samples)
    assert len(shares) == components
    assert sum(shares) + prior == samples
    assert prior == max(1, round(samples / 10))
    assert 1 <= min(shares) <= max(shares) <= min(shares) + 1


def test_log_proposal_is_the_density_of_the_mixture(vae, rng):
    components = [Gaussian(*rng.normal(size=(2, 4, 2)).astype(np.float32)) for _ in range(2)]
    z, log_proposal = proposed(vae, components)
    members = [*((q.mean, np.exp(q.log_var / 2)) for q in components), (0, 1)]
    log_densities = [stats.norm.logpdf(z, mean, deviation).sum(axis=-1) for mean, deviation in members]
    expected = special.logsumexp(log_densities, axis=0, b=np.array([18, 18, 4])[:, None, None] / 40)
    np.testing.assert_allclose(log_proposal, expected, **ROUNDING)


def test_every_component_draws_its_share_and_the_prior_the_rest(vae):
    z, _ = proposed(vae, [same_q_for_all(4, 30.0, -4.0), same_q_for_all(4, -20.0, -4.0)])
    # Deviations of 0.14 about 30 and -20; no draw of kvae lies farther than 5.3 of them from its mean.
    owners = np.select([np.abs(z - 30) < 1, np.abs(z + 20) < 1, np.abs(z) < 6], [0, 1, 2], default=3)
    assert np.array_equal(owners, np.broadcast_to(np.repeat([0, 1, 2], [18, 18, 4])[:, None, None], z.shape))


@pytest.mark.parametrize("chunk", [1, 7, 20, 39])
def test_draws_of_a_mixture_do_not_depend_on_how_many_are_made_at_once(monkeypatch, vae, rng, chunk):
    components = [Gaussian(*rng.normal(size=(2, 4, 2)).astype(np.float32)) for _ in range(2)]
    whole = proposed(vae, components)
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 16 * 4 * chunk)
    for part, expected in zip(proposed(vae, components), whole, strict=True):
        np.testing.assert_allclose(part, expected, **ROUNDING)


DIVERGED = {  # mean and log variance of the first dimension
    "a mean that is NaN": (math.nan, 0.0),
    "an infinite mean": (-math.inf, 0.0),
    "a mean absurdly far off": (1e4, 0.0),
    "a variance that is NaN": (0.5, math.nan),
    "an infinite variance": (0.5, math.inf),
    "a variance beyond float32": (0.5, 100.0),
    "no variance": (0.5, -math.inf),
    "both": (math.nan, math.inf),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("mean", "log_var"), DIVERGED.values(), ids=DIVERGED)
def test_a_component_that_diverged_is_replaced_by_the_prior_for_that_image_alone(vae, rng, mean, log_var):
    first, second = (Gaussian(*rng.normal(size=(2, 4, 2)).astype(np.float32)) for _ in range(2))
    diverged = Gaussian(first.mean.copy(), first.log_var.copy())
    diverged.mean[2, 0], diverged.log_var[2, 0] = mean, log_var
    z, log_proposal = proposed(vae, [diverged, second])
    sound_z, sound_log_proposal = proposed(vae, [first, second])
    others = np.arange(4) != 2
    assert np.array_equal(z[:, others], sound_z[:, others])
    assert np.array_equal(log_proposal[:, others], sound_log_proposal[:, others])
    # Of that image, the first component's share, draws 0 to 17, are the prior's draws with these numbers; the density
    # is that of the second component, 18 of 40, and of the prior.
    own = vae.prior.sample(Keyed(2, Stream.SCORE, np.full(18, 5 + 2), np.arange(18)))
    assert np.array_equal(z[:18, 2], own)
    assert np.array_equal(z[18:, 2], sound_z[18:, 2])
    log_q = stats.norm.logpdf(z[:, 2], second.mean[2], np.exp(second.log_var[2] / 2)).sum(axis=-1)
    log_prior = stats.norm.logpdf(z[:, 2]).sum(axis=-1)
    expected = special.logsumexp([log_q, log_prior], axis=0, b=[[18 / 40], [22 / 40]])
    np.testing.assert_allclose(log_proposal[:, 2], expected, **ROUNDING)


def test_a_component_of_unknown_covariance_is_replaced_where_its_mean_is_not_finite(vae):
    location = np.array([[0.5, -1.0], [math.nan, 0.0], [1.0, 2.0]], np.float32)
    z, log_proposal = proposed(vae, [Gumbel(location, np.zeros((3, 2), np.float32))])
    log_prior = stats.norm.logpdf(z).sum(axis=-1)
    log_q = stats.gumbel_r.logpdf(z, location).sum(axis=-1)
    expected = special.logsumexp([log_q, log_prior], axis=0, b=np.array([36, 4])[:, None, None] / 40)
    np.testing.assert_allclose(log_proposal[:, [0, 2]], expected[:, [0, 2]], **ROUNDING)
    np.testing.assert_allclose(log_proposal[:, 1], log_prior[:, 1], **ROUNDING)
