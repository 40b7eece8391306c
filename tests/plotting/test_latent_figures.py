"""The figures of the latent space: scatter, lattice and interpolation."""

import numpy as np
import pytest
from figure_cases import PIXEL_ROUNDING, decoded, first_places
from figure_parts import cells, shown, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg
from oracles import Moved
from PIL import Image
from scipy import stats

import kvae
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.plotting import drawing, figures

# --- latent_scatter


def test_images_are_encoded_in_batches_also_if_there_are_many(monkeypatch):
    data = kvae.data.load("mnist5k", batch_size=10, train="train[:10]", test="test[:150]")
    vae, seen = kvae.VAE(2, hidden_units=(8,), seed=1), []
    vae.build((None, 28, 28, 1))
    encode = vae.encode

    def counted(x, condition=None):
        tf.numpy_function(lambda count: seen.append(int(count)), [tf.shape(x)[0]], [])  # at every call of a graph
        return encode(x, condition)

    monkeypatch.setattr(vae, "encode", counted)
    mean, labels = figures.Subject(vae, data).encoded(150)
    assert (mean.shape, labels.shape) == ((150, 2), (150,))
    assert sum(seen) == 150
    assert max(seen) <= 100


def test_latent_scatter_shows_the_posterior_means_of_n_test_images(digits_2d):
    (axes,) = figures.latent_scatter(digits_2d, n=30)["latent_scatter"].axes
    (part,) = axes.collections
    points = part.get_offsets()
    expected = np.asarray(digits_2d.vae.encode(digits_2d.data.examples("test", 30)[0]).mean)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0), **PIXEL_ROUNDING)


def test_latent_scatter_says_how_many_images_of_which_data(digits_2d):
    (axes,) = figures.latent_scatter(digits_2d)["latent_scatter"].axes
    assert "100 test images of mnist5k" in axes.get_title()


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
    (path,) = figures.draw("lattice", digits_2d, tmp_path, n=50, seamless=True)
    with Image.open(path) as image:
        assert image.size == (1400, 1400)


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({"extent": 3.5}, 3.5),
        ({"quantiles": True}, stats.norm.ppf(1 - 0.5 / 4)),
    ],
    ids=["extent", "quantiles"],
)
def test_a_lattice_begins_at_the_upper_left_corner_of_its_square(digits_2d, options, reach):
    picture = cells(shown(figures.lattice(digits_2d, n=4, **options)["lattice"]), (28, 28))
    assert picture.shape[:2] == (4, 4)
    np.testing.assert_allclose(picture[0, 0], decoded(digits_2d.vae, [-reach, reach]), **PIXEL_ROUNDING)
    np.testing.assert_allclose(picture[0, 3], decoded(digits_2d.vae, [reach, reach]), **PIXEL_ROUNDING)


def test_a_lattice_without_data_is_by_default_that_of_extent_2(digits_2d):
    subject = figures.Subject(digits_2d.vae)
    default, expected = (shown(figures.lattice(subject, **options)["lattice"]) for options in ({}, {"extent": 2.0}))
    np.testing.assert_array_equal(default, expected)


def at_pixel(axes, column: float, row: float) -> tuple[float, float]:
    """The z at a place of the picture on the axes, in pixels from the upper left corner of the upper left pixel."""
    left, right, bottom, top = axes.get_images()[0].get_extent()
    height, width = axes.get_images()[0].get_array().shape[:2]
    return left + (right - left) * column / width, top - (top - bottom) * row / height


@pytest.mark.parametrize("kind", ["lattice", "map"])
def test_a_lattice_covers_98_percent_of_the_encoded_images_and_every_image_is_at_its_z(digits_2d, kind):
    (axes,) = figures.KINDS[kind](digits_2d, n=5)[kind].axes
    means = np.float64(digits_2d.vae.encode(digits_2d.data.examples("test")[0]).mean)
    low, high = np.percentile(means, [1, 99], axis=0)
    half = (high - low).max() / 2
    first, last = at_pixel(axes, 14, 14), at_pixel(axes, 4 * 30 + 14, 4 * 30 + 14)  # the centres of two images
    np.testing.assert_allclose(first, (low + high) / 2 + [-half, half], rtol=1e-5)
    np.testing.assert_allclose(last, (low + high) / 2 + [half, -half], rtol=1e-5)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z₁", "z₂")


def test_a_lattice_by_quantiles_has_the_quantiles_at_its_ticks(digits_2d):
    (axes,) = figures.lattice(digits_2d, n=5, quantiles=True)["lattice"].axes
    expected = [f"{value:.3g}" for value in stats.norm.ppf((np.arange(5) + 0.5) / 5)]
    assert [label.get_text() for label in axes.get_xticklabels()] == expected
    assert [label.get_text() for label in axes.get_yticklabels()] == expected
    np.testing.assert_allclose(at_pixel(axes, 14, 14), [0, 4], atol=1e-9)


