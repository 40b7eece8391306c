"""Every kind of picture, drawn of untrained models: which files it leaves, of what size, and what they show."""

from pathlib import Path

import numpy as np
import pytest
from oracles import Moved
from own_parts import Gumbel
from PIL import Image
from scipy import special, stats

import kvae
from kvae import completion
from kvae.internal.errors import UserError
from kvae.model.posteriors import Distribution, Gaussian
from kvae.plotting import figures, plots
from kvae.training.config import RunConfig, load_values, recipes

HISTORY = {"epoch": [1, 2], "loss": [9.0, 8.0], "reconstruction": [8.0, 6.0], "kl": [1.0, 2.0]}
FILES = {
    "samples": ["samples", "samples_grid", "samples_strip"],
    "reconstructions": ["reconstructions", "reconstructions_draws"],
    "latent_scatter": ["latent_scatter"],
    "lattice": ["lattice"],
    "interpolation": ["interpolation"],
    "learning_curves": ["learning_curves"],
    "completion": ["completion"],
    "posterior_contours": ["posterior_contours"],
}
OPTIONS = {
    "samples": {"n", "seed"},
    "reconstructions": {"seed"},
    "latent_scatter": {"n"},
    "lattice": {"n", "extent", "quantiles"},
    "interpolation": {"pairs", "between", "steps", "spherical"},
    "learning_curves": set(),
    "completion": {"observed", "places", "draws", "plain", "seed"},
    "posterior_contours": {"observed", "places", "plain", "seed"},
}
SHAPES = {"odd": (9, 13), "colour": (8, 6, 3), "tiny": (3, 4), "one class": (3, 4), "unlabelled": (3, 4)}
LABELS = np.array([2, 0, 2, 1, 1, 0, 2, 1])  # of the test images, but for those of mnist5k
# A matrix product of another batch size rounds differently: some eps of float32 of numbers in [0, 1].
ROUNDING = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """mnist5k as `digits`, archives of noise, and `pets`, a folder of pictures whose classes have names."""
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    for name, shape in SHAPES.items():
        arrays = {
            "x_train": rng.integers(0, 256, (12, *shape), np.uint8),
            "x_test": rng.integers(0, 256, (len(LABELS), *shape), np.uint8),
            "y_train": np.arange(12) % 3,
            "y_test": LABELS * (name != "one class"),
        }
        kept = [key for key in arrays if name != "unlabelled" or key.startswith("x")]
        np.savez(folder / f"{name}.npz", **{key: arrays[key] for key in kept})
    for part in ("train", "test"):
        for label in ("Cat", "cow", "dog"):
            (folder / "pets" / part / label).mkdir(parents=True)
            for place in range(4):
                picture = Image.fromarray(rng.integers(0, 256, (3, 4), np.uint8))
                picture.save(folder / "pets" / part / label / f"{place}.png")
    archives = {name: f"npz:{folder / name}.npz" for name in SHAPES}
    return {"digits": "mnist5k", "pets": f"images:{folder / 'pets'}", **archives}


@pytest.fixture(scope="module")
def subject_of(sources):
    """A function from the name of a source and a latent size to a subject, the same one at every call."""
    made = {}

    def subject_of(name: str, latent_dim: int = 2) -> figures.Subject:
        if (name, latent_dim) not in made:
            slices = {"train": "train[:40]", "test": "test[:100]"} if name == "digits" else {}
            data = kvae.data.load(sources[name], batch_size=10, **slices)
            vae = kvae.VAE(latent_dim, hidden_units=(8,), seed=1)
            vae.build((None, *data.info.image_shape))
            made[name, latent_dim] = figures.Subject(vae, data, HISTORY)
        return made[name, latent_dim]

    return subject_of


@pytest.fixture
def digits_2d(subject_of) -> figures.Subject:
    return subject_of("digits")


@pytest.fixture
def tiny(subject_of) -> figures.Subject:
    return subject_of("tiny")


