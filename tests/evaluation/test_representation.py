"""`kvae.evaluation.representation` against SciPy's optimizer, NumPy's brute force and data whose answer is known."""

import json

import numpy as np
import pytest
from scipy import optimize, special
from small_models import tiny_built

import kvae
from kvae import evaluation
from kvae.evaluation import probes
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture
def vae():
    return tiny_built(likelihood="gaussian")


@pytest.fixture
def x(rng):
    return rng.uniform(size=(60, 6, 5, 1)).astype(np.float32)


def by_hand(features, y, k):
    """Whether each image is found by its neighbours in the other half: distances, sorting and votes in NumPy."""
    correct = np.zeros(len(y))
    for i in range(len(y)):
        others = np.arange(1 - i % 2, len(y), 2)
        distances = np.square(np.float64(features[others]) - features[i]).sum(axis=1)
        nearest = y[others[np.argsort(distances, kind="stable")[:k]]]
        votes = np.bincount(nearest)
        tied = np.flatnonzero(votes == votes.max())
        correct[i] = next(label for label in nearest if label in tied) == y[i]
    return correct


@pytest.mark.parametrize("k", [1, 2, 5, 30])
def test_neighbours_are_those_of_brute_force(vae, x, rng, k):
    y = rng.integers(0, 4, len(x))
    found = evaluation.representation(vae, (x, y), neighbours=k)
    codes = evaluation.encode(vae, x).mean
    np.testing.assert_array_equal(found.nearest_neighbours.per_example, by_hand(codes, y, k))
    pixels = x.reshape(len(x), -1)
    np.testing.assert_array_equal(found.nearest_neighbours_of_pixels.per_example, by_hand(pixels, y, k))
    assert found.largest_class == np.bincount(y).max() / len(y)


@pytest.mark.parametrize(
    ("labels", "winner"),
    [([0, 1, 1, 0], 0), ([1, 0, 0, 1], 1), ([2, 1, 1, 0], 1), ([0, 1, 2, 2], 2)],
    ids=["the nearest of a tie", "the nearest of the other tie", "a majority", "a majority that is farther"],
)
def test_a_tie_is_decided_by_the_nearest_neighbour(labels, winner):
    known = tf.constant([[1.0], [2.0], [3.0], [4.0]], tf.float64)
    assert probes._by_neighbours(known, tf.constant([[0.0]], tf.float64), np.array(labels), 3, 4) == winner


def loss_of(flat, x, y, classes):
    """The penalized cross entropy of the docstring and its gradient, as SciPy wants them."""
    weights = flat.reshape(x.shape[1], classes)
    log_p = special.log_softmax(x @ weights, axis=1)
    penalized = np.vstack([weights[:-1], np.zeros(classes)])
    gradient = x.T @ (np.exp(log_p) - np.eye(classes)[y]) + penalized
    return -log_p[np.arange(len(y)), y].sum() + np.square(penalized).sum() / 2, gradient.ravel()


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["overlapping", "separable"])
def test_the_probe_is_the_minimum_of_scipy(rng, scale):
    y = rng.integers(0, 3, 80)
    features = scale * (np.eye(3, 4)[y] + rng.normal(size=(80, 4)) * (0.7 if scale == 1 else 0.05))
    x = np.hstack([features, np.ones((80, 1))])
    best = optimize.minimize(
        loss_of, np.zeros(15), (x, y, 3), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15}
    )
    found = probes.fit_probe(tf.constant(x), tf.one_hot(y, 3, dtype=tf.float64), 1e-8).numpy()
    value, gradient = loss_of(found.ravel(), x, y, 3)
    assert np.abs(gradient).max() < 80 * 1e-8
    assert value == pytest.approx(best.fun, rel=1e-6)
    # A constant that is added to all biases changes nothing, so they are compared without their mean.
    expected = best.x.reshape(5, 3)
    for part in (found, expected):
        part[-1] -= part[-1].mean()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_probe_of_an_evaluation_learns_from_the_other_half(vae, x, rng):
    y = rng.integers(0, 3, len(x))
    found = evaluation.representation(vae, (x, y)).linear_probe.per_example
    codes = np.float64(evaluation.encode(vae, x).mean)
    for half in (0, 1):
        known = np.hstack([codes[1 - half :: 2], np.ones((30, 1))])
        best = optimize.minimize(loss_of, np.zeros(9), (known, y[1 - half :: 2], 3), jac=True).x.reshape(3, 3)
        scores = np.hstack([codes[half::2], np.ones((30, 1))]) @ best
        clear = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0] > 1e-3
        assert clear.sum() > 25
        np.testing.assert_array_equal(found[half::2][clear], (scores.argmax(axis=1) == y[half::2])[clear])


