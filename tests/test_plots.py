"""Every figure renders and is saved, and says what it shows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from kvae import plots
from kvae.errors import UserError

ROOT = Path(__file__).parent.parent
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
    above, below = plots.samples(means, means.round()).axes
    height, width, channels = shape
    for axes, x in ((above, means), (below, means.round())):
        picture = shown(axes).reshape(height, 2 * width + 2, channels)
        np.testing.assert_array_equal(picture[:, :width], x[0])
        np.testing.assert_array_equal(picture[:, width + 2 :], x[1])


def test_samples_without_draws_show_means_alone(rng):
    assert len(plots.samples(rng.uniform(size=(2, 4, 4, 1))).axes) == 1


def test_reconstructions_lie_below_their_inputs(rng):
    x = rng.uniform(size=(1, 4, 4, 1)).astype(np.float32)
    above, below = plots.reconstructions(x, 1 - x).axes
    np.testing.assert_array_equal(shown(above), x[0, ..., 0])
    np.testing.assert_array_equal(shown(below), 1 - x[0, ..., 0])


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


def test_lattice_is_read_like_a_page_with_the_second_coordinate_upward():
    expected = [[-2, 2], [0, 2], [2, 2], [-2, 0], [0, 0], [2, 0], [-2, -2], [0, -2], [2, -2]]
    np.testing.assert_array_equal(plots.lattice_points(3), expected)


def test_lattice_spans_its_extent():
    z = plots.lattice_points(50, extent=3.5)
    assert (z.shape, z.dtype) == ((2500, 2), np.float32)
    assert (z.min(), z.max()) == (-3.5, 3.5)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_lattice_without_extent_is_spaced_by_equal_prior_probability(n):
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    z = plots.lattice_points(n, extent=None).reshape(n, n, 2)
    # Both are rounded to float32 (relative 6e-8); 1e-7 absolute is for the median, which is 0.
    np.testing.assert_allclose(z[0, :, 0], quantiles, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(z[::-1, 0, 1], quantiles, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("n", "extent"), [(0, 2.0), (-1, None), (3, 0.0), (3, -1.0), (3, float("nan"))])
def test_a_lattice_that_cannot_be_is_refused(n, extent):
    with pytest.raises(UserError, match="positive extent"):
        plots.lattice_points(n, extent)


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


# --- what importing costs


def test_importing_plots_imports_neither_pyplot_nor_tensorflow():
    code = "import sys, kvae.plots; print({'matplotlib.pyplot', 'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
