"""A completion depends on its seed alone: not on batches, chunks, or the other images."""

import numpy as np
import pytest
from completion_cases import SHORT, TOP, assert_same_completion, assert_within_standard_errors, repeated

from kvae import completion
from kvae.completion import masked_images as images_
from kvae.internal import batch_sizes


def test_the_same_seed_gives_the_same_completions(vae, x, short):
    again = completion.complete(vae, x, TOP, samples=50, **SHORT)
    assert np.array_equal(again.draws, short.draws)
    assert np.array_equal(again.score.log_density, short.score.log_density)
    assert np.array_equal(again.inferred.losses, short.inferred.losses)


def test_another_seed_gives_other_draws_everywhere(vae, x, short):
    other = completion.complete(vae, x, TOP, samples=50, seed=1, **SHORT)
    assert not np.isin(other.score.log_density, short.score.log_density).any()
    assert not np.isin(other.inferred.losses, short.inferred.losses).any()
    assert not np.array_equal(other.draws, short.draws)


def test_completions_do_not_depend_on_how_many_images_there_are(vae, x, short):
    assert_same_completion(completion.complete(vae, x[:2], TOP, samples=50, **SHORT), short.head(2))


def test_completions_do_not_depend_on_the_other_images(vae, x, short):
    others = np.concatenate([x[:2], 1 - x[2:]])
    found = completion.complete(vae, others, TOP, samples=50, **SHORT)
    assert_same_completion(found.head(2), short.head(2))


def test_equal_images_get_different_draws_of_their_completion(vae, x):
    found = completion.complete(vae, repeated(x[:1], 3), TOP, samples=50, **SHORT).score.log_density
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize("batch", [1, 4])
def test_completions_do_not_depend_on_the_batch_size(monkeypatch, vae, x, short, batch):
    monkeypatch.setattr(images_, "BATCH", batch)
    assert_same_completion(completion.complete(vae, x, TOP, samples=50, **SHORT), short)


def test_starts_and_masks_of_their_own_do_not_depend_on_the_batch_size(monkeypatch, vae, x, rng):
    start, mask = rng.normal(size=(2, 6, 2)), rng.uniform(size=x.shape) < 0.5
    whole = completion.complete(vae, x, mask, samples=50, start=start, **SHORT)
    monkeypatch.setattr(images_, "BATCH", 4)
    assert_same_completion(completion.complete(vae, x, mask, samples=50, start=start, **SHORT), whole)


@pytest.mark.parametrize("chunk", [40, 100])
def test_completions_do_not_depend_on_the_chunk_size(monkeypatch, vae, x, short, chunk):
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 16 * chunk)
    assert_same_completion(completion.complete(vae, x, TOP, samples=50, **SHORT), short)


@pytest.fixture(scope="module")
def two_batches(vae, x):
    return completion.complete(vae, np.tile(x, (17, 1, 1, 1)), TOP, samples=50, **SHORT)


def test_more_images_than_a_batch_are_all_completed(two_batches):
    assert two_batches.draws.shape == (3, 102, 4, 4, 1)


def test_more_images_than_a_batch_leave_the_first_as_they_are(two_batches, short):
    assert_same_completion(two_batches.head(6), short)


def test_images_of_the_second_batch_have_the_scores_of_the_grid(two_batches, plane):
    expected = (plane.log_evidence() - plane.log_evidence(TOP.ravel()))[4:]
    found = two_batches.score
    assert_within_standard_errors(found.log_density[100:], expected, found.standard_error[100:])


def test_missing_pixels_change_neither_means_nor_draws(vae, x, short):
    found = completion.complete(vae, np.where(TOP, x, 1 - x), TOP, samples=50, **SHORT)
    assert np.array_equal(found.means, short.means)
    assert np.array_equal(found.draws, short.draws)