@pytest.fixture
def few_contour_points(monkeypatch):
    """A grid that is coarser than that of the pictures, where only what is in them counts."""
    monkeypatch.setattr(figures, "CONTOUR_POINTS", 41)


def shown(figure, place: int = 0) -> np.ndarray:
    """The picture that lies on the axes of a figure, `[H, W, C]`."""
    picture = np.asarray(figure.axes[place].get_images()[0].get_array())
    return picture[..., None] if picture.ndim == 2 else picture


def stacked(figure, count: int, height: int) -> list[np.ndarray]:
    """The sheets, `height` pixels each, that lie one above the other under their titles."""
    return [part[-height:] for part in np.split(shown(figure), count)]


def cells(picture: np.ndarray, shape: tuple[int, ...], gap: int = 2) -> np.ndarray:
    """A sheet of images as `[rows, columns, H, W, C]`."""
    height, width = shape[:2]
    rows, columns = (picture.shape[0] + gap) // (height + gap), (picture.shape[1] + gap) // (width + gap)
    return np.array(
        [
            [picture[row * (height + gap) :, column * (width + gap) :][:height, :width] for column in range(columns)]
            for row in range(rows)
        ]
    )


def decoded(vae, z) -> np.ndarray:
    return special.expit(np.float64(vae.decode(np.asarray(z, np.float32))))


def first_places(labels: np.ndarray) -> dict[int, int]:
    """The place of the first image of every class."""
    return {int(label): int(np.argmax(labels == label)) for label in sorted(set(labels.tolist()))}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_tables_of_this_file_are_whole():
    assert figures.KINDS.keys() == FILES.keys() == OPTIONS.keys()


# --- every kind


RENDERED = [(kind, name) for kind in FILES for name in ("digits", "odd", "colour") if kind != "learning_curves"]


@pytest.mark.parametrize(("kind", "name"), [*RENDERED, ("learning_curves", "digits")])
@pytest.mark.usefixtures("few_contour_points")
def test_every_kind_leaves_pictures_of_a_sensible_size(subject_of, kind, name, tmp_path):
    paths = figures.draw(kind, subject_of(name), tmp_path)
    assert [path.name for path in paths] == [f"{file}.png" for file in FILES[kind]]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) >= 50
            assert 100 <= max(image.size) <= 2500
            low, high = image.convert("L").getextrema()
            assert low < high


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
@pytest.mark.parametrize("kind", ["latent_scatter", "lattice"])
def test_figures_and_pictures_are_written_as_vector_graphics(tiny, kind, suffix, start, tmp_path):
    paths = figures.draw(kind, tiny, tmp_path, suffix=suffix)
    assert [path.name for path in paths] == [f"{file}{suffix}" for file in FILES[kind]]
    assert all(path.read_bytes().startswith(start) for path in paths)


def test_the_label_goes_into_every_name(tiny, tmp_path):
    paths = figures.draw("samples", tiny, tmp_path, label="epoch_0010")
    names = ["samples_epoch_0010.png", "samples_grid_epoch_0010.png", "samples_strip_epoch_0010.png"]
    assert [path.name for path in paths] == names


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_of_a_kind_are_those_of_its_function(kind):
    assert figures.options_of(kind) == OPTIONS[kind]


def test_an_option_reaches_its_kind(tiny, tmp_path):
    (path,) = figures.draw("lattice", tiny, tmp_path, n=25)
    with Image.open(path) as image:
        assert image.size == (25 * 4, 25 * 3)


def test_an_unknown_option_names_the_nearest_one(tiny, tmp_path):
    with pytest.raises(UserError, match=r"Unknown option of lattice 'extend'\. Did you mean 'extent'"):
        figures.draw("lattice", tiny, tmp_path, extend=3)


def test_an_unknown_kind_names_the_nearest_one(tiny, tmp_path):
    with pytest.raises(UserError, match=r"Unknown kind of plot 'latice'\. Did you mean 'lattice'"):
        figures.draw("latice", tiny, tmp_path)


