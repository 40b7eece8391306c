"""`kvae.evaluation.sample_quality` against sums in NumPy, constructed sets and the deviation over seeds."""

import math

import numpy as np
import pytest
from oracles import LinearModel
from small_models import SHAPE, built, scaled_decoder, tiny

from kvae import evaluation
from kvae.evaluation import Estimate, digit_features
from kvae.evaluation.samples import kernel_distance, precision_and_recall
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf

pytestmark = pytest.mark.usefixtures("without_xla")


def kernel(a, b):
    """Binkowski et al. (2018), section 4."""
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3


def unbiased(x, y, paired=False):
    """Gretton et al. (2012), equation 3, or with pairs equation 4, as sums over pairs."""
    n = len(x)
    apart = [(i, j) for i in range(n) for j in range(n) if i != j]
    across = apart if paired else [(i, j) for i in range(n) for j in range(n)]
    within = sum(kernel(each[i], each[j]) for each in (x, y) for i, j in apart) / len(apart)
    return within - 2 * sum(kernel(x[i], y[j]) for i, j in across) / len(across)


def closeness(x, y, k):
    """Kynkäänniemi et al. (2019), equations 1 and 2, and the share of x within the ball of another x; `[3]`."""

    def balls(points):
        return [
            (p, sorted(math.dist(p, q) for j, q in enumerate(points) if j != i)[k - 1]) for i, p in enumerate(points)
        ]

    def share(points, balls):
        return np.mean([any(math.dist(p, centre) <= radius for centre, radius in balls) for p in points])

    of_x = balls(x)
    alone = [any(math.dist(p, c) <= r for j, (c, r) in enumerate(of_x) if j != i) for i, p in enumerate(x)]
    return [share(y, of_x), share(x, balls(y)), np.mean(alone)]


# --- the kernel distance


@pytest.mark.parametrize("paired", [False, True])
def test_the_distance_is_the_sum_over_pairs(rng, paired):
    x, y = rng.normal(size=(9, 4)), 1.5 * rng.normal(size=(9, 4)) + 0.3
    assert kernel_distance(x, y, paired=paired).mean() == pytest.approx(unbiased(x, y, paired), rel=1e-10)


def test_the_pseudo_values_are_those_without_one_pair(rng):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)) + 0.3
    left_out = [unbiased(np.delete(x, i, 0), np.delete(y, i, 0), paired=True) for i in range(8)]
    expected = 8 * unbiased(x, y, paired=True) - 7 * np.array(left_out)
    np.testing.assert_allclose(kernel_distance(x, y, paired=True), expected, rtol=1e-9)


@pytest.fixture(scope="module")
def of_equal_distributions():
    """The distances of 300 pairs of sets of 12 vectors of the same distribution."""
    rng = np.random.default_rng(1)
    return [Estimate(kernel_distance(*rng.normal(0.5, 1.0, (2, 12, 2)))) for _ in range(300)]


def test_the_expectation_is_zero_for_equal_distributions(of_equal_distributions):
    means = np.array([each.mean for each in of_equal_distributions])
    # With k(x_i, x_i) the mean would be 2 (E k(x, x) - E k(x, x')) / 12 > 1, with a standard error of about 0.05.
    assert abs(means.mean()) < 4 * means.std() / math.sqrt(300)
    assert 0.3 < (means < 0).mean() < 0.9


def test_for_equal_distributions_the_standard_error_is_at_most_sqrt_2_too_large(of_equal_distributions):
    stated = math.sqrt(np.mean([each.standard_error**2 for each in of_equal_distributions]))
    deviation = np.std([each.mean for each in of_equal_distributions])
    assert 0.95 < stated / deviation < 1.6  # 300 heavy-tailed values; and pairs of so few have a further (N-1)/(N-2)


def test_the_standard_error_is_the_deviation_over_sets():
    rng = np.random.default_rng(2)
    each = [Estimate(kernel_distance(rng.normal(size=(60, 2)), rng.normal(0.7, 1.0, (60, 2)))) for _ in range(200)]
    stated = math.sqrt(np.mean([found.standard_error**2 for found in each]))
    assert stated / np.std([found.mean for found in each]) == pytest.approx(1.0, abs=0.15)  # 200 values: 0.05


@pytest.mark.slow
def test_pairs_that_depend_on_each_other_are_left_out():
    """x_i and y_i have the same condition, which is a third of their variance: equal distributions, not independent."""
    rng = np.random.default_rng(3)
    found = {True: [], False: []}
    for _ in range(200):
        x, y = rng.normal(size=(12, 1)) + rng.normal(0.0, 0.5, (2, 12, 2))
        for paired, values in found.items():
            values.append(kernel_distance(x, y, paired=paired).mean())
    errors = {paired: np.std(values) / math.sqrt(200) for paired, values in found.items()}
    assert abs(np.mean(found[True])) < 4 * errors[True]
    assert np.mean(found[False]) < -4 * errors[False]


