"""Exported decoders against their Keras model: points, seeds, lattices, and input that is refused."""

import numpy as np
import pytest

from kvae import runtime
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.runtime import latent_points

SIZES = [1, 7, 64, 300]  # also a runtime's own batch of 64, and more than CHUNK
sizes = pytest.mark.parametrize("n", SIZES)


# Values


@pytest.mark.slow
def test_a_decoder_knows_its_shapes(pair):
    vae, decoder = pair
    assert (decoder.latent_dim, decoder.image_shape) == (vae.latent_dim, vae.image_shape)


@sizes
def test_decoded_points_are_those_of_the_model(pair, n, rng):
    vae, decoder = pair
    z = np.float32(rng.normal(size=(n, vae.latent_dim)))
    decoded = decoder.decode(z)
    for part in decoded:
        assert (part.shape, part.dtype) == ((n, *vae.image_shape), np.float32)
    logits = vae.decode(z)
    # Sums of 8 products of numbers up to about 10, float32 in another order; the means change by a quarter of that.
    np.testing.assert_allclose(decoded.logits, logits, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(decoded.means, vae.likelihood.mean(logits), rtol=0, atol=3e-6)
    assert (decoded.means.min() >= 0, decoded.means.max() <= 1) == (True, True)


@sizes
def test_samples_are_those_of_the_model(pair, n):
    vae, decoder = pair
    seeds = portable.seeds(n, 1)
    drawn, expected = decoder.sample(seeds), vae.sample(seeds)
    assert [part.dtype for part in drawn] == [np.uint8, np.float32, np.float32]
    assert [part.shape for part in drawn] == [(n, *vae.image_shape)] * 2 + [(n, vae.latent_dim)]
    assert np.array_equal(drawn.z, expected.z)
    np.testing.assert_allclose(drawn.means, expected.means, rtol=0, atol=3e-6)  # as above
    levels = np.rint(np.float32(expected.images) * np.float32(255))
    distance = np.abs(drawn.images - levels)
    if vae.likelihood.binary:
        # A pixel changes where its mean rounds across its number: 6000 pixels, means that err by some 1e-7.
        assert np.count_nonzero(distance) <= 1
    else:
        # A grey value rounds to another of 255 levels for a few of 10^5 pixels, of the 11,000 here; then to the next.
        assert (np.count_nonzero(distance) <= 5, distance.max() <= 1) == (True, True)


def test_bernoulli_images_are_black_and_white(pairs):
    assert np.unique(pairs("bernoulli")[1].sample(portable.seeds(64, 1)).images).tolist() == [0, 255]


def test_samples_are_the_images_of_generate(pairs):
    vae, decoder = pairs("bernoulli")
    drawn = decoder.sample(runtime.seeds(64, seed=3)).images
    assert np.count_nonzero(drawn != 255 * vae.generate(64, seed=3).numpy()) <= 1  # as above


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_extreme_seeds_have_the_z_of_the_model(pair, seed):
    vae, decoder = pair
    z = decoder.sample([seed]).z
    assert np.array_equal(z, vae.sample([seed]).z)
    assert np.array_equal(z, portable.normals([seed], Stream.LATENT, vae.latent_dim))


@pytest.mark.parametrize("places", [[0], [299], [255, 256], [7, 3, 290, 7]])
def test_an_image_depends_on_its_own_seed_alone(pair, places):
    _, decoder = pair
    seeds = portable.seeds(300, 2)
    whole, part = decoder.sample(seeds), decoder.sample(seeds[places])
    assert np.array_equal(part.z, whole.z[places])
    # Kernels of other batch sizes round otherwise: float32 eps, and at most one pixel of 144 to the next level.
    np.testing.assert_allclose(part.means, whole.means[places], rtol=0, atol=1e-6)
    assert np.count_nonzero(part.images != whole.images[places]) <= 1


def test_samples_have_the_means_of_their_z(pair):
    _, decoder = pair
    drawn = decoder.sample(portable.seeds(100, 0))
    np.testing.assert_allclose(drawn.means, decoder.decode(drawn.z).means, rtol=0, atol=1e-6)  # float32 eps


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, list])
def test_z_of_every_type_is_taken(decoder, dtype):
    z = [[0, 1], [2, 3]] if dtype is list else np.array([[0, 1], [2, 3]], dtype)
    assert np.array_equal(decoder.decode(z).means, decoder.decode(np.float32([[0, 1], [2, 3]])).means)


def test_z_and_seeds_may_be_tensors(decoder):
    assert np.array_equal(decoder.decode(tf.zeros((2, 2))).means, decoder.decode(np.zeros((2, 2))).means)
    assert np.array_equal(decoder.sample(tf.constant([4, 5])).z, decoder.sample([4, 5]).z)


