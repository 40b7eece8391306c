"""Images that a model generates, decodes and reconstructs."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from small_models import SHAPE

import kvae
from kvae.internal.errors import UserError


@pytest.mark.parametrize("batch_size", [1, 7, 20, 50])
def test_batches_of_generated_images_are_those_of_generate(batch_size, vae):
    batches = list(kvae.sampling.image_batches(vae, 20, seed=4, batch_size=batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(tf.concat(batches, axis=0), vae.generate(20, seed=4))


def test_batches_of_generated_images_are_drawn_when_asked_for(vae, monkeypatch):
    drawn = []
    monkeypatch.setattr(vae, "sample", lambda seeds, _: drawn.append(len(seeds)) or SimpleNamespace(images=None))
    batches = kvae.sampling.image_batches(vae, 10**6, seed=0, batch_size=4)
    next(batches)
    next(batches)
    assert drawn == [4, 4]


@pytest.mark.parametrize(("n", "batch_size"), [(0, 5), (5, 0), (5, 2.5)])
def test_invalid_batches_are_refused_at_once(n, batch_size, vae):
    with pytest.raises(UserError, match=r"whole number|at least 1"):
        kvae.sampling.image_batches(vae, n, seed=0, batch_size=batch_size)


def test_decode_takes_any_leading_axes(vae, rng):
    z = rng.standard_normal((3, 4, 2)).astype(np.float32)
    logits = vae.decode(z)
    assert logits.shape == (3, 4, *SHAPE)
    np.testing.assert_allclose(logits[1], vae.decode(z[1]), atol=1e-6)  # a smaller matrix product


def test_image_i_is_the_same_for_every_n(vae, monkeypatch):
    few, many = vae.generate(3, seed=5), vae.generate(40, seed=5)
    np.testing.assert_array_equal(few, many[:3])
    whole = vae.generate_means(40, seed=5)
    monkeypatch.setattr(
        "kvae.internal.batch_sizes.VALUES_AT_ONCE", 7 * SHAPE[0] * SHAPE[1] * SHAPE[2]
    )  # seven images at a time
    np.testing.assert_allclose(vae.generate_means(40, seed=5), whole, atol=1e-6)  # a smaller matrix product


def test_sample_prior_gives_the_z_behind_generate_means(vae):
    z = kvae.sampling.draw_z(vae, 7, seed=5)
    means = 1 / (1 + np.exp(-np.asarray(vae.decode(z), np.float64)))
    np.testing.assert_allclose(vae.generate_means(7, seed=5), means, atol=1e-6)  # float32 in (0, 1)


def test_sample_prior_gives_independent_standard_normal_numbers(vae):
    z = kvae.sampling.draw_z(vae, 4000, seed=1).numpy()
    assert z.shape == (4000, 2)
    for dimension in z.T:
        # One seed in 1000 would fail; this one is fixed.
        assert scipy.stats.kstest(dimension, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z.T)[0, 1]) < 5 / np.sqrt(4000)  # five standard errors


def test_sample_prior_gives_the_same_z_i_for_every_n(vae):
    np.testing.assert_array_equal(kvae.sampling.draw_z(vae, 3, seed=5), kvae.sampling.draw_z(vae, 9, seed=5)[:3])
    assert not np.array_equal(kvae.sampling.draw_z(vae, 3, seed=5), kvae.sampling.draw_z(vae, 3, seed=6))


def test_draws_follow_the_means_at_the_same_z(vae):
    means, draws = vae.generate_means(4000, seed=1).numpy(), vae.generate(4000, seed=1).numpy()
    assert set(np.unique(draws)) == {0.0, 1.0}
    error = np.sqrt((means * (1 - means)).sum(0)) / 4000
    # 30 pixels within 5 standard errors: false once in 60,000 seeds.
    assert (np.abs(draws.mean(0) - means.mean(0)) < 5 * error).all()


def test_another_seed_gives_other_images(vae):
    assert not np.array_equal(vae.generate_means(2, seed=0), vae.generate_means(2, seed=1))
    assert not np.array_equal(vae.generate_means(2), vae.generate_means(2))


def test_reconstruct_draws_from_the_posterior_only_with_a_seed(vae, x):
    np.testing.assert_array_equal(vae.reconstruct(x), vae.reconstruct(x))
    assert not np.array_equal(vae.reconstruct(x, seed=0), vae.reconstruct(x))
    np.testing.assert_array_equal(vae.reconstruct(x, seed=0), vae.reconstruct(x, seed=0))
