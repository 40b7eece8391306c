"""Every figure renders and is saved, and says what it shows."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from kvae.internal.errors import UserError
from kvae.plotting import plots

ROOT = Path(__file__).parents[2]
SHAPES = [(28, 28, 1), (13, 17, 1), (16, 16, 3)]
HISTORY = {"epoch": [1, 2, 3], "loss": [9.0, 8.0, 7.0], "reconstruction": [8.0, 6.0, 5.0], "kl": [1.0, 2.0, 2.0]}
VALIDATION = {f"val_{name}": [value + 1 for value in HISTORY[name]] for name in ("loss", "reconstruction", "kl")}


@pytest.fixture
def scatter(rng):
    """A function that draws 30 points of three labels in a latent space of `dimensions`."""
    return lambda dimensions, **more: plots.latent_scatter(
        rng.normal(size=(30, dimensions)), **({"labels": np.arange(30) % 3} | more)
    )


def shown(axes) -> np.ndarray:
    """The picture that lies on the axes."""
    return np.asarray(axes.get_images()[0].get_array())


def stacked(figure, count: int, height: int) -> list[np.ndarray]:
    """The sheets, `height` pixels each, that lie one above the other under their titles."""
    (axes,) = figure.axes
    return [part[-height:] for part in np.split(shown(axes), count)]


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def assert_is_saved(figure, folder: Path, suffix: str) -> None:
    plots.save(figure, folder / f"a.{suffix}")
    assert [path.name for path in folder.iterdir()] == [f"a.{suffix}"]
    if suffix == "png":
        with Image.open(folder / "a.png") as image:
            low, high = image.convert("L").getextrema()
            assert low < high
    else:
        assert "<svg" in (folder / "a.svg").read_text(encoding="utf-8")


# --- every figure is saved


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("plot", [plots.samples, plots.reconstructions], ids=lambda plot: plot.__name__)
def test_sheets_are_saved(tmp_path, rng, plot, shape, suffix):
    x = rng.uniform(size=(7, *shape))
    assert_is_saved(plot(x, x.round(), columns=4), tmp_path, suffix)


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_scatters_are_saved(tmp_path, scatter, dimensions, suffix):
    assert_is_saved(scatter(dimensions, title="posterior means"), tmp_path, suffix)


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("history", [HISTORY, HISTORY | VALIDATION], ids=["training", "validation"])
def test_learning_curves_are_saved(tmp_path, history, suffix):
    assert_is_saved(plots.learning_curves(history), tmp_path, suffix)


@pytest.mark.parametrize("name", ["a", "a.txt", "png"])
def test_an_unknown_suffix_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(UserError, match=r"Expected a picture's suffix: .*png.*svg"):
        plots.save(plots.learning_curves(HISTORY), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# --- sheets


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_samples_show_means_above_draws(rng, shape):
    means = rng.uniform(size=(2, *shape)).astype(np.float32)
    height, width, channels = shape
    above, below = stacked(plots.samples(means, means.round()), 2, height)
    for sheet, x in ((above, means), (below, means.round())):
        picture = sheet.reshape(height, 2 * width + 2, channels)
        np.testing.assert_array_equal(picture[:, :width], x[0])
        np.testing.assert_array_equal(picture[:, width + 2 :], x[1])


def test_samples_without_draws_show_means_alone(rng):
    (axes,) = plots.samples(rng.uniform(size=(2, 4, 4, 1))).axes
    assert [text.get_text() for text in axes.texts] == ["means of p(x|z), z ~ p(z)"]


def test_reconstructions_lie_below_their_inputs(rng):
    x = rng.uniform(size=(1, 4, 4, 1)).astype(np.float32)
    above, below = stacked(plots.reconstructions(x, 1 - x), 2, 4)
    np.testing.assert_array_equal(above, x[0, ..., 0])
    np.testing.assert_array_equal(below, 1 - x[0, ..., 0])


def test_reconstructions_of_another_number_are_refused():
    with pytest.raises(UserError, match="as many reconstructions as inputs"):
        plots.reconstructions(np.zeros((3, 4, 4, 1)), np.zeros((2, 4, 4, 1)))


# --- latent_scatter


@pytest.mark.parametrize(("dimensions", "expected"), [(1, ("$z_1$", "label")), (2, ("$z_1$", "$z_2$"))])
def test_scatter_axes_are_latent_dimensions(scatter, dimensions, expected):
    axes = scatter(dimensions).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == expected


def test_scatter_axes_of_more_dimensions_are_principal_components_with_their_variance(scatter):
    axes = scatter(5).axes[0]
    assert axes.get_xlabel().startswith("principal component 1 of 5 latent dimensions")
    assert axes.get_ylabel().startswith("principal component 2")
    assert "%" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()


def test_scatter_of_a_collapsed_posterior_says_no_nan():
    axes = plots.latent_scatter(np.zeros((30, 5)), np.arange(30) % 3).axes[0]
    assert "nan" not in axes.get_xlabel() + axes.get_ylabel()


def test_scatter_puts_every_point_at_its_mean_under_its_label():
    mean = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    axes = plots.latent_scatter(mean, [1, 0, 1]).axes[0]
    assert [points.get_offsets().tolist() for points in axes.collections] == [[[2, 3]], [[0, 1], [4, 5]]]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 1, 2], ["cat", "dog", "cow"], ["cat", "dog", "cow"]),
        ([2, 2, 0], ["cat", "dog", "cow"], ["cat", "cow"]),
        ([3, 5, 7], None, ["3", "5", "7"]),
        ([0, 1, 7], ["cat", "dog"], ["cat", "dog", "7"]),
        ([0, 1, -1], ["cat", "dog"], ["-1", "cat", "dog"]),
    ],
    ids=["names", "only those present", "no names", "label beyond the names", "label of the unlabelled"],
)
def test_scatter_legend_names_the_labels(labels, names, expected):
    assert legend(plots.latent_scatter(np.zeros((3, 2)), labels, names).axes[0]) == expected


def test_ten_labels_have_ten_looks(rng):
    axes = plots.latent_scatter(rng.normal(size=(10, 2)), np.arange(10)).axes[0]
    assert len({tuple(points.get_facecolor()[0]) for points in axes.collections}) == 10
    assert len({points.get_paths()[0].vertices.tobytes() for points in axes.collections}) == 10


@pytest.mark.parametrize(
    ("labels", "message"), [(None, "Expected labels"), (np.arange(29), "one label a mean"), (np.zeros((30, 1)), "one")]
)
def test_scatter_without_a_label_a_mean_is_refused(scatter, labels, message):
    with pytest.raises(UserError, match=message):
        scatter(2, labels=labels)


# --- lattice


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lattice_is_seamless(rng, shape):
    means = rng.uniform(size=(9, *shape)).astype(np.float32)
    height, width, _ = shape
    picture = plots.lattice(means)
    assert picture.shape == (3 * height, 3 * width, shape[-1])
    np.testing.assert_array_equal(picture[height : 2 * height, 2 * width :], means[5])


def test_fifty_by_fifty_digits_are_1400_pixels_a_side():
    assert plots.lattice(np.zeros((2500, 28, 28, 1), np.float32)).shape == (1400, 1400, 1)


def test_a_lattice_that_is_no_square_is_refused():
    with pytest.raises(UserError, match=r"square number of decoded means\. Received 8"):
        plots.lattice(np.zeros((8, 4, 4, 1)))


# --- learning_curves


@pytest.mark.parametrize(
    ("history", "expected"),
    [(HISTORY, ["training"]), (HISTORY | VALIDATION, ["training", "test"])],
    ids=["training", "validation"],
)
def test_learning_curves_show_the_loss_and_its_terms(history, expected):
    figure = plots.learning_curves(history, held_out="test")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "reconstruction", "kl"]
    for axes in figure.axes:
        assert legend(axes) == expected
        columns = [axes.get_title(), f"val_{axes.get_title()}"][: len(expected)]
        assert [list(line.get_ydata()) for line in axes.lines] == [history[column] for column in columns]


def test_the_fall_of_the_first_epochs_does_not_flatten_the_rest():
    loss = [1000.0, *np.linspace(110, 100, 99)]
    axes = plots.learning_curves({"epoch": range(1, 101), "loss": loss, "reconstruction": loss, "kl": loss}).axes[0]
    assert axes.get_ylim()[1] < 120


@pytest.mark.parametrize("history", [{}, {"epoch": []}])
def test_an_empty_history_is_refused(history):
    with pytest.raises(UserError, match="at least one epoch"):
        plots.learning_curves(history)


def test_learning_curves_join_what_was_measured_over_the_gaps():
    gaps = {f"val_{name}": [np.nan, value, np.nan] for name, value in (("loss", 9.5), ("reconstruction", 7), ("kl", 2))}
    for axes in plots.learning_curves(HISTORY | gaps).axes:
        training, held_out = axes.lines
        assert training.get_xdata().tolist() == [1, 2, 3]
        assert held_out.get_xdata().tolist() == [2]
        assert held_out.get_ydata().tolist() == [gaps[f"val_{axes.get_title()}"][1]]
        assert held_out.get_marker() == "o"  # one point makes no line


def test_learning_curves_without_gaps_have_no_markers():
    for axes in plots.learning_curves(HISTORY | VALIDATION).axes:
        assert [line.get_marker() for line in axes.lines] == ["None", "None"]


def test_a_held_out_set_that_was_never_looked_at_leaves_the_training_curve(tmp_path):
    gaps = {f"val_{name}": [np.nan] * 3 for name in ("loss", "reconstruction", "kl")}
    figure = plots.learning_curves(HISTORY | gaps)
    assert np.isfinite([axes.get_ylim() for axes in figure.axes]).all()
    assert_is_saved(figure, tmp_path, "png")


# --- rows and columns of images


def cells(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A sheet of images with gaps of 2 pixels as `[rows, columns, H, W, C]`."""
    height, width, channels = shape
    picture = picture.reshape(*picture.shape[:2], channels)
    rows, columns = (picture.shape[0] + 2) // (height + 2), (picture.shape[1] + 2) // (width + 2)
    return np.array(
        [
            [picture[row * (height + 2) :, column * (width + 2) :][:height, :width] for column in range(columns)]
            for row in range(rows)
        ]
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_are_one_example_each(rng, shape):
    columns = rng.uniform(size=(3, 5, *shape)).astype(np.float32)
    np.testing.assert_array_equal(cells(plots.rows(*columns), shape), columns.swapaxes(0, 1))


def test_rows_are_white_between_the_images():
    picture = plots.rows(np.zeros((2, 3, 3, 1)), np.zeros((2, 3, 3, 1)))
    assert picture[3:5].min() == picture[:, 3:5].min() == 1
    assert picture.sum() == 8 * 8 - 4 * 9


@pytest.mark.parametrize("columns", [(), (np.zeros((2, 4, 4)), np.zeros((3, 4, 4))), (np.zeros((2, 4, 4)), [[[0.0]]])])
def test_rows_of_columns_that_differ_are_refused(columns):
    with pytest.raises(UserError, match="Expected columns of one shape"):
        plots.rows(*columns)


def test_titled_columns_are_rows_under_their_titles(rng):
    x = {name: rng.uniform(size=(3, 6, 5, 1)).astype(np.float32) for name in ("x", "means", "draw")}
    (axes,) = plots.titled_columns(x, ["first", "second", "third"], "rows").axes
    np.testing.assert_array_equal(cells(shown(axes), (6, 5, 1)), np.stack(list(x.values()), axis=1))
    assert [text.get_text() for text in axes.texts] == ["x", "means", "draw", "rows", "first", "second", "third"]


def test_titles_stand_over_the_middle_of_their_column_and_beside_that_of_their_row(rng):
    x = {name: rng.uniform(size=(2, 6, 5, 1)) for name in "ab"}
    (axes,) = plots.titled_columns(x, ["first", "second"]).axes
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert (places["a"][0], places["b"][0]) == (2, 5 + 2 + 2)  # pixels 0 to 4 and 7 to 11
    assert (places["first"][1], places["second"][1]) == (2.5, 6 + 2 + 2.5)  # pixels 0 to 5 and 8 to 13


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_titled_columns_are_saved(tmp_path, rng, shape, suffix):
    x = {name: rng.uniform(size=(2, *shape)) for name in ("x", "means")}
    assert_is_saved(plots.titled_columns(x, ["first", "second"]), tmp_path, suffix)


# --- interpolation


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_interpolation_has_a_row_a_path_and_a_column_a_step(rng, shape):
    means = rng.uniform(size=(2, 4, *shape)).astype(np.float32)
    (axes,) = plots.interpolation(means).axes
    np.testing.assert_array_equal(cells(shown(axes), shape), means)


def test_interpolation_names_both_ends_of_every_path(rng):
    (axes,) = plots.interpolation(rng.uniform(size=(2, 4, 6, 6, 1)), [("a", "b"), ("c", "d")]).axes
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert list(places) == ["a", "b", "c", "d"]
    assert places["a"][1] == places["b"][1] < places["c"][1] == places["d"][1]
    assert max(places["a"][0], places["c"][0]) < 0 < 4 * 6 + 3 * 2 < min(places["b"][0], places["d"][0])


# --- completion


def completed(rng, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Two images, two draws and a mask of their own each."""
    return {
        "x": rng.uniform(size=(2, *shape)).astype(np.float32),
        "observed": rng.uniform(size=(2, *shape[:2], 1)) < 0.5,
        "means": rng.uniform(size=(2, *shape)).astype(np.float32),
        "draw_means": rng.uniform(size=(2, 2, *shape)).astype(np.float32),
        "draws": rng.uniform(size=(2, 2, *shape)).astype(np.float32),
    }


def colours(x: np.ndarray) -> np.ndarray:
    return x.repeat(3, axis=-1) if x.shape[-1] == 1 else x


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_completion_shows_original_observed_draws_and_mean(rng, shape):
    parts = completed(rng, shape)
    (axes,) = plots.completion(**parts, scores=["-3.0", "-4.0"]).axes
    titles = ["original", "observed", "mean 1", "draw 1", "mean 2", "draw 2", "mean"]
    titles += ["log p(missing\n| observed)", "-3.0", "-4.0"]
    assert [text.get_text() for text in axes.texts] == titles
    picture = cells(shown(axes), (*shape[:2], 3))
    shown_parts = {0: parts["x"], 6: parts["means"]}
    for number in range(2):
        shown_parts |= {2 + 2 * number: parts["draw_means"][number], 3 + 2 * number: parts["draws"][number]}
    for column, part in shown_parts.items():
        np.testing.assert_array_equal(picture[:, column], colours(part))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_missing_pixels_are_blue_and_observed_ones_as_they_were(rng, shape):
    parts = completed(rng, shape)
    seen = cells(shown(plots.completion(**parts).axes[0]), (*shape[:2], 3))[:, 1]
    mask = parts["observed"][..., 0]
    np.testing.assert_array_equal(seen[mask], colours(parts["x"])[mask])
    np.testing.assert_allclose(seen[~mask], [to_rgb(plots.MISSING)] * (~mask).sum(), rtol=1e-7)  # float32


def test_a_mask_of_one_image_is_that_of_all(rng):
    parts = completed(rng, (4, 5, 1))
    parts["observed"] = parts["observed"][0]
    seen = cells(shown(plots.completion(**parts).axes[0]), (4, 5, 3))[:, 1]
    blue = np.isclose(seen, to_rgb(plots.MISSING)).all(axis=-1)
    np.testing.assert_array_equal(blue, np.stack([~parts["observed"][..., 0]] * 2))


def test_pixels_that_nobody_knows_are_grey_in_the_original(rng):
    parts = completed(rng, (4, 5, 1))
    parts["x"][~parts["observed"]] = np.nan
    original = cells(shown(plots.completion(**parts).axes[0]), (4, 5, 3))[:, 0]
    assert (original[~parts["observed"][..., 0]] == 0.5).all()


# --- posterior_contours

SEEN = np.full((4, 4, 3), 0.5)
SIDE = np.linspace(-4, 4, 401)
STANDARD_NORMAL = -0.5 * np.add.outer(SIDE**2, SIDE**2)


def panel(title="before", mean=(1.0, -1.0), sigma=(0.5, 0.8), shift=0.0) -> plots.ContourPanel:
    """A posterior N(0, I), unnormalised by `shift` nats, and a q along the axes."""
    q = plots.Ellipse(np.array(mean), np.diag(np.square(sigma)))
    return plots.ContourPanel(title, (SIDE, SIDE, STANDARD_NORMAL + shift), q)


def radii(contours) -> list[float]:
    """The mean distance from 0 of each contour."""
    return [float(np.linalg.norm(path.vertices, axis=1).mean()) for path in contours.get_paths()]


# Contours are interpolated linearly between points h = 0.02 apart: of a Gaussian with sigma 0.5 or more the height errs
# by (h / sigma)^2 / 8 = 2e-4, which is 1.4e-3 sigma at the innermost contour, where the slope is least, 0.14.
CROSSING = 3e-3


@pytest.mark.parametrize("shift", [0.0, -2000.0, 2000.0])
def test_contours_of_the_posterior_lie_at_shares_of_its_maximum(shift):
    _, axes = plots.posterior_contours(SEEN, [panel(shift=shift)]).axes
    shares = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99]
    assert list(axes.collections[1].levels) == shares
    np.testing.assert_allclose(radii(axes.collections[1]), np.sqrt(-2 * np.log(shares)), atol=CROSSING)


def test_contours_of_q_are_its_ellipses():
    _, axes = plots.posterior_contours(SEEN, [panel()]).axes
    for share, path in zip(plots.CONTOURS, axes.collections[2].get_paths(), strict=True):
        distance = np.linalg.norm((path.vertices - [1, -1]) / [0.5, 0.8], axis=1)
        np.testing.assert_allclose(distance, np.sqrt(-2 * np.log(share)), atol=CROSSING)


@pytest.mark.parametrize("degrees", [30, 45, 120, -10])
def test_contours_of_a_tilted_q_are_its_ellipses(degrees):
    turn = np.deg2rad(degrees)
    axes_of_q = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])  # in columns
    q = plots.Ellipse(np.array([0.5, -1.0]), axes_of_q @ np.diag(np.square([1.1, 0.5])) @ axes_of_q.T)
    _, axes = plots.posterior_contours(SEEN, [panel()._replace(q=q)]).axes
    for share, path in zip(plots.CONTOURS, axes.collections[2].get_paths(), strict=True):
        along = (path.vertices - [0.5, -1.0]) @ axes_of_q / [1.1, 0.5]
        np.testing.assert_allclose(np.linalg.norm(along, axis=1), np.sqrt(-2 * np.log(share)), atol=CROSSING)


def test_standard_deviations_of_an_ellipse_are_those_along_the_axes_of_the_plane(rng):
    factor = rng.normal(size=(2, 2))
    draws = rng.normal(size=(100000, 2)) @ factor.T
    # A standard deviation is known from 100,000 draws to 1 / sqrt(200000) of it; four of those.
    np.testing.assert_allclose(plots.Ellipse(np.zeros(2), factor @ factor.T).sigma, draws.std(axis=0), rtol=0.009)


def test_contours_are_read_as_the_plane_the_first_coordinate_to_the_right():
    first, second = np.linspace(-4, 4, 401), np.linspace(-1, 3, 201)
    window = (first, second, -2.0 * np.add.outer((second - 1) ** 2, (first - 2) ** 2))
    q = plots.Ellipse(np.zeros(2), np.eye(2))
    _, axes = plots.posterior_contours(SEEN, [plots.ContourPanel("", window, q)]).axes
    innermost = axes.collections[1].get_paths()[-1].vertices
    np.testing.assert_allclose(innermost.mean(axis=0), [2, 1], atol=CROSSING)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", "$z_2$")
    assert axes.get_aspect() == 1


def test_every_panel_has_its_window_and_title_under_one_legend(tmp_path):
    figure = plots.posterior_contours(SEEN, [panel("before"), panel("after", mean=(0.0, 0.0))])
    assert [axes.get_title() for axes in figure.axes] == ["observed", "before", "after"]
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["p(z | observed), unnormalised", "q(z)"]
    lines = [to_rgb(line.get_color()) for line in key.get_lines()]
    drawn = [tuple(contours.get_edgecolor()[0][:3]) for contours in figure.axes[1].collections[1:]]
    assert lines == drawn
    assert_is_saved(figure, tmp_path, "png")


def test_a_q_too_narrow_for_the_grid_is_still_a_picture(tmp_path):
    assert_is_saved(plots.posterior_contours(SEEN, [panel(mean=(0.01, 0.01), sigma=(1e-5, 1e-5))]), tmp_path, "png")


# --- pictures that are arrays


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_picture_is_saved_pixel_for_pixel(tmp_path, rng, shape):
    picture = rng.uniform(-0.2, 1.2, size=shape).astype(np.float32)
    plots.save(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image).reshape(shape)
    np.testing.assert_array_equal(pixels, np.rint(255 * np.clip(picture, 0, 1)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_picture_in_svg_has_the_pixels_of_the_array(tmp_path, rng, shape):
    picture = rng.integers(0, 256, shape) / 255
    plots.save(picture, tmp_path / "a.svg")
    (inside,) = re.findall(r'base64,\s*([\w+/=\s]+)"', (tmp_path / "a.svg").read_text(encoding="utf-8"))
    with Image.open(io.BytesIO(base64.b64decode(inside))) as image:
        pixels = np.asarray(image.convert("RGB"))
    # matplotlib writes the rows from the bottom and mirrors them; its map of greys may round to the neighbouring level.
    np.testing.assert_allclose(pixels[::-1], colours(255 * picture), atol=1.001)


def test_a_picture_is_saved_as_pdf(tmp_path, rng):
    plots.save(rng.uniform(size=(9, 13, 1)), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["a", "a.txt", "png"])
def test_a_picture_with_an_unknown_suffix_is_refused_and_nothing_is_left(tmp_path, name):
    with pytest.raises(UserError, match=r"Expected a picture's suffix: .*png.*svg"):
        plots.save(np.zeros((4, 4, 1)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# --- what importing costs


def test_importing_plots_imports_neither_pyplot_nor_tensorflow():
    code = "import sys, kvae.plotting.plots; print({'matplotlib.pyplot', 'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