# --- precision and recall


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shape", [(25, 1), (25, 3)])
def test_precision_and_recall_are_those_of_all_pairs(rng, shape, k):
    x, y = rng.normal(size=shape), 1.7 * rng.normal(size=shape) + 0.5
    np.testing.assert_allclose(precision_and_recall(x, y, k), closeness(x, y, k), rtol=1e-12)


def test_a_set_on_a_line_has_known_values():
    # The balls of x with k = 1 are [-1, 1], [0, 2], [1, 3] and [2, 18]; those of y [-2.5, -0.5], [-1.5, 0.5],
    # [-0.5, 10.5] and [5, 55]. Of x, all but 10 are in the ball of another one.
    x, y = (np.array(each)[:, None] for each in ([0.0, 1.0, 2.0, 10.0], [-1.5, -0.5, 5.0, 30.0]))
    assert precision_and_recall(x, y, 1).tolist() == [0.5, 1.0, 0.75]


def test_equal_sets_have_one_and_distant_sets_have_zero(rng):
    x = rng.normal(size=(30, 5))
    assert precision_and_recall(x, x[::-1])[:2].tolist() == [1.0, 1.0]
    assert precision_and_recall(x, x + 100)[:2].tolist() == [0.0, 0.0]
    copies = np.repeat(rng.normal(size=(6, 40)), 5, axis=0)  # whose balls have the radius 0
    assert precision_and_recall(copies, copies).tolist() == [1.0, 1.0, 1.0]


def test_a_part_of_the_set_has_precision_but_no_recall(rng):
    x = np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 50])
    precision, recall, _ = precision_and_recall(x, np.concatenate([x[:40] + 1e-6, x[:40] - 1e-6]))
    assert (precision, recall) == (1.0, 0.5)


@pytest.mark.slow
def test_the_ideal_is_the_expected_precision_of_the_same_distribution():
    rng = np.random.default_rng(4)
    pairs = []
    for _ in range(150):
        x, y = rng.normal(size=(2, 25, 3))
        pairs.append((precision_and_recall(x[1:], y, 1)[0], precision_and_recall(x, y, 1)[2]))
    difference = np.subtract(*np.array(pairs).T)
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(150)
    assert np.mean(pairs) < 0.9  # so that the ideal is not just 1


# --- the evaluation


@pytest.fixture(scope="module")
def binary():
    """A model of four binary pixels that depend visibly on z, and images of another one."""
    vae = scaled_decoder(tiny(seed=1), (2, 2, 1), 3.0)
    x = scaled_decoder(tiny(seed=2), (2, 2, 1), 3.0).generate(60, seed=5).numpy()
    return vae, x


def flat(images):
    return np.float64(images).reshape(len(images), -1)


def test_the_images_are_those_that_the_model_generates(binary):
    vae, x = binary
    found, y = evaluation.sample_quality(vae, x, seed=3), vae.generate(60, seed=3)
    assert found.kernel_distance_of_pixels_x1000.mean == pytest.approx(1000 * unbiased(flat(x), flat(y)), rel=1e-9)
    shares = [found.sample_precision, found.sample_recall, found.ideal_sample_precision]
    np.testing.assert_allclose(shares, closeness(flat(x), flat(y), 3), rtol=1e-12)
    assert found.sample_images == "draws of p(x|z)"
    of_blocks = [closeness(flat(x)[block::2], flat(y)[block::2], 3) for block in range(2)]  # 30 images each
    np.testing.assert_allclose(found[3:8:2], np.std(of_blocks, axis=0, ddof=1) / math.sqrt(2), rtol=1e-12)


def test_the_blocks_of_the_standard_errors_have_more_images_than_neighbours(binary):
    vae, _ = binary
    x = scaled_decoder(tiny(seed=2), (2, 2, 1), 3.0).generate(150, seed=5).numpy()
    found, y = evaluation.sample_quality(vae, x, neighbours=60, seed=3), vae.generate(150, seed=3)
    of_blocks = [closeness(flat(x)[block::2], flat(y)[block::2], 60) for block in range(2)]  # 75 images each, not 50
    np.testing.assert_allclose(found[3:8:2], np.std(of_blocks, axis=0, ddof=1) / math.sqrt(2), rtol=1e-12)


def test_grey_images_of_a_bernoulli_are_compared_with_means(binary, rng):
    vae, _ = binary
    x = rng.uniform(size=(30, 2, 2, 1)).astype(np.float32)
    with pytest.warns(match="Grey pixels"):
        found = evaluation.sample_quality(vae, x, seed=3)
    expected = unbiased(flat(x), flat(vae.generate_means(30, seed=3)))
    assert found.kernel_distance_of_pixels_x1000.mean == pytest.approx(1000 * expected, rel=1e-9)
    assert found.sample_images.startswith("means of p(x|z), because")