def test_classes_that_are_apart_are_always_found_and_random_labels_are_not(vae, rng):
    y = rng.permutation(np.repeat([3, 7, 40], 100))  # labels that are no 0, 1, 2, ...
    grey = np.select([y == 3, y == 7], [0.0, 0.5], 1.0)
    x = np.clip(grey[:, None, None, None] + rng.normal(0, 0.02, (300, 6, 5, 1)), 0, 1)
    found = evaluation.representation(vae, (x, y))
    assert found.nearest_neighbours.mean == found.nearest_neighbours_of_pixels.mean == 1
    assert found.linear_probe_of_pixels.mean == 1
    random = evaluation.representation(vae, (x, rng.permutation(y)))
    for estimate in random[:4]:
        assert abs(estimate.mean - 1 / 3) < 4 * np.sqrt(2 / 9 / 300)
    assert found.largest_class == pytest.approx(1 / 3)


def test_the_result_depends_neither_on_batches_nor_on_chunks(vae, x, rng, monkeypatch):
    y = rng.integers(0, 3, (len(x), 1))  # as some datasets have their labels
    expected = evaluation.representation(vae, (x, y[:, 0]))
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 7 * 30)
    found = evaluation.representation(vae, tf.data.Dataset.from_tensor_slices((x, y)).batch(7))
    for actual, wanted in zip(found[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(actual.per_example, wanted.per_example)


def test_it_is_an_evaluation_by_name(vae, x):
    result = evaluation.evaluate(vae, (x, np.arange(60) % 2), only=["representation"])
    assert json.loads(json.dumps(result)) == result
    assert result["protocol"]["neighbours"] == 5
    share = result["linear_probe"]
    assert result["linear_probe_standard_error"] == pytest.approx(np.sqrt(share * (1 - share) / 59))
    assert result["largest_class"] == 0.5


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (None, {}, r"Expected data \(x, label\)"),
        (np.zeros(60, int), {}, "at least two classes. All images have the label 0"),
        (np.linspace(0, 1, 60), {}, "a whole number for each image"),
        (np.eye(60, dtype=int), {}, "a whole number for each image"),
        (np.arange(60), {"neighbours": 31}, "at least 62 images"),
        (np.arange(60), {"neighbours": 0}, "neighbours"),
    ],
)
def test_what_cannot_be_classified_is_refused_in_words(vae, x, y, options, message):
    with pytest.raises(UserError, match=message):
        evaluation.representation(vae, x if y is None else (x, y), **options)


def test_a_conditional_model_is_refused(x):
    vae = tiny_built(condition=3)
    with pytest.raises(UserError, match="Expected a model without a condition"):
        evaluation.representation(vae, (x, np.arange(60) % 3))


def test_the_data_of_a_run_have_their_labels():
    data = kvae.data.load("mnist5k", test="test[:25]", batch_size=10)
    images, labels = map(np.concatenate, zip(*data.labelled_test().as_numpy_iterator(), strict=True))
    expected, numbers = data.examples("test")
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, numbers)
    np.testing.assert_array_equal(images, np.concatenate(list(data.test.as_numpy_iterator())))