def test_one_unknown_kind_among_known_ones_is_found():
    with pytest.raises(UserError, match="'sample'"):
        figures.check_kinds(["lattice", "sample"])


def test_an_unknown_suffix_is_refused_and_nothing_is_left(tiny, tmp_path):
    with pytest.raises(UserError, match="Expected a picture's suffix"):
        figures.draw("lattice", tiny, tmp_path, suffix=".txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", recipes())
def test_recipes_that_draw_while_training_name_kinds_that_there_are(name):
    figures.check_kinds(RunConfig.from_dict(load_values(name)).training.plots)


# --- what is unsuitable


@pytest.mark.parametrize("latent_dim", [1, 2, 3, 5])
@pytest.mark.usefixtures("few_contour_points")
def test_only_pictures_of_the_plane_need_two_latent_dimensions(subject_of, latent_dim):
    unsuitable = set()
    for kind, make in figures.KINDS.items():
        try:
            make(subject_of("tiny", latent_dim))
        except figures.Unsuitable:
            unsuitable.add(kind)
    assert unsuitable == (set() if latent_dim == 2 else {"lattice", "posterior_contours"})


@pytest.mark.parametrize(
    "kind", ["reconstructions", "latent_scatter", "interpolation", "completion", "posterior_contours"]
)
def test_kinds_that_look_at_data_are_unsuitable_without(tiny, kind):
    with pytest.raises(figures.Unsuitable, match=r"Expected data .* Received none"):
        figures.KINDS[kind](figures.Subject(tiny.vae))


@pytest.mark.parametrize("kind", ["samples", "lattice", "learning_curves"])
def test_kinds_that_do_not_look_at_data_need_none(tiny, kind):
    assert figures.KINDS[kind](figures.Subject(tiny.vae, history=HISTORY)).keys() == set(FILES[kind])


def test_learning_curves_without_a_history_are_unsuitable(tiny):
    with pytest.raises(figures.Unsuitable, match="Expected a history"):
        figures.learning_curves(figures.Subject(tiny.vae, tiny.data))


@pytest.mark.parametrize(("kind", "advice"), [("latent_scatter", "lattice"), ("interpolation", "pairs of places")])
def test_kinds_that_need_labels_are_unsuitable_without_and_say_what_to_do(subject_of, kind, advice):
    with pytest.raises(figures.Unsuitable, match=rf"Expected labels .* have none; try {advice}"):
        figures.KINDS[kind](subject_of("unlabelled"))