def test_a_conditional_model_has_the_conditions_of_the_images(rng):
    vae = scaled_decoder(tiny(seed=1, condition=3), (2, 2, 1), 3.0)
    x, labels = rng.integers(0, 2, (30, 2, 2, 1)).astype(np.float32), np.arange(30) % 3
    found = evaluation.sample_quality(vae, (x, labels), seed=3)
    expected = unbiased(flat(x), flat(vae.generate(30, seed=3, condition=labels)), paired=True)
    assert found.kernel_distance_of_pixels_x1000.mean == pytest.approx(1000 * expected, rel=1e-9)


def test_features_are_those_of_digits_and_none_for_images_of_another_shape(digits, binary):
    vae, x = built((28, 28, 1), latent_dim=2, hidden_units=(8,)), digits[:40]
    found, y = evaluation.sample_quality(vae, x), vae.generate(40, seed=0).numpy()
    of_x, of_y = (flat(digit_features.features(each)) for each in (x, y))
    distance = found.kernel_distance_of_features_x1000
    assert distance.mean == pytest.approx(1000 * unbiased(of_x, of_y), rel=1e-4)  # features are float32
    shares = [found.sample_precision, found.sample_recall, found.ideal_sample_precision]
    np.testing.assert_allclose(shares, closeness(of_x, of_y, 3), rtol=1e-12)
    assert "not Inception" in found.sample_features
    without = evaluation.sample_quality(*binary)
    assert without.kernel_distance_of_features_x1000 is None
    assert without.sample_features.startswith("none, because")


@pytest.mark.parametrize("values_at_once", [130, 1000, 10**7])
def test_it_depends_neither_on_the_chunks_nor_on_the_batches(binary, monkeypatch, values_at_once):
    vae, x = binary
    expected = evaluation.sample_quality(vae, x)
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", values_at_once)
    found = evaluation.sample_quality(vae, tf.data.Dataset.from_tensor_slices(x).batch(7))
    assert found[2:8] == pytest.approx(expected[2:8], rel=1e-12)
    of_pixels = (each.kernel_distance_of_pixels_x1000.per_example for each in (found, expected))
    np.testing.assert_allclose(*of_pixels, rtol=1e-9, atol=1e-9)


def test_another_order_of_the_images_changes_no_mean(binary, rng):
    vae, x = binary
    expected, found = (evaluation.sample_quality(vae, each) for each in (x, rng.permutation(x)))
    distances = [each.kernel_distance_of_pixels_x1000.mean for each in (found, expected)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-9)
    assert found[2:8:2] == pytest.approx(expected[2:8:2], rel=1e-12)


@pytest.mark.slow
def test_the_standard_errors_are_the_deviation_over_sets_and_seeds():
    """Of images of the model itself, whose precision and recall have the same expectation."""
    weights = np.random.default_rng(0).uniform(-0.06, 0.06, (4, 2))  # pixels stay in [0, 1]
    model = LinearModel(weights, np.full(4, 0.5), 0.02, (2, 2, 1))
    found = [
        evaluation.sample_quality(model.vae, model.vae.generate(400, seed=100 + seed), seed=seed) for seed in range(40)
    ]
    for place in (2, 4, 6):
        stated = math.sqrt(np.mean([each[place + 1] ** 2 for each in found]))  # 8 blocks, 40 times: known to 4 %
        deviation = np.std([each[place] for each in found], ddof=1)  # known to 11 %
        assert 0.7 < stated / deviation < 1.5, place
    distances = [each.kernel_distance_of_pixels_x1000 for each in found]
    deviation = np.std([each.mean for each in distances])
    assert 0.6 < deviation / math.sqrt(np.mean([each.standard_error**2 for each in distances])) < 1.3
    assert abs(np.mean([each.mean for each in distances])) < 4 * deviation / math.sqrt(40)


def test_it_is_an_evaluation_by_name(binary):
    result = evaluation.evaluate(*binary, only=["sample_quality"])
    names = ["kernel_distance_of_pixels_x1000", "sample_precision", "sample_recall", "ideal_sample_precision"]
    assert {f"{name}{end}" for name in names for end in ("", "_standard_error")} <= result.keys()
    assert "kernel_distance_of_features_x1000" not in result
    assert result["protocol"]["sample_neighbours"] == 3
    assert result["protocol"]["sample_images"] == "draws of p(x|z)"
    assert result["protocol"]["examples"] == 60
    assert all(isinstance(value, float | int) for name, value in result.items() if name != "protocol")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 0}, "neighbours"),
        ({"neighbours": 1.5}, "neighbours"),
        ({"neighbours": 30}, "Expected at least 62 images, for 30 neighbours. Received 60"),
        ({"seed": -1}, "seed"),
    ],
)
def test_other_options_are_refused(binary, options, message):
    with pytest.raises(UserError, match=message):
        evaluation.sample_quality(*binary, **options)


def test_a_model_of_other_images_has_no_line_for_features(call, tiny_run):
    status, out, err = call("evaluate", tiny_run, "--only", "sample_quality")
    assert status == 0, err
    assert "kernel distance of samples x 1,000, of pixels" in out
    assert "of features" not in out.partition("protocol")[0]
    assert f"images of {SHAPE[0]}" not in out