def test_a_lattice_of_a_collapsed_posterior_is_of_the_middle_of_the_prior(digits_2d):
    vae = kvae.VAE(2, hidden_units=(8,), seed=1)
    vae.build((None, 28, 28, 1))
    vae.encoder.set_weights([0 * weight for weight in vae.encoder.get_weights()])
    (axes,) = figures.lattice(figures.Subject(vae, digits_2d.data), n=2)["lattice"].axes
    np.testing.assert_allclose(at_pixel(axes, 14, 14), [-2, 2], atol=1e-6)


# --- map


def test_the_map_has_the_test_images_over_the_lattice_in_the_frame_of_the_lattice(digits_2d):
    (axes,) = figures.latent_map(digits_2d)["map"].axes
    (lattice,) = figures.lattice(digits_2d)["lattice"].axes
    assert axes.axis() == lattice.axis()
    (points,) = axes.collections
    means = np.asarray(digits_2d.vae.encode(digits_2d.data.examples("test")[0]).mean)
    np.testing.assert_allclose(np.sort(points.get_offsets(), axis=0), np.sort(means, axis=0), **PIXEL_ROUNDING)


@pytest.mark.parametrize(("inside", "title"), [(0.99, "(1 are outside)"), (1.01, "(2 are outside)")])
def test_the_map_says_how_many_points_are_outside_of_its_frame(digits_2d, monkeypatch, inside, title):
    """Not of the outermost points of the lattice, whose images reach further.

    Images at -1 and 1 are 2 apart, and 28 of 30 pixels wide with their gaps: the frame ends at 1 + 28 / 30.
    """
    edge = 1 + 28 / 30
    means = np.array([[0.0, 0.0], [inside * edge, 0.0], [0.0, -5.0]])
    monkeypatch.setattr(figures.Subject, "encoded", lambda subject, n: (means, None))
    (axes,) = figures.latent_map(digits_2d, n=2, extent=1.0)["map"].axes
    assert axes.axis() == pytest.approx([-edge, edge, -edge, edge])
    assert title in axes.get_title()


def test_the_lattice_of_a_map_is_faint(digits_2d):
    picture = shown(figures.latent_map(digits_2d)["map"])
    assert picture.min() >= 0.6 - 1e-6


def test_the_lattice_of_a_map_in_colour_keeps_its_colours(rng):
    images = rng.uniform(size=(9, 4, 6, 3))
    side = np.arange(3.0)
    picture = shown(drawing.scatter_over_lattice(images, side, side, rng.normal(size=(5, 2)), None))
    before, after = (np.ptp(part, axis=-1).mean() for part in (images[0], picture[:4, :6]))
    assert after > 0.7 * before


def test_the_names_on_a_map_are_inside_of_its_frame(rng):
    points = np.concatenate([rng.normal([2.25, 1], 0.02, (20, 2)), rng.normal([9, 9], 0.1, (30, 2))])
    labels = [0] * 20 + [1] * 30
    side = np.arange(3.0)
    names = ["a long name", "outside"]
    figure = drawing.scatter_over_lattice(np.zeros((9, 4, 4, 1)), side, side, points, labels, names)
    (axes,) = figure.axes
    (name,) = axes.texts
    box = name.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    frame = axes.get_window_extent()
    assert name.get_text() == "a long name"
    assert box.x0 >= frame.x0 - 3  # dots: letters are not all of one width
    assert box.x1 <= frame.x1 + 3


@pytest.mark.filterwarnings("error")
def test_a_map_without_any_point_in_its_frame_has_no_names(rng):
    side = np.arange(3.0)
    figure = drawing.scatter_over_lattice(np.zeros((9, 4, 4, 1)), side, side, rng.normal(9, 1, (5, 2)), [0, 1, 0, 1, 0])
    assert not figure.axes[0].texts


@pytest.fixture(scope="module")
def elsewhere() -> figures.Subject:
    """A model whose prior lies about (3, -50), with dimensions of scales 0.5 and 2."""
    vae = kvae.VAE(2, hidden_units=(8,), prior=Moved([3.0, -50.0], [0.5, 2.0]), seed=1)
    vae.build((None, 3, 4, 1))
    return figures.Subject(vae)


@pytest.mark.parametrize("n", [1, 4])
def test_a_lattice_is_by_default_of_the_middle_of_the_priors_region(elsewhere, n):
    picture = cells(shown(figures.lattice(elsewhere, n=n)["lattice"]), (3, 4))
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
    with pytest.raises(figures.Unsuitable, match=r"prior with independent dimensions.*Received Moved"):
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
    """The first and the last picture of every path, which lies between two test images."""
    return cells(shown(figure), shape)[:, [1, -2]]


def names_of(figure) -> list[str]:
    """The names of the ends of every path; after them come the titles of the columns."""
    return texts(figure)[:-3]


def test_interpolation_goes_between_the_first_test_images_of_two_classes(digits_2d):
    figure = figures.interpolation(digits_2d, pairs=[("3", "7")], steps=5)["interpolation"]
    with np.load(kvae.data.sources.MNIST5K) as archive:
        places = first_places(archive["y_test"])
        x = (archive["x_test"][[places[3], places[7]], ..., None] > 127.5).astype(np.float32)
    expected = decoded(digits_2d.vae, digits_2d.vae.encode(x).mean)
    np.testing.assert_allclose(ends_of(figure, (28, 28))[0], expected, **PIXEL_ROUNDING)
    assert names_of(figure) == ["3", "7"]


