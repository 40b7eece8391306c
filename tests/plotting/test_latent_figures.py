"""The figures of the latent space: scatter, lattice and interpolation."""

import numpy as np
import pytest
from figure_cases import PIXEL_ROUNDING, decoded, first_places
from figure_parts import cells, shown, texts
from oracles import Moved
from PIL import Image
from scipy import stats

import kvae
from kvae.internal.errors import UserError
from kvae.plotting import figures

# --- latent_scatter


def test_latent_scatter_shows_the_posterior_means_of_n_test_images(digits_2d):
    (axes,) = figures.latent_scatter(digits_2d, n=30)["latent_scatter"].axes
    points = np.concatenate([part.get_offsets() for part in axes.collections])
    expected = np.asarray(digits_2d.vae.encode(digits_2d.data.examples("test", 30)[0]).mean)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0), **PIXEL_ROUNDING)


def test_latent_scatter_says_how_many_images_of_which_data(digits_2d):
    (axes,) = figures.latent_scatter(digits_2d)["latent_scatter"].axes
    assert axes.get_title() == "posterior means of 100 test images, mnist5k"


@pytest.mark.parametrize(
    ("latent_dim", "expected"),
    [
        (1, "z₁"),
        (2, "z₁"),
        (3, "principal component 1 of 3 latent dimensions"),
        (5, "principal component 1 of 5 latent dimensions"),
    ],
)
def test_latent_scatter_says_what_its_axis_is(subject_of, latent_dim, expected):
    (axes,) = figures.latent_scatter(subject_of("tiny", latent_dim))["latent_scatter"].axes
    assert axes.get_xlabel().startswith(expected)


# --- lattice


def test_a_lattice_of_fifty_by_fifty_digits_has_1400_by_1400_pixels(digits_2d, tmp_path):
    (path,) = figures.draw("lattice", digits_2d, tmp_path, n=50)
    with Image.open(path) as image:
        assert image.size == (1400, 1400)


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({}, 2.0),
        ({"extent": 3.5}, 3.5),
        ({"quantiles": True}, stats.norm.ppf(1 - 0.5 / 4)),
    ],
    ids=["default", "extent", "quantiles"],
)
def test_a_lattice_begins_at_the_upper_left_corner_of_its_square(digits_2d, options, reach):
    picture = cells(figures.lattice(digits_2d, n=4, **options)["lattice"], (28, 28), gap=0)
    assert picture.shape[:2] == (4, 4)
    np.testing.assert_allclose(picture[0, 0], decoded(digits_2d.vae, [-reach, reach]), **PIXEL_ROUNDING)
    np.testing.assert_allclose(picture[0, 3], decoded(digits_2d.vae, [reach, reach]), **PIXEL_ROUNDING)


def test_a_lattice_is_by_default_that_of_extent_2(digits_2d):
    default, expected = (figures.lattice(digits_2d, **options)["lattice"] for options in ({}, {"extent": 2.0}))
    np.testing.assert_array_equal(default, expected)


@pytest.fixture(scope="module")
def elsewhere() -> figures.Subject:
    """A model whose prior lies about (3, -50), with dimensions of scales 0.5 and 2."""
    vae = kvae.VAE(2, hidden_units=(8,), prior=Moved([3.0, -50.0], [0.5, 2.0]), seed=1)
    vae.build((None, 3, 4, 1))
    return figures.Subject(vae)


@pytest.mark.parametrize("n", [1, 4])
def test_a_lattice_is_by_default_of_the_middle_of_the_priors_region(elsewhere, n):
    picture = cells(figures.lattice(elsewhere, n=n)["lattice"], (3, 4), gap=0)
    low, high = elsewhere.vae.prior.region()
    middle = (low + high) / 2
    if n == 1:
        np.testing.assert_allclose(picture[0, 0], decoded(elsewhere.vae, middle), **PIXEL_ROUNDING)
        return
    # Two in seven of it, as [-2, 2] is of [-7, 7].
    low, high = middle + (low - middle) * 2 / 7, middle + (high - middle) * 2 / 7
    corners = decoded(elsewhere.vae, [[[low[0], high[1]], high], [low, [high[0], low[1]]]])
    np.testing.assert_allclose(picture[::3, ::3], corners, **PIXEL_ROUNDING)


def test_a_lattice_by_quantiles_is_unsuitable_for_a_prior_without_them(elsewhere):
    with pytest.raises(figures.Unsuitable, match=r"prior of independent dimensions for its quantiles\. Received Moved"):
        figures.lattice(elsewhere, quantiles=True)


def test_extent_and_quantiles_are_refused_together(digits_2d):
    with pytest.raises(UserError, match=r"either extent or quantiles\. Received both"):
        figures.lattice(digits_2d, extent=2.0, quantiles=True)