def test_what_a_call_returned_is_not_changed_by_the_next(decoder):
    first = decoder.sample([1, 2])
    kept = [part.copy() for part in first]
    decoder.sample([3, 4])
    decoder.decode(np.ones((2, 2)))
    assert all(np.array_equal(part, before) for part, before in zip(first, kept, strict=True))


@pytest.mark.parametrize("threads", [2, None, 1])
@pytest.mark.slow
def test_the_number_of_threads_changes_no_z(bundled, threads):
    decoder = runtime.load(bundled, threads=threads)
    assert np.array_equal(decoder.sample(range(20)).z, portable.normals(range(20), Stream.LATENT, 2))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_a_wrong_number_of_threads_is_not_the_fault_of_the_file(bundled, threads):
    with pytest.raises(UserError, match=r"^(?!.*damaged).*threads"):
        runtime.load(bundled, threads=threads)


@pytest.mark.parametrize("n", [1, 2, 5, 17])
@pytest.mark.parametrize("extent", [2.0, 0.5, None])
def test_a_lattice_is_its_points_decoded_and_laid_out(pairs, n, extent):
    vae, decoder = pairs("bernoulli")
    picture = decoder.lattice(n, extent)
    assert (picture.shape, picture.dtype) == ((5 * n, 4 * n, 1), np.float32)
    means = vae.likelihood.mean(vae.decode(latent_points.lattice(n, extent))).numpy().reshape(n, n, 5, 4, 1)
    expected = means.transpose(0, 2, 1, 3, 4).reshape(5 * n, 4 * n, 1)
    np.testing.assert_allclose(picture, expected, rtol=0, atol=3e-6)  # as the means above


def test_a_latent_space_that_is_no_plane_has_no_lattice(pairs):
    with pytest.raises(UserError, match=r"Expected 2 latent dimensions for a lattice\. This decoder has 3"):
        pairs("gaussian")[1].lattice()


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_a_lattice_of_no_number_of_points_is_refused(decoder, n):
    with pytest.raises(UserError, match="Expected n to be a whole number of at least 1"):
        decoder.lattice(n)


@pytest.mark.parametrize("extent", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lattice_of_no_extent_is_refused(decoder, extent):
    with pytest.raises(UserError, match="Expected a positive, finite extent"):
        decoder.lattice(2, extent)


# Input that is refused


@pytest.mark.parametrize(
    ("z", "shown"),
    [
        (np.zeros((3, 1)), r"float64 of shape \[3, 1\]"),
        (np.zeros((3, 3)), r"float64 of shape \[3, 3\]"),
        (np.zeros((0, 2)), r"float64 of shape \[0, 2\]"),
        (np.zeros(2), r"float64 of shape \[2\]"),
        (np.zeros((1, 1, 2)), r"float64 of shape \[1, 1, 2\]"),
        (1.0, r"float64 of shape \[\]"),
        ([], r"float64 of shape \[0\]"),
        (np.zeros((1, 2), complex), r"complex128 of shape \[1, 2\]"),
        (np.zeros((1, 2), bool), r"bool of shape \[1, 2\]"),
        ([["1", "2"]], r"<U1 of shape \[1, 2\]"),
        ("z", r"<U1 of shape \[\]"),
        (None, r"object of shape \[\]"),
    ],
)
def test_what_is_no_list_of_points_is_refused(decoder, z, shown):
    with pytest.raises(UserError, match=rf"Expected z, numbers of shape \[n, 2\].*Received {shown}\."):
        decoder.decode(z)


def test_a_ragged_list_of_points_is_refused(decoder):
    with pytest.raises(UserError, match="Expected z"):
        decoder.decode([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_that_are_not_finite_are_refused(decoder, value, dtype):
    with pytest.raises(UserError, match=rf"Expected finite z\. Received {value}\."):
        decoder.decode(np.array([[0, 1], [value, 2]], dtype))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_points_beyond_float32_are_refused(decoder):
    with pytest.raises(UserError, match="Expected finite z"):
        decoder.decode([[1e300, 0.0]])


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([0.5], "Expected seeds, a list of whole numbers"),
        (3, "Expected seeds, a list of whole numbers"),
        ([[1, 2]], "Expected seeds, a list of whole numbers"),
        (["1"], "Expected seeds, a list of whole numbers"),
        ([], "Received float64 of shape"),
        (np.zeros(0, int), "Expected at least one seed"),
        ([2**31], "Expected seeds in int32"),
        ([-(2**31) - 1], "Expected seeds in int32"),
    ],
)
def test_what_is_no_list_of_seeds_is_refused(decoder, seeds, message):
    with pytest.raises(UserError, match=message):
        decoder.sample(seeds)