def test_interpolation_by_default_is_of_three_pairs_of_digits(digits_2d):
    assert names_of(figures.interpolation(digits_2d)["interpolation"]) == ["0", "5", "1", "4", "2", "9"]


@pytest.mark.parametrize("name", ["digits", "pets", "unlabelled"])
def test_interpolation_reads_only_the_images_at_its_ends(subject_of, monkeypatch, name):
    subject = subject_of(name)

    def examples(*_):
        raise AssertionError("all images are read")

    monkeypatch.setattr(type(subject.data), "examples", examples)
    assert len(names_of(figures.interpolation(subject)["interpolation"])) in (4, 6)


def test_interpolation_of_other_classes_goes_by_default_from_the_first_of_them(tiny):
    assert names_of(figures.interpolation(tiny)["interpolation"]) == ["0", "1", "0", "2"]


def test_interpolation_of_one_class_stays_within_it(subject_of):
    assert names_of(figures.interpolation(subject_of("one class"))["interpolation"]) == ["0", "0"]


@pytest.mark.parametrize(("first", "last"), [("Cat", "dog"), ("cat", "DOG"), ("0", "2")])
def test_interpolation_takes_classes_by_name_and_by_number(subject_of, first, last):
    pets = subject_of("pets")
    figure = figures.interpolation(pets, pairs=[(first, last)])["interpolation"]
    x, labels = pets.data.examples("test")
    expected = decoded(pets.vae, pets.vae.encode(x[[first_places(labels)[0], first_places(labels)[2]]]).mean)
    np.testing.assert_allclose(ends_of(figure, (3, 4))[0], expected, **PIXEL_ROUNDING)


def test_interpolation_names_the_classes_that_were_given_by_number(subject_of):
    figure = figures.interpolation(subject_of("pets"), pairs=[("0", "2")])["interpolation"]
    assert names_of(figure) == ["Cat", "dog"]


def test_interpolation_goes_between_two_places_also_without_labels(subject_of):
    subject = subject_of("unlabelled")
    figure = figures.interpolation(subject, between=[(6, 1), (0, 7)])["interpolation"]
    x = subject.data.examples("test")[0]
    expected = decoded(subject.vae, subject.vae.encode(x[[6, 1, 0, 7]]).mean).reshape(2, 2, 3, 4, 1)
    np.testing.assert_allclose(ends_of(figure, (3, 4)), expected, **PIXEL_ROUNDING)
    assert names_of(figure) == ["image 6", "image 1", "image 0", "image 7"]


def test_interpolation_without_labels_goes_by_default_between_the_first_images(subject_of):
    subject = subject_of("unlabelled")
    figure = figures.interpolation(subject)["interpolation"]
    assert names_of(figure) == [f"image {number}" for number in range(6)]
    x = subject.data.originals_at("test", range(6)).reshape(3, 2, 3, 4, 1)
    np.testing.assert_array_equal(cells(shown(figure), (3, 4))[:, [0, -1]], x)


@pytest.mark.parametrize("spherical", [False, True])
def test_interpolation_decodes_the_middle_of_its_path(digits_2d, spherical):
    figure = figures.interpolation(digits_2d, between=[(3, 17)], steps=3, spherical=spherical)["interpolation"]
    first, last = np.float64(digits_2d.vae.encode(digits_2d.data.images_at("test", [3, 17])).mean)
    middle = (first + last) / 2
    if spherical:  # the bisecting direction, of the mean length
        direction = first / np.linalg.norm(first) + last / np.linalg.norm(last)
        middle = direction / np.linalg.norm(direction) * (np.linalg.norm(first) + np.linalg.norm(last)) / 2
    picture = cells(shown(figure), (28, 28))
    assert picture.shape[:2] == (1, 5)
    np.testing.assert_allclose(picture[0, 2], decoded(digits_2d.vae, middle), **PIXEL_ROUNDING)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"pairs": [("0", "11")]}, "Unknown class of the test images '11'"),
        ("pets", {"pairs": [("cat", "dogs")]}, "Unknown class of the test images 'dogs'. Did you mean 'dog'"),
        ("digits", {"between": [(0, 100)]}, "Expected indices of test images from 0 to 99. Received 100"),
        ("digits", {"between": [(-1, 3)]}, "Received -1"),
        ("unlabelled", {"pairs": [("0", "1")]}, "Expected labels, to find the images of a class"),
        ("tiny", {"steps": 1}, "Expected at least 2 steps"),
        ("tiny", {"pairs": []}, "Expected at least one pair"),
    ],
)
def test_an_invalid_interpolation_is_refused(subject_of, name, options, message):
    with pytest.raises(UserError, match=message):
        figures.interpolation(subject_of(name), **options)