@pytest.mark.parametrize("options", [{}, {"extent": 2.0}, {"quantiles": True}], ids=["default", "extent", "quantiles"])
def test_a_lattice_of_none_is_refused(digits_2d, options):
    with pytest.raises(UserError, match="n to be a whole number of at least 1"):
        figures.lattice(digits_2d, n=0, **options)


# --- interpolation


def ends_of(figure, shape: tuple[int, int]) -> np.ndarray:
    """The first and the last picture of every row."""
    return cells(shown(figure), shape)[:, [0, -1]]


def test_interpolation_goes_between_the_first_test_images_of_two_classes(digits_2d):
    figure = figures.interpolation(digits_2d, pairs=[("3", "7")], steps=5)["interpolation"]
    with np.load(kvae.data.sources.MNIST5K) as archive:
        places = first_places(archive["y_test"])
        x = (archive["x_test"][[places[3], places[7]], ..., None] > 127.5).astype(np.float32)
    expected = decoded(digits_2d.vae, digits_2d.vae.encode(x).mean)
    np.testing.assert_allclose(ends_of(figure, (28, 28))[0], expected, **PIXEL_ROUNDING)
    assert texts(figure) == ["3", "7"]


def test_interpolation_by_default_is_of_three_pairs_of_digits(digits_2d):
    assert texts(figures.interpolation(digits_2d)["interpolation"]) == ["0", "5", "1", "4", "2", "9"]


def test_interpolation_of_other_classes_goes_by_default_from_the_first_of_them(tiny):
    assert texts(figures.interpolation(tiny)["interpolation"]) == ["0", "1", "0", "2"]


def test_interpolation_of_one_class_stays_within_it(subject_of):
    assert texts(figures.interpolation(subject_of("one class"))["interpolation"]) == ["0", "0"]


@pytest.mark.parametrize(("first", "last"), [("Cat", "dog"), ("cat", "DOG"), ("0", "2")])
def test_interpolation_takes_classes_by_name_and_by_number(subject_of, first, last):
    pets = subject_of("pets")
    figure = figures.interpolation(pets, pairs=[(first, last)])["interpolation"]
    x, labels = pets.data.examples("test")
    expected = decoded(pets.vae, pets.vae.encode(x[[first_places(labels)[0], first_places(labels)[2]]]).mean)
    np.testing.assert_allclose(ends_of(figure, (3, 4))[0], expected, **PIXEL_ROUNDING)


def test_interpolation_names_the_classes_that_were_given_by_number(subject_of):
    figure = figures.interpolation(subject_of("pets"), pairs=[("0", "2")])["interpolation"]
    assert texts(figure) == ["Cat", "dog"]


def test_interpolation_goes_between_two_places_also_without_labels(subject_of):
    subject = subject_of("unlabelled")
    figure = figures.interpolation(subject, between=[(6, 1), (0, 7)])["interpolation"]
    x = subject.data.examples("test")[0]
    expected = decoded(subject.vae, subject.vae.encode(x[[6, 1, 0, 7]]).mean).reshape(2, 2, 3, 4, 1)
    np.testing.assert_allclose(ends_of(figure, (3, 4)), expected, **PIXEL_ROUNDING)
    assert texts(figure) == ["6", "1", "0", "7"]


@pytest.mark.parametrize("spherical", [False, True])
def test_interpolation_decodes_the_middle_of_its_path(digits_2d, spherical):
    figure = figures.interpolation(digits_2d, between=[(3, 17)], steps=3, spherical=spherical)["interpolation"]
    first, last = np.float64(digits_2d.vae.encode(digits_2d.data.images_at("test", [3, 17])).mean)
    middle = (first + last) / 2
    if spherical:  # the bisecting direction, of the mean length
        direction = first / np.linalg.norm(first) + last / np.linalg.norm(last)
        middle = direction / np.linalg.norm(direction) * (np.linalg.norm(first) + np.linalg.norm(last)) / 2
    picture = cells(shown(figure), (28, 28))
    assert picture.shape[:2] == (1, 3)
    np.testing.assert_allclose(picture[0, 1], decoded(digits_2d.vae, middle), **PIXEL_ROUNDING)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"pairs": [("0", "11")]}, "Unknown class of the test images '11'"),
        ("pets", {"pairs": [("cat", "dogs")]}, "Unknown class of the test images 'dogs'. Did you mean 'dog'"),
        ("digits", {"between": [(0, 100)]}, "Expected places of test images between 0 and 99. Received 100"),
        ("digits", {"between": [(-1, 3)]}, "Received -1"),
        ("unlabelled", {"pairs": [("0", "1")]}, "Expected labels, to find the images of a class"),
        ("tiny", {"steps": 1}, "Expected at least 2 steps"),
        ("tiny", {"pairs": []}, "Expected at least one pair"),
    ],
)
def test_an_invalid_interpolation_is_refused(subject_of, name, options, message):
    with pytest.raises(UserError, match=message):
        figures.interpolation(subject_of(name), **options)
