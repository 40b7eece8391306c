"""What `completion.complete` takes: masks and images in every form, unknown pixels, an earlier inference."""

import math

import numpy as np
import pytest
from completion_cases import ROUNDING, SHORT, TOP, assert_same_completion

from kvae import completion
from kvae.completion import baselines, masks
from kvae.evaluation import evidence
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf


def test_unknown_missing_pixels_have_no_score(unknown):
    assert all(np.isnan(part).all() for part in unknown.score)


def test_unknown_missing_pixels_have_the_same_means_and_draws(unknown, short):
    assert np.array_equal(unknown.means, short.means)
    assert np.array_equal(unknown.draws, short.draws)


def test_one_unknown_pixel_is_enough_for_no_score_of_that_image_alone(vae, x, short):
    images = x.copy()
    images[3, 3, 3, 0] = math.nan
    found = completion.complete(vae, images, TOP, samples=50, **SHORT).score.log_density
    assert np.isnan(found).tolist() == [False, False, False, True, False, False]
    known = np.arange(6) != 3
    np.testing.assert_allclose(found[known], short.score.log_density[known], **ROUNDING)


# --- masks


@pytest.mark.parametrize("name", ["top", "bottom", "left", "right", "random", "random:0.3"])
def test_mask_may_be_a_name(vae, x, name):
    found = completion.complete(vae, x, name, samples=5, draws=1, seed=2, **SHORT)
    assert np.array_equal(found.observed, np.broadcast_to(masks.named(name, (4, 4, 1), seed=2), x.shape))


MASKS = {
    "name": "top",
    "[H, W]": TOP[..., 0],
    "[H, W, C]": TOP,
    "[B, H, W]": np.broadcast_to(TOP[..., 0], (6, 4, 4)),
    "[B, H, W, C]": np.broadcast_to(TOP, (6, 4, 4, 1)),
    "zeros and ones": TOP.astype(float),
}


@pytest.mark.parametrize("observed", MASKS.values(), ids=MASKS)
def test_every_form_of_a_mask_gives_the_same(vae, x, short, observed):
    assert np.array_equal(completion.complete(vae, x, observed, samples=50, **SHORT).draws, short.draws)


def test_every_image_has_its_own_mask(vae, x, short):
    observed = np.stack([TOP] * 3 + [~TOP] * 3)
    found = completion.complete(vae, x, observed, samples=50, **SHORT)
    assert_same_completion(found.head(3), short.head(3))
    bottom = completion.complete(vae, x, ~TOP, samples=50, **SHORT)
    np.testing.assert_allclose(found.score.log_density[3:], bottom.score.log_density[3:], **ROUNDING)


# --- inferred=, first


def test_a_given_inference_is_returned_unchanged(vae, x, inferred):
    assert completion.complete(vae, x, TOP, inferred=inferred, samples=5).inferred is inferred


def test_an_earlier_inference_gives_the_completion_of_a_new_one(vae, x, short):
    before = completion.infer(vae, x, TOP, **SHORT)
    assert np.array_equal(completion.complete(vae, x, TOP, inferred=before, samples=50).draws, short.draws)


def test_head_keeps_the_first_images_of_every_result(short):
    found = short.head(2)
    assert np.array_equal(found.observed, short.observed[:2])
    assert np.array_equal(found.means, short.means[:2])
    assert np.array_equal(found.draws, short.draws[:, :2])
    assert np.array_equal(found.inferred.losses, short.inferred.losses[:2])
    rows = [*zip(found.score, short.score, strict=True), (found.draw_means[0], short.draw_means[0])]
    for some, all_ in ((found.inferred, short.inferred), (found.whole, short.whole)):
        rows += zip((*some.q, *some.start), (*all_.q, *all_.start), strict=True)
        rows += [(some.losses, all_.losses), (some.predicted_decrease, all_.predicted_decrease)]
    for part, whole in rows:
        assert len(whole) == 6
        assert np.array_equal(part, whole[:2])


def test_an_inference_of_other_images_is_refused(vae, x, inferred):
    with pytest.raises(UserError, match=r"inferred= of these images.*Received \(6, 2\)"):
        completion.complete(vae, x[:4], TOP, inferred=inferred)


# --- what comes in


@pytest.mark.parametrize("kind", [np.uint8, np.float64, bool])
def test_images_may_have_any_type(vae, x, short, kind):
    assert np.array_equal(completion.complete(vae, x.astype(kind), TOP, samples=50, **SHORT).draws, short.draws)


def test_images_may_be_a_tensor(vae, x, short):
    assert np.array_equal(completion.complete(vae, tf.constant(x), TOP, samples=50, **SHORT).draws, short.draws)


def test_grey_observed_pixels_under_a_bernoulli_likelihood_are_warned_of(vae, x):
    with pytest.warns(UserWarning, match="Grey pixels under a Bernoulli likelihood"):
        completion.infer(vae, 0.5 * x, TOP, **SHORT)


def test_three_samples_are_enough(vae, x, inferred):
    found = completion.complete(vae, x, TOP, inferred=inferred, samples=3)
    assert np.isfinite(found.score.log_density).all()


def test_every_density_reads_every_form_of_a_mask(vae, x):
    z = np.zeros((6, 2), np.float32)
    expected = vae.log_likelihood(x, z, observed=MASKS["[B, H, W, C]"])
    quadrature = evidence.log_evidence(vae, x, MASKS["[B, H, W, C]"]).log_value
    for name, mask in MASKS.items():
        if name != "name":
            np.testing.assert_array_equal(vae.log_likelihood(x, z, observed=mask), expected, err_msg=name)
            np.testing.assert_array_equal(evidence.log_evidence(vae, x, mask).log_value, quadrature, err_msg=name)
    with pytest.raises(UserError, match=r"Expected a mask of shape \(4, 4, 1\).*Received \(3, 4\)"):
        vae.log_likelihood(x, z, observed=np.ones((3, 4), bool))
    with pytest.raises(UserError, match="mask of booleans"):
        vae.log_likelihood(x, z, observed=np.full((4, 4), 0.3))


def test_scores_of_unknown_missing_pixels_are_no_numbers(vae, x):
    images = x.copy()
    images[3, 3, 3, 0] = math.nan
    wanted = [False, False, False, True, False, False]
    exact, whole = (completion.quadrature_score(vae, each, TOP) for each in (images, x))
    baseline = baselines.pixel_mean_baseline(vae, images, TOP, np.full((4, 4, 1), 0.5), 10)
    for found in (*exact, baseline, baselines.zero_filled_baseline(vae, images, TOP, samples=5)):
        assert np.isnan(found).tolist() == wanted
    np.testing.assert_array_equal(exact.log_value[:3], whole.log_value[:3])
