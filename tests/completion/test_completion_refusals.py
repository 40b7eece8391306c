"""What completion refuses, each with one clear error."""

import math

import numpy as np
import pytest
from completion_cases import TOP

import kvae
from kvae import completion
from kvae.internal.errors import UserError

MEASURES = {
    "complete": completion.complete,
    "infer": completion.infer,
    "pixel_mean_baseline": lambda vae, x, observed: completion.pixel_mean_baseline(vae, x, observed, 0.5, 10),
    "zero_filled_baseline": completion.zero_filled_baseline,
    "quadrature_score": completion.quadrature_score,
}


every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


@every_measure
@pytest.mark.parametrize("shape", [(4, 5), (4, 4, 2), (5, 4, 4, 1)], ids=str)
def test_a_mask_of_another_shape_is_refused(vae, x, measure, shape):
    with pytest.raises(UserError, match=r"mask of shape \(4, 4, 1\) or \(6, 4, 4, 1\)"):
        measure(vae, x, np.eye(math.prod(shape), dtype=bool)[0].reshape(shape))


@every_measure
@pytest.mark.parametrize(("value", "what"), [(False, "nothing"), (True, "everything")])
def test_an_image_of_which_nothing_or_everything_is_observed_is_named(vae, x, measure, value, what):
    observed = np.broadcast_to(TOP, x.shape).copy()
    observed[3:5] = value
    with pytest.raises(UserError, match=f"In image 3, {what} is observed"):
        measure(vae, x, observed)


@every_measure
def test_an_unknown_mask_is_refused(vae, x, measure):
    with pytest.raises(UserError, match=r"Unknown mask 'tops'\. Did you mean 'top'"):
        measure(vae, x, "tops")


@every_measure
@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, 255, math.inf])
def test_invalid_observed_pixels_are_refused(vae, x, measure, value):
    images = x.astype(np.float32)
    images[2, 0, 1, 0] = value
    with pytest.raises(UserError, match=r"Expected pixels in \[0, 1\]"):
        measure(vae, images, TOP)


@every_measure
@pytest.mark.parametrize("shape", [(4, 4, 1), (2, 4, 5), (2, 16), (2, 4, 5, 1), (0, 4, 4, 1)], ids=str)
def test_images_of_another_shape_are_refused(vae, measure, shape):
    with pytest.raises(UserError, match=r"Expected (x of shape|images with a batch axis|at least one image).*Received"):
        measure(vae, np.zeros(shape), TOP)


@every_measure
def test_a_model_that_was_not_built_is_refused(measure):
    with pytest.raises(UserError, match="build"):
        measure(kvae.VAE(2), np.zeros((1, 4, 4, 1)), TOP)


STARTS = {
    "another latent size": (np.zeros(3), np.zeros(3)),
    "another number of images": (np.zeros((5, 2)), np.zeros((5, 2))),
    "a number": (0.0, 0.0),
    "words": ("a", "b"),
    "no pair": (np.zeros(2),),
    "log_sigma of another size": (np.zeros(2), np.zeros(1)),
    "not finite": (np.zeros(2), np.array([0.0, math.nan])),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_start_of_another_shape_is_refused(vae, x, start):
    with pytest.raises(UserError, match=r"start=\(mean, log_sigma\), finite, each of shape \(2,\) or \(6, 2\)"):
        completion.infer(vae, x, TOP, start=start)


@pytest.mark.parametrize("name", ["steps", "gradient_samples"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_steps_and_their_draws_must_be_whole_numbers_of_at_least_one(vae, x, name, value):
    with pytest.raises(UserError, match=f"{name} to be a whole number of at least 1. Received {value!r}"):
        completion.infer(vae, x, TOP, **{name: value})


@pytest.mark.parametrize("value", [0, 2, -3, 10.5])
def test_samples_must_be_a_whole_number_of_at_least_three(vae, x, inferred, value):
    with pytest.raises(UserError, match=f"samples to be a whole number of at least 3. Received {value!r}"):
        completion.complete(vae, x, TOP, inferred=inferred, samples=value)


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_draws_must_be_a_whole_number_of_at_least_one(vae, x, inferred, value):
    with pytest.raises(UserError, match=f"draws to be a whole number of at least 1. Received {value!r}"):
        completion.complete(vae, x, TOP, inferred=inferred, draws=value)


def test_an_unknown_optimizer_is_refused_with_the_nearest(vae, x):
    with pytest.raises(UserError, match=r"Unknown optimizer 'adamm'\. Did you mean 'adam'"):
        completion.infer(vae, x, TOP, optimizer="adamm")


@pytest.mark.parametrize("value", [-1, 255, math.inf])
def test_invalid_known_missing_pixels_are_refused(vae, x, value):
    images = np.where(TOP, x, value).astype(np.float32)
    message = r"Expected pixels in \[0, 1\].*NaN may stand for missing pixels that are not known, not for observed ones"
    with pytest.raises(UserError, match=message):
        completion.complete(vae, images, TOP)


@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_an_invalid_learning_rate_is_refused(vae, x, value):
    with pytest.raises(UserError, match=r"Expected a positive learning_rate\. Received"):
        completion.infer(vae, x, TOP, learning_rate=value)


@pytest.mark.parametrize("seed", [-1, 0.5, 2**31])
def test_an_invalid_seed_is_refused(vae, x, seed):
    with pytest.raises(UserError, match="Expected seed to be a whole number"):
        completion.complete(vae, x, TOP, seed=seed)


def test_inferred_and_options_of_infer_are_refused_together(vae, x, inferred):
    with pytest.raises(UserError, match=r"either inferred= or options of infer\. Received both: steps, optimizer"):
        completion.complete(vae, x, TOP, inferred=inferred, steps=5, optimizer="adam")
