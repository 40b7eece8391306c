"""Every binarization, its draws in training, and the fixed draws of evaluation data."""

import math

import numpy as np
import pytest
from indexed_images import TEST, TRAIN, by_index, gathered, indices, pictures

from kvae.data.binarization import KINDS, binarize
from kvae.internal.errors import UserError

# --- binarization


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.9])
def test_threshold_is_where_grey_exceeds_it(threshold):
    every_grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = binarize("threshold", every_grey, [0], seed=0, threshold=threshold).numpy()
    np.testing.assert_array_equal(x, every_grey / 255 > threshold)


def test_threshold_one_half_parts_127_and_128():
    x = binarize("threshold", np.array([127, 128], np.uint8).reshape(1, 1, 2, 1), [0], seed=0)
    assert x.numpy().ravel().tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_binarization_gives_float32_images(load, kind):
    train = load(binarize=kind).train
    assert train.element_spec.dtype.name == "float32"
    assert next(iter(train)).shape == (20, 8, 8, 1)


@pytest.mark.parametrize("kind", ["threshold", "stochastic", "fixed"])
def test_binarized_pixels_are_zero_or_one(load, kind):
    assert set(np.unique(gathered(load(binarize=kind).train))) == {0, 1}


def test_no_binarization_gives_grey_in_255ths(load):
    np.testing.assert_array_equal(
        by_index(load(binarize="none").train)[..., 0], pictures(TRAIN).astype(np.float32) / np.float32(255)
    )


@pytest.mark.parametrize("grey", [13, 128, 230])
def test_stochastic_mean_is_the_grey_value(grey):
    images, epochs, p = np.full((20, 16, 16, 1), grey, np.uint8), 10, grey / 255
    draws = np.stack([binarize("stochastic", images, np.arange(20), seed=0, epoch=epoch) for epoch in range(epochs)])
    # Five standard errors of a mean of independent Bernoulli draws: one seed in two million would lie outside.
    assert abs(draws.mean() - p) < 5 * math.sqrt(p * (1 - p) / draws.size)
    # The same of every pixel's own mean, with 6 errors since there are 256 of them, skewed at few draws.
    assert np.abs(draws.mean(axis=(0, 1)) - p).max() < 6 * math.sqrt(p * (1 - p) / (20 * epochs))


@pytest.mark.parametrize("kind", KINDS)
def test_only_stochastic_draws_differ_between_epochs(load, kind):
    data = load(binarize=kind)
    assert np.array_equal(by_index(data.train), by_index(data.train)) == (kind != "stochastic")


def test_stochastic_draws_are_the_same_for_the_same_seed(load):
    np.testing.assert_array_equal(
        by_index(load(binarize="stochastic", seed=3).train), by_index(load(binarize="stochastic", seed=3).train)
    )


@pytest.mark.parametrize("kind", ["stochastic", "fixed"])
def test_training_draws_differ_between_seeds(load, kind):
    assert not np.array_equal(by_index(load(binarize=kind, seed=3).train), by_index(load(binarize=kind, seed=4).train))


@pytest.mark.parametrize(("grey", "noise"), [(0, 0.0), (255, 1 - 2.0**-24)])
def test_black_and_white_survive_the_extreme_draws(monkeypatch, grey, noise):
    monkeypatch.setattr("kvae.noise.keyed.uniform", lambda shape, *key: np.full((1, *shape), noise, np.float32))
    assert binarize("stochastic", np.full((1, 1, 1, 1), grey, np.uint8), [0], seed=0).numpy().item() == grey / 255


def test_equal_images_get_draws_of_their_own():
    x = binarize("stochastic", np.full((2, 16, 16, 1), 128, np.uint8), [0, 1], seed=0).numpy()
    assert not np.array_equal(x[0], x[1])


def test_a_slice_keeps_the_draws_of_the_whole(load):
    whole, part = load(binarize="stochastic"), load(binarize="stochastic", train="train[15:]")
    np.testing.assert_array_equal(by_index(part.train), by_index(whole.train)[15:])


# --- evaluation data


@pytest.mark.parametrize("kind", ["stochastic", "fixed"])
@pytest.mark.parametrize("other", [{"seed": 7}, {"batch_size": 7}, {"drop_remainder": True}])
def test_evaluation_data_do_not_depend_on(load, kind, other):
    np.testing.assert_array_equal(
        gathered(load(binarize=kind, **other).test), gathered(load(binarize=kind, seed=0).test)
    )


@pytest.mark.parametrize("kind", ["stochastic", "fixed"])
def test_evaluation_data_are_drawn_from_evaluation_seed(load, kind):
    assert not np.array_equal(
        gathered(load(binarize=kind, evaluation_seed=1).test), gathered(load(binarize=kind, evaluation_seed=2).test)
    )


def test_evaluation_data_are_the_same_at_every_iteration(load):
    data = load(binarize="stochastic")
    first = gathered(data.test)
    gathered(data.train)
    np.testing.assert_array_equal(gathered(data.test), first)


def test_evaluation_data_come_in_the_order_of_the_source(load):
    data = load(train="train[:40]", validation="train[40:]")
    assert indices(gathered(data.test)) == list(range(TEST))
    assert indices(gathered(data.validation)) == list(range(40, TRAIN))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_bad_threshold_is_refused(load, threshold):
    with pytest.raises(UserError, match=r"threshold in \[0, 1\)"):
        load(threshold=threshold)


def test_an_unknown_binarization_names_the_nearest(load):
    with pytest.raises(UserError, match="Did you mean 'stochastic'"):
        load(binarize="stochastik")