def test_an_unsuitable_kind_says_why_and_leaves_nothing(subject_of, tmp_path):
    with pytest.raises(figures.Unsuitable, match=r"Expected 2 latent dimensions .* This model has 3"):
        figures.draw("lattice", subject_of("tiny", 3), tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


# --- samples


@pytest.mark.parametrize("seed", [0, 3])
def test_samples_sheet_has_the_means_and_draws_of_the_seed(digits_2d, seed):
    figure, vae = figures.samples(digits_2d, n=20, seed=seed)["samples"], digits_2d.vae
    sheets = [cells(sheet, (28, 28)).reshape(20, 28, 28, 1) for sheet in stacked(figure, 2, 2 * 28 + 2)]
    np.testing.assert_array_equal(sheets[0], vae.generate_means(20, seed))
    np.testing.assert_array_equal(sheets[1], vae.generate(20, seed))


@pytest.mark.parametrize("seed", [0, 3])
def test_samples_grid_begins_each_row_with_the_mean_of_that_seed(digits_2d, seed):
    grid = figures.samples(digits_2d, seed=seed)["samples_grid"][::4, ::4]
    means = cells(grid, (28, 28))[:, 0]
    np.testing.assert_allclose(means, digits_2d.vae.generate_means(10, seed), **ROUNDING)


def test_samples_grid_goes_on_with_three_binary_draws(digits_2d):
    drawn = cells(figures.samples(digits_2d)["samples_grid"][::4, ::4], (28, 28))[:, 1:]
    assert drawn.shape == (10, 3, 28, 28, 1)
    assert set(np.unique(drawn)) == {0, 1}
    assert not any(np.array_equal(drawn[:, a], drawn[:, b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_samples_grid_draws_are_of_the_z_of_their_row(sources):
    data = kvae.data.load(sources["odd"], batch_size=10)
    vae = kvae.VAE(2, hidden_units=(8,), seed=1)
    vae.build((None, 9, 13, 1))
    vae.decoder.set_weights([100 * weight for weight in vae.decoder.get_weights()])
    grid = figures.samples(figures.Subject(vae, data))["samples_grid"]
    times = grid.shape[1] // (4 * 13 + 3 * 2)
    rows = cells(grid[::times, ::times], (9, 13))
    mean = rows[:, :1]
    # Where a mean is this near to 0 or 1, one draw in 30,000 differs from it: about one seed in ten has such a pixel.
    decided = (np.abs(mean - 0.5) > 0.5 - 3e-5) & np.ones((1, 3, 1, 1, 1), bool)
    assert decided.mean() > 0.5
    np.testing.assert_array_equal(rows[:, 1:][decided], np.broadcast_to(mean.round(), decided.shape)[decided])
    assert len(np.unique(mean.round(), axis=0)) > 1


def test_samples_strip_is_the_first_ten_draws_side_by_side(digits_2d):
    strip = figures.samples(digits_2d, seed=3)["samples_strip"]
    times = strip.shape[1] // 280
    np.testing.assert_array_equal(cells(strip[::times, ::times], (28, 28), gap=0)[0], digits_2d.vae.generate(10, 3))


def test_samples_of_none_are_refused(tiny):
    with pytest.raises(UserError, match="n to be a whole number of at least 1"):
        figures.samples(tiny, n=0)


# --- reconstructions


def test_reconstructions_show_the_first_test_images_above_means_at_draws(digits_2d):
    figure, x = figures.reconstructions(digits_2d, seed=2)["reconstructions"], digits_2d.data.examples("test", 40)[0]
    above, below = (cells(sheet, (28, 28)).reshape(40, 28, 28, 1) for sheet in stacked(figure, 2, 4 * 28 + 3 * 2))
    np.testing.assert_array_equal(above, x)
    np.testing.assert_array_equal(below, digits_2d.vae.reconstruct(x, seed=2))


def test_reconstruction_draws_are_of_four_classes_twice(digits_2d):
    picture = cells(shown(figures.reconstructions(digits_2d)["reconstructions_draws"]), (28, 28))
    with np.load(kvae.data.MNIST5K) as archive:
        x, labels = (archive["x_test"][:100, ..., None] > 127.5).astype(np.float32), archive["y_test"][:100]
    places = sorted(first_places(labels).values())[:4]
    assert picture.shape[:2] == (8, 3)
    np.testing.assert_array_equal(picture[:, 0], x[np.repeat(places, 2)])


def test_reconstruction_draws_of_one_image_have_means_of_their_own(digits_2d):
    means = cells(shown(figures.reconstructions(digits_2d)["reconstructions_draws"]), (28, 28))[:, 1]
    assert not any(np.array_equal(means[row], means[row + 1]) for row in range(0, 8, 2))


def test_reconstruction_draws_without_labels_are_of_the_first_images(subject_of):
    subject = subject_of("unlabelled")
    picture = cells(shown(figures.reconstructions(subject)["reconstructions_draws"]), (3, 4))
    np.testing.assert_array_equal(picture[::2, 0], subject.data.examples("test", 4)[0])


# --- latent_scatter


def test_latent_scatter_shows_the_posterior_means_of_n_test_images(digits_2d):
    (axes,) = figures.latent_scatter(digits_2d, n=30)["latent_scatter"].axes
    points = np.concatenate([part.get_offsets() for part in axes.collections])
    expected = np.asarray(digits_2d.vae.encode(digits_2d.data.examples("test", 30)[0]).mean)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0), **ROUNDING)


def test_latent_scatter_says_how_many_images_of_which_data(digits_2d):
    (axes,) = figures.latent_scatter(digits_2d)["latent_scatter"].axes
    assert axes.get_title() == "posterior means of 100 test images, mnist5k"


@pytest.mark.parametrize(
    ("latent_dim", "expected"),
    [
        (1, "$z_1$"),
        (2, "$z_1$"),
        (3, "principal component 1 of 3 latent dimensions"),
        (5, "principal component 1 of 5 latent dimensions"),
    ],
)
def test_latent_scatter_says_what_its_axis_is(subject_of, latent_dim, expected):
    (axes,) = figures.latent_scatter(subject_of("tiny", latent_dim))["latent_scatter"].axes
    assert axes.get_xlabel().startswith(expected)


# --- lattice


def test_a_lattice_of_fifty_digits_a_side_is_1400_pixels_a_side(digits_2d, tmp_path):
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
    np.testing.assert_allclose(picture[0, 0], decoded(digits_2d.vae, [-reach, reach]), **ROUNDING)
    np.testing.assert_allclose(picture[0, 3], decoded(digits_2d.vae, [reach, reach]), **ROUNDING)


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
        np.testing.assert_allclose(picture[0, 0], decoded(elsewhere.vae, middle), **ROUNDING)
        return
    # Two in seven of it, as [-2, 2] is of [-7, 7].
    low, high = middle + (low - middle) * 2 / 7, middle + (high - middle) * 2 / 7
    corners = decoded(elsewhere.vae, [[[low[0], high[1]], high], [low, [high[0], low[1]]]])
    np.testing.assert_allclose(picture[::3, ::3], corners, **ROUNDING)


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
    with np.load(kvae.data.MNIST5K) as archive:
        places = first_places(archive["y_test"])
        x = (archive["x_test"][[places[3], places[7]], ..., None] > 127.5).astype(np.float32)
    expected = decoded(digits_2d.vae, digits_2d.vae.encode(x).mean)
    np.testing.assert_allclose(ends_of(figure, (28, 28))[0], expected, **ROUNDING)
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
    np.testing.assert_allclose(ends_of(figure, (3, 4))[0], expected, **ROUNDING)


def test_interpolation_names_the_classes_that_were_given_by_number(subject_of):
    figure = figures.interpolation(subject_of("pets"), pairs=[("0", "2")])["interpolation"]
    assert texts(figure) == ["Cat", "dog"]


def test_interpolation_goes_between_two_places_also_without_labels(subject_of):
    subject = subject_of("unlabelled")
    figure = figures.interpolation(subject, between=[(6, 1), (0, 7)])["interpolation"]
    x = subject.data.examples("test")[0]
    expected = decoded(subject.vae, subject.vae.encode(x[[6, 1, 0, 7]]).mean).reshape(2, 2, 3, 4, 1)
    np.testing.assert_allclose(ends_of(figure, (3, 4)), expected, **ROUNDING)
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
    np.testing.assert_allclose(picture[0, 1], decoded(digits_2d.vae, middle), **ROUNDING)


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
def test_an_interpolation_that_cannot_be_is_refused(subject_of, name, options, message):
    with pytest.raises(UserError, match=message):
        figures.interpolation(subject_of(name), **options)


# --- completion


def test_completion_is_by_default_of_the_first_image_of_each_of_six_classes(digits_2d):
    figure = figures.completion(digits_2d)["completion"]
    with np.load(kvae.data.MNIST5K) as archive:
        places = [first_places(archive["y_test"])[digit] for digit in range(6)]
        x = (archive["x_test"][places, ..., None] > 127.5).astype(np.float32)
    np.testing.assert_array_equal(cells(shown(figure), (28, 28))[:, 0], x.repeat(3, axis=-1))


def test_completion_without_labels_is_of_the_first_six_images(subject_of):
    subject = subject_of("unlabelled")
    picture = cells(shown(figures.completion(subject)["completion"]), (3, 4))
    np.testing.assert_array_equal(picture[:, 0, ..., :1], subject.data.examples("test", 6)[0])


def test_completion_has_a_column_a_draw_and_keeps_what_is_observed_in_each(tiny):
    mask = np.array([[1, 0, 1, 0]] * 3, bool)
    picture = cells(shown(figures.completion(tiny, observed=mask, draws=4, places=[7, 2])["completion"]), (3, 4))
    assert picture.shape[:2] == (2, 3 + 2 * 4)
    x = tiny.data.examples("test")[0][[7, 2]]
    for column in range(11):
        np.testing.assert_array_equal(picture[:, column, :, ::2, :1], x[:, :, ::2])


def test_completion_says_the_score_of_every_row(tiny):
    figure = figures.completion(tiny, places=[7, 2], seed=3)["completion"]
    found = completion.complete(tiny.vae, tiny.data.images_at("test", [7, 2]), "top", seed=3)
    assert texts(figure)[-2:] == [f"{value:.1f}" for value in found.score.log_density]


def test_completion_rows_of_unknown_pixels_have_no_score(tiny):
    x = tiny.data.images_at("test", [0])
    x[:, 2] = np.nan
    figure = figures.completion_rows(x, completion.complete(tiny.vae, x, "top"))
    assert not [text for text in texts(figure) if "log p" in text]
    assert texts(figure)[-1] == ""


@pytest.mark.parametrize("kind", ["completion", "posterior_contours"])
def test_a_plain_inference_does_not_suit_a_model_without_a_plane(subject_of, kind):
    with pytest.raises(figures.Unsuitable, match="Expected 2 latent dimensions"):
        figures.KINDS[kind](subject_of("tiny", 3), plain=True)


def test_a_plain_completion_is_another_one(tiny):
    default, plain = (shown(figures.completion(tiny, places=[0], plain=plain)["completion"]) for plain in (False, True))
    assert not np.array_equal(default, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observed": "topp"}, "Unknown mask 'topp'. Did you mean 'top'"),
        ({"observed": np.ones((4, 4), bool)}, "Expected a mask of shape"),
        ({"places": [8]}, "among the 8 test images, from 0. Received 8"),
        ({"draws": 0}, "draws to be a whole number of at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_completion_that_cannot_be_is_refused(tiny, options, message):
    with pytest.raises(UserError, match=message):
        figures.completion(tiny, **options)


# --- posterior_contours


def centre_of_q(axes) -> np.ndarray:
    """The middle of the innermost contour of q, the last of the contours on the axes."""
    innermost = axes.collections[-1].get_paths()[-1].vertices
    return (innermost.min(axis=0) + innermost.max(axis=0)) / 2


def test_plain_posterior_contours_begin_at_the_start_of_the_article(tiny):
    figure = figures.posterior_contours(tiny, plain=True)["posterior_contours"]
    titles = ["observed", "q before the first step", "q after 200 steps", "the same, closer"]
    assert [axes.get_title() for axes in figure.axes] == titles
    # The contour is at 0.14 standard deviations of 1.6 and 1, the grid at 0.04: half of a step.
    np.testing.assert_allclose(centre_of_q(figure.axes[1]), [2.0, -2.0], atol=0.02)
    assert np.linalg.norm(centre_of_q(figure.axes[2]) - [2.0, -2.0]) > 0.1


def test_contour_panels_show_the_q_of_the_image_asked_for(tiny, monkeypatch):
    monkeypatch.setattr(figures, "CONTOUR_POINTS", 101)
    start, end = np.array([[3.0, 3.0], [-1.0, 2.0]]), np.array([[3.0, 3.0], [1.5, -0.5]])
    log_var = np.full((2, 2), np.log(0.25))
    found = completion.Inferred(Gaussian(end, log_var), Gaussian(start, log_var), np.zeros((2, 1)), np.zeros(2))
    x = tiny.data.images_at("test", [1])[0]
    figure = figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found, number=1)
    # Half a step of the grid of 0.08.
    np.testing.assert_allclose(centre_of_q(figure.axes[1]), [-1.0, 2.0], atol=0.04)
    np.testing.assert_allclose(centre_of_q(figure.axes[2]), [1.5, -0.5], atol=0.04)
    np.testing.assert_allclose(centre_of_q(figure.axes[3]), [1.5, -0.5], atol=0.04)


@pytest.mark.usefixtures("few_contour_points")
def test_the_near_window_holds_all_of_q_and_is_a_square(tiny):
    near = figures.posterior_contours(tiny)["posterior_contours"].axes[3]
    (left, right), (low, high) = near.get_xlim(), near.get_ylim()
    assert right - left == pytest.approx(high - low, rel=1e-5)  # float32 grids
    x = tiny.data.images_at("test", [0])
    found = completion.infer(tiny.vae, x, "top")
    reach = 2 * np.exp(0.5 * found.q.log_var[0])
    assert (found.mean[0] - reach > [left, low]).all()
    assert (found.mean[0] + reach < [right, high]).all()


class Tilted(Distribution):
    """A q of which only mean and covariance are known."""

    def __init__(self, mean, covariance):
        self._moments = np.asarray(mean), np.asarray(covariance)

    @property
    def mean(self):
        return self._moments[0]

    @property
    def covariance(self):
        return self._moments[1]


def inferred_as(q) -> completion.Inferred:
    """Inferences of three images that began at the standard normal and ended at q."""
    return completion.Inferred(q, Gaussian(*np.zeros((2, 3, 2), np.float32)), np.zeros((3, 1)), np.zeros(3))


def test_contour_panels_show_a_tilted_q_as_it_is(tiny, monkeypatch):
    monkeypatch.setattr(figures, "CONTOUR_POINTS", 101)
    covariances = [np.eye(2), [[1.0, -0.6], [-0.6, 0.8]], np.eye(2)]
    found = inferred_as(Tilted([[0.0, 0.0], [0.5, -1.0], [0.0, 0.0]], covariances))
    x = tiny.data.images_at("test", [1])[0]
    figure = figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found, number=1)
    for axes in figure.axes[2:]:
        for share, path in zip(plots.CONTOURS, axes.collections[-1].get_paths(), strict=True):
            away = path.vertices - [0.5, -1.0]
            distance = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariances[1]), away))
            # The grid is at 0.08, a seventh of the least deviation of 0.54: between its points the height errs by
            # (1/7)^2 / 8 = 3e-3, which is 0.02 deviations at the innermost contour, where the slope is 0.14.
            np.testing.assert_allclose(distance, np.sqrt(-2 * np.log(share)), atol=0.02)


