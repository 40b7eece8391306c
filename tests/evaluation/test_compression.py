"""`kvae.evaluation.compression`: asymmetric numeral systems, bits-back coding, and the lengths of messages."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_models import SHAPE, scaled_decoder, tiny, tiny_built

import kvae
from kvae import evaluation
from kvae.evaluation import bits_back, lossless_compression
from kvae.evaluation.bits_back import BUCKETS, EDGES, LOWEST_HEAD, PRECISION, Stack
from kvae.internal.errors import KvaeWarning, UserError
from kvae.internal.tensorflow import tf
from kvae.model import likelihoods


def as_units(probabilities):
    """The units of the symbols below each symbol, from probabilities `[V]` of at least 2^-10."""
    inner = np.rint(np.cumsum(probabilities)[:-1] * 2**PRECISION)
    return np.array([0, *inner, 2**PRECISION], np.uint64)


def stack_of(lanes, words=b""):
    return Stack(np.full(lanes, LOWEST_HEAD, np.uint64), words)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 60), st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_what_was_pushed_is_popped_and_the_message_is_as_before(lanes, count, values, seed):
    rng = np.random.default_rng(seed)
    tables = [as_units((rng.dirichlet(np.ones(values)) + 0.01) / (1 + 0.01 * values)) for _ in range(count)]
    symbols, some = rng.integers(0, values, (lanes, count)), rng.integers(0, values, (1 + lanes // 2, count))
    stack, distributions = (
        stack_of(lanes),
        [(lambda symbol, table=table: table[symbol], int(rng.integers(2**31))) for table in tables],
    )
    stack.push(symbols, distributions)
    heads, words, lengths = stack.heads.copy(), bytes(stack.words), stack.lengths
    stack.push(some, distributions)  # on the first lanes alone
    np.testing.assert_array_equal(stack.lengths[len(some) :], lengths[len(some) :])
    np.testing.assert_array_equal(stack.pop(len(some), values, distributions), some)
    np.testing.assert_array_equal(stack.heads, heads)
    assert stack.words == words
    np.testing.assert_array_equal(stack.pop(lanes, values, distributions), symbols)
    assert (stack.heads == LOWEST_HEAD).all()
    assert not stack.words


@pytest.mark.parametrize("probabilities", [[0.5, 0.5], [0.99, 0.01], [0.9, 0.05, 0.04, 0.01], np.full(200, 1 / 200)])
def test_the_length_is_the_entropy(rng, probabilities):
    table = as_units(probabilities)
    symbols = rng.choice(len(probabilities), (10, 5000), p=probabilities)
    stack = stack_of(10)
    stack.push(symbols, [(lambda symbol: table[symbol], 0)] * 5000)
    ideal = -np.log2(np.asarray(probabilities)[symbols]).sum(axis=1)
    # The rounding of probabilities to 2^-20 and of the heads to whole numbers are relative errors of 1e-4 at most.
    np.testing.assert_allclose(stack.lengths - 31, ideal, rtol=1e-4)
    total = 8 * len(stack.words) + np.log2(stack.heads.astype(np.float64)).sum()
    assert stack.lengths.sum() == pytest.approx(total, rel=1e-12)
    # The 50,000 symbols have the entropy but for sampling: at most 0.02 bits * 4.
    assert ideal.sum() / 50_000 == pytest.approx(stats.entropy(probabilities, base=2), abs=0.02)


def test_a_pop_from_a_stack_that_has_too_little_is_refused():
    with pytest.raises(UserError, match="Received another"):
        stack_of(1).pop(1, 2, [(lambda symbol: np.uint64(2**19) * symbol.astype(np.uint64), 0)] * 40)


def test_the_buckets_have_equal_mass_and_their_points_are_in_the_middle():
    np.testing.assert_allclose(np.diff(stats.norm.cdf(EDGES)), 1 / BUCKETS, rtol=1e-9)
    middles = tiny_built().prior.quantiles(BUCKETS)
    np.testing.assert_allclose(stats.norm.cdf(middles), (np.arange(BUCKETS) + 0.5) / BUCKETS, rtol=1e-9)


def test_a_gaussian_has_its_mass_in_each_bucket(rng):
    mean, deviation = rng.normal(size=50), np.exp(rng.uniform(-5, 1, 50))
    for bucket in (0, 1, 5000, BUCKETS // 2, BUCKETS - 1, BUCKETS):
        expected = 2**PRECISION * stats.norm.cdf(EDGES[bucket], mean, deviation)
        units = bits_back.gaussian_units(mean, deviation, np.full(50, bucket))
        np.testing.assert_allclose(units.astype(np.float64), expected, rtol=0, atol=0.5001)


class Binomial(likelihoods.Likelihood):
    """Whole numbers of 0..3, the heads of three coins."""

    support = (0, 3, True)

    def log_prob_of_pixels(self, x, parameters):
        chances = -tf.math.lgamma(x + 1) - tf.math.lgamma(4 - x) + tf.math.lgamma(4.0)
        return chances + x * tf.math.log_sigmoid(parameters) + (3 - x) * tf.math.log_sigmoid(-parameters)

    def mean(self, parameters):
        return 3 * tf.sigmoid(parameters)

    def sample(self, parameters, noise):
        raise NotImplementedError


LIKELIHOODS = {
    "bernoulli": ("bernoulli", 2, 1.0),
    "categorical": (likelihoods.Categorical(5), 5, 1.0),
    "discretized_logistic": ("discretized_logistic", 256, 1.0),
    "own": (Binomial(), 4, 3.0),
}


def model_and_images(name, count, rng, seed=0, **options):
    likelihood, values, highest = LIKELIHOODS[name]
    vae = scaled_decoder(tiny(likelihood=likelihood, seed=seed, **options), SHAPE, 2.0)
    x = rng.integers(0, values, (count, *SHAPE)).astype(np.float32)
    return vae, x * np.float32(highest) / np.float32(values - 1)


@pytest.fixture
def short_lanes(monkeypatch):
    """Three images per lane."""
    monkeypatch.setattr(lossless_compression, "IMAGES_PER_LANE", 3)


@pytest.mark.usefixtures("short_lanes")
@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("count", [1, 11])  # 11 images: three lanes, and two of them in the last batch
def test_images_are_decoded_bit_for_bit(rng, name, count):
    vae, x = model_and_images(name, count, rng)
    message = evaluation.compress(vae, x)
    decoded = evaluation.decompress(vae, message)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bernoulli", "categorical", "own"])
def test_the_message_grows_by_the_negative_elbo(rng, monkeypatch, name):
    """Also for images that are not of the model, so that their z together are not distributed as the prior."""
    monkeypatch.setattr(lossless_compression, "IMAGES_PER_LANE", 20)
    vae, x = model_and_images(name, 1000, rng)
    found = evaluation.compression(vae, x)
    assert found.decoded == 1.0
    expected = -evaluation.elbo(vae, x, draws=64).elbo.per_example / math.log(2)
    difference = found.coded_bits_per_image.per_example - expected
    # Each image has one draw of z; four standard errors, and 1e-3 for probabilities of at least 2^-20.
    error = difference.std() / math.sqrt(1000)
    assert abs(difference.mean()) < 4 * error + 1e-3 * expected.mean()
    assert error < 0.01 * expected.mean()


@pytest.mark.slow
def test_the_results_are_those_of_the_message(rng):
    vae, x = model_and_images("bernoulli", 40, rng)
    found, message = evaluation.compression(vae, x, seed=3), evaluation.compress(vae, x, seed=3)
    nats = evaluation.elbo(vae, x, seed=3).elbo.per_example
    np.testing.assert_allclose(found.bits_per_image.per_example, nats / -math.log(2), rtol=1e-6)
    coded = found.coded_bits_per_image
    assert found.coded_to_elbo == pytest.approx(coded.mean / found.bits_per_image.mean)
    assert 8 * len(message) == pytest.approx(40 * (coded.mean + found.initial_bits_per_image))
    # One lane: 64 bits of the header, 64 of its head, and words for 2 buckets.
    assert 64 <= 40 * found.initial_bits_per_image <= 64 + 64 + 64
    assert found.bz2_bits_per_image > 30  # pixels that are random


@pytest.mark.slow
def test_a_shipped_model_compresses_digits_to_its_elbo(monkeypatch):
    monkeypatch.setattr(lossless_compression, "IMAGES_PER_LANE", 20)
    vae = keras.saving.load_model("saved_models/mnist_10d/model.keras")
    x = np.concatenate(list(kvae.data.load("mnist5k", binarize="stochastic", seed=0).test.as_numpy_iterator()))
    found = evaluation.compression(vae, x)
    assert found.decoded == 1.0
    assert 0.98 < found.coded_to_elbo < 1.02
    assert found.coded_bits_per_image.mean < found.bz2_bits_per_image


@pytest.mark.slow
def test_pixels_that_the_model_excludes_are_decoded(rng):
    vae, x = model_and_images("bernoulli", 5, rng)
    vae.decoder.weights[-1].assign(np.full(vae.decoder.weights[-1].shape, 1e4))  # certainly white
    found = evaluation.compression(vae, x)
    assert found.decoded == 1.0
    black = (x == 0).sum(axis=(1, 2, 3))
    kl = evaluation.elbo(vae, x).kl.per_example / math.log(2)
    rest = found.coded_bits_per_image.per_example - PRECISION * black  # a black pixel has one unit
    assert np.abs(rest - kl).max() < 12  # the draw of a bucket, of 2 * 14 bits


@pytest.mark.slow
@pytest.mark.usefixtures("short_lanes")
def test_the_message_does_not_depend_on_the_batches_of_the_data(rng):
    vae, x = model_and_images("bernoulli", 11, rng)
    message = evaluation.compress(vae, x)
    assert evaluation.compress(vae, tf.data.Dataset.from_tensor_slices(x).batch(4)) == message
    assert evaluation.compress(vae, x) == message


def test_another_seed_makes_another_message_of_the_same_images(rng):
    vae, x = model_and_images("bernoulli", 4, rng)
    messages = [evaluation.compress(vae, x, seed=seed) for seed in (0, 7)]
    assert messages[0][8:] != messages[1][8:]
    np.testing.assert_array_equal(evaluation.decompress(vae, messages[1]), x)
    with pytest.raises(UserError, match="seed"):
        evaluation.compress(vae, x, seed=-1)


@pytest.mark.slow
def test_a_conditional_model_needs_the_same_conditions(rng):
    vae, x = model_and_images("bernoulli", 12, rng, condition=3)
    for weight in vae.encoder.weights + vae.decoder.weights:
        weight.assign(3 * weight)
    labels = rng.integers(0, 3, 12)
    message = evaluation.compress(vae, (x, labels))
    np.testing.assert_array_equal(evaluation.decompress(vae, message, labels), x)
    assert evaluation.compression(vae, (x, labels)).decoded == 1.0
    with pytest.raises(UserError, match="Received another"):
        evaluation.decompress(vae, message, (labels + 1) % 3)
    with pytest.raises(UserError, match="condition"):
        evaluation.decompress(vae, message)


@pytest.mark.slow
def test_another_model_cannot_decode_it(rng):
    vae, x = model_and_images("bernoulli", 12, rng)
    message = evaluation.compress(vae, x)
    with pytest.raises(UserError, match="Received another"):
        evaluation.decompress(model_and_images("bernoulli", 1, rng, seed=1)[0], message)
    bias = vae.encoder.weights[-1]
    bias.assign(bias + 1e-3)  # so only the last step, to push z with q(z|x), is another
    with pytest.raises(UserError, match="Received another"):
        evaluation.decompress(vae, message)


@pytest.mark.parametrize("damage", ["none", "short", "cut", "flipped", "longer"])
def test_damaged_messages_are_refused(rng, damage):
    vae, x = model_and_images("bernoulli", 12, rng)
    message = evaluation.compress(vae, x)
    flipped = message[:-2] + bytes([message[-2] ^ 8]) + message[-1:]
    damaged = {
        "none": b"", "short": message[:12], "cut": message[:-4], "flipped": flipped, "longer": message + b"word",
    }  # fmt: skip
    with pytest.raises(UserError, match="Received another"):
        evaluation.decompress(vae, damaged[damage])


def test_other_pixels_are_refused(rng):
    vae, x = model_and_images("bernoulli", 3, rng)
    x[1, 2, 3, 0] = 0.5
    with pytest.warns(KvaeWarning, match="Grey"), pytest.raises(UserError, match="one of the 2 values"):
        evaluation.compress(vae, x)


@pytest.mark.parametrize(
    "options",
    [
        {"prior": "mixture"},
        {"posterior": "full_covariance"},
        {"likelihood": "gaussian"},
        {"likelihood": "continuous_bernoulli"},
        {"likelihood": likelihoods.DiscretizedLogistic(2**16)},
    ],
    ids=str,
)
def test_other_parts_are_refused_in_words(options):
    with pytest.raises(UserError, match=r"Expected a likelihood of at most 4096 possible values.*Received "):
        evaluation.compress(tiny_built(**options), np.zeros((2, *SHAPE), np.float32))


def test_networks_that_overflow_are_refused():
    vae = tiny_built()
    vae.encoder.weights[-1].assign(np.full(vae.encoder.weights[-1].shape, 1e30))
    with pytest.raises(UserError, match="Received NaN"):
        evaluation.compress(vae, np.zeros((2, *SHAPE), np.float32))


@pytest.mark.slow
def test_it_is_an_evaluation_by_name(rng):
    vae, x = model_and_images("bernoulli", 5, rng)
    result = evaluation.evaluate(vae, x, only=["compression"])
    assert result["bits_per_image"] == pytest.approx(30, rel=0.2)
    assert result["decoded"] == 1.0
    assert result["coded_bits_per_image_standard_error"] > 0