@pytest.mark.usefixtures("few_contour_points")
def test_the_near_window_holds_three_deviations_of_a_tilted_q(tiny):
    covariance = np.array([[4.0, 1.9], [1.9, 1.0]])
    found = inferred_as(Tilted(np.zeros((3, 2)), [covariance] * 3))
    x = tiny.data.images_at("test", [0])[0]
    near = figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found).axes[3]
    assert (np.array(near.get_xlim()) * [-1, 1] >= 6 - 1e-5).all()  # float32 grids
    assert (np.array(near.get_ylim()) * [-1, 1] >= 3 - 1e-5).all()


def test_contours_are_unsuitable_for_a_q_whose_covariance_is_not_known(tiny):
    found = inferred_as(Gumbel(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)))
    x = tiny.data.images_at("test", [0])[0]
    with pytest.raises(figures.Unsuitable, match=r"Expected a q whose covariance is known.*This one has none"):
        figures.contour_panels(tiny.vae, x, np.arange(12).reshape(3, 4, 1) < 6, found)


def test_posterior_contours_of_a_place_out_of_range_are_refused(tiny):
    with pytest.raises(UserError, match="among the 8 test images"):
        figures.posterior_contours(tiny, places=(8,))


def test_pictures_go_into_a_folder_that_is_made(tiny, tmp_path):
    (path,) = figures.draw("lattice", tiny, tmp_path / "new" / "plots")
    assert path == Path(tmp_path / "new" / "plots" / "lattice.png")
    assert path.is_file()
